"""A test in steps: the real intake, outbox and links, between a source and sinks of the test."""

import asyncio
import tempfile
from collections.abc import AsyncGenerator, Callable, Iterator, Mapping, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import orjson
import polars as pl
from pydantic import PrivateAttr

from edge.clock import Clock
from edge.codec import Record, rows_as_json
from edge.component import Size, Stream
from edge.errors import DefinitionError, LinkDown
from edge.examples.compare import Difference, compare
from edge.outbox.inspection import books
from edge.outbox.model import Parcel
from edge.pipeline import Bound, Branch, Pipeline
from edge.pipeline.example import REJECTED, Step
from edge.pipeline.given import Given, Giver, Rows, as_row
from edge.pipeline.model import LinkOptions, RollOptions
from edge.runner import UPKEEP, Runner
from edge.sinks import Encoded, Receipt, Sink, split_id
from edge.sources import Arrival, Batch, Source

_START = datetime(2026, 1, 1, tzinfo=UTC)
_TICK = 2 * UPKEEP  # the most time that operators are told of at once, seconds
_FRUITLESS = 8  # steps of a link that is up and moves nothing, before a test gives up


class Failure(Exception):
    """A step whose end is not as expected; the steps after it are not played."""

    def __init__(
        self, step: int, differences: Sequence[Difference] = (), problem: str | None = None
    ) -> None:
        super().__init__(problem)
        self.step = step
        self.differences = differences
        self.problem = problem


def play(pipeline: Pipeline, place: int, again: Callable[[], Pipeline]) -> None:
    """The steps of one test; raises Failure at the first whose end is not as expected.

    again: the definition as a start after a stop reads it. Touches no network; the outbox is one of
    its own that is gone afterwards. Raises DefinitionError.
    """
    bound = pipeline.bind(Clock())  # its faults in its own words, before other parts take its ends
    steps = pipeline.tests[place].steps
    start = pipeline.tests[place].start or _first_time(bound, steps)
    with tempfile.TemporaryDirectory(prefix="edge-test-") as folder:
        asyncio.run(_Play(bound, place, again, Path(folder).resolve(), start).run())


def _first_time(bound: Bound, steps: Sequence[Step]) -> datetime:
    """The event time of the first row given, so that nothing seems to come from the future."""
    giver = Giver(bound.pipeline.record, bound.source_columns)
    for step in steps:
        frame = giver.give(step.given, _START).frame
        time = frame.get_column(bound.stream.time, default=None)
        if time is not None and isinstance(time.dtype, pl.Datetime) and time.drop_nulls().len():
            first: datetime = time.drop_nulls()[0]
            return first
    return _START


class HandClock(Clock):
    """Stands still; only the test, and whoever sleeps, moves it on."""

    def __init__(self, start: datetime) -> None:
        self._start = round(start.timestamp() * 1e6)
        self._elapsed = 0.0

    def now(self) -> int:
        return self._start + round(self._elapsed * 1e6)

    def steady(self) -> float:
        return self._elapsed

    async def sleep(self, seconds: float) -> None:
        self.advance(seconds)
        await asyncio.sleep(0)

    def advance(self, seconds: float) -> None:
        """So much time goes by."""
        self._elapsed += seconds


class _Script:
    """What outlives a restart: what the source was given, what sinks got, which links are down."""

    def __init__(self) -> None:
        self.given: list[Given] = []
        self.ended = False
        self.delivered: dict[str, list[dict[str, Any]]] = {}
        self.down: set[str] = set()
        self._seen = 0

    def take_rejects(self) -> list[dict[str, Any]]:
        """Payloads rejected since the last call."""
        rejects = [as_row(reject) for given in self.given[self._seen :] for reject in given.rejects]
        self._seen = len(self.given)
        return rejects


