"""What every sink promises: repeats change nothing, and what did not arrive is never said to."""

import asyncio
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

import polars as pl

from edge.errors import LinkDown
from edge.outbox.model import Parcel
from edge.sinks import Receipt, Sink, split_id

PATH = "osaka/press/lake"
OUTBOX = "1a2b3c4d"


def rows(count: int, first: int = 1, lines: int = 3) -> pl.DataFrame:
    """Rows as a link hands them over: `edge_id` first, one reading a second, some lines in turn."""
    numbers = range(first, first + count)
    return pl.DataFrame(
        {
            "edge_id": [f"{PATH}/{OUTBOX}-{number}" for number in numbers],
            "ts": pl.Series([number * 1_000_000 for number in numbers]).cast(
                pl.Datetime("us", "UTC")
            ),
            "line": [f"l{number % lines}" for number in numbers],
            "value": [number / 4 for number in numbers],
        }
    )


def numbered(parcels: Sequence[Parcel], first: int = 1) -> list[Parcel]:
    """Parcels as the outbox stores them: each with its own id."""
    return [parcel._replace(id=number) for number, parcel in enumerate(parcels, first)]


def send(sink: Sink, parcels: Sequence[Parcel]) -> Receipt:
    """Send as the link does: at most `send_limit` at a time; what came of all of them."""
    receipts = [
        asyncio.run(sink.send(parcels[start : start + sink.send_limit]))
        for start in range(0, len(parcels), sink.send_limit)
    ]
    refused = {id: why for receipt in receipts for id, why in receipt.refused.items()}
    return Receipt([id for receipt in receipts for id in receipt.delivered], refused)


def puts_every_row_in_one_place(sink: Sink, frame: pl.DataFrame) -> None:
    """Each row is in one parcel, refused, or left for later."""
    parcels, refused, rest = sink.encode(frame)
    left = 0 if rest is None else rest.height
    found = sum(each.rows for each in parcels) + sum(each.rows for each in refused) + left
    assert found == frame.height
    known = {split_id(edge_id).sequence for edge_id in frame["edge_id"]}
    for parcel in parcels:
        assert {parcel.first, parcel.last} <= known, "first and last are sequences of its rows"


def gives_the_same_bytes(sink: Sink, frame: pl.DataFrame) -> None:
    """The same rows give the same parcels, whenever they are rolled."""
    assert sink.encode(frame) == sink.encode(frame)


def never_uses_a_key_twice(sink: Sink, frames: Sequence[pl.DataFrame]) -> None:
    """Other rows have other keys."""
    parcels = [parcel for frame in frames for parcel in sink.encode(frame).parcels]
    assert len({parcel.key for parcel in parcels}) == len(parcels)


def takes_repeats(
    sink: Sink, parcels: Sequence[Parcel], holds: Callable[[], Mapping[str, object]]
) -> None:
    """The same parcels twice leave the same end state; both times they are delivered.

    holds: what has arrived, by a name that repeats share.
    """
    everything = [parcel.id for parcel in parcels]
    assert sorted(send(sink, parcels).delivered) == everything
    once = dict(holds())
    assert len(once) >= len(parcels)
    assert sorted(send(sink, parcels).delivered) == everything
    assert holds() == once


def says_that_the_link_is_down(
    sink: Sink,
    parcels: Sequence[Parcel],
    cut: Callable[[], None],
    mend: Callable[[], None],
) -> None:
    """Without a way there it raises LinkDown, and all is delivered once there is one."""
    cut()
    try:
        receipt = asyncio.run(sink.send(parcels[: sink.send_limit]))
    except LinkDown:
        pass
    else:
        raise AssertionError(f"must raise LinkDown, gave {receipt}")
    mend()
    assert sorted(send(sink, parcels).delivered) == [parcel.id for parcel in parcels]


class SinkPromises:
    """Subclass it as `TestName`, with `sink` and what is around it; each promise is a test.

    A test calls `start`, then the others, and `stop` at its end, also where it failed.
    """

    def start(self, folder: Path) -> Sink:
        """Start the destination; a sink to it, bound to the columns of `rows`."""
        raise NotImplementedError

    def holds(self) -> Mapping[str, object]:
        """What was delivered, by a name that repeats share."""
        raise NotImplementedError

    def cut(self) -> None:
        """From now on the destination cannot be reached."""
        raise NotImplementedError

    def mend(self) -> None:
        """All is well again."""
        raise NotImplementedError

    def stop(self) -> None:
        """End what was started."""

    def _during(self, folder: Path, check: Callable[[Sink], None]) -> None:
        try:
            sink = self.start(folder)
            check(sink)
            asyncio.run(sink.close())
        finally:
            self.stop()

    def test_every_row_is_delivered_refused_or_left(self, tmp_path: Path) -> None:
        """Nothing is lost when rows are rolled."""
        self._during(tmp_path, lambda sink: puts_every_row_in_one_place(sink, rows(24)))

    def test_the_same_rows_give_the_same_bytes(self, tmp_path: Path) -> None:
        """A retry sends what was sent."""
        self._during(tmp_path, lambda sink: gives_the_same_bytes(sink, rows(24)))

    def test_keys_are_never_used_twice(self, tmp_path: Path) -> None:
        """Nothing is written over."""
        frames = rows(24), rows(24, 25)
        self._during(tmp_path, lambda sink: never_uses_a_key_twice(sink, frames))

    def test_the_same_parcels_twice_leave_the_same_end_state(self, tmp_path: Path) -> None:
        """A lost answer doubles nothing."""

        def check(sink: Sink) -> None:
            takes_repeats(sink, numbered(sink.encode(rows(24)).parcels), self.holds)

        self._during(tmp_path, check)

    def test_no_network_is_link_down_and_nothing_is_lost(self, tmp_path: Path) -> None:
        """The link backs off and tries again."""

        def check(sink: Sink) -> None:
            parcels = numbered(sink.encode(rows(24)).parcels)
            says_that_the_link_is_down(sink, parcels, self.cut, self.mend)

        self._during(tmp_path, check)
