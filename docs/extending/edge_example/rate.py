"""`rate`: how fast a value changes."""

import json
from collections.abc import Sequence

import polars as pl
from pydantic import Field, PrivateAttr

from edge import Operator
from edge.component import Stream
from edge.expression import require
from edge.keyed import key_text


class Rate(Operator):
    """Adds how much a column changed per second since the row before, per key.

    ```yaml
    rate: value
    ```

    Nulls and NaN: where the value or the time of this row or the one before is null, so is the
    rate; NaN gives NaN. A row that is not later than the one before has no rate.

    Memory: value and time of the last row of each key, without end. Cost: 1 us per row.
    """

    short = "column"

    column: str = Field(description="Column whose change is measured.")
    into: str = Field("rate", description="Name of the new column, per second.")

    _time: str = PrivateAttr()
    _key: pl.Expr = PrivateAttr()
    # By key: value and time (microseconds) of the last row.
    _last: dict[str, tuple[float | None, int | None]] = PrivateAttr(default_factory=dict)
    _changed: set[str] = PrivateAttr(default_factory=set)

    def bind(self, columns: pl.Schema, stream: Stream) -> pl.Schema:
        """Says at once what does not fit, and which columns come out."""
        require([self.column, stream.time, *stream.key], columns, "rate")
        self._time, self._key = stream.time, key_text(stream.key, columns)
        return pl.Schema({**columns, self.into: pl.Float64()})

    def process(self, frame: pl.DataFrame) -> pl.DataFrame:
        """Columns -> columns; only what crosses the edge of a batch is looked up by key."""
        seen = frame.select(
            key=self._key,
            value=pl.col(self.column).cast(pl.Float64),
            time=pl.col(self._time).cast(pl.Datetime("us")).to_physical(),
        )
        keys = seen["key"].unique(maintain_order=True)
        before = [self._last.get(key, (None, None)) for key in keys]
        known = pl.DataFrame(
            {"key": keys, "value": [v for v, _ in before], "time": [t for _, t in before]},
            schema=seen.schema,
        )
        both = pl.concat([known, seen]).with_columns(
            (pl.col("value") - pl.col("value").shift().over("key")).alias("by"),
            (pl.col("time") - pl.col("time").shift().over("key")).alias("after"),
        )
        rate = pl.when(pl.col("after") > 0).then(pl.col("by") / pl.col("after") * 1e6)
        added = both.tail(frame.height).select(rate.cast(pl.Float64).alias(self.into))
        last = seen.group_by("key", maintain_order=True).last()
        self._last.update({key: (value, time) for key, value, time in last.iter_rows()})
        self._changed.update(last["key"])
        return frame.with_columns(added)

    def snapshot(self, whole: bool) -> bytes | None:
        """What changed since the last call, or everything; committed with the rows."""
        keys = self._last if whole else self._changed
        body = json.dumps({key: self._last[key] for key in keys}).encode() if keys else None
        self._changed.clear()
        return body

    def restore(self, states: Sequence[bytes]) -> None:
        """One whole, then changes in order; nothing forgets all."""
        self._last, self._changed = {}, set()
        for state in states:
            self._last.update({key: tuple(last) for key, last in json.loads(state).items()})
