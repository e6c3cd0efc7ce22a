"""`join`: gives each row the newest values of another series."""

from collections.abc import Sequence
from datetime import timedelta
from typing import Any, Literal

import polars as pl
from pydantic import Field, PrivateAttr

from edge.component import PositiveDuration, Stream
from edge.errors import DefinitionError
from edge.expression import compile_condition, require, reserve, select
from edge.keyed import Keyed, event_times, key_text
from edge.operators import Operator


class Join(Operator):
    """Adds the values of the newest row of another series to each row, per key.

    ```yaml
    join:
      series: kind = 'ambient'
      by: [line]
      columns: {ambient: temperature}
      tolerance: 5m
    ```

    Rows for which `series` is true are the other series: they are remembered, and go no further
    unless `keep: true`. Every other row gets, as of its own event time, the values of the one with
    the latest event time among those that came before it. If that one is later than the row, or
    more than `tolerance` earlier, or there is none, the values are null, or the row goes with
    `missing: drop`. `by` are the columns that rows and their other series have in common.

    Nulls and NaN: remembered and given as they are. A row without event time gets nulls, and is
    not remembered. A null key is a key.

    Memory: one row of the other series for at most `max_keys` keys. After every 65,536th row the
    excess is forgotten, oldest event time first. About 300 bytes of RAM per key.

    Cost: 0.3 ms per batch, 0.5 us per row.
    """

    removes = "filtered"

    series: str = Field(
        description="SQL condition that is true for the rows of the other series.", min_length=1
    )
    columns: dict[str, str] = Field(
        description="Name of each new column -> column of the other series.", min_length=1
    )
    tolerance: PositiveDuration = Field(
        description="How much earlier in event time the other row may be."
    )
    by: list[str] | None = Field(
        None, description="Columns that both series have in common; the record's key if left out."
    )
    keep: bool = Field(False, description="Whether rows of the other series go on too.")
    missing: Literal["null", "drop"] = Field(
        "null", description="What happens to a row for which there is no other."
    )
    max_keys: int = Field(100_000, ge=1, description="How many keys are remembered.")

    _is_other: pl.Expr = PrivateAttr()
    _memory: Keyed = PrivateAttr()
    _key: pl.Expr = PrivateAttr()
    _time: str = PrivateAttr()
    _columns: pl.Schema = PrivateAttr()
    _folded: int = PrivateAttr(default=0)

    def bind(self, columns: pl.Schema, stream: Stream) -> pl.Schema:
        by = stream.key if self.by is None else self.by
        require([*by, stream.time, *self.columns.values()], columns, "join")
        reserve(self.columns, "join")
        twice = next((name for name in self.columns if name in columns), None)
        if twice is not None:
            raise DefinitionError(f"join: column {twice!r} is there already; choose another name")
        self._is_other = compile_condition(self.series, columns, f"join {self.series!r}")
        taken = {name: columns[source] for name, source in self.columns.items()}
        fields = {f"value_{number}": kind for number, kind in enumerate(taken.values())}
        self._memory = Keyed({**fields, "time": pl.Int64()}, self.max_keys)
        self._key = key_text(by, columns)
        self._time = stream.time
        self._columns = pl.Schema({**columns, **taken})
        return self._columns

    def process(self, frame: pl.DataFrame) -> pl.DataFrame:
        parts = [pl.DataFrame(schema=self._columns)]
        for piece, full in self._memory.pieces(frame):
            parts.append(self._join(piece))
            if full:
                self._memory.sweep()
        return pl.concat(parts)

    def _join(self, frame: pl.DataFrame) -> pl.DataFrame:
        others = select(frame, [self._is_other]).to_series().to_list()
        keys = select(frame, [self._key]).to_series().to_list()
        values = zip(*(frame[name].to_list() for name in self.columns.values()), strict=True)
        rows = zip(others, keys, event_times(frame, self._time), values, strict=True)
        kept, given = self._given(rows)
        new = (
            [
                pl.Series(name, column, self._columns[name])
                for name, column in zip(self.columns, zip(*given, strict=True), strict=True)
            ]
            if given
            else [pl.Series(name, [], self._columns[name]) for name in self.columns]
        )
        return frame[kept].hstack(new)

    def _given(self, rows: Any) -> tuple[list[int], list[tuple[Any, ...]]]:
        """Numbers of the rows that go on, and what each of them is given."""
        entries, put = self._memory.entries, self._memory.put
        tolerance = self.tolerance // timedelta(microseconds=1)
        nothing = (None,) * len(self.columns)
        drop, keep = self.missing == "drop", self.keep
        kept: list[int] = []
        given: list[tuple[Any, ...]] = []
        for index, (is_other, key, now, values) in enumerate(rows):
            entry = entries.get(key)
            if is_other:
                if now is not None and (entry is None or entry[-1] <= now):
                    put(key, (*values, now))
                if keep:
                    kept.append(index)
                    given.append(nothing)
                else:
                    self._folded += 1
                continue
            there = entry is not None and now is not None and 0 <= now - entry[-1] <= tolerance
            if there or not drop:
                kept.append(index)
                given.append(entry[:-1] if there and entry is not None else nothing)
        return kept, given

    def account(self, before: int, after: int) -> dict[str, int]:
        folded, self._folded = self._folded, 0
        return {"folded": folded, self.removes: before - folded - after}

    def shape(self) -> object:
        return [str(self._columns[name]) for name in self.columns]

    def snapshot(self, whole: bool) -> bytes | None:
        return self._memory.snapshot(whole)

    def restore(self, states: Sequence[bytes]) -> None:
        self._folded = 0
        self._memory.restore(states)
