"""What pytest loads of this package: the tests of definitions become tests of pytest."""

import re
from collections.abc import Iterable
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from _pytest._code.code import ExceptionInfo, TerminalRepr

    from edge.examples import Result
    from edge.pipeline import Pipeline

_DEFINITION = re.compile(r"^edge:\s*1\b", re.MULTILINE)
_TESTS = re.compile(r"^tests:", re.MULTILINE)


def pytest_collect_file(file_path: Path, parent: pytest.Collector) -> pytest.Collector | None:
    """A YAML file that says `edge: 1` and has `tests:`."""
    if file_path.suffix not in (".yaml", ".yml"):
        return None
    text = file_path.read_text("utf-8", errors="replace")
    if not _DEFINITION.search(text) or not _TESTS.search(text):
        return None
    collector: pytest.Collector = DefinitionFile.from_parent(parent, path=file_path)
    return collector


class Failed(Exception):
    """What one test of a definition found other than expected."""

    def __init__(self, result: "Result") -> None:
        self.result = result
        super().__init__(result.name)


class DefinitionFile(pytest.File):
    """A definition: an item for each of its tests."""

    def collect(self) -> "Iterable[pytest.Item]":
        """Read the definition; its faults fail the collection, each with its line."""
        from edge.errors import DefinitionError
        from edge.pipeline import load

        try:
            pipeline = load(self.path)
        except DefinitionError as error:
            raise self.CollectError(str(error)) from None
        for place, example in enumerate(pipeline.tests):
            yield DefinitionItem.from_parent(
                self, name=example.name, pipeline=pipeline, place=place
            )


class DefinitionItem(pytest.Item):
    """One test of a definition."""

    def __init__(
        self, name: str, parent: pytest.Collector, pipeline: "Pipeline", place: int
    ) -> None:
        super().__init__(name, parent)
        self._pipeline = pipeline
        self._place = place

    def runtest(self) -> None:
        """Rows given go through the operators; rows are expected at sinks."""
        from edge.examples import run_example

        result = run_example(self._pipeline, self._place)
        if not result.passed:
            raise Failed(result)

    def repr_failure(
        self, excinfo: "ExceptionInfo[BaseException]", style: object = None
    ) -> "str | TerminalRepr":
        """What was expected, what came nearest, what came beside; no traceback of ours."""
        from edge.errors import DefinitionError

        error = excinfo.value
        if isinstance(error, Failed):
            from edge.cli.examples import lines

            return "\n".join(lines(error.result))
        if isinstance(error, DefinitionError):
            return str(error)
        return super().repr_failure(excinfo)

    def reportinfo(self) -> tuple[Path, int | None, str]:
        """Where it stands: file, line (from 0) and name."""
        fault = self._pipeline.fault(("tests", self._place), "")
        line = None if fault.line is None else fault.line - 1
        return self.path, line, self.name
