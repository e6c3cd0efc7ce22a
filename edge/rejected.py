"""What is set aside beside the data: rows for the sink that asks for it, lines of the log."""

import logging
from collections.abc import Sequence

import polars as pl

from edge.clock import Clock
from edge.outbox.model import Reject
from edge.pipeline.binding import REJECTED_COLUMNS

log = logging.getLogger("edge.rejected")

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
