"""Commands about the parts a pipeline can be made of: list, describe."""

import inspect
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Annotated

import typer

from edge.cli.screen import put, put_json, put_table
from edge.errors import DefinitionError

if TYPE_CHECKING:
    from pydantic import BaseModel

    from edge.pipeline.parts import Kind

_WRITTEN_BY_NAME = "sink"  # in `sinks:` it stands as `s3:` or `file:`

Json = Annotated[bool, typer.Option("--json", help="Print JSON for programs.")]


def add_to(app: typer.Typer) -> None:
    """Register the commands of this module."""
    app.command("list")(list_parts)
    app.command()(describe)


def _kinds(incomplete: str) -> list[str]:
    kinds = "sources", "operators", "sinks"
    return [kind for kind in kinds if kind.startswith(incomplete)]


def _names(incomplete: str) -> list[str]:
    from edge.pipeline.parts import KINDS

    names = {name for kind in KINDS for name in kind.names()}
    return sorted(name for name in {*names, *_sections()} if name.startswith(incomplete))


def list_parts(
    kind: Annotated[
        str | None,
        typer.Argument(
            metavar="KIND", help="Only sources, operators or sinks.", autocompletion=_kinds
        ),
    ] = None,
    as_json: Json = False,
) -> None:
    """List sources, operators and sinks.

    Those of other installed packages too.
    """
    from edge.pipeline.parts import KINDS

    kinds = [each for each in KINDS if kind is None or kind.removesuffix("s") == each.word]
    if not kinds:
        raise DefinitionError(f"list: must be sources, operators or sinks, got {kind!r}")
    rows = [(name, each.word, _first_line(each, name)) for each in kinds for name in each.names()]
    if as_json:
        put_json([{"name": name, "kind": word, "what": what} for name, word, what in rows])
    else:
        put_table(("name", "kind", "what it does"), rows)


def describe(
    name: Annotated[
        str,
        typer.Argument(
            metavar="NAME",
            help="A part such as deadband or source.mqtt, a section such as record.",
            autocompletion=_names,
        ),
    ],
    as_json: Json = False,
) -> None:
    """Print what a part or a section does, and its options.

    Sections: record, field, sinks, roll, batch, outbox, link.
    """
    found = _named(name)
    if as_json:
        put_json({word: _described(part) for word, part in found})
        return
    for index, (word, part) in enumerate(found):
        put(("\n" if index else "") + f"{word} {name.rpartition('.')[2]}\n")
        put(inspect.cleandoc(part.__doc__ or "") + "\n")
        put_table(("option", "type", "default", "meaning"), options(part))


def _first_line(kind: "Kind", name: str) -> str:
    """What a part does; a part whose package cannot be imported must not hide the others."""
    try:
        return (kind.find(name).__doc__ or "").strip().splitlines()[0]
    except DefinitionError as error:
        return str(error)


def _sections() -> "Mapping[str, type[BaseModel]]":
    """What stands in a definition beside the parts."""
    from edge.codec.record import FieldSpec, Record
    from edge.pipeline import model

    return {
        "record": Record,
        "field": FieldSpec,
        "sinks": model.Branch,
        "roll": model.RollOptions,
        "batch": model.BatchOptions,
        "outbox": model.OutboxOptions,
        "link": model.LinkOptions,
    }


def _named(name: str) -> "Sequence[tuple[str, type[BaseModel]]]":
    """The parts of this name: a source and a sink can share one."""
    from difflib import get_close_matches

    from edge.pipeline.parts import KINDS

    if section := _sections().get(name):
        return [("section", section)]
    word, _, bare = name.rpartition(".")
    kinds = [kind for kind in KINDS if not word or word.removesuffix("s") == kind.word]
    found = [(kind.word, kind.find(bare)) for kind in kinds if bare in kind.names()]
    if not found:
        known = [*(each for kind in kinds or KINDS for each in kind.names()), *_sections()]
        near = get_close_matches(bare, known, 1)
        hint = f"did you mean {near[0]!r}?" if near else "known are " + ", ".join(known)
        raise DefinitionError(f"no part is called {name!r}; {hint}")
    return found


def _described(part: "type[BaseModel]") -> dict[str, object]:
    from edge.pipeline.schema import part_schema

    return {"what": inspect.cleandoc(part.__doc__ or ""), "options": part_schema(part)}


def options(part: "type[BaseModel]") -> list[tuple[str, str, str, str]]:
    """Name, type, default and meaning of every option of a part or a section."""
    from edge.pipeline.schema import option_type, part_schema

    schema = part_schema(part)
    required = schema.get("required", ())
    return [
        (
            name,
            option_type(option, schema),
            "required" if name in required else _default(option),
            str(option.get("description", "")),
        )
        for name, option in schema.get("properties", {}).items()
        if name != _WRITTEN_BY_NAME
    ]


def _default(option: Mapping[str, object]) -> str:
    value = option.get("default")
    if value is None or isinstance(value, list | dict):
        return ""
    return str(value).lower() if isinstance(value, bool) else str(value)
