"""How two versions of some settings differ, as lines a person reads."""

import difflib
from collections.abc import Iterator, Mapping
from typing import Any


def lines(found: Mapping[str, Any], wanted: Mapping[str, Any]) -> Iterator[str]:
    """Only what differs, as YAML: `- ` goes, `+ ` comes."""
    before, after = _written(found), _written(wanted)
    for line in difflib.unified_diff(before, after, lineterm="", n=1):
        if not line.startswith(("---", "+++", "@@")):
            yield f"{line[0]} {line[1:]}"


def _written(settings: Mapping[str, Any]) -> list[str]:
    import yaml

    if not settings:
        return []
    return yaml.dump(_plain(settings), sort_keys=True, width=10_000).splitlines()


def _plain(value: Any) -> Any:
    """Without shared parts, which YAML would write as aliases."""
    if isinstance(value, Mapping):
        return {name: _plain(inner) for name, inner in value.items() if inner not in ([], None)}
    return [_plain(inner) for inner in value] if isinstance(value, list | tuple) else value
