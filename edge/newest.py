"""The newest row of each key that was read, and where its first number has been."""

from collections.abc import Sequence
from typing import Any, NamedTuple

import polars as pl

from edge.clock import Clock

MOST_KEYS = 5_000
"""Keys that are kept; those heard of last win."""
EVERY = 1.0
"""Seconds between two looks at what has come."""
SPARK = 30
"""Points of a spark line, one a look."""
RECEIVED = "edge_received"

_MOST_ROWS = 20_000  # between two looks; of what is above, some batches are not looked at
_MOST_COLUMNS = 40
_LINE = "edge_spark"
_MOMENTS = "edge_moments"  # when the last points of the line were told
_BEFORE = "_before"


class Newest:
    """Works in columns, once a second, on the batches that came since; memory is bounded.

    key: columns that tell one series from another; none: there is one. time: the event time.
    number: the column whose values make the spark lines.
    """

    def __init__(self, clock: Clock, key: Sequence[str], time: str) -> None:
        self.key = list(key)
        self.time = time
        self.number: str | None = None
        self._clock = clock
        self._frames: list[pl.DataFrame] = []
        self._rows = 0
        self._looked = clock.steady()
        self._kept: pl.DataFrame | None = None
        self._moment = 0  # when what comes now is told

    def add(self, frame: pl.DataFrame) -> None:
        """Rows that came; the columns of the key must be among theirs."""
        if frame.height and self._rows < _MOST_ROWS:
            self._frames.append(frame.tail(_MOST_ROWS))
            self._rows += frame.height
        if self._clock.steady() - self._looked >= EVERY:
            self.look()

    def tell(self, moment: int) -> "Told":
        """What has come until now; moment: a number for it that rises, from 1 on."""
        self.look()
        self._moment = moment + 1
        return Told(self.key, self.time, self.number, self._kept)

    def look(self) -> None:
        """Take in what has come since the last look."""
        self._looked = self._clock.steady()
        frames, self._frames, self._rows = self._frames, [], 0
        if frames:
            self._take(pl.concat(frames, how="diagonal_relaxed"))

    def _take(self, frame: pl.DataFrame) -> None:
        frame = frame.select(frame.columns[:_MOST_COLUMNS])
        if not set(self.key) <= set(frame.columns):
            self.key = []
        self.number = self.number or self._first_number(frame)
        newest = _last(frame, self.key)
        value = (
            pl.col(self.number).cast(pl.Float64).round_sig_figs(5)
            if self.number
            else pl.lit(None, pl.Float64)
        )
        moment = pl.lit(self._moment, pl.Int64)
        newest = newest.with_columns(
            pl.concat_list(value).alias(_LINE), pl.concat_list(moment).alias(_MOMENTS)
        )
        if self._kept is not None:
            newest = self._with_line(newest, self._kept)
            newest = _last(pl.concat([self._kept, newest], how="diagonal_relaxed"), self.key)
        self._kept = newest.tail(MOST_KEYS)

    def _first_number(self, frame: pl.DataFrame) -> str | None:
        apart = {*self.key, self.time, RECEIVED}
        numbers = (n for n, kind in frame.schema.items() if kind.is_numeric() and n not in apart)
        return next(numbers, None)

    def _with_line(self, newest: pl.DataFrame, kept: pl.DataFrame) -> pl.DataFrame:
        """The line of each key goes on with its new point."""
        # Nobody has been told anything: all points so far go without.
        lists = (_LINE, _MOMENTS) if self._moment else (_LINE,)
        before = kept.select(*self.key, pl.col(lists).name.suffix(_BEFORE))
        if self.key:
            newest = newest.join(
                before, on=self.key, how="left", nulls_equal=True, maintain_order="left"
            )
        else:
            newest = pl.concat([newest, before], how="horizontal")
        for each in lists:
            line = pl.concat_list(pl.col(each + _BEFORE).fill_null([]), each).list.tail(SPARK)
            newest = newest.with_columns(line.alias(each)).drop(each + _BEFORE)
        return newest


class Told(NamedTuple):
    """The newest rows as they were at one moment."""

    key: Sequence[str]
    time: str
    number: str | None
    frame: pl.DataFrame | None

    @property
    def total(self) -> int:
        """Keys that are known."""
        return 0 if self.frame is None else self.frame.height

    def rows(self, since: int | None = None) -> list[dict[str, Any]]:
        """`key`, `time`, `received`, `values`, `spark` of each key, the one heard of last first.

        since: only keys that have come after that moment was told, and of their line only the
        points since then.
        """
        if self.frame is None:
            return []
        told = self.frame if since is None else _after(self.frame, since)
        columns = told.drop(_MOMENTS).reverse().to_dict(as_series=False)
        nothing = [None] * told.height
        lines = columns.pop(_LINE)
        received = columns.pop(RECEIVED, nothing)
        times = received if self.time == RECEIVED else columns.pop(self.time, nothing)
        keys = zip(*(columns.pop(name) for name in self.key), strict=True) if self.key else [()]
        values = zip(*columns.values(), strict=True) if columns else [()] * told.height
        return [
            {
                "key": key,
                "time": time,
                "received": arrived,
                "values": dict(zip(columns, value, strict=True)),
                "spark": line,
            }
            for key, time, arrived, value, line in zip(
                keys, times, received, values, lines, strict=True
            )
        ]


def _after(told: pl.DataFrame, since: int) -> pl.DataFrame:
    """What is new in it: the moments of a line rise, so its last points are the new ones."""
    new = told.filter(pl.col(_MOMENTS).list.last() > since)
    points = pl.col(_MOMENTS).list.eval(pl.element() > since).list.sum()
    return new.with_columns(pl.col(_LINE).list.tail(points))


def _last(frame: pl.DataFrame, key: Sequence[str]) -> pl.DataFrame:
    if not key:
        return frame.tail(1)
    return frame.unique(subset=key, keep="last", maintain_order=True)
