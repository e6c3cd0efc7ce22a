"""Days without a link, in simulated time: a real outbox and real operators against the cap.

`python -m tests.offline --days 7 --rate 100` plays what the suite plays at 2 rows a second.
"""

import argparse
import asyncio
import logging
import sys
import tempfile
import time
from collections.abc import AsyncGenerator, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import polars as pl
from pydantic import PrivateAttr

from edge.clock import Clock
from edge.codec import Record
from edge.component import Stream
from edge.errors import LinkDown
from edge.expression import TIMESTAMP
from edge.operators.deadband import Deadband
from edge.operators.derive import Derive
from edge.operators.filter import Filter
from edge.outbox.inspection import books, disk_use
from edge.outbox.model import Parcel
from edge.pipeline import Branch, Pipeline
from edge.runner import Runner
from edge.sinks import Receipt
from edge.sinks.file import FileSink
from edge.sources import Arrival, Batch, Source
from tests.scripted import HandClock

DEVICES = 10
STEADY = 1000
"""For so many readings the level stays; then each device reports another one."""
BATCH = 10_000
START = 1_764_000_000_000_000
DAY = 86_400


class Plan(NamedTuple):
    """max_size: as in a definition; rate: readings a second; order: that of the lake."""

    days: float
    rate: float
    when_full: str
    order: str
    max_size: str = "32MiB"

    @property
    def readings(self) -> int:
        """How many the plant makes in that time."""
        return round(self.days * DAY * self.rate)


class Report(NamedTuple):
    """peak: most bytes of the outbox; missing: numbers of the readings that the lake did not get.

    missing_changes: those that the other sink, which is of high priority, did not get.
    sends: sequence number of the first row of every parcel that the lake took, send by send.
    """

    peak: int
    missing: list[int]
    missing_changes: list[int]
    sends: list[list[int]]
    ledger: dict[str, dict[str, int]]
    losses: list[dict[str, Any]]
    faults: list[str]


class SimulatedClock(HandClock):
    """Counts the sleeps: in simulated time only an intake that is blocked sleeps."""

    waits = 0

    async def sleep(self, seconds: float) -> None:
        """A sleep of simulated time."""
        self.waits += 1
        await super().sleep(seconds)


