"""`edge test`: runs the `tests:` of definitions and shows what differs."""

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any
from xml.etree import ElementTree

import typer

from edge.cli.definition import Json
from edge.cli.screen import FAILED, printable, put, put_json, say
from edge.errors import DefinitionError

if TYPE_CHECKING:
    from edge.examples import Difference, Result

_ENDINGS = (".yaml", ".yml")

Paths = Annotated[
    list[Path], typer.Argument(metavar="PATH", help="Definitions, or folders of definitions.")
]


def add_to(app: typer.Typer) -> None:
    """Register the command of this module."""
    app.command(name="test")(run_tests)


def run_tests(
    paths: Paths,
    only: Annotated[
        str, typer.Option("-k", metavar="TEXT", help="Run tests whose name contains this.")
    ] = "",
    junit: Annotated[
        Path | None, typer.Option("--junit", metavar="FILE", help="Also write JUnit XML.")
    ] = None,
    as_json: Json = False,
) -> None:
    """Run the `tests:` of definitions: rows given, rows expected at sinks.

    Touches no network and no outbox. Exits with 1 if a test fails, with 2 if there is none.
    """
    results = [
        (file, result)
        for file in _definitions(paths)
        for result in _results(file)
        if only in result.name
    ]
    if not results:
        raise DefinitionError("no test was found; add `tests:` to a definition, or widen -k")
    for file, result in results if not as_json else ():
        _tell(file, result)
    failed = sum(not result.passed for _, result in results)
    if as_json:
        put_json([{"file": file, **_as_dict(result)} for file, result in results])
    else:
        summary = f"{len(results) - failed} passed, {failed} failed"
        say(summary, style="red" if failed else "green")
    if junit is not None:
        junit.write_bytes(_as_junit(results))
    if failed:
        raise typer.Exit(FAILED)


def _definitions(paths: Sequence[Path]) -> Iterator[Path]:
    for path in paths:
        if path.is_dir():
            yield from sorted(each for each in path.rglob("*") if each.suffix in _ENDINGS)
        else:
            yield path


def _results(file: Path) -> "list[Result]":
    from edge.examples import run_examples
    from edge.pipeline import load

    results = run_examples(load(file))
    if not results:
        say(f"{file}: has no tests")
    return results


def _tell(file: Path, result: "Result") -> None:
    if result.passed:
        say(f"{file}: {result.name}: passed", style="green")
        return
    say(f"{file}: {result.place}: {result.name}: FAILED", style="red")
    put("\n".join(lines(result)))


def lines(result: "Result") -> Iterator[str]:
    """What differs, as text."""
    if result.problem is not None:
        yield f"  {printable(result.problem)}"
    for difference in result.differences:
        yield from _lines_of(difference)


def _lines_of(difference: "Difference") -> Iterator[str]:
    from edge.examples import alike

    yield f"  sink {difference.sink!r}:"
    for expected, nearest in difference.missing:
        yield f"    expected  {_row(expected)}"
        if nearest is not None:
            other = {n: nearest.get(n) for n, v in expected.items() if not alike(v, nearest.get(n))}
            yield f"    nearest   {_row(nearest)}"
            yield f"    differs   {_row(other)}"
        else:
            yield "    nearest   nothing else came"
    for row in difference.extra:
        yield f"    extra     {_row(row)}"


def _row(row: Mapping[str, Any]) -> str:
    return printable(", ".join(f"{name}: {value!r}" for name, value in row.items()))


def _as_dict(result: "Result") -> dict[str, Any]:
    return {
        "place": result.place,
        "name": result.name,
        "passed": result.passed,
        "problem": result.problem,
        "differences": [
            {
                "sink": each.sink,
                "missing": [expected for expected, _ in each.missing],
                "extra": each.extra,
            }
            for each in result.differences
        ],
    }


def _as_junit(results: "Sequence[tuple[Path, Result]]") -> bytes:
    failed = sum(not result.passed for _, result in results)
    counts = {"tests": str(len(results)), "failures": str(failed), "errors": "0"}
    root = ElementTree.Element("testsuites", counts)
    suite = ElementTree.SubElement(root, "testsuite", {"name": "edge test", **counts})
    for file, result in results:
        names = {"classname": str(file), "name": result.name, "file": str(file)}
        case = ElementTree.SubElement(suite, "testcase", names)
        if not result.passed:
            told = list(lines(result))
            failure = ElementTree.SubElement(case, "failure", {"message": told[0].strip()})
            failure.text = "\n".join(told)
    return bytes(ElementTree.tostring(root, encoding="utf-8", xml_declaration=True))
