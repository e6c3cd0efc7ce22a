"""A start with gigabytes waiting: how soon new rows are safe, and what memory the drain takes."""

import time
from collections.abc import Callable
from functools import partial
from operator import attrgetter
from typing import NamedTuple

from benchmarks.broker import FLOOD, Broker
from benchmarks.bucket import Bucket
from benchmarks.consumers import start_edge
from benchmarks.definitions import Definition
from benchmarks.outage import NAME, buffer
from benchmarks.outbox import Outbox
from benchmarks.plan import Plan, interleave
from benchmarks.processes import Failed
from benchmarks.publisher import steady
from benchmarks.table import Bar, Row

_PAD = 768  # bytes of noise in each reading that waits: as many wait at least
_RATE = 1000  # readings a second that come meanwhile
_PATIENCE = 300.0  # seconds for the backlog to leave


class Started(NamedTuple):
    """first, drained: seconds from the start of the process until a new row was durable and until
    the backlog was gone. megabytes: peak RSS, 10**6 bytes, until then.
    """

    first: float
    drained: float
    megabytes: float

    def __str__(self) -> str:
        return f"{self.first:.2f} s, drained in {self.drained:.0f} s, {self.megabytes:.0f} MB RSS"


def backlog(plan: Plan) -> list[Row]:
    """1,000 readings a second come while it starts and drains; beside one that has no backlog."""
    found = interleave(
        plan._replace(rounds=1),
        {"empty": partial(_start, plan, 0), "edge": partial(_start, plan, plan.backlog)},
    )
    what = f"{plan.backlog / 2**30:.3g} GiB backlog"

    def row(measure: str, unit: str, of: Callable[[Started], float], most: float) -> Row:
        values, baselines = found.values("edge", of), found.values("empty", of)
        bar, problem = Bar("at most", most), found.problem("edge", "empty")
        name = FLOOD.name
        return Row("backlog", measure, unit, values, "empty", baselines, bar, name, problem)

    return [
        row(f"start to new row durable, {what}", "s", attrgetter("first"), 5.0),
        row(f"peak RSS while it drains, {what}", "MB", attrgetter("megabytes"), 250.0),
    ]


def _start(plan: Plan, size: int) -> Started:
    sent: list[float] = []
    with plan.scratch() as folder, Broker(FLOOD, folder) as broker, Bucket() as bucket:
        buffer(folder, max(size // _PAD, 100), _PAD)
        outbox = Outbox(folder / NAME)
        before, waiting = outbox.read(), outbox.buffered()
        if waiting.parcel_bytes < size:
            raise Failed(f"simulated: {waiting.parcel_bytes:,} bytes wait, expected {size:,}")
        definition = Definition(NAME, broker.port, 0, bucket.port, max_size="4GiB")
        with steady(broker, _RATE, 0, sent):
            begin = time.monotonic()
            with start_edge(definition, folder).process as process:
                process.until(lambda: outbox.read() > before, _PATIENCE)
                first = time.monotonic() - begin
                # What came meanwhile waits for its minute as entries, and is no backlog.
                process.until(lambda: not outbox.buffered().parcel_rows, _PATIENCE)
                drained = time.monotonic() - begin
                time.sleep(max(0.0, plan.seconds - drained))
                peak = process.peak()
                outbox.close()
    return Started(first, drained, peak / 1e6)
