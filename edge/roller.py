"""Rows -> the parcels of one sink: those of entries, and a batch that is not committed yet."""

import threading
import time
from collections.abc import Callable, Sequence

import polars as pl

from edge.codec import pack, unpack
from edge.outbox import Outbox
from edge.outbox.model import Entry, NewEntry, Rolled
from edge.sinks import Encoded, Sink

_SEQUENCE = "edge_sequence"
_PIECE = 1000  # rows; what is made of smaller pieces takes half as much time again
_MOST_KEPT = 32 * 2**20
_LONGEST_KEPT = 60.0  # seconds
_VIEW = 16  # bytes of a text that `estimated_size` leaves out


class Roller:
    """Gives every row its id and lets the sink make parcels of them. Works in worker threads."""

    def __init__(self, name: str, sink: Sink, outbox: Outbox, path: str, size: int) -> None:
        """path: `<site>/<pipeline>/<sink>`, the part of every row's id before the outbox's.

        size: of rows that make a parcel, bytes.
        """
        self._name, self._sink, self._outbox = name, sink, outbox
        self._path, self._size = path, size
        self._recent = Recent(_MOST_KEPT)

    def encode(
        self, entries: Sequence[Entry], part: int = 1
    ) -> tuple[Encoded, NewEntry | None, int]:
        """The first entries as parcels, what is left over of them, and how many they are.

        part: of an entry alone only so large a part of its rows becomes parcels, as 1 / part.
        """
        frames = self._alike(entries)
        taken, sequence = len(frames), _sequence(entries, frames)
        rows = pl.concat(frames, how="diagonal_relaxed")
        if rows.height < _PIECE * taken:
            rows = rows.rechunk()
        del frames  # they are as large again
        ids = self._with_ids(rows, sequence)
        count = max(1, ids.height // part) if taken == 1 else ids.height
        encoded = self._sink.encode(ids.head(count))
        if encoded.rest is None and count == ids.height:
            return encoded, None, taken
        over = [] if encoded.rest is None else [encoded.rest]
        rest = _without_id(pl.concat([*over, ids.slice(count)]))
        return encoded, self._entry(rest, int(rest.estimated_size())), taken

    def ahead(self, frame: pl.DataFrame, size: int) -> Rolled | None:
        """Rows of `size` bytes that are not committed yet; None where an entry serves them better.

        So it is where they are less than half a parcel, others wait to be rolled before them, or
        not all of them become parcels.
        """
        outbox, name = self._outbox, self._name
        if size < self._size // 2 or outbox.has_entries(name):
            return None
        number, first = outbox.id, outbox.next_sequence(name)
        encoded = self._sink.encode(self._with_ids(frame, _numbers(first, frame.height)))
        if encoded.refused or encoded.rest is not None:
            return None
        made = encoded.parcels
        return Rolled(name, number, first, frame.height, made, lambda: self._entry(frame, size))

    def keep(self, body: bytes, frame: pl.DataFrame) -> None:
        """Rows that were packed as `body`, and nobody changes: their entry is soon to be rolled.

        Few rows are not worth it: a frame of them takes more memory than what it holds.
        """
        if frame.height >= _PIECE:
            self._recent.keep(body, frame)

    def _entry(self, frame: pl.DataFrame, size: int) -> NewEntry:
        return NewEntry(self._name, frame.height, size, pack(frame))

    def _alike(self, entries: Sequence[Entry]) -> list[pl.DataFrame]:
        """The rows of the first entries, as many as agree on the type of every column.

        Others come from before a change of the definition; as one type they would not be what they
        were, or cannot be one at all.
        """
        frames: list[pl.DataFrame] = []
        kinds: dict[str, pl.DataType] = {}
        for entry in entries:
            kept = self._recent.take(entry.body)
            frame = unpack(entry.body) if kept is None else kept
            given = {name: kind for name, kind in frame.schema.items() if kind != pl.Null}
            if any(kinds.get(name, kind) != kind for name, kind in given.items()):
                break
            kinds |= given
            frames.append(frame)
        return frames

    def _with_ids(self, frame: pl.DataFrame, sequence: pl.Series) -> pl.DataFrame:
        """The id of every row before its values, in the place of its sequence number."""
        prefix = f"{self._path}/{self._outbox.id}-"
        ids = pl.concat_str(pl.lit(prefix), pl.lit(sequence.cast(pl.String))).alias("edge_id")
        return frame.select(ids, pl.exclude(_SEQUENCE))


class Recent:
    """Rows in memory by the bytes they were packed as, for a minute, up to `most` bytes in all.

    Of a flood, unpacking takes a tenth of the processor time of a message. What the bytes say is
    what counts: rows that were dropped, or come from another file, are never mistaken for others.
    Where it is full, newer ones are not taken: the oldest are rolled first.
    """

    def __init__(self, most: int, steady: Callable[[], float] = time.monotonic) -> None:
        self._most = most
        self._steady = steady
        self._frames: dict[bytes, tuple[pl.DataFrame, int, float]] = {}
        self._size = 0
        self._changing = threading.Lock()

    def keep(self, body: bytes, frame: pl.DataFrame) -> None:
        """Rows that nobody changes."""
        now = self._steady()
        texts = sum(kind == pl.String for kind in frame.dtypes)
        size = len(body) + int(frame.estimated_size()) + _VIEW * frame.height * texts
        with self._changing:
            self._drop(body)
            while self._frames and now - next(iter(self._frames.values()))[2] > _LONGEST_KEPT:
                self._drop(next(iter(self._frames)))
            if self._size + size <= self._most:
                self._frames[body] = frame, size, now
                self._size += size

    def take(self, body: bytes) -> pl.DataFrame | None:
        """The rows that were packed as `body`, once; None if they are not here any more."""
        with self._changing:
            return self._drop(body)

    def _drop(self, body: bytes) -> pl.DataFrame | None:
        frame, size, _ = self._frames.pop(body, (None, 0, 0.0))
        self._size -= size
        return frame


def _sequence(entries: Sequence[Entry], frames: Sequence[pl.DataFrame]) -> pl.Series:
    """The sequence number of every row: those of an entry follow one another, or it has them."""
    parts: list[pl.Series] = []
    first, count = 0, 0
    for entry, frame in zip(entries, frames, strict=False):
        if _SEQUENCE in frame.columns:
            parts += [_numbers(first, count), frame[_SEQUENCE]]
            count = 0
        elif count and entry.first == first + count:
            count += frame.height
        else:
            parts.append(_numbers(first, count))
            first, count = entry.first, frame.height
    return pl.concat([*parts, _numbers(first, count)])


def _numbers(first: int, count: int) -> pl.Series:
    return pl.int_range(first, first + count, dtype=pl.Int64, eager=True)


def _without_id(frame: pl.DataFrame) -> pl.DataFrame:
    """A frame left over from a rolling: the sequence out of `edge_id` as a column of its own."""
    tail = pl.col("edge_id").str.split("-").list.last().cast(pl.Int64)
    return frame.select(pl.exclude("edge_id"), tail.alias(_SEQUENCE))
