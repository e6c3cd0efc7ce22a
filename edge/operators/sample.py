"""`sample`: lets one row per key and stretch of event time through."""

from collections.abc import Sequence
from datetime import timedelta

import polars as pl
from pydantic import Field, PrivateAttr

from edge.component import PositiveDuration, Stream
from edge.expression import require
from edge.keyed import Keyed, event_times, key_text
from edge.operators import Operator


class Sample(Operator):
    """Passes the first row of each key in every stretch of event time.

    ```yaml
    sample:
      every: 10s
    ```

    Stretches begin at multiples of `every` since 1970. A row of an earlier stretch than the last
    one that passed of its key goes, as does a row without event time.

    Nulls and NaN: only the event time and the key are looked at; a null key is a key.

    Memory: time of the last passed row for at most `max_keys` keys. After every 65,536th row the
    excess is forgotten, oldest first; the next row of a forgotten key passes. About 200 bytes of
    RAM and 12 bytes on disk per key.

    Cost: 0.1 ms per batch, 0.2 us per row.
    """

    removes = "sampled"
    short = "every"

    every: PositiveDuration = Field(description="Of how much event time one row per key passes.")
    by: list[str] | None = Field(
        None, description="Columns that tell one series from another; the record's key if left out."
    )
    max_keys: int = Field(100_000, ge=1, description="How many series are remembered.")

    _memory: Keyed = PrivateAttr()
    _key: pl.Expr = PrivateAttr()
    _time: str = PrivateAttr()

    def bind(self, columns: pl.Schema, stream: Stream) -> pl.Schema:
        by = stream.key if self.by is None else self.by
        require([*by, stream.time], columns, "sample")
        self._memory = Keyed({"time": pl.Int64()}, self.max_keys)
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
        """Indices of the rows that pass, in order; remembers them."""
        keys = frame.select(self._key).to_series().to_list()
        every = self.every // timedelta(microseconds=1)
        entries, put = self._memory.entries, self._memory.put
        passed = []
        for index, now in enumerate(event_times(frame, self._time)):
            if now is None:
                continue
            last = entries.get(keys[index])
            if last is None or now // every > last[0] // every:
                passed.append(index)
                put(keys[index], (now,))
        return passed

    def snapshot(self, whole: bool) -> bytes | None:
        return self._memory.snapshot(whole)

    def restore(self, states: Sequence[bytes]) -> None:
        self._memory.restore(states)
