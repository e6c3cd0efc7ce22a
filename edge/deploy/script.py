"""Shell scripts for a host: settings of the site above a text that comes with the package."""

import shlex
from collections.abc import Mapping
from importlib.resources import files

_END = "END-OF-FILE"


def script(
    name: str, purpose: str, settings: Mapping[str, str], texts: Mapping[str, str] | None = None
) -> str:
    """A POSIX shell script to run as root: `scripts/NAME.sh` below its variables.

    purpose: its first line, for who reads it; texts: functions that print a text.
    """
    head = ["#!/bin/sh", f"# {purpose}", "set -eu"]
    functions = [printing(function, text) for function, text in (texts or {}).items()]
    return "\n".join([*head, assigned(settings), *functions, packed(name)])


def assigned(settings: Mapping[str, str]) -> str:
    """Variables, a line each, whatever their values hold."""
    return "\n".join(f"{name}={shlex.quote(value)}" for name, value in settings.items())


def printing(function: str, text: str) -> str:
    """A function that prints `text` as it is."""
    return f"{function}() {{\n    cat <<'{_END}'\n{text.rstrip()}\n{_END}\n}}"


def packed(name: str) -> str:
    """A script that comes with the package."""
    return (files("edge.deploy") / "scripts" / f"{name}.sh").read_text(encoding="utf-8")
