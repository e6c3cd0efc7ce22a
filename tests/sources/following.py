"""A source that follows files, stepped by hand: its clock moves only while it is asked."""

import asyncio
from collections.abc import AsyncGenerator
from pathlib import Path
from typing import Any

from edge.codec import Record, Reject
from edge.sources import Arrival, Batch
from edge.sources.dataset import DatasetSource
from tests.scripted import HandClock
from tests.sources.cases import bound

RECORD = Record(fields={"n": "int"})


class Following:
    """What a runner would do with it: `rows` and `rejects` are those of committed arrivals."""

    def __init__(self, folder: Path, record: Record = RECORD, **options: Any) -> None:
        self.folder, self.record, self.batch = folder, record, Batch()
        self.options = {"path": ".", "follow": True, **options}
        self.clock = HandClock()
        self.rows: list[int] = []
        self.rejects: list[Reject] = []
        self.states: list[bytes] = []
        self.position: bytes | None = None
        self._loop = asyncio.Runner()
        self.start()

    def start(self) -> None:
        """A process begins, with what was committed."""
        self.source = bound(
            DatasetSource(**self.options), self.folder, self.record, self.clock, self.batch
        )
        self.source.restore(self.states)
        self._arrivals: AsyncGenerator[Arrival | None, None] = self.source.arrivals(self.position)

    def take(self) -> Arrival | None:
        """The next arrival, not committed."""
        return self._loop.run(_next(self._arrivals))

    def commit(self, arrival: Arrival) -> None:
        """As the outbox does it: rows, position and memory at once."""
        self.rows += arrival.frame["n"].to_list() if arrival.frame.height else []
        self.rejects += arrival.rejects
        self.position = arrival.position or self.position
        state = self.source.snapshot(False)
        self.states += [state] if state is not None else []

    def read(self, seconds: float = 1.5) -> list[int]:
        """What it hands over while so much time goes by; of a long time most passes at once."""
        before = len(self.rows)
        if seconds > 60:
            self.read(20)
            self.clock.advance(seconds - 40)
            seconds = 20
        end = self.clock.steady() + seconds
        while self.clock.steady() < end:
            arrival = self.take()
            if arrival is not None:
                self.commit(arrival)
        return self.rows[before:]

    def crash(self, **options: Any) -> None:
        """It dies and starts again; what was not committed is forgotten."""
        self.stop()
        self.options |= options
        self.start()

    def stop(self) -> None:
        self._loop.run(self._arrivals.aclose())

    def close(self) -> None:
        self.stop()
        self._loop.close()

    @property
    def status(self) -> Any:
        return self.source.status()


async def _next(arrivals: AsyncGenerator[Arrival | None, None]) -> Arrival | None:
    return await anext(arrivals)


def lines(*numbers: int) -> bytes:
    """A line of NDJSON for each number, of some 80 bytes."""
    return b"".join(b'{"n":%d,"pad":"%s"}\n' % (n, b"%064d" % n) for n in numbers)