class _GivenSource(Source):
    """Gives what the script has, from the position on that was committed."""

    _real: Source = PrivateAttr()
    _script: _Script = PrivateAttr()

    @classmethod
    def of(cls, real: Source, script: _Script) -> "_GivenSource":
        source = cls()
        source._real, source._script = real, script
        return source

    @property
    def finite(self) -> bool:
        return self._real.finite

    def bind(
        self, record: Record, stream: Stream, identity: str, batch: Batch, clock: Clock
    ) -> pl.Schema | None:
        return self._real.bind(record, stream, identity, batch, clock)

    async def arrivals(self, position: bytes | None) -> AsyncGenerator[Arrival | None, None]:
        place = int(position or b"0")
        while place < len(self._script.given) or not self._script.ended:
            if place == len(self._script.given):
                yield None
                continue
            frame, rejects, read = self._script.given[place]
            place += 1
            yield Arrival(frame, str(place).encode(), read=read, rejects=rejects)


class _KeptSink(Sink):
    """Makes what the real sink makes, for what it refuses, and keeps the rows that it is sent."""

    _real: Sink = PrivateAttr()
    _name: str = PrivateAttr()
    _script: _Script = PrivateAttr()

    @classmethod
    def of(cls, real: Sink, name: str, script: _Script) -> "_KeptSink":
        sink = cls()
        sink._real, sink._name, sink._script = real, name, script
        return sink

    def bind(self, columns: pl.Schema | None, stream: Stream, identity: bool, order: str) -> None:
        self._real.bind(columns, stream, identity, order)

    def encode(self, frame: pl.DataFrame) -> Encoded:
        _, refused, rest = self._real.encode(frame)
        if rest is not None:
            frame = frame.join(rest, on="edge_id", how="anti", maintain_order="left")
        sequences = [split_id(edge_id).sequence for edge_id in frame["edge_id"]]
        taken = [
            not any(each.first <= number <= each.last for each in refused) for number in sequences
        ]
        kept = frame.filter(pl.Series(taken, dtype=pl.Boolean))
        if not kept.height:
            return Encoded((), refused, rest)
        first, last = sequences[taken.index(True)], sequences[-1 - taken[::-1].index(True)]
        body = b"\n".join(rows_as_json(kept.drop("edge_id")))
        parcel = Parcel(f"{first}-{last}", first, last, kept.height, body)
        return Encoded([parcel], refused, rest)

    async def send(self, parcels: Sequence[Parcel]) -> Receipt:
        if self._name in self._script.down:
            raise LinkDown("the test says so")
        rows = [orjson.loads(line) for each in parcels for line in each.body.splitlines()]
        self._script.delivered.setdefault(self._name, []).extend(rows)
        return Receipt([parcel.id for parcel in parcels])


