"""Rows of the past handed over as they came about, only faster."""

from collections.abc import AsyncGenerator

import polars as pl
from pydantic import BaseModel, ConfigDict, Field

from edge.clock import Clock
from edge.component import PositiveDuration
from edge.dataset.steps import BEAT

_TICK = 0.05  # seconds between two batches at least


class Replay(BaseModel):
    """The pace of a replay."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    speed: float = Field(
        1.0, gt=0, allow_inf_nan=False, description="How many times as fast as the rows came about."
    )
    max_gap: PositiveDuration | None = Field(
        None, description="A longer gap of event time between two rows counts as so much."
    )


class Pace:
    """Tells when rows are due: as long after the first one as their event time says, over speed.

    A row earlier than one before it is due with that one.
    """

    def __init__(self, options: Replay, time: str, clock: Clock) -> None:
        self._options, self._time, self._clock = options, time, clock
        self._start: float | None = None
        self._newest: int | None = None  # event time, microseconds
        self._due = 0.0  # of the newest row, seconds after the first

    async def parts(self, frame: pl.DataFrame) -> AsyncGenerator[tuple[int, int] | None, None]:
        """Slices of `frame`, (first row, rows), each when it is due; None now and then until it is.

        A caller that is late gets what has become due in the meantime at once.
        """
        due = self._due_times(frame[self._time])
        start = self._start = self._clock.steady() if self._start is None else self._start
        given = 0
        while given < frame.height:
            passed = self._clock.steady() - start
            ready = int(due.search_sorted(passed, side="right"))
            if ready > given:
                yield given, ready - given
                given = ready
            else:
                wait = float(due[given]) - passed
                await self._clock.sleep(min(max(wait, _TICK), BEAT))
                yield None

    def _due_times(self, time: pl.Series) -> pl.Series:
        """Seconds after the first row of all, never falling."""
        times = time.to_physical().cum_max()
        before = int(times[0]) if self._newest is None else self._newest
        times = times.clip(before)
        gaps = times.diff().fill_null(times[0] - before)
        if self._options.max_gap is not None:
            gaps = gaps.clip(upper_bound=round(self._options.max_gap.total_seconds() * 1e6))
        due = self._due + gaps.cum_sum() / (1e6 * self._options.speed)
        self._newest, self._due = int(times[-1]), float(due[-1])
        return due
