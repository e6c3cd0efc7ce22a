"""What it costs to be watched over HTTP, beside a processor that tells nothing."""

import threading
import time
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from operator import attrgetter
from pathlib import Path
from typing import NamedTuple

from benchmarks.broker import FLOOD, Broker
from benchmarks.consumers import Running, start_edge
from benchmarks.definitions import Definition
from benchmarks.flood import check
from benchmarks.plan import Plan, interleave
from benchmarks.processes import Failed, free_port
from benchmarks.publisher import Packets, flooding, packets, steady
from benchmarks.table import Bar, Row

_EVERY = 1.0  # seconds between two scrapes
_FIRST_PARCEL = 25.0  # seconds until it was made and tried: boto3 is imported then, once
_SETTLE = 5.0  # seconds after which a start is over
_PATIENCE = 120.0  # seconds for a flood
_OFF, _ON, _SCRAPED, _VIEWED = "HTTP off", "HTTP on", "scraped", "watched"
_LOOKS = {_OFF: None, _ON: None, _SCRAPED: "metrics", _VIEWED: "events"}
_KEYS = 5000  # as many as the page keeps; each has a reading a second
_EVENT = b"\nevent: state\n"


class Cost(NamedTuple):
    """cpu: per cent of one core; kilobytes: of an answer to who looks, 10**3 bytes."""

    cpu: float
    kilobytes: float

    def __str__(self) -> str:
        return f"{self.cpu:.1f} % CPU, {self.kilobytes:.0f} kB"


class Heard:
    """What came back to who looks: bytes, and in how many answers or events."""

    def __init__(self) -> None:
        self.bytes = self.answers = 0

    def add(self, piece: bytes) -> None:
        """A piece of an answer."""
        self.bytes += len(piece)
        self.answers += piece.count(_EVENT)


class Pair(NamedTuple):
    """Microseconds per message of one that tells what it does, and of one beside it that does not.

    What else the machine does meets both: a difference of one per cent is seen.
    """

    cpu: float
    off: float

    def __str__(self) -> str:
        return f"{self.cpu:.2f} µs, {self.off:.2f} µs with {_OFF}"


def watched(plan: Plan) -> list[Row]:
    """HTTP on, scraped once a second, with a page open: at QoS 0 saturated, then idle."""
    stream = packets(plan.messages, 0)
    looks = (_ON, _SCRAPED, _VIEWED)
    flooded = interleave(plan, {n: partial(_flood, plan, stream, n) for n in looks})
    idle = interleave(plan, {n: partial(_idle, plan, n) for n in _LOOKS})
    rows = []
    for name in looks:
        values, base = (flooded.values(name, attrgetter(which)) for which in ("cpu", "off"))
        bar = None if name == _VIEWED else Bar("at most", 1.02, "ratio")
        measure, problem = f"CPU per message, {name}", flooded.problem(name)
        rows.append(Row("http", measure, "µs", values, _OFF, base, bar, FLOOD.name, problem))
    for name in looks:
        shares = zip(idle.values(name, float), idle.values(_OFF, float), strict=False)
        more, problem = [a - b for a, b in shares], idle.problem(name, _OFF)
        bar = None if name == _VIEWED else Bar("at most", 2.0)
        measure = f"idle, more of a core, {name}"
        rows.append(Row("http", measure, "%", more, bar=bar, broker=FLOOD.name, problem=problem))
    return rows


def keys(plan: Plan) -> list[Row]:
    """5,000 keys of which each has a reading a second: HTTP off, on, scraped, with a page open."""
    found = interleave(plan, {name: partial(_keys, plan, name) for name in _LOOKS})
    cpu, base = attrgetter("cpu"), found.values(_OFF, attrgetter("cpu"))
    problem = found.problem(*_LOOKS)
    rows = [
        Row("keys", f"CPU, {name}", "%", found.values(name, cpu), _OFF, base, None, FLOOD.name)
        for name in (_ON, _SCRAPED, _VIEWED)
    ]
    sizes = {
        f"an answer, {_SCRAPED}": found.values(_SCRAPED, attrgetter("kilobytes")),
        f"an event, {_VIEWED}": found.values(_VIEWED, attrgetter("kilobytes")),
    }
    rows += [Row("keys", name, "kB", values, broker=FLOOD.name) for name, values in sizes.items()]
    return [row._replace(problem=problem) for row in rows]


