"""What is set aside beside the data: rows for the sink that asks for it, lines of the log."""

import logging
from collections import deque
from collections.abc import Sequence

import polars as pl

from edge.clock import Clock
from edge.errors import TooManyFailures
from edge.outbox.model import Reject
from edge.pipeline.binding import REJECTED_COLUMNS
from edge.tap import REJECTED, Tap

log = logging.getLogger("edge.rejected")

FAILED_PER_MINUTE = 1_000
TELL_EVERY = 60.0  # seconds between two lines of the log, however much is rejected


def as_rows(rejects: Sequence[Reject], now: int) -> pl.DataFrame:
    """One row for each payload, in REJECTED_COLUMNS; now: microseconds UTC."""
    columns = {
        "edge_received": [now] * len(rejects),
        "reason": [reject.reason for reject in rejects],
        "topic": [reject.topic for reject in rejects],
        "payload": [reject.payload.decode(errors="backslashreplace") for reject in rejects],
    }
    return pl.DataFrame(columns).cast(REJECTED_COLUMNS)


def show(tap: Tap, rejects: Sequence[Reject], now: int) -> None:
    """Let those who look at what is rejected see it, each with its reason."""
    if rejects and tap.wants(REJECTED):
        tap.see(REJECTED, as_rows(rejects, now))


class RejectedLog:
    """Warns of what is set aside at once, then at most once a minute; never shows a payload."""

    def __init__(self, pipeline: str, clock: Clock, one: str, many: str) -> None:
        """one, many: what happened, in words: `payload rejected`, `payloads rejected`."""
        self._pipeline = pipeline
        self._one = one
        self._many = many
        self._clock = clock
        self._told: float | None = None
        self._count = 0
        self._first: Reject | None = None

    def add(self, rejects: Sequence[Reject]) -> None:
        """Count what was set aside, and say so if it is time."""
        if rejects:
            self._first = self._first or rejects[0]
            self._count += len(rejects)
            self.tell()

    def tell(self, *, at_once: bool = False) -> None:
        """Log what was set aside since the last line, if there is something and it is time."""
        now = self._clock.steady()
        if self._first is None:
            return
        if self._told is not None and now - self._told < TELL_EVERY and not at_once:
            return
        what = self._one if self._count == 1 else self._many
        log.warning(
            "pipeline %r: %d %s, the first%s: %s; see `edge outbox ledger`",
            self._pipeline,
            self._count,
            what if self._told is None else "more since",
            f" from {self._first.topic}" if self._first.topic else "",
            self._first.reason.splitlines()[-1],
        )
        self._told, self._count, self._first = now, 0, None


class SetAsideLog:
    """Both sorts of what is set aside: payloads that were rejected, rows that failed."""

    def __init__(self, pipeline: str, clock: Clock) -> None:
        one, many = "row failed and is set aside", "rows failed and are set aside"
        self._rejected = RejectedLog(pipeline, clock, "payload rejected", "payloads rejected")
        self._failed = RejectedLog(pipeline, clock, one, many)

    def add(self, rejects: Sequence[Reject]) -> None:
        """Count what was set aside, and say so if it is time."""
        self._rejected.add([reject for reject in rejects if not reject.failed])
        self._failed.add([reject for reject in rejects if reject.failed])

    def tell(self, *, at_once: bool = False) -> None:
        """Log what was set aside since the last line, if there is something and it is time."""
        self._rejected.tell(at_once=at_once)
        self._failed.tell(at_once=at_once)


class Failures:
    """How many rows fail in operators: in masses it is the definition that is wrong."""

    def __init__(self, pipeline: str, clock: Clock) -> None:
        self._pipeline = pipeline
        self._clock = clock
        self._times: deque[float] = deque()

    def add(self, rows: int) -> None:
        """`rows` failed now. Raises TooManyFailures above FAILED_PER_MINUTE."""
        now = self._clock.steady()
        self._times.extend([now] * min(rows, FAILED_PER_MINUTE + 1))
        while self._times and self._times[0] < now - 60:
            self._times.popleft()
        if len(self._times) > FAILED_PER_MINUTE:
            raise TooManyFailures(
                f"pipeline {self._pipeline!r}: more than {FAILED_PER_MINUTE} rows failed in a "
                "minute; see `edge outbox ledger` for the reasons and correct the definition"
            )
