"""A link delivers everything once the way is open, and never hurries while it is shut."""

import asyncio
import base64
import contextlib
import itertools
import json
import logging
import random
import sqlite3
import time
from collections.abc import Callable, Iterator, Sequence
from datetime import UTC, datetime, timedelta
from pathlib import Path

import polars as pl
import pytest

from edge.codec import compress, pack
from edge.errors import OutboxFull
from edge.link import Bandwidth, Link
from edge.outbox import Outbox
from edge.outbox.model import Commit, Divided, Limits, NewEntry, Parcel, SinkLimits
from edge.outbox.packed import PACKED
from edge.sinks import Encoded, Receipt, Roll
from tests.loop import until
from tests.scripted import FlakySink, HandClock

AT_ONCE = Roll(8 * 2**20, timedelta(0))


@pytest.fixture
def clock() -> HandClock:
    return HandClock()


@pytest.fixture
def outbox(tmp_path: Path, clock: HandClock) -> Iterator[Outbox]:
    outbox = Outbox(tmp_path, limits=Limits(), sinks={"lake": SinkLimits()}, clock=clock)
    outbox.open()
    yield outbox
    outbox.close()


def link_of(outbox: Outbox, sink: FlakySink, clock: HandClock, **options: object) -> Link:
    options = {"roll": AT_ONCE, "chance": random.Random(1), **options}
    return Link("lake", sink, outbox, path="osaka/press/lake", clock=clock, **options)


def append(outbox: Outbox, *values: object) -> None:
    frame = pl.DataFrame({"v": values})
    size = int(frame.estimated_size())
    outbox.commit(Commit([NewEntry("lake", frame.height, size, pack(frame))]))


def steps(link: Link, number: int) -> list[float]:
    async def go() -> list[float]:
        return [await link.step() for _ in range(number)]

    return asyncio.run(go())


def test_rows_get_their_ids_from_the_sequence(outbox: Outbox, clock: HandClock) -> None:
    sink = FlakySink.of()
    append(outbox, 7, 8)
    append(outbox, 9)
    steps(link_of(outbox, sink, clock), 1)
    assert [row["edge_id"] for row in sink.rows] == [
        f"osaka/press/lake/{outbox.id}-{number}" for number in (1, 2, 3)
    ]
    assert [row["v"] for row in sink.rows] == [7, 8, 9]
    assert outbox.depth("lake").rows == 0


def test_rows_from_before_a_change_of_types_are_delivered_as_they_were(
    outbox: Outbox, clock: HandClock
) -> None:
    moment = datetime(2026, 5, 1, tzinfo=UTC)
    backlog = [7, None, "x", "y", True, moment, {"x": 1}, [1]]
    for value in backlog:
        append(outbox, value)
    sink = FlakySink.of()
    steps(link_of(outbox, sink, clock), 2)
    delivered = sorted(sink.rows, key=lambda row: int(row["edge_id"].rpartition("-")[2]))
    assert [row["v"] for row in delivered] == [
        *backlog[:5],
        "2026-05-01T00:00:00.000000Z",
        *backlog[6:],
    ]
    assert len(sink.sent) == 6


def test_in_a_full_outbox_fewer_rows_are_rolled_than_elsewhere(
    tmp_path: Path, clock: HandClock
) -> None:
    class Wide(FlakySink):
        """Parcels twice as large as the rows."""

        def encode(self, frame: pl.DataFrame) -> Encoded:
            (parcel,) = super().encode(frame).parcels
            return Encoded([parcel._replace(body=parcel.body.ljust(2 * len(parcel.body)))])

    limits = Limits(32 * 2**20)
    outbox = Outbox(tmp_path, limits=limits, sinks={"lake": SinkLimits()}, clock=clock)
    outbox.open()
    texts = []
    with contextlib.suppress(OutboxFull):
        while True:
            append(outbox, text := base64.b64encode(random.randbytes(500_000)).decode())
            texts.append(text)
    sink = Wide.of()
    link = link_of(outbox, sink, clock)
    for _ in range(50):
        if outbox.depth("lake").rows:
            steps(link, 1)
    assert sorted(row["v"] for row in sink.rows) == sorted(texts)
    outbox.close()


