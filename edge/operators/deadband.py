"""`deadband`: drops the readings that hardly differ from the last one that passed."""

import re
from collections.abc import Sequence
from math import isfinite
from typing import Annotated

import polars as pl
from pydantic import AfterValidator, Field, PrivateAttr

from edge.component import PositiveDuration, Stream
from edge.errors import DefinitionError
from edge.expression import require
from edge.keyed import Keyed, event_times, key_text
from edge.operators import Operator

_PERCENT = re.compile(r"(\d+(?:\.\d+)?)\s*%")
_NEW = (None, None)


def _check_change(change: float | str) -> float | str:
    if isinstance(change, str) and not _PERCENT.fullmatch(change):
        raise ValueError(
            f"must be a number such as 0.2 or a percentage such as '2%', got {change!r}"
        )
    if not isinstance(change, str) and not (isfinite(change) and change >= 0):
        raise ValueError(f"must be zero or more, got {change!r}")
    return change


class Deadband(Operator):
    """Passes a row only when its value moved away from the last one that passed, per key.

    ```yaml
    deadband:
      column: temperature
      change: 0.2
      heartbeat: 5m
    ```

    A row passes when `|value - last passed| > change` (64-bit floats, no tolerance added), or when
    `heartbeat` of event time went by since the last passed row. The first row of a key passes. With
    `change: 2%` the band is 2 % of the last passed value; around zero it is nothing, and every
    change passes. `change: 0` passes every change.

    Nulls and NaN: going from a number to null, NaN or infinity passes, and so does coming back;
    staying there does not. A row without event time passes by its value only.

    Memory: value and time of the last passed row for at most `max_keys` keys. After every 65,536th
    row the excess is forgotten, those first that passed longest ago in event time; the next row
    of a forgotten key passes. About 250 bytes of RAM and 30 bytes on disk per key.

    Cost: 0.3 ms per batch and 0.4 us per row; 0.7 us more for the rows of keys that moved.
    """

    removes = "unchanged"

    column: str = Field(description="The number that is watched.")
    change: Annotated[float | str, AfterValidator(_check_change)] = Field(
        description="What counts as a change: a number, or a percentage of the last value ('2%')."
    )
    heartbeat: PositiveDuration | None = Field(
        None, description="A row passes after this much event time even if nothing changed."
    )
    by: list[str] | None = Field(
        None, description="Columns that tell one series from another; the record's key if left out."
    )
    max_keys: int = Field(100_000, ge=1, description="How many series are remembered.")

    _memory: Keyed = PrivateAttr()
    _key: pl.Expr = PrivateAttr()
    _time: str = PrivateAttr()
    _absolute: float = PrivateAttr()
    _relative: float = PrivateAttr()
    _beat: int | None = PrivateAttr()

    def bind(self, columns: pl.Schema, stream: Stream) -> pl.Schema:
        by = stream.key if self.by is None else self.by
        timed = [] if self.heartbeat is None else [stream.time]
        require([self.column, *by, *timed], columns, "deadband")
        if not columns[self.column].is_numeric():
            raise DefinitionError(
                f"deadband: column {self.column!r} must be a number, got {columns[self.column]}; "
                "for text, use dedupe with count: 1"
            )
        self._memory = Keyed({"value": pl.Float64(), "time": pl.Int64()}, self.max_keys)
        self._key = key_text(by, columns)
        self._time = stream.time
        percent = _PERCENT.fullmatch(self.change) if isinstance(self.change, str) else None
        self._relative = float(percent[1]) / 100 if percent else 0.0
        self._absolute = 0.0 if percent else float(self.change)
        beat = self.heartbeat
        self._beat = None if beat is None else round(beat.total_seconds() * 1_000_000)
        return columns

    def process(self, frame: pl.DataFrame) -> pl.DataFrame:
        parts = [frame.clear()]
        for piece, full in self._memory.pieces(frame):
            if kept := self._passing(piece):
                parts.append(piece[kept])
            if full:
                self._memory.sweep()
        return pl.concat(parts)

    def _passing(self, frame: pl.DataFrame) -> list[int]:
        """Indices of the rows that pass, in order; remembers them."""
        keys = frame.select(self._key).to_series().to_list()
        values = frame[self.column].cast(pl.Float64)
        times = event_times(frame, self._time)
        stirred = self._stirred(keys, values, times)
        if not stirred:
            return []
        hot = {keys[index] for index in stirred}
        # what a hot key brings before its first stirred row does not pass, so nothing is missed
        rows = [index for index in range(stirred[0], len(keys)) if keys[index] in hot]
        return self._follow(rows, keys, values.to_list(), times)

    def _stirred(
        self, keys: Sequence[str], values: pl.Series, times: Sequence[int | None]
    ) -> list[int]:
        """Rows that would pass if nothing before them in this batch did."""
        entries = self._memory.entries
        remembered = [entries.get(key, _NEW) for key in keys]
        state = pl.DataFrame(
            {
                "x": values,
                "last": pl.Series([entry[0] for entry in remembered], dtype=pl.Float64),
                "new": pl.Series([entry is _NEW for entry in remembered], dtype=pl.Boolean),
            }
        )
        stirs = pl.col("new") | self._moved()
        if self._beat is not None:
            state = state.with_columns(
                pl.Series("t", times, dtype=pl.Int64),
                pl.Series("seen", [entry[1] for entry in remembered], dtype=pl.Int64),
            )
            elapsed = pl.col("t") - pl.col("seen") >= self._beat
            first = pl.col("t").is_not_null() & pl.col("seen").is_null()
            stirs = stirs | elapsed.fill_null(first)
        return state.select(stirs).to_series().arg_true().to_list()

    def _moved(self) -> pl.Expr:
        """`_moves` over columns; polars takes NaN for equal to NaN."""
        x, last = pl.col("x"), pl.col("last")
        band = last.abs() * self._relative if self._relative else pl.lit(self._absolute)
        finite = x.is_finite() & last.is_finite()
        return pl.when(finite).then((x - last).abs() > band).otherwise(x.ne_missing(last))

    def _moves(self, x: float | None, last: float | None) -> bool:
        if x is None or last is None:
            return x is not last
        if isfinite(x) and isfinite(last):
            band = abs(last) * self._relative if self._relative else self._absolute
            return abs(x - last) > band
        return x != last and (x == x or last == last)

    def _due(self, now: int | None, seen: int | None) -> bool:
        if self._beat is None or now is None:
            return False
        return seen is None or now - seen >= self._beat

    def _follow(
        self,
        rows: Sequence[int],
        keys: Sequence[str],
        values: Sequence[float | None],
        times: Sequence[int | None],
    ) -> list[int]:
        kept = []
        for index in rows:
            key, value, now = keys[index], values[index], times[index]
            entry = self._memory.entries.get(key, _NEW)
            if entry is _NEW or self._moves(value, entry[0]) or self._due(now, entry[1]):
                kept.append(index)
                self._memory.put(key, (value, entry[1] if now is None else now))
        return kept

    def snapshot(self, whole: bool) -> bytes | None:
        return self._memory.snapshot(whole)

    def restore(self, states: Sequence[bytes]) -> None:
        self._memory.restore(states)
