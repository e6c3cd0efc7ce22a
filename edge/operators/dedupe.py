"""`dedupe`: drops rows that came already."""

import logging
from collections.abc import Sequence
from datetime import timedelta

import polars as pl
from pydantic import Field, PrivateAttr, model_validator

from edge.component import PositiveDuration, Stream
from edge.expression import require
from edge.keyed import Keyed, event_times, key_text
from edge.operators import Operator

log = logging.getLogger("edge.operators.dedupe")


class Dedupe(Operator):
    """Drops a row that equals one kept shortly before, per key.

    ```yaml
    dedupe:
      columns: [device, sequence]
      within: 10m
    ```

    Rows are equal when they are so in `columns` (all of them if left out, except those that start
    with `edge_`) and belong to the same series (`by`). Exactly one of two options says how far
    back a row is compared:

    - `within`: a row goes if the newest equal row that was kept is less than this far away in event
      time, before or after it. Rows that lie `within` or more before the newest kept row of their
      series are forgotten.
    - `count`: a row goes if an equal one is among the last `count` rows kept of its series;
      `count: 1` keeps only what differs from the row before.

    Nulls and NaN: null equals null, NaN equals NaN. With `within`, a row
    without event time is kept.

    Memory: at most `max_rows` kept rows of all series. After every 65,536th row the excess is
    forgotten, oldest event time first, with a warning in the log; what is forgotten cannot be
    recognised. About 300 bytes of RAM and 12 bytes on disk per row, more for long texts.

    Cost: 0.1 ms per batch, 0.4 us per row and 2.5 us more per row kept, most of it to remember it.
    """

    removes = "duplicate"

    columns: list[str] | None = Field(
        None, description="Columns that make two rows equal; all if left out.", min_length=1
    )
    within: PositiveDuration | None = Field(
        None, description="How far apart in event time two equal rows may be to count as one."
    )
    count: int | None = Field(
        None, ge=1, description="Among how many of the last kept rows an equal one is looked for."
    )
    by: list[str] | None = Field(
        None, description="Columns that tell one series from another; the record's key if left out."
    )
    max_rows: int = Field(100_000, ge=1, description="How many kept rows are remembered.")

    _kept: "_Kept" = PrivateAttr()
    _row: pl.Expr = PrivateAttr()
    _series: pl.Expr = PrivateAttr()
    _time: str = PrivateAttr()

    @model_validator(mode="after")
    def _has_one_reach(self) -> "Dedupe":
        if (self.within is None) == (self.count is None):
            raise ValueError("must have exactly one of within (such as 10m) and count (such as 1)")
        return self

    def bind(self, columns: pl.Schema, stream: Stream) -> pl.Schema:
        names = self.columns or [name for name in columns if not name.startswith("edge_")]
        by = list(stream.key if self.by is None else self.by)
        timed = [] if self.within is None else [stream.time]
        require([*names, *by, *timed], columns, "dedupe")
        within = None if self.within is None else self.within // timedelta(microseconds=1)
        self._kept = _Kept(within, self.count, self.max_rows)
        self._row = key_text(list(dict.fromkeys([*by, *names])), columns)
        self._series = key_text(by, columns)
        self._time = stream.time
        return columns

    def process(self, frame: pl.DataFrame) -> pl.DataFrame:
        parts = [frame.clear()]
        for piece, full in self._kept.memory.pieces(frame):
            if fresh := self._fresh(piece):
                parts.append(piece[fresh])
            if full:
                self._kept.sweep()
        return pl.concat(parts)

    def _fresh(self, frame: pl.DataFrame) -> list[int]:
        rows = frame.select(self._row).to_series().to_list()
        series = frame.select(self._series).to_series().to_list()
        return self._kept.fresh(rows, series, event_times(frame, self._time))

    def snapshot(self, whole: bool) -> bytes | None:
        return self._kept.memory.snapshot(whole)

    def restore(self, states: Sequence[bytes]) -> None:
        self._kept.memory.restore(states)
        self._kept.find_latest()


class _Kept:
    """Rows that were kept, each with its stamp, and whether another one is fresh.

    A stamp is the event time in microseconds, or counts the rows kept of a series. What lies `span`
    or more behind the latest stamp of its series is as good as forgotten. A class of its own
    because attributes of a pydantic model cost ten times as much in a loop.
    """

    def __init__(self, within: int | None, count: int | None, limit: int) -> None:
        self.count = count
        self.span = count or within or 0
        fields = {"series": pl.String(), "stamp": pl.Int64(), "time": pl.Int64()}
        self.memory = Keyed(fields, limit)
        self.latest: dict[str, int] = {}

    def fresh(
        self, rows: Sequence[str], series: Sequence[str], times: Sequence[int | None]
    ) -> list[int]:
        """Indices of the rows that are kept, in order; remembers them."""
        is_fresh = self._fresh_by_count if self.count else self._fresh_by_time
        return [
            index for index, row in enumerate(rows) if is_fresh(row, series[index], times[index])
        ]

    def _fresh_by_time(self, row: str, series: str, now: int | None) -> bool:
        if now is None:
            return True
        latest = self.latest.get(series, now)
        if now > latest:
            latest = now
        entry = self.memory.entries.get(row)
        stamp = now
        if entry is not None:
            stamp = entry[1]
            if latest - stamp < self.span and stamp - now < self.span:
                return False
            stamp = max(now, stamp)
        self.memory.put(row, (series, stamp, stamp))
        self.latest[series] = latest
        return True

    def _fresh_by_count(self, row: str, series: str, now: int | None) -> bool:
        kept = self.latest.get(series, 0)
        entry = self.memory.entries.get(row)
        if entry is not None and kept - entry[1] < self.span:
            return False
        self.memory.put(row, (series, kept + 1, now))
        self.latest[series] = kept + 1
        return True

    def sweep(self) -> None:
        """Forget what is out of reach, then down to the limit."""
        entries, latest = self.memory.entries, self.latest
        self.memory.forget(
            [row for row, entry in entries.items() if latest[entry[0]] - entry[1] >= self.span]
        )
        excess = len(entries) - self.memory.limit
        if excess > 0:
            log.warning("dedupe forgets %d rows beyond max_rows %d", excess, self.memory.limit)
        self.memory.sweep()
        self.find_latest()

    def find_latest(self) -> None:
        """The latest stamps, from the rows remembered; at work they are kept up to date."""
        self.latest.clear()
        for series, stamp, _ in self.memory.entries.values():
            self.latest[series] = max(stamp, self.latest.get(series, stamp))