def test_an_entry_too_large_to_roll_at_once_is_rolled_in_pieces(
    tmp_path: Path, clock: HandClock
) -> None:
    class Wide(FlakySink):
        """Parcels five times as large as the rows: those of the entry take more than the cap."""

        def encode(self, frame: pl.DataFrame) -> Encoded:
            (parcel,) = super().encode(frame).parcels
            return Encoded([parcel._replace(body=parcel.body.ljust(5 * len(parcel.body)))])

    limits = Limits(32 * 2**20)
    outbox = Outbox(tmp_path, limits=limits, sinks={"lake": SinkLimits()}, clock=clock)
    outbox.open()
    texts = [base64.b64encode(random.randbytes(400_000)).decode() for _ in range(14)]
    append(outbox, *texts)
    sink = Wide.of()
    link = link_of(outbox, sink, clock, order="all")
    steps(link, 20)
    assert [row["v"] for row in sink.rows] == texts
    assert [int(row["edge_id"].rpartition("-")[2]) for row in sink.rows] == list(range(1, 15))
    assert outbox.depth("lake").rows == 0
    assert outbox.status()["imbalances"] == []
    outbox.close()


def test_nothing_is_rolled_before_its_time(outbox: Outbox, clock: HandClock) -> None:
    sink = FlakySink.of()
    link = link_of(outbox, sink, clock, roll=Roll(8 * 2**20, timedelta(seconds=60)))
    append(outbox, 1)
    steps(link, 3)
    assert sink.rows == []
    clock.advance(61)
    steps(link, 1)
    assert [row["v"] for row in sink.rows] == [1]


def test_while_down_one_parcel_probes_with_growing_pauses(outbox: Outbox, clock: HandClock) -> None:
    sink = FlakySink.of(*["down"] * 30)
    link = link_of(outbox, sink, clock)
    for value in range(6):
        append(outbox, value)
        steps(link, 1)
    assert link.up is False
    assert len(sink.sent) == 1, "no send before its time, however many rows are committed"
    tries = [clock.steady()]
    while link.up is False:
        before = len(sink.sent)
        clock.advance(steps(link, 1)[0])
        if len(sink.sent) > before:
            assert len(sink.sent) == before + 1, "a link that is down sends one parcel to probe"
            tries.append(clock.steady())
    pauses = [after - before for before, after in itertools.pairwise(tries)]
    assert max(pauses) <= 62
    assert max(pauses[8:]) > 20 > 10 > max(pauses[:3])
    steps(link, 3)
    assert sorted(row["v"] for row in sink.rows) == list(range(6))


def test_every_reason_is_in_the_log_once_while_the_link_is_down(
    outbox: Outbox, clock: HandClock, caplog: pytest.LogCaptureFixture
) -> None:
    link = link_of(outbox, FlakySink.of("down", "down", "nothing", "down", "ok", "down"), clock)
    for value in (1, 2):
        append(outbox, value)
        for _ in range(5):
            steps(link, 1)
            clock.advance(61)
    warnings = [each for each in caplog.records if each.levelno >= logging.WARNING]
    told = [each.getMessage().split(", rows are kept")[0] for each in warnings]
    assert told == [
        "sink 'lake': link is down",
        "sink 'lake': link is still down",
        "sink 'lake': link is down",
    ]


def test_what_is_in_neither_list_goes_again_with_the_same_bytes(
    outbox: Outbox, clock: HandClock
) -> None:
    sink = FlakySink.of("half", "down", "half")
    link = link_of(outbox, sink, clock)
    for value in range(4):
        append(outbox, value)
        asyncio.run(link._roll_once())
    for _ in range(8):
        steps(link, 1)
        clock.advance(60)
    assert sorted(row["v"] for row in sink.rows) == [0, 1, 2, 3]
    assert len(sink.sent) > 4


def test_rows_become_parcels_at_their_size_while_the_way_is_shut(
    outbox: Outbox, clock: HandClock
) -> None:
    roll = Roll(40, timedelta(hours=1))
    link = link_of(outbox, FlakySink.of(*["down"] * 20), clock, roll=roll)
    append(outbox, *range(5))
    while link._try_at - clock.steady() < 10:
        clock.advance(max(link._try_at - clock.steady(), 0.0))
        steps(link, 1)
    append(outbox, 5)
    assert steps(link, 1)[0] <= 1.0
    assert outbox.has_entries("lake")
    append(outbox, 6, 7, 8, 9)
    steps(link, 1)
    assert not outbox.has_entries("lake")
    assert outbox.depth("lake").rows == 10


