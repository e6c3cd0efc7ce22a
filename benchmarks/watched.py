"""What it costs to be watched over HTTP, beside a processor that tells nothing."""

import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from functools import partial
from operator import attrgetter
from pathlib import Path
from typing import NamedTuple

from benchmarks.broker import FLOOD, Broker
from benchmarks.consumers import Running, start_edge
from benchmarks.definitions import FIRST_PARCEL, Definition
from benchmarks.looking import LOOKS, OFF, ON, SCRAPED, VIEWED, Heard, looking
from benchmarks.plan import Plan, interleave
from benchmarks.processes import Failed
from benchmarks.publisher import steady
from benchmarks.sidebyside import full_speed
from benchmarks.table import Bar, Row

_SETTLE = 5.0  # seconds after which a start is over
_KEYS = 5000  # as many as the page keeps; each has a reading a second


class Cost(NamedTuple):
    """cpu: per cent of one core; kilobytes: of an answer to who looks, 10**3 bytes."""

    cpu: float
    kilobytes: float

    def __str__(self) -> str:
        return f"{self.cpu:.1f} % CPU, {self.kilobytes:.0f} kB"


class Idle(dict[str, float]):
    """Per cent of a core that processors take to which nothing comes, by how they are watched."""

    def __str__(self) -> str:
        return ", ".join(f"{name} {share:.2f} %" for name, share in self.items())


def watched(plan: Plan) -> list[Row]:
    """HTTP on, scraped once a second, with a page open: at full speed, then idle."""
    rows = full_speed(plan)
    found = interleave(plan, {"idle": partial(_idle, plan)})
    for name in (ON, SCRAPED, VIEWED):
        more = found.values("idle", lambda idle, name=name: idle[name] - idle[OFF])
        bar = None if name == VIEWED else Bar("at most", 2.0)
        measure, problem = f"idle, more of a core, {name}", found.problem("idle")
        rows.append(Row("http", measure, "%", more, bar=bar, broker=FLOOD.name, problem=problem))
    return rows


def keys(plan: Plan) -> list[Row]:
    """5,000 keys of which each has a reading a second: HTTP off, on, scraped, with a page open."""
    found = interleave(plan, {name: partial(_keys, plan, name) for name in LOOKS})
    cpu, base = attrgetter("cpu"), found.values(OFF, attrgetter("cpu"))
    problem = found.problem(*LOOKS)
    rows = [
        Row("keys", f"CPU, {name}", "%", found.values(name, cpu), OFF, base, None, FLOOD.name)
        for name in (ON, SCRAPED, VIEWED)
    ]
    sizes = {
        f"an answer, {SCRAPED}": found.values(SCRAPED, attrgetter("kilobytes")),
        f"an event, {VIEWED}": found.values(VIEWED, attrgetter("kilobytes")),
    }
    rows += [Row("keys", name, "kB", values, broker=FLOOD.name) for name, values in sizes.items()]
    return [row._replace(problem=problem) for row in rows]


def _keys(plan: Plan, name: str) -> Cost:
    sent: list[float] = []
    with (
        plan.scratch() as folder,
        Broker(FLOOD, folder) as broker,
        _looked_at(broker, folder, name) as (running, heard),
        running.process as process,
    ):
        broker.wait_subscribed(process)
        with steady(broker, _KEYS, 0, sent, _KEYS):
            time.sleep(FIRST_PARCEL)
            heard.bytes = heard.answers = 0
            before, began = process.cpu(), time.monotonic()
            time.sleep(plan.seconds)
            cpu = 100 * (process.cpu() - before) / (time.monotonic() - began)
    if LOOKS[name] and not heard.answers:
        raise Failed(f"edge: nothing came from /{LOOKS[name]} in {plan.seconds:.0f} s")
    return Cost(cpu, heard.bytes / max(1, heard.answers) / 1000)


def _idle(plan: Plan) -> Idle:
    """All at the same time: they do next to nothing, and what else happens meets all of them."""
    with plan.scratch() as folder, Broker(FLOOD, folder) as broker, ExitStack() as stack:
        processes = {}
        for name in LOOKS:
            running, _ = stack.enter_context(_looked_at(broker, folder, name))
            processes[name] = stack.enter_context(running.process)
            broker.wait_subscribed(running.process, len(processes))
        time.sleep(_SETTLE)
        before, began = {name: each.cpu() for name, each in processes.items()}, time.monotonic()
        time.sleep(plan.seconds)
        elapsed = time.monotonic() - began
        return Idle({n: 100 * (p.cpu() - before[n]) / elapsed for n, p in processes.items()})


@contextmanager
def _looked_at(broker: Broker, folder: Path, name: str) -> Iterator[tuple[Running, Heard]]:
    """A processor that is asked for what `name` says, from now on."""
    definition = Definition(name.lower().replace(" ", "-"), broker.port, 0)
    with looking(name) as (arguments, heard):
        yield start_edge(definition, folder, *arguments), heard