def _keys(plan: Plan, name: str) -> Cost:
    sent: list[float] = []
    heard = Heard()
    with (
        plan.scratch() as folder,
        Broker(FLOOD, folder) as broker,
        _looked_at(broker, folder, name, heard) as running,
        running.process as process,
    ):
        broker.wait_subscribed(process)
        with steady(broker, _KEYS, 0, sent, _KEYS):
            time.sleep(_FIRST_PARCEL)
            heard.bytes = heard.answers = 0
            before, began = process.cpu(), time.monotonic()
            time.sleep(plan.seconds)
            cpu = 100 * (process.cpu() - before) / (time.monotonic() - began)
    if _LOOKS[name] and not heard.answers:
        raise Failed(f"edge: nothing came from /{_LOOKS[name]} in {plan.seconds:.0f} s")
    return Cost(cpu, heard.bytes / max(1, heard.answers) / 1000)


def _flood(plan: Plan, stream: Packets, name: str) -> Pair:
    """Two processors take the same stream, side by side."""
    with (
        plan.scratch() as folder,
        Broker(FLOOD, folder) as broker,
        _looked_at(broker, folder, name) as one,
        _looked_at(broker, folder, _OFF) as other,
        one.process,
        other.process,
    ):
        for running in (one, other):
            broker.wait_subscribed(running.process)
        time.sleep(_SETTLE)
        before = [running.process.cpu() for running in (one, other)]
        with flooding(broker, stream):
            for running in (one, other):
                running.process.until(lambda r=running: r.seen() >= stream.messages, _PATIENCE)
        after = [running.process.cpu() for running in (one, other)]
        for running in (one, other):
            check(running, stream)
            running.close()
    return Pair(*((b - a) / stream.messages * 1e6 for a, b in zip(before, after, strict=True)))


def _idle(plan: Plan, name: str) -> float:
    """Percent of a core that a connected processor takes, to which nothing comes."""
    with (
        plan.scratch() as folder,
        Broker(FLOOD, folder) as broker,
        _looked_at(broker, folder, name) as running,
        running.process as process,
    ):
        broker.wait_subscribed(process)
        time.sleep(_SETTLE)
        before, began = process.cpu(), time.monotonic()
        time.sleep(plan.seconds)
        return round(100 * (process.cpu() - before) / (time.monotonic() - began), 3)


@contextmanager
def _looked_at(
    broker: Broker, folder: Path, name: str, heard: Heard | None = None
) -> Iterator[Running]:
    """A processor that is asked for what `name` says, from now on."""
    address, path = f"127.0.0.1:{free_port()}", _LOOKS[name]
    arguments = [] if name == _OFF else ["--http", address]
    definition = Definition(name.lower().replace(" ", "-"), broker.port, 0)
    running = start_edge(definition, folder, *arguments)
    done = threading.Event()
    thread = threading.Thread(
        target=_look, args=(f"http://{address}/{path}", done, heard or Heard())
    )
    if path:
        thread.start()
    try:
        yield running
    finally:
        done.set()
        if path:
            thread.join()


def _look(url: str, done: threading.Event, heard: Heard) -> None:
    """Again and again; a stream is read as it comes, until the server ends it."""
    while not done.wait(_EVERY):
        try:
            with urllib.request.urlopen(url, timeout=2 * _EVERY) as answer:
                while (piece := answer.read1(2**16)) and not done.is_set():
                    heard.add(piece)
            heard.answers += not url.endswith("events")
        except OSError:
            continue
