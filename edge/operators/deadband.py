"""`deadband`: drops the readings that hardly differ from the last one that passed."""

import re
from collections.abc import Sequence
from datetime import timedelta
from math import inf, isfinite
from typing import Annotated

import polars as pl
from pydantic import BeforeValidator, Field, PrivateAttr

from edge.component import PositiveDuration, Stream
from edge.errors import DefinitionError
from edge.expression import require, type_word
from edge.keyed import Keyed, event_times, key_text
from edge.operators import Operator

_PERCENT = re.compile(r"(\d+(?:\.\d+)?)\s*%")


def _check_change(change: object) -> object:
    if isinstance(change, str) and _PERCENT.fullmatch(change):
        return change
    if isinstance(change, int | float) and not isinstance(change, bool) and 0 <= change < inf:
        return change
    raise ValueError(
        f"must be a number from zero such as 0.2, or a percentage such as '2%', got {change!r}"
    )


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
    of a forgotten key passes. About 250 bytes of RAM and 15 bytes on disk per key.

    Cost: 0.1 ms per batch and 0.25 us per row; 0.25 us more for a row that passes. It is a plain
    loop; over columns it took as long in large batches and four times as long in small ones.
    """

    removes = "unchanged"

    column: str = Field(description="The number that is watched.")
    change: Annotated[float | str, BeforeValidator(_check_change)] = Field(
        description="What counts as a change: a number, or a percentage of the last value ('2%')."
    )
    heartbeat: PositiveDuration | None = Field(
        None, description="A row passes after this much event time even if nothing changed."
    )
    by: list[str] | None = Field(
        None, description="Columns that tell one series from another; the record's key if left out."
    )
    max_keys: int = Field(100_000, ge=1, description="How many series are remembered.")

    _watch: "_Watch" = PrivateAttr()
    _key: pl.Expr = PrivateAttr()
    _time: str = PrivateAttr()

    def bind(self, columns: pl.Schema, stream: Stream) -> pl.Schema:
        by = stream.key if self.by is None else self.by
        timed = [] if self.heartbeat is None else [stream.time]
        require([self.column, *by, *timed], columns, "deadband")
        if not columns[self.column].is_numeric():
            raise DefinitionError(
                f"deadband: column {self.column!r} must be a number, got "
                f"{type_word(columns[self.column])}; for text, use dedupe with count: 1"
            )
        percent = _PERCENT.fullmatch(self.change) if isinstance(self.change, str) else None
        self._watch = _Watch(
            absolute=0.0 if percent else float(self.change),
            relative=float(percent[1]) / 100 if percent else 0.0,
            beat=None if self.heartbeat is None else self.heartbeat // timedelta(microseconds=1),
            memory=Keyed({"value": pl.Float64(), "time": pl.Int64()}, self.max_keys),
        )
        self._key = key_text(by, columns)
        self._time = stream.time
        return columns

    def process(self, frame: pl.DataFrame) -> pl.DataFrame:
        parts = [frame.clear()]
        for piece, full in self._watch.memory.pieces(frame):
            if kept := self._passing(piece):
                parts.append(piece[kept])
            if full:
                self._watch.memory.sweep()
        return pl.concat(parts)

    def _passing(self, frame: pl.DataFrame) -> list[int]:
        keys = frame.select(self._key).to_series().to_list()
        values = frame[self.column].cast(pl.Float64).to_list()
        return self._watch.passing(keys, values, event_times(frame, self._time))

    def snapshot(self, whole: bool) -> bytes | None:
        return self._watch.memory.snapshot(whole)

    def restore(self, states: Sequence[bytes]) -> None:
        self._watch.memory.restore(states)


class _Watch:
    """Value and time of the last passed row per key, and whether another one passes.

    A class of its own because attributes of a pydantic model cost ten times as much in a loop.
    """

    def __init__(self, absolute: float, relative: float, beat: int | None, memory: Keyed) -> None:
        """beat: microseconds. The band is `absolute`, or `relative` times the last value."""
        self.absolute = absolute
        self.relative = relative
        self.beat = beat
        self.memory = memory

    def passing(
        self,
        keys: Sequence[str],
        values: Sequence[float | None],
        times: Sequence[int | None],
    ) -> list[int]:
        """Indices of the rows that pass, in order; remembers them."""
        absolute, relative, beat = self.absolute, self.relative, self.beat
        entries = self.memory.entries
        passed = []
        for index, key in enumerate(keys):
            entry = entries.get(key)
            value, now = values[index], times[index]
            if entry is not None:
                last, seen = entry
                if value is not None and last is not None:  # the usual case first, and no call
                    band = abs(last) * relative if relative else absolute
                    moved = not abs(value - last) <= band < inf and self._moves(value, last)
                else:
                    moved = value is not last
                if not moved and (beat is None or not self._due(now, seen)):
                    continue
                now = seen if now is None else now
            passed.append(index)
            self.memory.put(key, (value, now))
        return passed

    def _moves(self, x: float, last: float) -> bool:
        if isfinite(x) and isfinite(last):
            return abs(x - last) > (abs(last) * self.relative if self.relative else self.absolute)
        return x != last and (x == x or last == last)

    def _due(self, now: int | None, seen: int | None) -> bool:
        if now is None or self.beat is None:
            return False
        return seen is None or now - seen >= self.beat
