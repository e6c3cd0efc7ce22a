"""What it costs to be watched over HTTP, beside a processor that tells nothing."""

import threading
import time
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from operator import attrgetter
from pathlib import Path

from benchmarks.broker import FLOOD, Broker
from benchmarks.consumers import Running, start_edge
from benchmarks.definitions import Definition
from benchmarks.flood import Flooded, flood_of
from benchmarks.plan import Plan, interleave
from benchmarks.processes import free_port
from benchmarks.publisher import Packets, packets
from benchmarks.table import Bar, Row

_EVERY = 1.0  # seconds between two scrapes
_SETTLE = 5.0  # seconds after which a start is over
_OFF, _ON, _SCRAPED, _VIEWED = "HTTP off", "HTTP on", "scraped", "watched"
_LOOKS = {_OFF: None, _ON: None, _SCRAPED: "metrics", _VIEWED: "events"}


def watched(plan: Plan) -> list[Row]:
    """HTTP off, on, scraped once a second, with a page open: at QoS 0 saturated, then idle."""
    stream = packets(plan.messages, 0)
    flooded = interleave(plan, {n: partial(_flood, plan, stream, n) for n in _LOOKS})
    idle = interleave(plan, {n: partial(_idle, plan, n) for n in _LOOKS})
    rows = []
    for name in (_ON, _SCRAPED, _VIEWED):
        cpu = attrgetter("cpu")
        values, base = flooded.values(name, cpu), flooded.values(_OFF, cpu)
        bar = None if name == _VIEWED else Bar("at most", 1.02, "ratio")
        measure, problem = f"CPU per message, {name}", flooded.problem(name, _OFF)
        rows.append(Row("http", measure, "µs", values, _OFF, base, bar, FLOOD.name, problem))
    for name in (_ON, _SCRAPED, _VIEWED):
        shares = zip(idle.values(name, float), idle.values(_OFF, float), strict=False)
        more, problem = [a - b for a, b in shares], idle.problem(name, _OFF)
        bar = None if name == _VIEWED else Bar("at most", 2.0)
        measure = f"idle, more of a core, {name}"
        rows.append(Row("http", measure, "%", more, bar=bar, broker=FLOOD.name, problem=problem))
    return rows


def _flood(plan: Plan, stream: Packets, name: str) -> Flooded:
    with (
        plan.scratch() as folder,
        Broker(FLOOD, folder) as broker,
        _looked_at(broker, folder, name) as running,
    ):
        return flood_of(running, broker, stream)


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
        return 100 * (process.cpu() - before) / (time.monotonic() - began)


@contextmanager
def _looked_at(broker: Broker, folder: Path, name: str) -> Iterator[Running]:
    """A processor that is asked for what `name` says, from now on."""
    address, path = f"127.0.0.1:{free_port()}", _LOOKS[name]
    arguments = [] if name == _OFF else ["--http", address]
    running = start_edge(Definition("bench", broker.port, 0), folder, *arguments)
    done = threading.Event()
    thread = threading.Thread(target=_look, args=(f"http://{address}/{path}", done))
    if path:
        thread.start()
    try:
        yield running
    finally:
        done.set()
        if path:
            thread.join()


def _look(url: str, done: threading.Event) -> None:
    """Again and again; a stream is read as it comes, until the server ends it."""
    while not done.wait(_EVERY):
        try:
            with urllib.request.urlopen(url, timeout=2 * _EVERY) as answer:
                while answer.read(2**16) and not done.is_set():
                    pass
        except OSError:
            continue
