"""Rows -> the parcels of one sink: those of entries, and a batch that is not committed yet."""

from collections.abc import Sequence

import polars as pl

from edge.codec import pack, unpack
from edge.outbox import Outbox
from edge.outbox.model import Entry, NewEntry, Rolled
from edge.sinks import Encoded, Sink


class Roller:
    """Gives every row its id and lets the sink make parcels of them. Works in worker threads."""

    def __init__(self, name: str, sink: Sink, outbox: Outbox, path: str, size: int) -> None:
        """path: `<site>/<pipeline>/<sink>`, the part of every row's id before the outbox's.

        size: of rows that make a parcel, bytes.
        """
        self._name, self._sink, self._outbox = name, sink, outbox
        self._path, self._size = path, size

    def encode(
        self, entries: Sequence[Entry], part: int = 1
    ) -> tuple[Encoded, NewEntry | None, int]:
        """The first entries as parcels, what is left over of them, and how many they are.

        part: of an entry alone only so large a part of its rows becomes parcels, as 1 / part.
        """
        frames = _alike(entries)
        ids = self._with_ids(pl.concat(frames, how="diagonal_relaxed"))
        count = max(1, ids.height // part) if len(frames) == 1 else ids.height
        encoded = self._sink.encode(ids.head(count))
        if encoded.rest is None and count == ids.height:
            return encoded, None, len(frames)
        over = [] if encoded.rest is None else [encoded.rest]
        rest = _without_id(pl.concat([*over, ids.slice(count)]))
        return encoded, self._entry(rest, int(rest.estimated_size())), len(frames)

    def ahead(self, frame: pl.DataFrame, size: int) -> Rolled | None:
        """Rows of `size` bytes that are not committed yet; None where an entry serves them better.

        So it is where they are less than half a parcel, others wait to be rolled before them, or
        not all of them become parcels.
        """
        outbox, name = self._outbox, self._name
        if size < self._size // 2 or outbox.has_entries(name):
            return None
        number, first = outbox.id, outbox.next_sequence(name)
        encoded = self._sink.encode(self._with_ids(_numbered(frame, first)))
        if encoded.refused or encoded.rest is not None:
            return None
        made = encoded.parcels
        return Rolled(name, number, first, frame.height, made, lambda: self._entry(frame, size))

    def _entry(self, frame: pl.DataFrame, size: int) -> NewEntry:
        return NewEntry(self._name, frame.height, size, pack(frame))

    def _with_ids(self, frame: pl.DataFrame) -> pl.DataFrame:
        """The id of every row in the place of its sequence number."""
        prefix = f"{self._path}/{self._outbox.id}-"
        sequence = pl.col("edge_sequence").cast(pl.String)
        return frame.select(
            pl.concat_str(pl.lit(prefix), sequence).alias("edge_id"), pl.exclude("edge_sequence")
        )


def _alike(entries: Sequence[Entry]) -> list[pl.DataFrame]:
    """The rows of the first entries, as many as agree on the type of every column.

    Others come from before a change of the definition; as one type they would not be what they
    were, or cannot be one at all.
    """
    frames: list[pl.DataFrame] = []
    kinds: dict[str, pl.DataType] = {}
    for entry in entries:
        frame = _with_sequence(entry)
        given = {name: kind for name, kind in frame.schema.items() if kind != pl.Null}
        if any(kinds.get(name, kind) != kind for name, kind in given.items()):
            break
        kinds |= given
        frames.append(frame)
    return frames


def _with_sequence(entry: Entry) -> pl.DataFrame:
    frame = unpack(entry.body)
    return frame if "edge_sequence" in frame.columns else _numbered(frame, entry.first)


def _numbered(frame: pl.DataFrame, first: int) -> pl.DataFrame:
    sequence = pl.int_range(first, first + frame.height, dtype=pl.Int64, eager=True)
    return frame.with_columns(sequence.alias("edge_sequence"))


def _without_id(frame: pl.DataFrame) -> pl.DataFrame:
    """A frame left over from a rolling: the sequence out of `edge_id` as a column of its own."""
    tail = pl.col("edge_id").str.split("-").list.last().cast(pl.Int64)
    return frame.select(pl.exclude("edge_id"), tail.alias("edge_sequence"))