def test_what_arrives_does_not_wait_long_for_what_does_not(
    outbox: Outbox, clock: HandClock
) -> None:
    sink = FlakySink.of(*["half"] * 20)
    link = link_of(outbox, sink, clock, order="all")
    for value in range(60):
        append(outbox, value)
        asyncio.run(link._roll_once())
    pauses = []
    for _ in range(20):
        steps(link, 1)
        pauses.append(link._try_at - clock.steady())
        clock.advance(60)
    assert 2 < max(pauses) <= 8


def test_parcels_are_settled_row_by_row_where_a_sink_can_tell(
    outbox: Outbox, clock: HandClock
) -> None:
    class Divider(FlakySink):
        """Takes one row of a parcel, refuses the next and puts off what is left."""

        async def send(self, parcels: Sequence[Parcel]) -> Receipt:
            (parcel,) = parcels
            lines = parcel.body.splitlines()
            self._sent.append(lines[0].decode())
            pieces = [
                parcel._replace(first=parcel.first + n, rows=1, body=line)
                for n, line in enumerate(lines)
            ]
            if len(lines) < 3:
                return Receipt([parcel.id])
            rest = pieces[2]._replace(rows=len(lines) - 2, body=b"\n".join(lines[2:]))
            part = Divided(1, [(pieces[1], "the script says refuse")], rest)
            return Receipt(divided={parcel.id: part})

    sink = Divider()
    append(outbox, *range(6))
    steps(link_of(outbox, sink, clock, order="all"), 3)
    assert [json.loads(line)["v"] for line in sink.sent] == [0, 2, 4]
    ledger = outbox.status()["ledger"]["sink:lake"]
    assert (ledger["appended"], ledger["delivered"], ledger["refused"]) == (6, 4, 2)
    assert outbox.status()["imbalances"] == []


def test_a_refused_parcel_is_set_aside_and_its_neighbours_go_on(
    outbox: Outbox, clock: HandClock
) -> None:
    sink = FlakySink.of("refuse")
    link = link_of(outbox, sink, clock, order="all")
    for value in range(3):
        append(outbox, value)
        asyncio.run(link._roll_once())
    steps(link, 2)
    assert [row["v"] for row in sink.rows] == [1, 2]
    ledger = outbox.status()["ledger"]["sink:lake"]
    assert (ledger["appended"], ledger["delivered"], ledger["refused"]) == (3, 2, 1)


def test_an_unforeseen_error_keeps_the_rows_and_backs_off(outbox: Outbox, clock: HandClock) -> None:
    async def go(link: Link) -> None:
        task = asyncio.create_task(link.run())
        await until(lambda: link.up is False)
        link.stop()
        await task

    sink = FlakySink.of("wrong")
    append(outbox, 1)
    link = link_of(outbox, sink, clock)
    asyncio.run(go(link))
    assert outbox.depth("lake").rows == 1
    clock.advance(60)
    steps(link, 1)
    assert [row["v"] for row in sink.rows] == [1]


def test_a_sink_that_takes_nothing_without_a_word_is_not_asked_again_at_once(
    outbox: Outbox, clock: HandClock
) -> None:
    sink = FlakySink.of("nothing")
    link = link_of(outbox, sink, clock)
    append(outbox, 1)
    assert steps(link, 1)[0] > 0
    assert link.up is False
    clock.advance(60)
    steps(link, 1)
    assert [row["v"] for row in sink.rows] == [1]


