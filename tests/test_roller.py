"""Every row is rolled under its own id; before it is committed, as it would be out of an entry."""

from collections.abc import Iterator, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import NamedTuple

import orjson
import polars as pl
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from edge.codec import pack, unpack
from edge.component import Stream
from edge.flow import Flow
from edge.operators import Operator
from edge.operators.dedupe import Dedupe
from edge.operators.derive import Derive
from edge.operators.filter import Filter
from edge.operators.python import Python
from edge.outbox import Outbox
from edge.outbox.model import Commit, Entry, Limits, NewEntry, SinkLimits
from edge.outbox.packed import sent_bytes
from edge.pipeline import Branch, Pipeline
from edge.roller import Recent, Roller
from edge.sinks import Sink
from edge.sinks.file import FileSink
from edge.sinks.sqs import SqsSink
from tests.scripted import HandClock, ScriptedSource

FRAME = pl.DataFrame({"n": range(1000), "line": ["a", "b"] * 500})
SIZE = int(FRAME.estimated_size())
NOON = pl.Series([datetime(2024, 5, 1, 12, tzinfo=UTC)] * FRAME.height)
ARRIVED = FRAME.with_columns(edge_received=NOON)


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


@pytest.mark.parametrize("sink", SINKS)
def test_rows_still_in_memory_are_rolled_as_they_would_be_out_of_their_entry(
    outbox: Outbox, sink: str
) -> None:
    roller = roller_of(outbox, SINKS[sink]())
    frame = FRAME.with_columns(at=NOON, x=pl.col("n") / 7, none=pl.lit(None))
    entries = [Entry(1, 1, 1000, SIZE, 0, pack(frame))]
    unpacked = roller.encode(entries)
    roller.keep(bytes(bytearray(entries[0].body)), frame)
    assert roller.encode(entries) == unpacked


def test_kept_rows_are_asked_for_by_what_they_were_packed_as_once() -> None:
    recent = Recent(2**20)
    recent.keep(b"a", FRAME)
    assert recent.take(b"b") is None
    assert recent.take(b"a") is FRAME
    assert recent.take(b"a") is None


def test_no_more_rows_are_kept_than_there_is_memory_for() -> None:
    taken = SIZE + 16 * FRAME.height + 1  # a text is not only its characters
    recent = Recent(2 * taken)
    for body in (b"a", b"b", b"a", b"c"):
        recent.keep(body, FRAME)
    assert [body for body in (b"a", b"b", b"c") if recent.take(body) is FRAME] == [b"a", b"b"]
    recent.keep(bytes(taken), FRAME)
    recent.keep(b"d", FRAME)
    assert recent.take(b"d") is None


def test_kept_rows_that_nobody_asks_for_give_way_after_a_minute() -> None:
    clock = HandClock()
    recent = Recent(SIZE + 16 * FRAME.height + 1, clock.steady)
    recent.keep(b"a", FRAME)
    clock.advance(59)
    recent.keep(b"b", FRAME)
    assert recent.take(b"b") is None
    clock.advance(2)
    recent.keep(b"b", FRAME)
    assert recent.take(b"a") is None
    assert recent.take(b"b") is FRAME


class OwnSource(ScriptedSource):
    own_memory = True


class Keeper(Roller):
    """Writes down which rows it is given to keep."""

    def __init__(self) -> None:
        self.kept: list[pl.DataFrame] = []

    def ahead(self, frame: pl.DataFrame, size: int) -> None:
        return None

    def keep(self, body: bytes, frame: pl.DataFrame) -> None:
        assert unpack(body).equals(frame)
        self.kept.append(frame)


def risk(frame: pl.DataFrame) -> pl.DataFrame:
    """A user's function."""
    return frame


def flow_of(
    folder: Path, keeper: Keeper, kind: type[ScriptedSource], **lane: Sequence[Operator]
) -> Flow:
    pipeline = Pipeline(
        name="press",
        source=kind.of(ARRIVED),
        operators=lane.get("common", []),
        sinks={"lake": Branch(sink=FileSink(path="out"), operators=lane.get("own", []))},
        outbox={"path": folder / "outbox"},
    )
    return Flow(pipeline.bind(HandClock()), lambda _: False, rollers={"lake": keeper})


@pytest.mark.parametrize(
    ("operator", "kept"),
    [
        pytest.param(Derive(columns={"double": "n * 2"}), [1000], id="all"),
        pytest.param(Filter(where="n < 500"), [500], id="half"),
        pytest.param(Filter(where="n < 499"), [], id="few, whose texts are those of all"),
        pytest.param(Dedupe(columns=["n"], within="1h"), [], id="perhaps of earlier batches"),
        pytest.param(Python(function=risk), [], id="perhaps in a user's array"),
    ],
)
@pytest.mark.parametrize("where", ["common", "own"])
def test_kept_are_rows_whose_memory_is_their_own(
    tmp_path: Path, operator: Operator, kept: Sequence[int], where: str
) -> None:
    keeper = Keeper()
    flow = flow_of(tmp_path, keeper, OwnSource, **{where: [operator]})
    flow.process(ARRIVED)
    assert [frame.height for frame in keeper.kept] == kept


def test_rows_are_not_kept_of_a_source_that_may_write_to_them_nor_parts_of_a_batch(
    tmp_path: Path,
) -> None:
    keeper = Keeper()
    flow_of(tmp_path, keeper, ScriptedSource).process(ARRIVED)
    flow_of(tmp_path, keeper, OwnSource).process_apart([ARRIVED.head(500), ARRIVED.tail(500)])
    assert keeper.kept == []


class Given(NamedTuple):
    """One entry of a rolling: the numbers of its rows; `carried`: they are a column of its own."""

    numbers: Sequence[int]
    carried: bool

    def entry(self, number: int) -> Entry:
        columns = {"n": self.numbers, **({"edge_sequence": self.numbers} if self.carried else {})}
        body = pack(pl.DataFrame(columns))
        return Entry(number, self.numbers[0], len(self.numbers), 8, 0, body)


@st.composite
def backlogs(draw: st.DrawFn) -> list[Given]:
    """Entries behind one another, with gaps where others were dropped or rows already went."""
    made, following = [], 1
    for _ in range(draw(st.integers(1, 8))):
        following += draw(st.sampled_from([0, 0, 0, 5]))
        carried = draw(st.booleans())
        steps = st.integers(1, 3 if carried else 1)
        rows = draw(st.lists(steps, min_size=1, max_size=4))
        numbers = [following + sum(rows[:place]) for place in range(len(rows))]
        made.append(Given(numbers, carried))
        following = numbers[-1] + 1
    return made


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None)
@given(backlogs())
def test_a_row_keeps_its_number_whatever_entries_it_is_rolled_with(
    outbox: Outbox, backlog: list[Given]
) -> None:
    roller = roller_of(outbox, FileSink(path="out", compression="none"))
    encoded, rest, count = roller.encode([given.entry(n) for n, given in enumerate(backlog)])
    assert (rest, count) == (None, len(backlog))
    [parcel] = encoded.parcels
    body = b"".join(sent_bytes(parcel.body, parcel.attributes))
    rows = [orjson.loads(line) for line in body.splitlines()]
    numbers = [number for given in backlog for number in given.numbers]
    path = f"osaka/press/lake/{outbox.id}-"
    assert rows == [{"edge_id": f"{path}{number}", "n": number} for number in numbers]
