"""Commands that look at a definition and touch nothing else: check, explain, schema."""

import asyncio
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from edge.cli.screen import WRONG, complain, put, put_json, say
from edge.errors import DefinitionError, Fault

if TYPE_CHECKING:
    import polars as pl

    from edge.pipeline import Bound

Json = Annotated[bool, typer.Option("--json", help="Print JSON for programs.")]
File = Annotated[Path, typer.Argument(metavar="FILE", help="A definition, YAML or Python.")]
Files = Annotated[list[Path], typer.Argument(metavar="FILE", help="Definitions, or folders.")]


def add_to(app: typer.Typer) -> None:
    """Register the commands of this module."""
    app.command()(check)
    app.command()(explain)
    app.command()(schema)


def check(files: Files, as_json: Json = False) -> None:
    """Validate definitions; opens nothing.

    Tells every fault at once, with file, line, path and remedy, and exits with 2 if there is one.
    """
    from edge.pipeline.reading import definition_files

    faults: list[Fault] = []
    for file in definition_files(files):
        try:
            bound = _bind(file)
        except DefinitionError as error:
            faults.extend(error.faults)
            if not as_json:
                complain(*error.faults)
        else:
            if not as_json:
                say(f"{file}: {_summary(bound)}", style="green")
    if as_json:
        put_json([fault._asdict() for fault in faults])
    if faults:
        raise typer.Exit(WRONG)


def explain(
    file: File,
    infer: Annotated[
        bool,
        typer.Option("--infer", help="Print `record.fields` as the first rows of a dataset say."),
    ] = False,
    as_json: Json = False,
) -> None:
    """Show the columns after every step and at every sink.

    Where only data tells the columns, the first rows of a dataset are read.
    """
    from edge.pipeline.explanation import explained

    bound = _bind(file)
    if infer or bound.source_columns is None:
        columns = _first_columns(bound)
        if infer:
            _put_fields(bound)
            return
        bound.bind_columns(columns)
    if as_json:
        put_json(explained(bound))
    else:
        _put_explanation(explained(bound))


def schema(
    site: Annotated[bool, typer.Option("--site", help="That of a site file.")] = False,
    tests: Annotated[bool, typer.Option("--tests", help="That of a file of tests.")] = False,
) -> None:
    """Print the JSON Schema of a definition.

    For editors that complete and check YAML.
    """
    if site:
        from edge.deploy.site import site_schema

        put_json(site_schema())
        return
    from edge.pipeline.schema import definition_schema, tests_schema

    put_json(tests_schema() if tests else definition_schema())


def _bind(file: Path) -> "Bound":
    from edge.clock import Clock
    from edge.pipeline import load

    return load(file).bind(Clock())


def _summary(bound: "Bound") -> str:
    pipeline = bound.pipeline
    sinks = ", ".join(pipeline.sinks)
    if bound.source_columns is None:
        return f"good, sinks {sinks}; expressions are checked once the first rows tell the columns"
    return f"good, {len(bound.source_columns)} columns, sinks {sinks}"


def _first_columns(bound: "Bound") -> "pl.Schema":
    """Columns of the first rows of a source that needs no network to be read."""
    if not bound.source.finite:
        raise DefinitionError(
            "only data tells the columns of this source, and no data is read here but that of a "
            "dataset that ends; declare record.fields, or explain a dataset with --infer"
        )
    return asyncio.run(_read_columns(bound))


async def _read_columns(bound: "Bound") -> "pl.Schema":
    arrivals = bound.source.arrivals(None)
    try:
        async for arrival in arrivals:
            if arrival is not None and arrival.frame.height:
                return arrival.frame.schema
    finally:
        await bound.source.close()
    raise DefinitionError("the source has no rows that could tell their columns")


def _put_fields(bound: "Bound") -> None:
    import yaml

    found = {name: spec.model_dump() for name, spec in (bound.source.fields() or {}).items()}
    put(yaml.safe_dump({"record": {"fields": found}}, sort_keys=False, allow_unicode=True).rstrip())


def _put_explanation(explanation: Mapping[str, Any]) -> None:
    source = explanation["source"]
    put(f"{explanation['name']}  ({explanation['identity']}, outbox {explanation['outbox']})")
    put(f"  source {source['kind']}: {_listed(source['columns'])}")
    columns = _put_operators(explanation["operators"], source["columns"], "  ")
    for name, sink in explanation["sinks"].items():
        roll = f"parcels of {sink['roll']['size']} or {sink['roll']['every']}"
        put(f"  sink {name}: {sink['kind']}, {roll}, order {sink['order']}, {sink['priority']}")
        if sink["rejected"]:
            put("    takes rejected payloads")
        _put_operators(sink["operators"], columns, "    ")
        if sink["when"]:
            put(f"    when {sink['when']}")
        put(f"    receives {_listed(sink['columns'])}")


def _put_operators(
    operators: Sequence[Mapping[str, Any]], columns: Mapping[str, str], indent: str
) -> Mapping[str, str]:
    for operator in operators:
        put(f"{indent}{operator['name']}: {_change(columns, operator['columns'])}")
        columns = operator["columns"]
    return columns


def _change(before: Mapping[str, str], after: Mapping[str, str]) -> str:
    """What an operator does to the columns, in full where it leaves little as it was."""
    new = {name: kind for name, kind in after.items() if before.get(name) != kind}
    gone = [name for name in before if name not in after]
    if not new and not gone:
        return "the same columns"
    if len(gone) > 3:
        return _listed(after)
    return ", ".join(
        [*(f"+ {name} {kind}" for name, kind in new.items()), *(f"- {n}" for n in gone)]
    )


def _listed(columns: Mapping[str, str]) -> str:
    return ", ".join(f"{name} {kind}" for name, kind in columns.items())
