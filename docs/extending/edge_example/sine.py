"""`sine`: a sensor that does not exist."""

from collections.abc import AsyncGenerator
from datetime import UTC, datetime, timedelta
from math import pi, sin

import polars as pl
from pydantic import AwareDatetime, Field, PrivateAttr

from edge import Record, Source
from edge.clock import Clock
from edge.component import PositiveDuration, Stream
from edge.sources import Arrival, Batch

TIME = pl.Datetime("us", "UTC")


class SineSource(Source):
    """Makes a row every so often, whose value goes up and down.

    ```yaml
    sine:
      every: 1s
      period: 5m
    ```

    Columns: `time` (from `start` on), `reading` (counted from 0, also over restarts) and `value`,
    from -1 to 1. A row depends on its number alone: after a crash it comes again as it was.
    """

    every: PositiveDuration = Field(timedelta(seconds=1), description="Time between two rows.")
    period: PositiveDuration = Field(timedelta(minutes=5), description="Time from high to high.")
    start: AwareDatetime = Field(
        datetime(2026, 1, 1, tzinfo=UTC), description="Event time of the first row."
    )
    rows: int | None = Field(None, ge=1, description="How many rows; for ever if left out.")

    _clock: Clock = PrivateAttr()
    _most: int = PrivateAttr()

    @property
    def finite(self) -> bool:
        """`edge run --once` may wait for its end where it has one."""
        return self.rows is not None

    def bind(
        self, record: Record, stream: Stream, identity: str, batch: Batch, clock: Clock
    ) -> pl.Schema | None:
        """The columns are known: the record declares none."""
        self._clock, self._most = clock, batch.rows
        return self._frame(0, 0, 0).schema

    async def arrivals(self, position: bytes | None) -> AsyncGenerator[Arrival | None, None]:
        """What has become due since the last look; None at least once a second otherwise."""
        first = int(position or b"0")
        pause = self.every.total_seconds()
        due = self._clock.steady()
        while self.rows is None or first < self.rows:
            wait = due - self._clock.steady()
            if wait > 0:
                yield None
                await self._clock.sleep(min(wait, 1.0))
                continue
            count = min(1 + int(-wait / pause), self._most)
            count = count if self.rows is None else min(count, self.rows - first)
            frame = self._frame(first, count, self._clock.now())
            first, due = first + count, due + count * pause
            # Committed together with the rows: the next start goes on behind them.
            yield Arrival(frame, position=str(first).encode(), read=count)

    def _frame(self, first: int, count: int, now: int) -> pl.DataFrame:
        numbers = range(first, first + count)
        turn = 2 * pi * (self.every / self.period)
        return pl.DataFrame(
            {
                "time": pl.Series([self.start + n * self.every for n in numbers], dtype=TIME),
                "reading": pl.Series(numbers, dtype=pl.Int64),
                "value": pl.Series([sin(n * turn) for n in numbers], dtype=pl.Float64),
                "edge_received": pl.Series([now] * count, dtype=pl.Int64).cast(TIME),
            }
        )
