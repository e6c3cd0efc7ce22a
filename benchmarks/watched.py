"""What it costs to be watched over HTTP, beside a processor that tells nothing."""

import threading
import urllib.request
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from functools import partial
from operator import attrgetter

from benchmarks.broker import FLOOD, Broker
from benchmarks.consumers import start_edge
from benchmarks.definitions import Definition
from benchmarks.flood import Flooded, flood_of
from benchmarks.plan import Plan, interleave
from benchmarks.processes import free_port
from benchmarks.publisher import Packets, packets
from benchmarks.table import Bar, Row

_EVERY = 1.0  # seconds between two scrapes
_OFF, _ON, _SCRAPED, _VIEWED = "HTTP off", "HTTP on", "scraped", "watched"


def watched(plan: Plan) -> list[Row]:
    """QoS 0, the broker saturated: HTTP off, on, scraped once a second, and with a page open."""
    stream = packets(plan.messages, 0)
    looks: dict[str, Sequence[str] | None] = {
        _OFF: None,
        _ON: (),
        _SCRAPED: ("metrics",),
        _VIEWED: ("events",),
    }
    turns = {name: partial(_flood, plan, stream, paths) for name, paths in looks.items()}
    found = interleave(plan, turns)

    def row(name: str, bar: Bar | None) -> Row:
        cpu = attrgetter("cpu")
        values, base = found.values(name, cpu), found.values(_OFF, cpu)
        problem = found.problem(name, _OFF)
        measure = f"CPU per message, {name}"
        return Row("http", measure, "µs", values, _OFF, base, bar, FLOOD.name, problem)

    bar = Bar("at most", 1.02, "ratio")
    return [row(_ON, bar), row(_SCRAPED, bar), row(_VIEWED, None)]


def _flood(plan: Plan, stream: Packets, paths: Sequence[str] | None) -> Flooded:
    """paths: what is asked for while the messages come; None: HTTP is off."""
    address = f"127.0.0.1:{free_port()}"
    arguments = [] if paths is None else ["--http", address]
    with plan.scratch() as folder, Broker(FLOOD, folder) as broker:
        running = start_edge(Definition("bench", broker.port, stream.qos), folder, *arguments)
        with _looking(address, paths or ()):
            return flood_of(running, broker, stream)


@contextmanager
def _looking(address: str, paths: Sequence[str]) -> Iterator[None]:
    done = threading.Event()
    threads = [
        threading.Thread(target=_look, args=(f"http://{address}/{path}", done)) for path in paths
    ]
    for thread in threads:
        thread.start()
    try:
        yield
    finally:
        done.set()
        for thread in threads:
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