class _Play:
    """One test on its way."""

    def __init__(
        self,
        bound: Bound,
        place: int,
        again: Callable[[], Pipeline],
        folder: Path,
        start: datetime,
    ) -> None:
        self._pipeline = bound.pipeline
        self._example = bound.pipeline.tests[place]
        self._again = again
        self._folder = folder
        self._script = _Script()
        self._clock = HandClock(start)
        self._giver = Giver(bound.pipeline.record, bound.source_columns)
        self._failed = 0

    async def run(self) -> None:
        """Every step, until one fails."""
        runner = await self._started(self._pipeline)
        try:
            for index, step in enumerate(self._example.steps):
                if step.restart:
                    await runner.close()
                    runner = await self._started(self._again())
                try:
                    await self._happen(runner, step)
                    await self._deliver(runner)
                except DefinitionError:
                    raise
                except Exception as error:
                    raise Failure(index, problem=f"{type(error).__name__}: {error}") from error
                await self._judge(runner, index, step)
        finally:
            await runner.close()

    async def _started(self, pipeline: Pipeline) -> Runner:
        """A processor of this pipeline whose ends are those of the test."""
        outbox = pipeline.outbox.model_copy(update={"path": self._folder})
        changed = {
            "source": _GivenSource.of(pipeline.source, self._script),
            "sinks": {
                name: branch.model_copy(update=self._ends(name, branch))
                for name, branch in pipeline.sinks.items()
            },
            "link": LinkOptions(),
            "outbox": outbox,
        }
        runner = Runner(pipeline.model_copy(update=changed), self._clock)
        await runner.open()
        return runner

    def _ends(self, name: str, branch: Branch) -> dict[str, object]:
        sink = _KeptSink.of(branch.sink, name, self._script)
        return {"sink": sink, "roll": RollOptions(size=Size(branch.rolling().size))}

    async def _happen(self, runner: Runner, step: Step) -> None:
        """What the step says, in the order of its options."""
        links = (
            step.link if isinstance(step.link, Mapping) else dict.fromkeys(runner.links, step.link)
        )
        for name, state in links.items():
            if state == "down":
                self._script.down.add(name)
            elif state == "up":
                self._script.down.discard(name)
                runner.links[name].retry()
        await self._wait(runner, step.wait.total_seconds())
        if step.given:
            now = datetime.fromtimestamp(self._clock.now() / 1e6, UTC)
            self._script.given.append(self._giver.give(step.given, now))
            await runner.step()
        if step.end:
            self._script.ended = True
            while await runner.step():
                pass

    async def _wait(self, runner: Runner, seconds: float) -> None:
        """Time goes by, in steps as small as operators are told of where one is told at all."""
        tick = _TICK if _is_timed(self._pipeline) else seconds
        while seconds > 0:
            self._clock.advance(min(tick, seconds))
            seconds -= tick
            await runner.step()

    async def _deliver(self, runner: Runner) -> None:
        """What is buffered goes, where the link is up; whatever `roll` says."""
        for name, link in runner.links.items():
            link.drain()
            tries = _FRUITLESS
            before = await _depth(runner, name)
            while before and tries:
                await link.step()
                after = await _depth(runner, name)
                tries = _FRUITLESS if after < before else tries - 1
                if name in self._script.down and link.up is False:
                    break
                before = after

    async def _judge(self, runner: Runner, index: int, step: Step) -> None:
        """Raises Failure where the step did not end as expected."""
        waiting = {name: await _depth(runner, name) for name in runner.links}
        problems = [*self._troubles()]
        problems += [
            f"sink {name!r}: rows buffered: {waiting[name]}, expected {rows}"
            for name, rows in step.buffered.items()
            if waiting[name] != rows
        ]
        differences = [
            difference._replace(note=_note(waiting.get(sink, 0), sink in self._script.down))
            for sink, expected in step.expect.items()
            if (difference := self._compared(sink, expected))
        ]
        if problems or differences:
            raise Failure(index, differences, "\n".join(problems) or None)

    def _compared(self, sink: str, expected: Rows) -> Difference | None:
        if sink == REJECTED and sink not in self._pipeline.sinks:
            found = self._script.take_rejects()
        else:
            found = self._script.delivered.pop(sink, [])
        return compare(sink, expected, found, self._example.ordered, self._example.tolerance)

    def _troubles(self) -> Iterator[str]:
        """Rows that operators raised for, and a ledger that does not balance."""
        found = books(self._folder)
        failed = int(found["ledger"].get("pipeline", {}).get("failed", 0))
        if failed > self._failed:
            losses = (loss for loss in found["losses"] if loss["kind"] == "failed")
            reason = next((str(loss["reason"]) for loss in losses), "no reason is known")
            yield f"{failed - self._failed} rows failed in operators: {reason}"
        self._failed = failed
        yield from (f"the ledger does not balance: {each}" for each in found["imbalances"])


def _is_timed(pipeline: Pipeline) -> bool:
    branches = pipeline.sinks.values()
    steps = [*pipeline.operators, *(step for branch in branches for step in branch.operators)]
    return any(step.operator.timed for step in steps)


async def _depth(runner: Runner, sink: str) -> int:
    depth = await runner.outbox.call("depth", sink)
    return int(depth.rows)


def _note(rows: int, is_down: bool) -> str | None:
    """What explains that something did not come."""
    return f"rows buffered: {rows}, the link is down" if rows and is_down else None