def test_an_outbox_that_cannot_be_written_for_a_while_stops_nothing_for_good(
    outbox: Outbox, clock: HandClock
) -> None:
    async def go(link: Link) -> None:
        task = asyncio.create_task(link.run())
        await turned(lambda: sink.sent != [] and link.up is False)  # sent, but not settled
        other.rollback()
        await turned(lambda: outbox.depth("lake").rows == 0)
        link.stop()
        await task

    async def turned(done: Callable[[], bool]) -> None:
        while not done():
            assert asyncio.get_running_loop().time() < deadline
            clock.advance(1)
            link.appended()
            await asyncio.sleep(0.005)

    sink = FlakySink.of()
    link = link_of(outbox, sink, clock)
    append(outbox, 1)
    asyncio.run(link._roll_once())
    outbox._file.db.execute("PRAGMA busy_timeout = 0")
    other = sqlite3.connect(outbox._file.folder / "outbox.sqlite")
    other.execute("BEGIN IMMEDIATE")
    deadline = time.monotonic() + 60
    asyncio.run(go(link))
    assert [row["v"] for row in sink.rows] == [1]
    assert outbox.status()["sinks"]["lake"]["link"] == "up"
    other.close()


@pytest.mark.parametrize(
    ("order", "live_share", "expected"),
    [
        ("none", 0.5, [18, 19, 0, 1]),
        ("none", 1.0, [16, 17, 18, 19]),
        ("all", 0.5, [0, 1, 2, 3]),
        ("key", 1.0, [0, 1, 2, 3]),
    ],
)
def test_a_backlog_leaves_in_the_declared_order(
    outbox: Outbox, clock: HandClock, order: str, live_share: float, expected: list[int]
) -> None:
    sink = FlakySink.of()
    link = link_of(outbox, sink, clock, order=order, live_share=live_share)
    for value in range(20):
        append(outbox, value)
        asyncio.run(link._roll_once())
    link.up = True
    steps(link, 1)
    first = [row["v"] for row in sink.rows]
    assert sorted(first) == sorted(expected)
    if order != "none":
        assert first == expected


ONE_EACH = Roll(1, timedelta(0))
"""Every entry becomes a parcel of its own."""


def entries_of(outbox: Outbox) -> int:
    return outbox._file.buffers["lake"].entries


def test_rows_that_come_as_fast_as_they_are_rolled_keep_no_link_idle(
    outbox: Outbox, clock: HandClock
) -> None:
    sink = FlakySink.of()
    link = link_of(outbox, sink, clock, roll=ONE_EACH)
    for value in range(20):
        append(outbox, value)
    for sent in (4, 8, 12):
        assert steps(link, 1) == [0.0]
        assert (len(sink.sent), entries_of(outbox)) == (sent, 20 - sent)
    steps(link, 2)
    assert sorted(row["v"] for row in sink.rows) == [*range(20)]


def test_while_nothing_may_be_sent_all_that_is_due_is_rolled(
    outbox: Outbox, clock: HandClock
) -> None:
    sink = FlakySink.of("down")
    bandwidth = Bandwidth(1000, clock)
    link = link_of(outbox, sink, clock, roll=ONE_EACH, bandwidth=bandwidth)
    for value in range(20):
        append(outbox, value)
    steps(link, 2)
    assert (link.up, entries_of(outbox)) == (False, 0)
    for value in range(20):
        append(outbox, value)
    clock.advance(60)
    bandwidth.spend(1_000_000)
    assert steps(link, 1)[0] > 0
    assert (len(sink.sent), entries_of(outbox)) == (4, 0)


def test_bandwidth_counts_what_is_sent_and_not_how_small_it_was_kept(
    outbox: Outbox, clock: HandClock
) -> None:
    class Packing(FlakySink):
        """Keeps a parcel smaller than it is sent, as the file and the MQTT sink do."""

        def encode(self, frame: pl.DataFrame) -> Encoded:
            (parcel,) = super().encode(frame).parcels
            body = compress(parcel.body * 1000, "zstd")
            return Encoded([parcel._replace(body=body, attributes=PACKED)])

    bandwidth = Bandwidth(1000, clock)
    append(outbox, 7)
    steps(link_of(outbox, Packing.of(), clock, bandwidth=bandwidth), 1)
    assert bandwidth.wait("high") > 30


def test_bandwidth_bounds_what_leaves_and_priority_goes_first(clock: HandClock) -> None:
    bandwidth = Bandwidth(1000, clock)
    assert bandwidth.wait("low") == 0
    bandwidth.spend(5000)
    assert bandwidth.wait("high") == pytest.approx(5.0)
    assert bandwidth.wait("high") < bandwidth.wait("normal") < bandwidth.wait("low")
    clock.advance(5.2)
    assert bandwidth.wait("low") == 0
