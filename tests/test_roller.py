"""Rows rolled before they are committed are what they would have become as an entry."""

from collections.abc import Iterator
from pathlib import Path

import polars as pl
import pytest

from edge.component import Stream
from edge.outbox import Outbox
from edge.outbox.model import Commit, Limits, NewEntry, SinkLimits
from edge.roller import Roller
from edge.sinks import Sink
from edge.sinks.file import FileSink
from edge.sinks.sqs import SqsSink
from tests.scripted import HandClock

FRAME = pl.DataFrame({"n": range(1000), "line": ["a", "b"] * 500})
SIZE = int(FRAME.estimated_size())


@pytest.fixture
def outbox(tmp_path: Path) -> Iterator[Outbox]:
    sinks = {"lake": SinkLimits()}
    outbox = Outbox(tmp_path / "outbox", limits=Limits(), sinks=sinks, clock=HandClock())
    outbox.open()
    yield outbox
    outbox.close()


def roller_of(outbox: Outbox, sink: Sink, size: int = 2 * SIZE) -> Roller:
    columns = pl.Schema({"edge_id": pl.String, **FRAME.schema})
    sink.bind(columns, Stream("edge_received", [], Path(), "edge-osaka-press-0"), True, "none")
    return Roller("lake", sink, outbox, "osaka/press/lake", size)


SINKS = {
    "file": lambda: FileSink(path="out"),
    "partitions": lambda: FileSink(path="out", partition=["line"]),
    "parquet": lambda: FileSink(path="out", format="parquet"),
    "sqs": lambda: SqsSink(queue="alarms"),
}


@pytest.mark.parametrize("sink", SINKS)
def test_ahead_gives_the_parcels_of_the_entry(outbox: Outbox, sink: str) -> None:
    roller = roller_of(outbox, SINKS[sink]())
    outbox.commit(Commit([NewEntry("lake", 1, 10, b"")]))
    outbox.drop("lake")
    rolled = roller.ahead(FRAME, SIZE)
    assert rolled is not None
    assert (rolled.outbox, rolled.first, rolled.rows) == (outbox.id, 2, 1000)
    outbox.commit(Commit([rolled.entry()]))
    encoded, rest, count = roller.encode(outbox.take_entries("lake", SIZE))
    assert (rest, count) == (None, 1)
    assert list(rolled.parcels) == list(encoded.parcels)


def test_few_rows_are_an_entry(outbox: Outbox) -> None:
    assert roller_of(outbox, FileSink(path="out"), 2 * SIZE + 2).ahead(FRAME, SIZE) is None


def test_rows_do_not_overtake_those_that_wait_to_be_rolled(outbox: Outbox) -> None:
    roller = roller_of(outbox, FileSink(path="out"))
    rolled = roller.ahead(FRAME, SIZE)
    assert rolled is not None
    outbox.commit(Commit([rolled.entry()]))
    assert roller.ahead(FRAME, SIZE) is None


@pytest.mark.parametrize(
    "values",
    [
        pytest.param([str(n) for n in range(1000)], id="rest"),
        pytest.param(["x" * 999] * 1000, id="refused"),
    ],
)
def test_rows_that_do_not_all_become_parcels_are_an_entry(
    outbox: Outbox, values: list[str]
) -> None:
    roller = roller_of(outbox, FileSink(path="out", partition=["line"]))
    frame = FRAME.with_columns(line=pl.Series(values))
    assert roller.ahead(frame, SIZE) is None
    assert roller.ahead(FRAME, SIZE) is not None
