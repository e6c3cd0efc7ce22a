"""The intake loop, source -> operators -> outbox, with the links beside it."""

import asyncio
import logging
from collections import deque
from collections.abc import AsyncGenerator, Mapping, Sequence

from edge.clock import Clock
from edge.errors import DefinitionError, OutboxFull, TooLarge, TooManyFailures
from edge.link import Bandwidth, Link
from edge.observation import Observation
from edge.outbox import Outbox
from edge.outbox.model import Reject, Remembered
from edge.outcome import Moment, Outcome
from edge.pipeline import Pipeline
from edge.pipeline.binding import kind_of
from edge.processing import Processing
from edge.rejected import SetAsideLog, show
from edge.sources import Arrival, nothing
from edge.tap import Tap
from edge.waiting import Acknowledge, Waiting

log = logging.getLogger("edge.runner")

STOP_GRACE = 5.0  # seconds that work under way gets to end when the process is told to stop
UPKEEP = 1.0  # seconds between looks at requests, room and the source's state
RETRY_CAP = 30.0  # longest pause after an error that nobody foresaw, seconds

_SOURCE = "source"


class Runner:
    """One pipeline in this process: its outbox, its intake loop and a link for every sink.

    `open`, then `step` again and again (each awaits one arrival and commits it), then `close`.
    `run` steps until it is told to stop.
    """

    def __init__(
        self, pipeline: Pipeline, clock: Clock | None = None, patient: bool = False
    ) -> None:
        """Raises DefinitionError for what only shows when the parts come together.

        patient: but for a file that an operator needs; rows wait until it is there.
        """
        self.pipeline = pipeline
        clock = self._clock = clock or Clock()
        self._source = pipeline.source
        self.bound = pipeline.bind(self._clock, patient)
        self._folder = pipeline.outbox_folder()
        self.outbox = Outbox(
            self._folder,
            limits=pipeline.limits(),
            sinks={name: branch.limits() for name, branch in pipeline.sinks.items()},
            clock=self._clock,
        )
        self.links = self._make_links()
        self.running = False
        self.waits_for_room = False
        self._progressed = self._clock.steady()
        self._ended = False
        self.tap = Tap(pipeline)
        self.observation: Observation | None = None
        rollers = {name: link.roller for name, link in self.links.items()}
        self.processing = Processing(self.bound, self.outbox, clock, self.tap, rollers, patient)
        self._told = 0.0  # when operators were last told of the time that goes by
        self._source_changed = False  # what is remembered is that of a source of another kind
        self._arrivals: AsyncGenerator[Arrival | None, None] | None = None
        self._owed: deque[tuple[Mapping[str, int], Acknowledge]] = deque()
        self._waiting = Waiting()
        self._set_aside = SetAsideLog(pipeline.name, self._clock)

    def _make_links(self) -> dict[str, Link]:
        pipeline = self.pipeline
        bandwidth = Bandwidth(pipeline.link.bandwidth, self._clock)
        links = {}
        for name, branch in pipeline.sinks.items():
            live_share = branch.live_share
            links[name] = Link(
                name,
                branch.sink,
                self.outbox,
                path=f"{pipeline.site}/{pipeline.name}/{name}",
                roll=branch.rolling(),
                order=branch.order,
                priority=branch.priority,
                live_share=pipeline.link.live_share if live_share is None else live_share,
                bandwidth=bandwidth,
                clock=self._clock,
            )
        return links

    async def open(self, stop: asyncio.Event | None = None) -> None:
        """Own the outbox and go back to its last commit. Raises OutboxLocked, DefinitionError.

        While another process owns it, `stop` ends the waiting.
        """
        await self.outbox.call("open", give_up=(stop or asyncio.Event()).is_set)
        try:
            await self._recover()
        except BaseException:
            await self.outbox.call("close")
            raise
        name, folder = self.pipeline.name, self._folder
        log.info("pipeline %r: started, outbox %s in %s", name, self.outbox.id, folder)
        self.running = True

    async def run(self, stop: asyncio.Event, once: bool = False) -> None:
        """Until `stop` is set; with `once` until the source has ended and the outbox is empty."""
        links = [asyncio.create_task(link.run()) for link in self.links.values()]
        upkeep = asyncio.create_task(self._upkeep())
        stopping = asyncio.create_task(stop.wait())
        intake = asyncio.create_task(self._intake(stopping))
        try:
            await asyncio.wait({intake, stopping}, return_when=asyncio.FIRST_COMPLETED)
            ended = intake.done() and intake.result()
            if ended and once:
                await self._drain(stopping)
            elif ended:
                log.info("pipeline %r: the source has ended", self.pipeline.name)
                await stopping
        finally:
            for link in self.links.values():
                link.stop()
            if self.processing.waits_for:
                intake.cancel()
            _, late = await asyncio.wait({intake, *links}, timeout=STOP_GRACE)
            if late:
                log.info(
                    "pipeline %r: work under way is left, it is done again", self.pipeline.name
                )
            await _cancel(stopping, upkeep, *late)
        if intake.done() and not intake.cancelled():
            intake.result()

    async def step(self) -> bool:
        """Take the next arrival, if one comes now. False once a finite source has ended.

        Rows that wait since an earlier one come first, a part of them in each step.
        """
        assert self._arrivals is not None
        if self._waiting.rows is not None:
            await self._work_off()
            self._progressed = self._clock.steady()
            return True
        try:
            arrival = await anext(self._arrivals)
        except StopAsyncIteration:
            await self._end()
            self._ended = True
            return False
        if arrival is not None:
            await self._take(arrival)
        await self._tell_time()
        self._progressed = self._clock.steady()
        return True

    def silence(self) -> float:
        """Seconds since the last step, or since it was seen that there is nothing to step to.

        A full outbox whose policy is to block, a file that is waited for, and a source that has
        ended, are no silence.
        """
        none = self._ended or self.processing.waits_for
        return 0.0 if none else self._clock.steady() - self._progressed

    def observe(self) -> Observation:
        """From now on, note what those who look at the pipeline are shown."""
        key = self.bound.stream.key or self._source.series()
        seen = Observation(self._clock, key, self.bound.stream.time, [*self.links])
        for link in self.links.values():
            link.observation = seen
        self.observation = seen
        return seen

    async def close(self) -> None:
        """Release the source, the sinks and the outbox."""
        try:
            await self._leave_arrivals()
            self._set_aside.tell(at_once=True)
            await self._note_source(at_once=True)
            await self._source.close()
            for link in self.links.values():
                await link.sink.close()
        finally:
            await self.outbox.call("close")
        log.info("pipeline %r: stopped", self.pipeline.name)

    async def _intake(self, stopping: "asyncio.Task[bool]") -> bool:
        """Steps until told to stop; True if the source has ended by itself."""
        pause, lost = 0.1, False
        while not stopping.done():
            try:
                if lost:
                    await self._recover()
                if not await self.step():
                    return True
                pause, lost = 0.1, False
            except (DefinitionError, TooManyFailures):
                raise
            except Exception:
                log.exception("pipeline %r: back to the last commit", self.pipeline.name)
                await self._clock.sleep(pause)
                pause, lost = min(RETRY_CAP, 2 * pause), True
        return False

    async def _recover(self) -> None:
        """Back to the last commit: where the source stood, what every part remembered."""
        await self._leave_arrivals()
        restored = await self.outbox.call("restore")
        kept = restored.memory.get(_SOURCE)
        self._source_changed = kept is not None and kept.shape != kind_of(self._source)
        self._source.restore(kept.states if kept and not self._source_changed else ())
        await self.processing.back()
        columns = self.bound.source_columns or self.bound.declared
        self._waiting.restore(restored.memory, columns)
        self._arrivals = self._source.arrivals(restored.position)
        self._told = self._clock.steady()

    async def _leave_arrivals(self) -> None:
        if self._arrivals is not None:
            await self._arrivals.aclose()
            self._arrivals = None

    async def _take(self, arrival: Arrival) -> None:
        """Process, commit, acknowledge: in this order, each only after the one before."""
        rows, memory = arrival.frame, self._source_memory()
        outcome = await self.processing.process(rows)
        await self._add(arrival, memory, outcome)
        try:
            await self._commit(outcome, arrival.position, divisible=rows.height > 1)
        except TooLarge as large:
            waiting = self._waiting.packed(rows)
            if self.outbox.can_remember(len(waiting.body)):
                await self._let_wait(arrival, [*memory, waiting], large.part)
                return
            outcome = await self.processing.process_apart(rows, len(waiting.body))
            await self._add(arrival, memory, outcome)
            await self._commit(outcome, arrival.position)
        self._observe_arrival(arrival)
        await self._acknowledge(arrival.acknowledge)

    def _observe_arrival(self, arrival: Arrival) -> None:
        if self.observation is not None:
            self.observation.arrived(arrival.frame)

    def _source_memory(self) -> Sequence[Remembered]:
        """What the source wants remembered of the arrival it has just handed over."""
        whole = self._source_changed or self.outbox.wants_whole(_SOURCE)
        body = self._source.snapshot(whole)
        if body is None:
            return ()
        self._source_changed = False
        return [Remembered(_SOURCE, kind_of(self._source), whole, body)]

    async def _add(self, arrival: Arrival, memory: Sequence[Remembered], outcome: Outcome) -> None:
        """The source's side of a commit."""
        await self.processing.process_rejects(arrival.rejects, arrival.frame, outcome)
        outcome.counts.update({(_SOURCE, name): rows for name, rows in arrival.counts().items()})
        outcome.rejects.extend(arrival.rejects)
        outcome.memory.extend(memory)

    async def _let_wait(self, arrival: Arrival, memory: Sequence[Remembered], part: float) -> None:
        """Take rows from the source as they are; `step` works them off, then it is told."""
        await self.processing.back()
        outcome = Outcome.nothing()
        await self._add(arrival, memory, outcome)
        await self._commit(outcome, arrival.position)
        self._observe_arrival(arrival)
        self._waiting.keep(arrival.frame, part, arrival.acknowledge)

    async def _work_off(self) -> None:
        """Some of the rows that wait: what they come to, and what still waits, is one commit."""
        rows = self._waiting.next()
        outcome = await self.processing.process(rows)
        outcome.memory.append(self._waiting.without(rows.height))
        try:
            await self._commit(outcome, None, divisible=rows.height > 1)
        except TooLarge as large:
            await self.processing.back()
            self._waiting.take_less(large.part)
            return
        if acknowledge := self._waiting.leave(rows.height):
            await self._acknowledge(acknowledge)

    async def _acknowledge(self, acknowledge: Acknowledge) -> None:
        """Now, or with `acknowledge: delivered` once all that was committed so far is settled."""
        if self.pipeline.acknowledge == "committed":
            await acknowledge()
        elif acknowledge is not nothing:
            ends = {name: self.outbox.next_sequence(name) for name in self.links}
            self._owed.append((ends, acknowledge))

    async def _tell_time(self) -> None:
        """Once a second: what comes out of operators because time went by, in its own commit.

        Time in which no rows could come, while the outbox was full or the process did not run, is
        none in which a device fell silent.
        """
        now = self._clock.steady()
        elapsed = min(now - self._told, 2 * UPKEEP)
        if self._source.finite or elapsed < UPKEEP:
            return
        self._told = now
        outcome = await self.processing.advance(Moment(elapsed=round(elapsed * 1e6)))
        if not outcome.empty:
            await self._commit(outcome, None)

    async def _commit(
        self, outcome: Outcome, position: bytes | None, divisible: bool = False
    ) -> None:
        """Until it is durable: waits for room where the policy is to block, and for the disk.

        Raises TooLarge for what is divisible and had better be divided.
        """
        commit, pause = outcome.commit(position), 0.1
        while True:
            began = self._clock.steady()
            try:
                await self.outbox.call("commit", commit, divisible)
                break
            except TooLarge:
                raise
            except OutboxFull as full:
                if not self.waits_for_room:
                    log.warning("%s", full)
                self.waits_for_room = True
                commit = commit.unrolled()
                pause = UPKEEP
                self._progressed = self._clock.steady()
            except Exception as error:
                log.error("outbox %s: cannot commit, tried again: %r", self._folder, error)
                pause = min(RETRY_CAP, 2 * pause)
            await self._clock.sleep(pause)
        if self.waits_for_room:
            self.waits_for_room = False
            log.info("outbox %s: has room again, intake goes on", self._folder)
        if self.observation is not None:
            self.observation.committed(commit, self._clock.steady() - began)
        self._tell_of(commit.rejects)
        for name in commit.appended():
            self.links[name].appended(rolled=bool(commit.rolled))

    def _tell_of(self, rejects: Sequence[Reject]) -> None:
        """In the log and to those who look, once it is durable."""
        show(self.tap, rejects, self._clock.now())
        self._set_aside.add(rejects)

    async def _end(self) -> None:
        """A finite source ended: what operators hold back goes out."""
        outcome = await self.processing.advance(Moment(ending=True))
        if not outcome.empty:
            await self._commit(outcome, None)

    async def _drain(self, stopping: "asyncio.Task[bool]") -> None:
        for link in self.links.values():
            link.drain()
        while not stopping.done():
            # Asked on the outbox's thread: in the midst of a rolling rows are in neither place.
            depths = [await self.outbox.call("depth", name) for name in self.links]
            if not any(depth.rows for depth in depths) and not self._owed:
                return
            await asyncio.wait({stopping}, timeout=0.1)

    async def _upkeep(self) -> None:
        """What is done beside the data: requests of commands, room, what the source reports."""
        while True:
            try:
                await self._acknowledge_settled()
                while await self.outbox.call("tend"):
                    await self._clock.sleep(0)
                await self._note_source()
                self._set_aside.tell()
            except Exception:
                log.exception("outbox %s: upkeep failed", self._folder)
            await self._clock.sleep(UPKEEP if not self._owed else 0.1)

    async def _note_source(self, at_once: bool = False) -> None:
        """Let `edge status`, which runs in another process, see how the source stands."""
        status = {"kind": kind_of(self._source), **self._source.status()}
        if self.processing.waits_for:
            status["waits_for"] = self.processing.waits_for
        await self.outbox.call("set_source", status, at_once=at_once)

    async def _acknowledge_settled(self) -> None:
        """With `acknowledge: delivered`: tell the source once every sink has settled its rows."""
        while self._owed:
            sequences, acknowledge = self._owed[0]
            for name, end in sequences.items():
                if await self.outbox.call("settled_below", name) < end:
                    return
            self._owed.popleft()
            await acknowledge()


async def _cancel(*tasks: "asyncio.Task[object]") -> None:
    for task in tasks:
        task.cancel()
    await asyncio.gather(*tasks, return_exceptions=True)
