"""The `tests:` of a definition: rows given go through its operators, rows are expected at sinks."""

import math
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from typing import Any, NamedTuple

import orjson
import polars as pl

from edge.clock import Clock
from edge.codec import TIMESTAMP, Record, rows_as_json, unpack
from edge.errors import DefinitionError
from edge.flow import Flow, Moment
from edge.pipeline import Bound, Pipeline
from edge.pipeline.binding import RECEIVED
from edge.pipeline.model import REJECTED, Example

Rows = Sequence[Mapping[str, Any]]

_NOW = datetime(2026, 1, 1, tzinfo=UTC)
_CLOSE = 1e-9


class Difference(NamedTuple):
    """What one sink got other than expected.

    missing: expected rows that did not come, each with the row that came nearest (None: none is
    left). extra: rows that came and were not expected.
    """

    sink: str
    missing: Sequence[tuple[Mapping[str, Any], Mapping[str, Any] | None]]
    extra: Rows


class Result(NamedTuple):
    """One test: where it stands (`tests.0`), its name, and what was wrong; nothing: it passed."""

    place: str
    name: str
    differences: Sequence[Difference]
    problem: str | None = None

    @property
    def passed(self) -> bool:
        """Whether everything came as expected."""
        return not self.differences and self.problem is None


def run_examples(pipeline: Pipeline) -> list[Result]:
    """Run every test of a definition; touches no network and no outbox.

    Rows take the way they take in a run: through the record's checks, all operators and branches.
    What operators hold back comes out at the end.
    """
    return [run_example(pipeline, place) for place in range(len(pipeline.tests))]


def run_example(pipeline: Pipeline, place: int) -> Result:
    """As `run_examples`, only the test in this place of the list."""
    example = pipeline.tests[place]
    try:
        found = _found(pipeline, example)
    except DefinitionError:
        raise
    except Exception as error:
        return Result(f"tests.{place}", example.name, (), f"{type(error).__name__}: {error}")
    differences = [
        difference
        for sink, expected in example.expect.items()
        if (difference := _compare(sink, expected, found.get(sink, []), example.ordered))
    ]
    return Result(f"tests.{place}", example.name, differences)


def _found(pipeline: Pipeline, example: Example) -> dict[str, list[dict[str, Any]]]:
    """What every sink gets, and what is rejected, as JSON values."""
    bound = pipeline.bind(Clock())
    frame, rejects = _decoded(bound, example.given)
    if bound.source_columns is None:
        bound.bind_columns(frame.schema)
    flow = Flow(bound, lambda _: False)
    flow.restore({})
    outcome = flow.process(frame, Moment(ending=True))
    found: dict[str, list[dict[str, Any]]] = {REJECTED: rejects}
    for entry in outcome.entries:
        rows = map(orjson.loads, rows_as_json(unpack(entry.body)))
        found.setdefault(entry.sink, []).extend(rows)
    return found


def _decoded(bound: Bound, given: Rows) -> tuple[pl.DataFrame, list[dict[str, Any]]]:
    """Rows as the source would hand them over, and those that the record refuses.

    What is no field of the record is a capture of the topic, or the time of arrival.
    """
    record = bound.pipeline.record
    columns = bound.source_columns
    fields = record.fields or {}
    captured = [name for name in columns or () if name not in fields and name != RECEIVED]
    payloads = [_payload(record, row, (*captured, RECEIVED)) for row in given]
    decoded = _as_json(record).decoder(captured).decode(payloads)
    origin = range(len(given)) if decoded.origin is None else decoded.origin.to_list()
    others = [
        pl.Series(name, [given[index].get(name) for index in origin], pl.String())
        for name in captured
        if name not in decoded.frame.columns
    ]
    arrived = [_moment(given[index].get(RECEIVED)) or _NOW for index in origin]
    frame = decoded.frame.hstack([*others, pl.Series(RECEIVED, arrived, TIMESTAMP)])
    rejects = [
        {"reason": reason, "payload": payloads[index].decode(errors="replace")}
        for index, reason in decoded.rejects
    ]
    return (frame.select(columns.names()) if columns is not None else frame), rejects


def _payload(record: Record, row: Mapping[str, Any], beside: Sequence[str]) -> bytes:
    if record.format in ("value", "raw"):
        return str(row.get("value", "")).encode()
    return orjson.dumps({name: value for name, value in row.items() if name not in beside})


def _as_json(record: Record) -> Record:
    """A row of CSV is written as its values are, not as text."""
    if record.format != "csv":
        return record
    return Record(**{**dict(record), "format": "json", "header": None})


def _compare(sink: str, expected: Rows, found: Rows, ordered: bool) -> Difference | None:
    left = list(found)
    missing = []
    for place, row in enumerate(expected):
        if ordered:
            match = place if place < len(found) and _fits(row, found[place]) else None
            if match is not None:
                left.remove(found[match])
        else:
            match = next((n for n, other in enumerate(left) if _fits(row, other)), None)
            if match is not None:
                del left[match]
        if match is None:
            missing.append(row)
    if not missing and not left:
        return None
    return Difference(sink, [(row, _nearest(row, left)) for row in missing], left)


def _fits(expected: Mapping[str, Any], found: Mapping[str, Any]) -> bool:
    return all(name in found and alike(value, found[name]) for name, value in expected.items())


def _nearest(expected: Mapping[str, Any], left: Rows) -> Mapping[str, Any] | None:
    """The row that agrees with most of what was expected."""

    def agreeing(row: Mapping[str, Any]) -> int:
        return sum(alike(value, row.get(name)) for name, value in expected.items())

    return max(left, key=agreeing, default=None)


def alike(expected: Any, found: Any) -> bool:
    """Whether a value is what was expected: floats within 1e-9, times in any way of writing."""
    if isinstance(expected, bool) or isinstance(found, bool):
        return expected is found
    if isinstance(expected, int | float) and isinstance(found, int | float):
        return math.isclose(expected, found, rel_tol=_CLOSE, abs_tol=_CLOSE)
    if isinstance(expected, str) and isinstance(found, str) and expected != found:
        moment = _moment(expected)
        return moment is not None and moment == _moment(found)
    return bool(expected == found)


def _moment(text: Any) -> datetime | None:
    try:
        moment = datetime.fromisoformat(text)
    except (TypeError, ValueError):
        return None
    return moment if moment.tzinfo else moment.replace(tzinfo=UTC)
