"""Commands about the parts a pipeline can be made of: list, describe."""

import inspect
from collections.abc import Mapping
from typing import TYPE_CHECKING, Annotated

import typer

from edge.cli.screen import put, put_json, put_table
from edge.errors import DefinitionError

if TYPE_CHECKING:
    from edge.component import Component
    from edge.pipeline.parts import Kind

Json = Annotated[bool, typer.Option("--json", help="Print JSON for programs.")]


def add_to(app: typer.Typer) -> None:
    """Register the commands of this module."""
    app.command("list")(list_parts)
    app.command()(describe)


def list_parts(
    kind: Annotated[
        str | None, typer.Argument(metavar="[sources|operators|sinks]", help="Only these.")
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
    name: Annotated[str, typer.Argument(help="A part such as deadband, or source.mqtt.")],
    as_json: Json = False,
) -> None:
    """Print what a part does, its promises and its options."""
    found = _named(name)
    if as_json:
        put_json({each.word: _described(each, part) for each, part in found})
        return
    for index, (each, part) in enumerate(found):
        put(("\n" if index else "") + f"{each.word} {name.rpartition('.')[2]}\n")
        put(inspect.cleandoc(part.__doc__ or "") + "\n")
        put_table(("option", "type", "default", "meaning"), _options(part))


def _first_line(kind: "Kind", name: str) -> str:
    """What a part does; a part whose package cannot be imported must not hide the others."""
    try:
        return (kind.find(name).__doc__ or "").strip().splitlines()[0]
    except DefinitionError as error:
        return str(error)


def _named(name: str) -> "list[tuple[Kind, type[Component]]]":
    """The parts of this name: a source and a sink can share one."""
    from difflib import get_close_matches

    from edge.pipeline.parts import KINDS

    word, _, bare = name.rpartition(".")
    kinds = [kind for kind in KINDS if not word or word.removesuffix("s") == kind.word]
    found = [(kind, kind.find(bare)) for kind in kinds if bare in kind.names()]
    if not found:
        known = [each for kind in kinds or KINDS for each in kind.names()]
        near = get_close_matches(bare, known, 1)
        hint = f"did you mean {near[0]!r}?" if near else "known are " + ", ".join(known)
        raise DefinitionError(f"no part is called {name!r}; {hint}")
    return found


def _described(kind: "Kind", part: "type[Component]") -> dict[str, object]:
    from edge.pipeline.schema import part_schema

    return {"what": inspect.cleandoc(part.__doc__ or ""), "options": part_schema(part)}


def _options(part: "type[Component]") -> list[tuple[str, str, str, str]]:
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
    ]


def _default(option: Mapping[str, object]) -> str:
    value = option.get("default")
    return "" if value is None else str(value).lower() if isinstance(value, bool) else str(value)
