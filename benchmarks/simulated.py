"""A plant whose link is cut, in simulated time: real operators and a real outbox, no waiting."""

import asyncio
import base64
import os
import sys
from collections.abc import AsyncGenerator
from pathlib import Path
from typing import ClassVar

import polars as pl
from pydantic import PrivateAttr

from benchmarks.readings import DEVICES, OFFLINE_RATE, START
from edge.clock import Clock
from edge.codec import Record
from edge.component import Stream
from edge.pipeline import load
from edge.runner import Runner
from edge.sources import Arrival, Batch, Source

_MADE_AT_ONCE = 10_000
"""Readings made up together, which costs half as much as a second's alone."""


class SimulatedClock(Clock):
    """Time goes by only when it is told to, or when somebody sleeps."""

    def __init__(self) -> None:
        self._elapsed = 0.0

    def now(self) -> int:
        return START * 1000 + round(self._elapsed * 1e6)

    def steady(self) -> float:
        return self._elapsed

    async def sleep(self, seconds: float) -> None:
        self.advance(seconds)
        await asyncio.sleep(0)

    def advance(self, seconds: float) -> None:
        """So much time goes by."""
        self._elapsed += seconds


def readings(first: int, count: int) -> pl.DataFrame:
    """What `readings.payloads` makes, as columns: the rows that an MQTT source hands over."""
    n = pl.int_range(first, first + count, eager=True)
    device = n % DEVICES
    time = (n * (1_000_000 // OFFLINE_RATE) + START * 1000).cast(pl.Datetime("us", "UTC"))
    status = pl.when(n % 100 != 0).then(pl.lit("ok")).otherwise(pl.lit("no"))
    press = pl.concat_str(pl.lit("press-"), device.cast(pl.String).str.zfill(3))
    return pl.select(
        ts=time,
        seq=n + 1_000_000,
        status=status,
        temperature=(device / 10 + 55 + _wobble(n, 1, 5)).round(2),
        humidity=(_wobble(n, 2, 3) + 45).round(1),
        pressure=(_wobble(n, 3, 0.002) + 1.0132).round(4),
        load=(_wobble(n, 4, 0.1) + 0.5).round(3),
        line=pl.concat_str(pl.lit("l"), (device // 20).cast(pl.String)),
        device=press,
        edge_received=time,
    )


def _wobble(n: pl.Series, seed: int, most: float) -> pl.Series:
    """As `readings._wobble`: the sum of three numbers that look drawn at random."""
    drawn = [n.hash(3 * seed + part) % 2**24 / 2**24 for part in range(3)]
    return (drawn[0] + drawn[1] + drawn[2] - 1.5) / 1.5 * most


class Plant(Source):
    """Gives the readings of one second after another, and moves the clock on while it does.

    pad: bytes of noise in each reading, which no compression makes smaller than three quarters.
    """

    finite: ClassVar[bool] = True

    count: int
    pad: int
    _clock: SimulatedClock = PrivateAttr()

    def bind(
        self, record: Record, stream: Stream, identity: str, batch: Batch, clock: Clock
    ) -> pl.Schema | None:
        """The columns of the readings."""
        assert isinstance(clock, SimulatedClock)
        self._clock = clock
        return self._frame(0, 0).schema

    async def arrivals(self, position: bytes | None) -> AsyncGenerator[Arrival | None, None]:
        """Batches of what comes within a second."""
        for first in range(0, self.count, _MADE_AT_ONCE):
            made = self._frame(first, min(_MADE_AT_ONCE, self.count - first))
            for frame in made.iter_slices(OFFLINE_RATE):
                self._clock.advance(frame.height / OFFLINE_RATE)
                yield Arrival(frame, read=frame.height)

    def _frame(self, first: int, count: int) -> pl.DataFrame:
        frame = readings(first, count)
        if not self.pad:
            return frame
        noise = base64.b64encode(os.urandom(self.pad * count)).decode()
        size = len(noise) // max(count, 1)
        texts = [noise[place * size : (place + 1) * size] for place in range(count)]
        return frame.with_columns(pl.Series("pad", texts, pl.String))


async def play(definition: Path, count: int, pad: int) -> None:
    """Buffer `count` readings as the pipeline of a definition would that cannot deliver."""
    clock = SimulatedClock()
    pipeline = load(definition).model_copy(update={"source": Plant(count=count, pad=pad)})
    runner = Runner(pipeline, clock)
    await runner.open()
    try:
        while await runner.step():
            await _beside(runner)
        clock.advance(60.0)
        await _beside(runner)  # what came last is rolled too
    finally:
        await runner.close()


async def _beside(runner: Runner) -> None:
    """What goes on beside the intake."""
    for link in runner.links.values():
        await link.step()
    while await runner.outbox.call("tend"):
        pass


def main() -> None:
    """Buffer what the command line says: definition, readings, bytes of noise in each."""
    asyncio.run(play(Path(sys.argv[1]), int(sys.argv[2]), int(sys.argv[3])))
