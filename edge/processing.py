"""The operators at work on one batch after the other: tried again, taken apart, taken back."""

import asyncio
import logging
from collections.abc import Mapping, Sequence

import polars as pl

from edge.clock import Clock
from edge.errors import DataError, FileFault, TooManyFailures
from edge.flow import Flow
from edge.outbox import Outbox
from edge.outbox.model import Reject
from edge.outcome import Moment, Outcome
from edge.pipeline.binding import Bound
from edge.rejected import Failures, as_rows
from edge.roller import Roller
from edge.tap import Tap
from edge.threads import in_thread, off_loop
from edge.waiting import apart

log = logging.getLogger("edge.processing")

_PIECES = 32
ATTEMPTS = 3  # of one batch before its rows are tried apart
LOOK_CAP = 30.0  # longest pause between two looks for a file that is missing, seconds
_WAITS = "pipeline %r: intake waits, links go on: %s"


class Processing:
    """Rows in, what the next commit has of them out.

    An outcome that is not committed must be taken back with `back` before other rows come.
    """

    def __init__(
        self,
        bound: Bound,
        outbox: Outbox,
        clock: Clock,
        tap: Tap,
        rollers: Mapping[str, Roller],
        patient: bool = False,
    ) -> None:
        """patient: rows wait for a file that an operator needs; `waits_for` says for which."""
        self.waits_for = bound.missing
        self._patient = patient
        self._pause = 1.0
        self._looked = clock.steady()
        self._bound = bound
        self._outbox = outbox
        self._clock = clock
        self._tap = tap
        self._rollers = rollers
        self._flow: Flow | None = None
        self._failures = Failures(bound.pipeline.name, clock)
        if bound.missing:
            log.warning(_WAITS, bound.pipeline.name, bound.missing)

    async def back(self) -> None:
        """To the last commit: what every operator remembered."""
        if self._flow is not None:
            await self._restore(self._flow)

    async def process(self, frame: pl.DataFrame) -> Outcome:
        """Rows that cannot be processed are set aside. Raises TooManyFailures, DefinitionError.

        While a file is missing that an operator needs, it waits.
        """
        if not frame.height:
            return Outcome.nothing()
        while self._bound.source_columns is None and not self._bind(frame.schema):
            await self._clock.sleep(self._pause)
        flow = await self._flow_for(frame)
        for attempt in range(ATTEMPTS):
            try:
                return await off_loop(flow.rows(frame), flow.process, frame)
            except TooManyFailures:
                raise
            except Exception as error:
                await self._restore(flow)
                if isinstance(error, DataError | MemoryError):
                    break  # the same again, or a smaller piece fits
                log.warning(
                    "a batch of %d rows failed, try %d: %r", frame.height, attempt + 1, error
                )
        outcome = await in_thread(flow.isolate, frame)
        self._failures.add(sum(reject.failed for reject in outcome.rejects))
        return outcome

    async def process_apart(self, frame: pl.DataFrame, size: int) -> Outcome:
        """As `process`, anew, in entries of few rows: one that is too large takes no others along.

        size: bytes of the rows, packed.
        """
        flow = await self._flow_for(frame)
        await self._restore(flow)
        pieces = await in_thread(apart, frame, size // _PIECES)
        try:
            return await in_thread(flow.process_apart, pieces)
        except TooManyFailures:
            raise
        except Exception:
            await self._restore(flow)
            return await self.process(frame)

    async def process_rejects(
        self, rejects: Sequence[Reject], frame: pl.DataFrame, outcome: Outcome
    ) -> None:
        """Rejected payloads also go to the sink that asks for them; they are kept in any case.

        frame: the rows that they arrived with.
        """
        name = self._bound.pipeline.rejected
        if not rejects or not name:
            return
        flow = await self._flow_for(frame)
        try:
            more = await in_thread(flow.process_rejects, as_rows(rejects, self._clock.now()))
        except Exception:
            log.exception("sink %r: its operators fail on rejected rows", name)
            return
        outcome.add(more)

    async def advance(self, moment: Moment) -> Outcome:
        """What comes out without rows, because time went by or a finite source has ended."""
        if self.waits_for and self._clock.steady() - self._looked >= self._pause:
            self._bind(self._bound.declared)
        columns = self._bound.source_columns
        if columns is None and not self._bound.pipeline.rejected:
            return Outcome.nothing()
        empty = (columns or pl.Schema()).to_frame()
        flow = await self._flow_for(empty)  # also when all rows came before a restart
        if not (moment.ending or flow.timed):
            return Outcome.nothing()
        return await in_thread(flow.process, empty, moment)

    def _bind(self, columns: pl.Schema | None) -> bool:
        """Whether the operators have all they need: columns, and files that can be read."""
        columns = self._bound.declared or columns
        if columns is None:
            return False
        self._looked = self._clock.steady()
        try:
            self._bound.bind_columns(columns)
        except FileFault as fault:
            if not self._patient:
                raise
            self._pause = min(LOOK_CAP, 2 * self._pause)
            self._tell(str(fault))
            return False
        self._tell(None)
        return True

    def _tell(self, missing: str | None) -> None:
        """In the log, when it is another file or fault than before, or none any more."""
        name, before, self.waits_for = self._bound.pipeline.name, self.waits_for, missing
        if missing is not None and missing != before:
            log.warning(_WAITS, name, missing)
        elif missing is None and before is not None:
            log.info("pipeline %r: all files are there, intake goes on", name)

    async def _flow_for(self, frame: pl.DataFrame) -> Flow:
        """The operators, once they are bound to the columns of the rows.

        As long as they are not, only the branch of rejected payloads works.
        """
        if self._flow is not None:
            return self._flow
        flow = Flow(self._bound, self._outbox.wants_whole, self._tap, self._rollers)
        await self._restore(flow)
        if self._bound.source_columns is not None:
            self._flow = flow
        return flow

    async def _restore(self, flow: Flow) -> None:
        restored = await self._outbox.call("restore")
        await asyncio.to_thread(flow.restore, restored.memory)
