"""Where the tests of definitions are: in the definitions, in files beside them, or elsewhere."""

import os
import re
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

from pydantic import ValidationError

from edge.errors import DefinitionError, Fault
from edge.examples import Result, run_example
from edge.pipeline import Pipeline, load
from edge.pipeline.binding import Place, dotted, line_of
from edge.pipeline.document import Document, parse
from edge.pipeline.example import ExampleFile, faults_of
from edge.pipeline.reading import is_test_file, read_text
from edge.pipeline.wording import described

_ENDINGS = (".yaml", ".yml")
_SINKS = re.compile(r"^sinks:", re.MULTILINE)


class Suite(NamedTuple):
    """The tests of one file. environment: what `${NAME}` means to the definition they test."""

    file: Path
    pipeline: Pipeline
    environment: Mapping[str, str]
    lines: Mapping[Place, int]

    def run(self, place: int) -> Result:
        """Run the test in this place of the list."""
        return run_example(self.pipeline, place, self._again)

    def line(self, place: int) -> int | None:
        """Where a test stands in the file, from 1."""
        return line_of(("tests", place), self.lines)

    def _again(self) -> Pipeline:
        """The definition read anew, with operators that remember nothing."""
        assert self.pipeline.file is not None
        return load(self.pipeline.file, self.environment)


def suites(paths: Sequence[Path]) -> Iterator[Suite]:
    """Of definitions with the test files beside them, of test files, of all of both in folders.

    In folders YAML files that have no `sinks:` are others' and left alone. Raises DefinitionError.
    """
    seen: set[str] = set()
    for path in paths:
        for file in _files(path):
            real = os.path.realpath(file)
            if real not in seen:
                seen.add(real)
                yield read_suite(file)


def read_suite(file: Path) -> Suite:
    """The tests of a definition or of a test file. Raises DefinitionError with every fault."""
    if is_test_file(file):
        return _read_test_file(file)
    pipeline = load(file)
    return Suite(file, pipeline, os.environ, pipeline.lines)


def _files(path: Path) -> Iterator[Path]:
    if path.is_dir():
        inside = sorted(each for each in visible(path) if each.suffix in _ENDINGS)
        yield from (each for each in inside if is_test_file(each) or _SINKS.search(_text(each)))
        return
    yield path
    if not is_test_file(path):
        beside = (path.with_name(f"{path.stem}.test{ending}") for ending in _ENDINGS)
        yield from (file for file in beside if file.is_file())


def visible(folder: Path) -> Iterator[Path]:
    """All files below a folder but hidden ones and what lies in hidden folders, as `.venv` does."""
    for place, folders, names in os.walk(folder):
        folders[:] = [name for name in folders if not name.startswith((".", "__"))]
        yield from (Path(place, name) for name in names if not name.startswith("."))


def _text(file: Path) -> str:
    return file.read_text("utf-8", errors="replace")


def _read_test_file(file: Path) -> Suite:
    document, faults = parse(str(file), read_text(file), os.environ, first="tests")
    made = None if faults else _made(document, faults)
    if faults or made is None:
        raise DefinitionError(*faults)
    definition = file.parent / made.definition if made.definition else _of_the_same_name(file)
    environment = {**os.environ, **made.environment}
    pipeline = load(definition, environment)
    wrong = [
        fault._replace(file=str(file), line=line_of(_place(fault.path), document.lines))
        for fault in faults_of(made.tests, tuple(pipeline.sinks), pipeline.source.finite)
    ]
    if wrong:
        raise DefinitionError(*wrong)
    return Suite(
        file, pipeline.model_copy(update={"tests": made.tests}), environment, document.lines
    )


def _made(document: Document, faults: list[Fault]) -> ExampleFile | None:
    try:
        return ExampleFile.model_validate(document.values)
    except ValidationError as error:
        for place, message, line in described(error, ExampleFile, document.values):
            number = line_of(line, document.lines)
            faults.append(Fault(dotted(place), message, document.file, number))
    return None


def _of_the_same_name(file: Path) -> Path:
    """The definition that a test file stands beside."""
    definition = file.with_name(f"{file.stem.removesuffix('.test')}{file.suffix}")
    if not definition.is_file():
        message = f"is missing, and there is no {definition.name} beside; name what is tested"
        raise DefinitionError(Fault("definition", message, str(file)))
    return definition


def _place(path: str) -> Place:
    return tuple(int(part) if part.isdigit() else part for part in path.split("."))
