"""What readings take on the disk while they wait, and what is written for them in all."""

import time
from collections.abc import Callable
from functools import partial
from operator import attrgetter
from pathlib import Path
from typing import NamedTuple

from benchmarks.broker import FLOOD, Broker
from benchmarks.bucket import Bucket
from benchmarks.consumers import start_edge
from benchmarks.definitions import Definition
from benchmarks.flood import watch
from benchmarks.outbox import Buffered, Outbox
from benchmarks.plan import Plan, interleave
from benchmarks.processes import Failed, Process
from benchmarks.publisher import flooding, packets
from benchmarks.table import Bar, Row

_NEVER = "{size: 1GiB, every: 1h}"
_AT_ONCE = "{size: 8MiB, every: 1s}"
_PATIENCE = 120.0  # seconds for rolling, and for delivering, everything


class Stored(NamedTuple):
    """parcel: bytes at rest per reading after rolling; entry: before; written: to the disk for
    every byte of an entry, from its commit until its parcel was delivered and deleted.
    """

    parcel: float
    entry: float
    written: float

    def __str__(self) -> str:
        return f"{self.parcel:.1f} B at rest, {self.written:.2f} written per entry byte"


def at_rest(plan: Plan) -> list[Row]:
    """A flood into an outbox whose bucket is away; then it is rolled; then the bucket is back."""
    found = interleave(plan, {"edge": partial(_store, plan)})

    def row(measure: str, unit: str, of: Callable[[Stored], float], bar: Bar | None) -> Row:
        values, problem = found.values("edge", of), found.problem("edge")
        return Row("storage", measure, unit, values, bar=bar, broker=FLOOD.name, problem=problem)

    return [
        row("at rest per reading, rolled", "B", attrgetter("parcel"), Bar("at most", 25.0)),
        row("at rest per reading, entries", "B", attrgetter("entry"), None),
        row("written per entry byte", "B", attrgetter("written"), Bar("at most", 3.0)),
    ]


def _store(plan: Plan) -> Stored:
    """The life of a backlog in three runs of the product, because each stage needs its end seen."""
    with plan.scratch() as folder, Broker(FLOOD, folder) as broker, Bucket() as bucket:
        away = Definition("bench", broker.port, 1, roll=_NEVER)
        entries, taken_in = _take_in(away, folder, broker, plan.messages)
        parcels, rolling = _run_until(
            away._replace(roll=_AT_ONCE), folder, lambda now: not now.entry_rows
        )
        back = away._replace(roll=_AT_ONCE, bucket_port=bucket.port)
        _, delivering = _run_until(back, folder, lambda now: not now.parcel_rows)
    written = taken_in + rolling + delivering
    return Stored(
        parcels.parcel_bytes / parcels.parcel_rows,
        entries.entry_bytes / entries.entry_rows,
        written / entries.entry_bytes,
    )


def _take_in(
    definition: Definition, folder: Path, broker: Broker, messages: int
) -> tuple[Buffered, int]:
    """Flood it; what waits then, and the bytes written since it had subscribed.

    What it writes before that is the reserve, once in the life of an outbox.
    """
    outbox = Outbox(folder / definition.name)
    running = start_edge(definition, folder)
    with running.process as process:
        broker.wait_subscribed(process)
        before = process.written()
        with flooding(broker, packets(messages, 1)):
            watch(running, messages)
        running.close()
        buffered = outbox.buffered()
        outbox.close()
        return buffered, _written_at_end(process) - before


def _run_until(
    definition: Definition, folder: Path, done: Callable[[Buffered], bool]
) -> tuple[Buffered, int]:
    """Run it until `done`; what waits then, and the bytes written from start to end."""
    outbox = Outbox(folder / definition.name)
    deadline = time.monotonic() + _PATIENCE
    with start_edge(definition, folder).process as process:
        while not done(outbox.buffered()):
            if time.monotonic() > deadline or not process.alive():
                raise Failed(f"edge: stuck with {outbox.buffered()}: {process.complaint()}")
            time.sleep(0.05)
        buffered = outbox.buffered()
        outbox.close()
        return buffered, _written_at_end(process)


def _written_at_end(process: Process) -> int:
    """The bytes it wrote in its whole life, the last checkpoint included."""
    process.end()
    return process.written()
