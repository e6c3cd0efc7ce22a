"""What an operator remembers per key: bounded, exact, and given to the outbox as changes."""

import io
from collections.abc import Iterable, Iterator, Sequence
from typing import Any

import polars as pl

SWEEP_ROWS = 65_536
_COUNT = 8


def key_text(names: Sequence[str], columns: pl.Schema) -> pl.Expr:
    """One text per row, equal for two rows exactly when they are equal in the columns `names`.

    Null equals null, NaN equals NaN, 0.0 equals -0.0; inside nested columns NaN counts as null.
    0.1 us a row. polars' own hashes are not used: they may differ from one version to the next.
    """
    if not names:
        return pl.repeat("", pl.len())
    return pl.struct(_comparable(name, columns[name]) for name in names).struct.json_encode()


def _comparable(name: str, dtype: pl.DataType) -> pl.Expr:
    if dtype.is_float():  # JSON has no NaN and no infinity
        value = pl.col(name)
        return pl.when(value != 0).then(value).otherwise(value.abs()).cast(pl.String).alias(name)
    if dtype.is_temporal():  # as a number: a third of the time to write
        return pl.col(name).to_physical()
    if dtype == pl.Binary:
        return pl.col(name).bin.encode("hex")
    if dtype.is_nested() or dtype in (pl.String, pl.Boolean) or dtype.is_integer():
        return pl.col(name)
    return pl.col(name).cast(pl.String)


def event_times(frame: pl.DataFrame, time: str) -> list[int | None]:
    """The time column in microseconds since 1970; all None where the frame has none."""
    if time not in frame.columns:
        return [None] * frame.height
    return frame[time].cast(pl.Datetime("us")).to_physical().to_list()


def cut_at_sweeps(frame: pl.DataFrame, seen: int) -> Iterator[tuple[pl.DataFrame, bool]]:
    """Pieces of a frame that comes after `seen` rows; True when a sweep is due after the piece."""
    start = 0
    while start < frame.height:
        room = SWEEP_ROWS - (seen + start) % SWEEP_ROWS
        piece = frame.slice(start, room) if frame.height > room or start else frame
        start += piece.height
        yield piece, piece.height == room


class Keyed:
    """A mapping from key to a tuple of `fields`, of which one is called `time`.

    Holds at most `limit` keys plus those of the rows since the last sweep. A sweep follows every
    65,536th row the operator ever saw, wherever batches begin and end, and forgets the keys of the
    oldest `time` (none counts as oldest; then by key), so that the same rows always forget the
    same keys.
    """

    def __init__(self, fields: dict[str, pl.DataType], limit: int) -> None:
        self.limit = limit
        self.entries: dict[str, tuple[Any, ...]] = {}
        self._rows = 0
        self._told = 0  # rows when the last snapshot was given
        self._changed: dict[str, None] = {}  # in the order of the rows
        self._schema = pl.Schema({"key": pl.String(), **fields, "gone": pl.Boolean()})
        self._time = list(fields).index("time")

    def put(self, key: str, entry: tuple[Any, ...]) -> None:
        self.entries[key] = entry
        self._changed[key] = None

    def forget(self, keys: Iterable[str]) -> None:
        for key in keys:
            del self.entries[key]
            self._changed[key] = None

    def pieces(self, frame: pl.DataFrame) -> Iterator[tuple[pl.DataFrame, bool]]:
        """`frame` cut at the sweeps; True when a sweep is due after the piece."""
        for piece, due in cut_at_sweeps(frame, self._rows):
            self._rows += piece.height
            yield piece, due

    def sweep(self) -> Sequence[tuple[Any, ...]]:
        """Forget down to `limit`; gives what is forgotten, oldest first."""
        excess = max(0, len(self.entries) - self.limit)
        keys = sorted(self.entries, key=self._age)[:excess] if excess else []
        gone = [self.entries[key] for key in keys]
        self.forget(keys)
        return gone

    def _age(self, key: str) -> tuple[bool, int, str]:
        time = self.entries[key][self._time]
        return (time is not None, time or 0, key)

    def snapshot(self, whole: bool) -> bytes | None:
        """The row count (8 bytes), then an Arrow stream of all entries or of the changed ones.

        None if there is nothing new, so that time alone writes nothing.
        """
        if not (whole or self._changed) and self._rows == self._told:
            return None
        self._told = self._rows
        keys = sorted(self.entries) if whole else list(self._changed)
        self._changed.clear()
        count = self._rows.to_bytes(_COUNT, "little")
        return count + self._table(keys) if keys else count

    def _table(self, keys: Sequence[str]) -> bytes:
        gone = (None,) * (len(self._schema) - 2)
        columns = zip(*[self.entries.get(key, gone) for key in keys], strict=True)
        missing = [key not in self.entries for key in keys]
        frame = pl.DataFrame([keys, *map(list, columns), missing], schema=self._schema)
        return frame.write_ipc_stream(None, compression="zstd").getvalue()

    def restore(self, states: Sequence[bytes]) -> None:
        """Take back what `snapshot` gave: one whole, then changes in order."""
        self.entries.clear()
        self._changed.clear()
        self._rows = self._told = 0
        for state in states:
            self._rows = self._told = int.from_bytes(state[:_COUNT], "little")
            if len(state) > _COUNT:
                self._apply(pl.read_ipc_stream(io.BytesIO(state[_COUNT:])))

    def _apply(self, frame: pl.DataFrame) -> None:
        for key, *entry, gone in frame.iter_rows():
            if gone:
                self.entries.pop(key, None)
            else:
                self.entries[key] = tuple(entry)