def readings(first: int, count: int, rate: float) -> pl.DataFrame:
    """Readings `first` to `first + count - 1` of the plant, a few of them not `ok`."""
    n = pl.int_range(first, first + count, eager=True).alias("n")
    noise = n * 2_654_435_761 % 4_294_967_296 // 65_536
    time = (n * (1_000_000 / rate)).cast(pl.Int64) + START
    return pl.DataFrame(
        {
            "ts": time.cast(TIMESTAMP),
            "device": ("press-" + (n % DEVICES).cast(pl.String)).alias("device"),
            "n": n,
            "level": (n // STEADY).cast(pl.Float64),
            "temperature": noise % 4000 / 100,
            "status": pl.select(
                pl.when(n % 50 == 49).then(pl.lit("no")).otherwise(pl.lit("ok"))
            ).to_series(),
            "edge_received": time.cast(TIMESTAMP),
        }
    )


class Plant(Source):
    """Gives the readings of so many days and moves the clock on while it does."""

    @property
    def finite(self) -> bool:
        return True

    _plan: Plan = PrivateAttr()
    _clock: SimulatedClock = PrivateAttr()

    @classmethod
    def of(cls, plan: Plan, clock: SimulatedClock) -> "Plant":
        """The plant of a plan."""
        plant = cls()
        plant._plan, plant._clock = plan, clock
        return plant

    def bind(
        self, record: Record, stream: Stream, identity: str, batch: Batch, clock: Clock
    ) -> pl.Schema | None:
        """The columns of `readings`."""
        return readings(0, 0, 1.0).schema

    async def arrivals(self, position: bytes | None) -> AsyncGenerator[Arrival | None, None]:
        """Batches of 10,000 readings."""
        plan = self._plan
        for first in range(int(position or 0), plan.readings, BATCH):
            frame = readings(first, min(BATCH, plan.readings - first), plan.rate)
            self._clock.advance(frame.height / plan.rate)
            after = str(first + frame.height).encode()
            yield Arrival(frame, after, read=frame.height)


class Far(FileSink):
    """Files at the end of a link that is cut until `reach` says otherwise."""

    _cut: bool = PrivateAttr(True)
    _sends: list[list[int]] = PrivateAttr(default_factory=list)

    def reach(self) -> None:
        """The link is mended."""
        self._cut = False

    async def send(self, parcels: Sequence[Parcel]) -> Receipt:
        """As a file sink, or LinkDown."""
        if self._cut:
            raise LinkDown("the line is cut")
        self._sends.append([parcel.first for parcel in parcels])
        return await super().send(parcels)


def play(plan: Plan, folder: Path) -> Report:
    """The days without a link, then the drain."""
    return asyncio.run(_Play(plan, folder).run())


class _Play:
    def __init__(self, plan: Plan, folder: Path) -> None:
        self._plan = plan
        self._folder = folder
        self._clock = SimulatedClock(START)
        self._sinks = {name: Far(path=folder / name) for name in ("lake", "changes")}
        self._runner = Runner(self._definition(), self._clock)
        self._faults: list[str] = []
        self._peak = 0

    def _definition(self) -> Pipeline:
        plan, sinks = self._plan, self._sinks
        changes = Branch(
            sink=sinks["changes"], operators=[Deadband(column="level", change=0.5)], priority="high"
        )
        return Pipeline(
            name="far",
            source=Plant.of(plan, self._clock),
            record={"time": "ts", "key": "device"},
            operators=[
                Filter(where="status = 'ok'"),
                Derive(columns={"fahrenheit": "ROUND(temperature * 1.8 + 32, 1)"}),
            ],
            sinks={"lake": Branch(sink=sinks["lake"], order=plan.order), "changes": changes},
            outbox={
                "path": self._folder / "outbox",
                "max_size": plan.max_size,
                "when_full": plan.when_full,
            },
        )

    async def run(self) -> Report:
        runner = self._runner
        await runner.open()
        try:
            taking = await self._without_link()
            self._clock.advance(60.0)
            await self._step_links()  # the last entries become parcels too
            for sink in self._sinks.values():
                sink.reach()
            await self._drain(taking)
        finally:
            await runner.close()
        found = books(self._folder / "outbox")
        kept = pl.int_range(self._plan.readings, eager=True).alias("n")
        kept = kept.filter(kept % 50 != 49)
        return Report(
            self._peak,
            self._missing("lake", kept),
            self._missing("changes", kept.filter(kept % STEADY < DEVICES)),
            self._sinks["lake"]._sends,
            found["ledger"],
            found["losses"],
            self._faults,
        )

    async def _without_link(self) -> "asyncio.Task[bool]":
        """Until the days are over: the readings are in, or the intake is blocked."""
        while True:
            taking = asyncio.create_task(self._runner.step())
            while not taking.done() and not self._clock.waits:
                await asyncio.wait({taking}, timeout=0.05)
            if not taking.done():
                elapsed = (self._clock.now() - START) / 1e6
                self._clock.advance(max(0.0, self._plan.days * DAY - elapsed))
                await self._look()
                return taking
            if not taking.result():
                return taking
            await self._step_links()
            await self._look()

    async def _drain(self, taking: "asyncio.Task[bool]") -> None:
        """Until everything is in and out; time passes while nothing else happens."""
        depth = self._runner.outbox.depth
        while True:
            if taking.done() and taking.result():
                taking = asyncio.create_task(self._runner.step())
            before = sum(depth(name).rows for name in self._sinks)
            await self._step_links()
            await self._look()
            await asyncio.wait({taking}, timeout=0 if before else 0.01)
            if taking.done() and not taking.result() and not before:
                return
            self._clock.advance(1.0)

    async def _step_links(self) -> None:
        for link in self._runner.links.values():
            await link.step()

    async def _look(self) -> None:
        """The equations hold and the cap is kept, after every commit."""
        now = await self._runner.outbox.call("status")
        self._faults += now["imbalances"]
        size = disk_use(self._folder / "outbox")
        self._peak = max(self._peak, size)
        if size > now["outbox"]["max_bytes"]:
            self._faults.append(f"the outbox takes {size} of {now['outbox']['max_bytes']} bytes")

    def _missing(self, sink: str, expected: pl.Series) -> list[int]:
        """Numbers that did not arrive; it is a fault if others did, or one twice."""
        files = sorted((self._folder / sink).rglob("*.ndjson"))
        got = pl.concat([pl.read_ndjson(file).select("n") for file in files])["n"]
        if got.n_unique() != got.len() or not got.is_in(expected.implode()).all():
            self._faults.append(f"{sink}: a reading came twice, or one that does not belong there")
        return expected.filter(~expected.is_in(got.implode())).to_list()


def shares(sends: list[list[int]]) -> list[tuple[int, int]]:
    """For each send how many of the newest and of the oldest waiting parcels it took.

    Raises ValueError when it took anything between.
    """
    waiting = sorted(first for send in sends for first in send)
    found = []
    for send in sends:
        taken, newest, oldest = set(send), 0, 0
        while waiting and waiting[-1] in taken:
            taken.remove(waiting.pop())
            newest += 1
        while waiting and waiting[0] in taken:
            taken.remove(waiting.pop(0))
            oldest += 1
        if taken:
            raise ValueError(f"{sorted(taken)} lie between others that waited")
        found.append((newest, oldest))
    return found


def main() -> int:
    """Play each policy and print a line; 1 if an equation or the cap does not hold."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--days", type=float, default=7)
    parser.add_argument("--rate", type=float, default=100)
    parser.add_argument("--max-size", default="512MiB")
    arguments = parser.parse_args()
    failed = False
    logging.disable()
    for when_full, order in (("block", "all"), ("drop_oldest", "none"), ("drop_newest", "key")):
        plan = Plan(arguments.days, arguments.rate, when_full, order, arguments.max_size)
        begin = time.monotonic()
        with tempfile.TemporaryDirectory(dir="/var/tmp") as folder:
            report = play(plan, Path(folder))
        lake = report.ledger["sink:lake"]
        print(
            f"{when_full}, order {order}: {plan.readings:,} readings, {lake['delivered']:,} "
            f"delivered, {lake.get('dropped', 0):,} dropped, peak {report.peak / 2**20:.0f} MiB, "
            f"{time.monotonic() - begin:.0f} s; {report.faults or 'all equations hold'}",
            flush=True,
        )
        failed |= bool(report.faults) or len(report.missing) != lake.get("dropped", 0)
        failed |= when_full != "drop_newest" and bool(report.missing_changes)
    return int(failed)


if __name__ == "__main__":
    sys.exit(main())
