"""What pytest loads of this package: the tests of definitions become tests of pytest."""

import re
from collections.abc import Iterable
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from _pytest._code.code import ExceptionInfo, TerminalRepr

    from edge.examples import Result
    from edge.examples.files import Suite

_TEST_FILES = (".test.yaml", ".test.yml")
_TESTS = re.compile(r"^tests:", re.MULTILINE)
_SINKS = re.compile(r"^sinks:", re.MULTILINE)


def pytest_collect_file(file_path: Path, parent: pytest.Collector) -> pytest.Collector | None:
    """A definition with `tests:`, or a file of tests of one."""
    if file_path.suffix not in (".yaml", ".yml"):
        return None
    text = file_path.read_text("utf-8", errors="replace")
    is_ours = file_path.name.endswith(_TEST_FILES) or _SINKS.search(text)
    if not is_ours or not _TESTS.search(text):
        return None
    collector: pytest.Collector = ExampleFile.from_parent(parent, path=file_path)
    return collector


class Failed(Exception):
    """What one test of a definition found other than expected."""

    def __init__(self, result: "Result") -> None:
        self.result = result
        super().__init__(result.name)


class ExampleFile(pytest.File):
    """A definition, or a file of tests: an item for each test."""

    def collect(self) -> "Iterable[pytest.Item]":
        """Read the file; its faults fail the collection, each with its line."""
        from edge.errors import DefinitionError
        from edge.examples.files import read_suite

        try:
            suite = read_suite(self.path)
        except DefinitionError as error:
            raise self.CollectError(str(error)) from None
        for place, example in enumerate(suite.pipeline.tests):
            yield ExampleItem.from_parent(self, name=example.name, suite=suite, place=place)


class ExampleItem(pytest.Item):
    """One test of a definition."""

    def __init__(self, name: str, parent: pytest.Collector, suite: "Suite", place: int) -> None:
        super().__init__(name, parent)
        self._suite = suite
        self._place = place

    def runtest(self) -> None:
        """Rows given go through the operators; rows are expected at sinks."""
        result = self._suite.run(self._place)
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
        line = self._suite.line(self._place)
        return self.path, None if line is None else line - 1, self.name
