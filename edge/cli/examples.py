"""`edge test`: runs the tests of definitions and shows what differs."""

import logging
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any
from xml.etree import ElementTree

import typer

from edge.cli.definition import Json
from edge.cli.screen import FAILED, printable, put, put_json, say
from edge.cli.watching import watch_tests
from edge.errors import DefinitionError

if TYPE_CHECKING:
    from edge.examples import Difference, Result

Paths = Annotated[
    list[Path], typer.Argument(metavar="PATH", help="Definitions, test files, or folders of them.")
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
    watch: Annotated[
        bool, typer.Option("--watch", help="Again whenever a file changes, until Ctrl-C.")
    ] = False,
    as_json: Json = False,
    watched: Annotated[
        bool, typer.Option("--watched", hidden=True, help="Whoever watches says how it ended.")
    ] = False,
) -> None:
    """Run the tests of definitions: rows given, rows expected at sinks.

    They stand under `tests:` in a definition, or in NAME.test.yaml beside it. Touches no network,
    and no outbox but one of its own. Exits with 1 if a test fails, with 2 if there is none.
    """
    if watch:
        watch_tests(paths, only)
        return
    try:
        _run_once(paths, only, junit, as_json)
    except KeyboardInterrupt:
        if not watched:
            raise
        raise typer.Exit(FAILED) from None


def _run_once(paths: Sequence[Path], only: str, junit: Path | None, as_json: bool) -> None:
    logging.getLogger("edge").addHandler(logging.NullHandler())  # what goes wrong is in the results
    results = []
    for file, result in _results(paths, only):
        results.append((file, result))
        if not as_json:
            _tell(file, result)
    if not results:
        raise DefinitionError("no test was found; add `tests:` to a definition, or widen -k")
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


def _results(paths: Sequence[Path], only: str) -> "Iterator[tuple[Path, Result]]":
    from edge.examples.files import suites

    for suite in suites(paths):
        examples = suite.pipeline.tests
        if not examples:
            say(f"{suite.file}: has no tests")
        for place, example in enumerate(examples):
            if only in example.name:
                yield suite.file, suite.run(place)


def _tell(file: Path, result: "Result") -> None:
    if result.passed:
        say(f"{file}: {result.name}: passed", style="green")
        return
    say(f"{file}: {result.place}: {result.name}: FAILED", style="red")
    put("\n".join(lines(result)))


def lines(result: "Result") -> Iterator[str]:
    """What differs, as text."""
    if result.step is not None:
        yield f"  after step {result.step}:"
    for line in (result.problem or "").splitlines():
        yield f"  {printable(line)}"
    for difference in result.differences:
        yield from _lines_of(difference)


def _lines_of(difference: "Difference") -> Iterator[str]:
    yield f"  sink {difference.sink!r}:"
    for expected, nearest in difference.missing:
        yield f"    expected  {_row(expected)}"
        if nearest is not None:
            yield f"    nearest   {_row(nearest)}"
            yield f"    differs   {_row(difference.differing(expected, nearest))}"
        else:
            yield "    nearest   nothing else came"
    for row in difference.extra:
        yield f"    extra     {_row(row)}"
    if difference.note is not None:
        yield f"    note      {difference.note}"


def _row(row: Mapping[str, Any]) -> str:
    return printable(", ".join(f"{name}: {value!r}" for name, value in row.items()))


def _as_dict(result: "Result") -> dict[str, Any]:
    return {
        "place": result.place,
        "name": result.name,
        "passed": result.passed,
        "problem": result.problem,
        "step": result.step,
        "differences": [
            {
                "sink": each.sink,
                "missing": [expected for expected, _ in each.missing],
                "extra": each.extra,
                "note": each.note,
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
