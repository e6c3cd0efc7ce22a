"""`sample`: passes one row of many."""

from collections.abc import Iterator, Sequence
from datetime import timedelta

import polars as pl
from pydantic import Field, PrivateAttr, model_validator

from edge.component import PositiveDuration, Stream
from edge.expression import require
from edge.keyed import Keyed, event_times, key_text
from edge.operators import Operator

_REACH = 64
"""Intervals of a key, the newest among them, of which is known whether a row passed."""
_ALL = (1 << 63) - 1


class Sample(Operator):
    """Passes one row per key and interval of event time, or one of so many rows per key.

    ```yaml
    sample: 10s
    ```

    With `every` the first row of each interval passes, as rows come; intervals begin at multiples
    of it since 1970. A row that is late passes too if its interval had none yet. Beyond 63
    intervals nobody knows any more: a row that lies so far behind the newest of its key passes, and
    counting starts anew from it, so that a clock that was set back or was once far ahead silences
    nothing. With `rows: 10` the first of each ten rows passes. For the last, the mean or the
    highest of an interval use `window`.

    Nulls and NaN: values are not looked at. With `every`, a row without event time passes.

    Memory: the newest interval of at most `max_keys` keys. After every 65,536th row the excess is
    forgotten, oldest event time first; the next row of a forgotten key passes. About 300 bytes of
    RAM and 12 bytes on disk per key.

    Cost: 0.1 ms per batch and 0.3 us per row.
    """

    removes = "sampled"
    short = "every"

    every: PositiveDuration | None = Field(
        None, description="One row per so much event time and key passes."
    )
    rows: int | None = Field(None, ge=1, description="One of so many rows of a key passes.")
    by: list[str] | None = Field(
        None, description="Columns that tell one series from another; the record's key if left out."
    )
    max_keys: int = Field(100_000, ge=1, description="How many series are remembered.")

    _memory: Keyed = PrivateAttr()
    _key: pl.Expr = PrivateAttr()
    _time: str = PrivateAttr()

    @model_validator(mode="after")
    def _has_one_measure(self) -> "Sample":
        if (self.every is None) == (self.rows is None):
            raise ValueError("must have exactly one of every (such as 10s) and rows (such as 10)")
        return self

    def bind(self, columns: pl.Schema, stream: Stream) -> pl.Schema:
        by = stream.key if self.by is None else self.by
        timed = [] if self.every is None else [stream.time]
        require([*by, *timed], columns, "sample")
        # count: the newest interval, or the rows since one passed. seen: the intervals before it.
        self._memory = Keyed(
            {"count": pl.Int64(), "seen": pl.Int64(), "time": pl.Int64()}, self.max_keys
        )
        self._key = key_text(by, columns)
        self._time = stream.time
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
        keys = frame.select(self._key).to_series().to_list()
        times = event_times(frame, self._time)
        if self.every is None:
            return list(_first_of_many(self._memory, self.rows or 1, keys, times))
        return list(
            _first_of_interval(self._memory, self.every // timedelta(microseconds=1), keys, times)
        )

    def snapshot(self, whole: bool) -> bytes | None:
        return self._memory.snapshot(whole)

    def restore(self, states: Sequence[bytes]) -> None:
        self._memory.restore(states)


def _first_of_interval(
    memory: Keyed, every: int, keys: Sequence[str], times: Sequence[int | None]
) -> Iterator[int]:
    """Indices of the rows that pass. every: microseconds."""
    entries = memory.entries
    for index, key in enumerate(keys):
        now = times[index]
        if now is None:
            yield index
            continue
        interval = now // every
        entry = entries.get(key)
        if entry is None:
            memory.put(key, (interval, 0, now))
            yield index
            continue
        newest, seen, _ = entry
        if interval == newest:  # the usual case first
            continue
        ahead = interval - newest
        if ahead > 0:
            seen = (seen << 1 | 1) << ahead - 1 & _ALL if ahead < _REACH else 0
            memory.put(key, (interval, seen, now))
        elif -ahead < _REACH:
            bit = 1 << -ahead - 1
            if seen & bit:
                continue
            memory.put(key, (newest, seen | bit, entry[2]))
        else:
            memory.put(key, (interval, 0, now))
        yield index


def _first_of_many(
    memory: Keyed, many: int, keys: Sequence[str], times: Sequence[int | None]
) -> Iterator[int]:
    """Indices of the rows that pass."""
    entries = memory.entries
    for index, key in enumerate(keys):
        entry = entries.get(key)
        count, time = (0, None) if entry is None else (entry[0], entry[2])
        if not count:
            yield index
        now = times[index]
        latest = now if time is None or (now is not None and now > time) else time
        memory.put(key, ((count + 1) % many, 0, latest))
