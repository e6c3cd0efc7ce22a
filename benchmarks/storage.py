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
from benchmarks.definitions import AT_ONCE, NEVER, Definition
from benchmarks.flood import watch
from benchmarks.outbox import Buffered, Outbox
from benchmarks.plan import Plan, interleave
from benchmarks.processes import Failed, Process
from benchmarks.publisher import flooding, packets
from benchmarks.table import Bar, Row

_PATIENCE = 120.0  # seconds for rolling, and for delivering, everything


class Stored(NamedTuple):
    """Bytes per reading as entry and as parcel; bytes written to the disk per byte of an entry.

    live: rolled and delivered as the readings come; outage: all are taken in, then all are rolled,
    then all are delivered.
    """

    entry: float
    parcel: float
    live: float
    outage: float

    def __str__(self) -> str:
        at_rest = f"{self.entry:.1f} B in entries, {self.parcel:.1f} B in parcels"
        return f"{at_rest}; written {self.live:.2f} live, {self.outage:.2f} after an outage"


def at_rest(plan: Plan) -> list[Row]:
    """Readings in an outbox whose bucket is away, then is back, and one whose bucket is there."""
    found = interleave(
        plan,
        {
            "edge": partial(_store, plan, 0),
            "QoS 1": partial(_store, plan, 1),
            "Parquet": partial(_store, plan, 0, "parquet"),
        },
    )

    def row(
        measure: str, of: Callable[[Stored], float], bar: Bar | None = None, name: str = "edge"
    ) -> Row:
        values, problem = found.values(name, of), found.problem(name)
        return Row("storage", measure, "B", values, bar=bar, broker=FLOOD.name, problem=problem)

    return [
        row("at rest per reading, entries", attrgetter("entry")),
        row("at rest per reading, rolled", attrgetter("parcel"), Bar("at most", 25.0)),
        row("written per entry byte", attrgetter("live"), Bar("at most", 3.0)),
        row("written per entry byte, outage", attrgetter("outage")),
        row("written per entry byte, QoS 1", attrgetter("live"), name="QoS 1"),
        row("at rest per reading, Parquet", attrgetter("parcel"), Bar("at most", 25.0), "Parquet"),
        row("written per entry byte, Parquet", attrgetter("live"), Bar("at most", 3.0), "Parquet"),
    ]


def _store(plan: Plan, qos: int, form: str = "ndjson") -> Stored:
    entries, parcels, outage = _outage(plan, qos, form)
    return Stored(
        entries.entry_bytes / entries.rows,
        parcels.parcel_bytes / parcels.rows,
        _live(plan, qos, form) / entries.entry_bytes,
        outage / entries.entry_bytes,
    )


def _outage(plan: Plan, qos: int, form: str) -> tuple[Buffered, Buffered, int]:
    """Three runs, because each stage must be seen at its end: as entries, as parcels, delivered.

    Returns what waited after the first and the second, and the bytes written by all.
    """
    with plan.scratch() as folder, Broker(FLOOD, folder) as broker, Bucket() as bucket:
        away = Definition("bench", broker.port, qos, roll=NEVER, form=form)
        entries, taken_in = _take_in(away, folder, broker, plan.messages, lambda now: True)
        rolling = away._replace(roll=AT_ONCE)
        parcels, rolled = _run_until(rolling, folder, lambda now: not now.entry_rows)
        back = rolling._replace(bucket_port=bucket.port)
        _, delivered = _run_until(back, folder, lambda now: not now.rows)
    return entries, parcels, taken_in + rolled + delivered


def _live(plan: Plan, qos: int, form: str) -> int:
    """The bytes written when the link is up all the time."""
    with plan.scratch() as folder, Broker(FLOOD, folder) as broker, Bucket() as bucket:
        definition = Definition("bench", broker.port, qos, bucket.port, AT_ONCE, form)
        return _take_in(definition, folder, broker, plan.messages, lambda now: not now.rows)[1]


def _take_in(
    definition: Definition,
    folder: Path,
    broker: Broker,
    messages: int,
    done: Callable[[Buffered], bool],
) -> tuple[Buffered, int]:
    """Flood it and wait until `done`; what waits then, and the bytes written since it subscribed.

    What it writes before that is the reserve, once in the life of an outbox.
    """
    running = start_edge(definition, folder)
    with running.process as process:
        broker.wait_subscribed(process)
        before = process.written()
        with flooding(broker, packets(messages, definition.qos)):
            watch(running, messages)
        running.close()
        buffered = _wait_until(process, Outbox(folder / definition.name), done)
        return buffered, _written_at_end(process) - before


def _run_until(
    definition: Definition, folder: Path, done: Callable[[Buffered], bool]
) -> tuple[Buffered, int]:
    """Run it until `done`; what waits then, and the bytes written from start to end."""
    with start_edge(definition, folder).process as process:
        buffered = _wait_until(process, Outbox(folder / definition.name), done)
        return buffered, _written_at_end(process)


def _wait_until(process: Process, outbox: Outbox, done: Callable[[Buffered], bool]) -> Buffered:
    deadline = time.monotonic() + _PATIENCE
    while not done(now := outbox.buffered()):
        if time.monotonic() > deadline or not process.alive():
            raise Failed(f"edge: stuck with {now}: {process.complaint()}")
        time.sleep(0.05)
    outbox.close()
    return now


def _written_at_end(process: Process) -> int:
    """The bytes it wrote in its whole life, the last checkpoint included."""
    process.end()
    return process.written()
