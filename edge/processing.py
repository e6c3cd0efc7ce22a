"""The operators at work on one batch after the other: tried again, taken apart, taken back."""

import asyncio
import logging
from collections.abc import Sequence

import polars as pl

from edge.clock import Clock
from edge.component import in_thread, off_loop
from edge.errors import DataError, TooManyFailures
from edge.flow import Flow, Moment, Outcome
from edge.outbox import Outbox
from edge.outbox.model import Reject
from edge.pipeline.binding import Bound
from edge.rejected import Failures, as_rows
from edge.tap import Tap
from edge.waiting import apart

log = logging.getLogger("edge.processing")

_PIECES = 32
ATTEMPTS = 3  # of one batch before its rows are tried apart


class Processing:
    """Rows in, what the next commit has of them out.

    An outcome that is not committed must be taken back with `back` before other rows come.
    """

    def __init__(self, bound: Bound, outbox: Outbox, clock: Clock, tap: Tap) -> None:
        self._bound = bound
        self._outbox = outbox
        self._clock = clock
        self._tap = tap
        self._flow: Flow | None = None
        self._failures = Failures(bound.pipeline.name, clock)

    async def back(self) -> None:
        """To the last commit: what every operator remembered."""
        if self._flow is not None:
            await self._restore(self._flow)

    async def process(self, frame: pl.DataFrame) -> Outcome:
        """Rows that cannot be processed are set aside. Raises TooManyFailures."""
        if not frame.height:
            return Outcome.nothing()
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
        self._failures.add(len(outcome.rejects))
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
        columns = self._bound.source_columns
        if columns is None and not self._bound.pipeline.rejected:
            return Outcome.nothing()
        empty = (columns or pl.Schema()).to_frame()
        flow = await self._flow_for(empty)  # also when all rows came before a restart
        if not (moment.ending or flow.timed):
            return Outcome.nothing()
        return await in_thread(flow.process, empty, moment)

    async def _flow_for(self, frame: pl.DataFrame) -> Flow:
        """The operators, bound to the columns of the first rows where nothing declared them.

        As long as there are no such rows, only the branch of rejected payloads works.
        """
        if self._flow is not None:
            return self._flow
        if self._bound.source_columns is None and frame.height:
            self._bound.bind_columns(frame.schema)
        flow = Flow(self._bound, self._outbox.wants_whole, self._tap)
        await self._restore(flow)
        if self._bound.source_columns is not None:
            self._flow = flow
        return flow

    async def _restore(self, flow: Flow) -> None:
        restored = await self._outbox.call("restore")
        await asyncio.to_thread(flow.restore, restored.memory)
