"""The `tests:` of a definition: rows given go through its operators, rows are expected at sinks."""

from collections.abc import Callable, Sequence
from datetime import UTC, datetime
from typing import Any, NamedTuple

import orjson

from edge.clock import Clock
from edge.codec import rows_as_json, unpack
from edge.errors import DefinitionError
from edge.examples.compare import Difference, compare
from edge.examples.steps import Failure, play
from edge.flow import Flow
from edge.outcome import Moment
from edge.pipeline import Pipeline
from edge.pipeline.example import REJECTED, Example
from edge.pipeline.given import Giver, as_row

__all__ = ["Difference", "Result", "run_example", "run_examples"]

_NOW = datetime(2026, 1, 1, tzinfo=UTC)


class Result(NamedTuple):
    """One test: where it stands (`tests.0`), its name, and what was wrong; nothing: it passed.

    step: the step after which it was seen, from 0.
    """

    place: str
    name: str
    differences: Sequence[Difference]
    problem: str | None = None
    step: int | None = None

    @property
    def passed(self) -> bool:
        """Whether everything came as expected."""
        return not self.differences and self.problem is None


def run_examples(pipeline: Pipeline) -> list[Result]:
    """Run every test of a definition; touches no network, and no outbox but one of its own.

    Rows take the way they take in a run: through the record's checks, all operators and branches.
    """
    return [run_example(pipeline, place) for place in range(len(pipeline.tests))]


def run_example(
    pipeline: Pipeline, place: int, again: Callable[[], Pipeline] | None = None
) -> Result:
    """As `run_examples`, only the test in this place of the list.

    again: what a start after a stop reads; default the same pipeline.
    """
    example = pipeline.tests[place]
    told = Result(f"tests.{place}", example.name, ())
    try:
        if example.steps:
            play(pipeline, place, again or (lambda: pipeline))
            return told
        return told._replace(differences=_differences(example, _found(pipeline, example)))
    except DefinitionError:
        raise
    except Failure as failure:
        return told._replace(
            differences=failure.differences, problem=failure.problem, step=failure.step
        )
    except Exception as error:
        return told._replace(problem=f"{type(error).__name__}: {error}")


def _differences(example: Example, found: dict[str, list[dict[str, Any]]]) -> list[Difference]:
    compared = (
        compare(sink, expected, found.get(sink, []), example.ordered, example.tolerance)
        for sink, expected in example.expect.items()
    )
    return [difference for difference in compared if difference]


def _found(pipeline: Pipeline, example: Example) -> dict[str, list[dict[str, Any]]]:
    """What every sink gets, and what is rejected, as JSON values; what is held back comes out."""
    bound = pipeline.bind(Clock())
    given = Giver(pipeline.record, bound.source_columns).give(example.given, _NOW)
    if bound.source_columns is None:
        bound.bind_columns(given.frame.schema)
    flow = Flow(bound, lambda _: False)
    flow.restore({})
    outcome = flow.process(given.frame, Moment(ending=True))
    found: dict[str, list[dict[str, Any]]] = {REJECTED: list(map(as_row, given.rejects))}
    for entry in outcome.entries:
        rows = map(orjson.loads, rows_as_json(unpack(entry.body)))
        found.setdefault(entry.sink, []).extend(rows)
    return found
