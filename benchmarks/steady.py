"""Loads as they are in a plant: a steady stream, a hundred devices, and nothing at all."""

import time
from collections.abc import Callable, Sequence
from functools import partial
from operator import attrgetter
from typing import NamedTuple

from benchmarks.broker import DEFAULT, FLOOD, Broker
from benchmarks.bucket import Bucket
from benchmarks.consumers import Consumer, Running, Task, edge, edge_process, mosquitto_sub
from benchmarks.definitions import AT_ONCE, FIRST_PARCEL, Definition
from benchmarks.outbox import Outbox
from benchmarks.plan import Plan, Rounds, interleave
from benchmarks.processes import Failed, Process
from benchmarks.publisher import flooding, packets, steady
from benchmarks.table import Bar, Row

_WARM_UP = 5.0  # seconds
_PARCEL = 25.0  # seconds from one parcel to the next
_ENDLESS = 2**31 - 1
_PATIENCE = 15.0  # seconds for the last messages to become durable, or delivered


class Costs(NamedTuple):
    """cpu: microseconds per message."""

    cpu: float

    def __str__(self) -> str:
        return f"{self.cpu:.2f} µs"


class Trickle(NamedTuple):
    """cpu: per cent of one core; delay: ms from publish to durable, 99 of 100 are below."""

    cpu: float
    delay: float

    def __str__(self) -> str:
        return f"{self.cpu:.2f} % CPU, p99 {self.delay:.0f} ms"


class Resting(NamedTuple):
    """cpu: per cent of one core; megabytes: resident, 10**6 bytes."""

    cpu: float
    megabytes: float

    def __str__(self) -> str:
        return f"{self.cpu:.2f} % CPU, {self.megabytes:.0f} MB"


def steady_load(plan: Plan) -> list[Row]:
    """5,000 messages a second at QoS 0: what one costs once all is warm, rolling included."""
    consumers: dict[str, Consumer] = {"mosquitto_sub": mosquitto_sub, "edge": edge}
    found = interleave(
        plan, {name: partial(_steady, plan, consumer) for name, consumer in consumers.items()}
    )
    cpu = attrgetter("cpu")
    return [
        Row(
            "steady",
            "CPU per message at 5,000 msg/s",
            "µs",
            found.values("edge", cpu),
            "mosquitto_sub",
            found.values("mosquitto_sub", cpu),
            Bar("at most", 12.0),
            FLOOD.name,
            found.problem("edge", "mosquitto_sub"),
        )
    ]


def devices(plan: Plan) -> list[Row]:
    """100 devices once a second at QoS 1: processor time, and how soon a reading is durable."""
    found = interleave(plan, {"edge": partial(_devices, plan)})

    def row(measure: str, unit: str, of: Callable[[Trickle], float], most: float) -> Row:
        values, problem = found.values("edge", of), found.problem("edge")
        bar = Bar("at most", most)
        return Row("devices", measure, unit, values, bar=bar, broker=DEFAULT.name, problem=problem)

    return [
        row("CPU, 100 devices once a second", "%", attrgetter("cpu"), 5.0),
        row("publish to durable, p99", "ms", attrgetter("delay"), 150.0),
    ]


def idle(plan: Plan) -> list[Row]:
    """Connected, all delivered, nothing to do: one, two and four pipelines in a process."""
    found = interleave(plan, {str(count): partial(_idle, plan, count) for count in (1, 2, 4)})
    cpu, megabytes = attrgetter("cpu"), attrgetter("megabytes")
    alone, together = found.values("1", megabytes), found.values("4", megabytes)
    further = [(four - one) / 3 for one, four in zip(alone, together, strict=False)]
    return [
        _idle_row("CPU, 1 pipeline", "%", found.values("1", cpu), Bar("at most", 1.0), found),
        _idle_row("CPU, 2 pipelines", "%", found.values("2", cpu), None, found),
        _idle_row("CPU, 4 pipelines", "%", found.values("4", cpu), None, found),
        _idle_row("RSS, 1 pipeline", "MB", alone, Bar("at most", 130.0), found),
        _idle_row("RSS, 2 pipelines", "MB", found.values("2", megabytes), None, found),
        _idle_row("RSS, 4 pipelines", "MB", together, None, found),
        _idle_row("RSS, each further pipeline", "MB", further, Bar("at most", 15.0), found),
    ]


def _idle_row(
    measure: str, unit: str, values: Sequence[float], bar: Bar | None, found: Rounds[Resting]
) -> Row:
    problem = found.problem("1", "2", "4")
    return Row("idle", measure, unit, values, bar=bar, broker=FLOOD.name, problem=problem)


def _steady(plan: Plan, consumer: Consumer) -> Costs:
    sent: list[float] = []
    with plan.scratch() as folder, Broker(FLOOD, folder) as broker:
        running = consumer(Task(broker, folder, 0, _ENDLESS))
        with running.process as process:
            broker.wait_subscribed(process)
            with steady(broker, 5000, 0, sent):
                time.sleep(FIRST_PARCEL)
                cpu, count = process.cpu(), len(sent)
                time.sleep(max(plan.seconds, _PARCEL))
                cpu, count = process.cpu() - cpu, len(sent) - count
            _wait_for_all(running, len(sent))
    return Costs(cpu / count * 1e6)


def _devices(plan: Plan) -> Trickle:
    sent: list[float] = []
    with plan.scratch() as folder, Broker(DEFAULT, folder) as broker:
        running = edge(Task(broker, folder, 1, _ENDLESS))
        with running.process as process:
            broker.wait_subscribed(process)
            with steady(broker, 100, 1, sent):
                _follow(running, sent, _WARM_UP)
                cpu = process.cpu()
                delays = _follow(running, sent, plan.seconds)
                cpu = process.cpu() - cpu
            _wait_for_all(running, len(sent))
    if not delays:
        raise Failed(f"edge: none of {len(sent)} messages became durable")
    return Trickle(cpu / plan.seconds * 100, sorted(delays)[len(delays) * 99 // 100] * 1000)


def _follow(running: Running, sent: Sequence[float], seconds: float) -> list[float]:
    """Watch for `seconds`; how long each message took that became durable meanwhile.

    One publisher at QoS 1 keeps its order, so the n-th durable message is the n-th sent one.
    """
    delays: list[float] = []
    seen, end = running.seen(), time.monotonic() + seconds
    while (now := time.monotonic()) < end:
        before, seen = seen, min(running.seen(), len(sent))
        delays += [now - when for when in sent[before:seen]]
        time.sleep(0.002)
    return delays


def _wait_for_all(running: Running, count: int) -> None:
    """A consumer that lost messages did less work than it should have."""
    deadline = time.monotonic() + _PATIENCE
    # The last few bytes of a file that is not closed yet may still be in a buffer.
    while running.seen() < count - 100:
        if time.monotonic() > deadline:
            name, words = running.process.name, running.process.complaint()
            raise Failed(f"{name}: only {running.seen():,} of {count:,} came: {words}")
        time.sleep(0.05)
    running.close()


def _idle(plan: Plan, count: int) -> Resting:
    with plan.scratch() as folder, Broker(FLOOD, folder) as broker, Bucket() as bucket:
        defined = [
            Definition(f"idle-{n}", broker.port, 1, bucket.port, AT_ONCE) for n in range(count)
        ]
        files = [str(definition.write(folder)) for definition in defined]
        with edge_process(folder, "run", *files) as process:
            broker.wait_subscribed(process, count)
            _pass_through(broker, [Outbox(folder / definition.name) for definition in defined])
            time.sleep(_WARM_UP)
            return _rest(process, plan.seconds)


def _pass_through(broker: Broker, outboxes: Sequence[Outbox]) -> None:
    """A process that has never read or sent anything has not loaded half of its code."""
    deadline = time.monotonic() + _PATIENCE
    with flooding(broker, packets(1000, 1)):
        while any(outbox.read() < 1000 or outbox.buffered().rows for outbox in outboxes):
            if time.monotonic() > deadline:
                raise Failed(f"edge: did not deliver, {[one.buffered() for one in outboxes]} wait")
            time.sleep(0.05)
    for outbox in outboxes:
        outbox.close()


def _rest(process: Process, seconds: float) -> Resting:
    before = process.cpu()
    time.sleep(seconds)
    return Resting((process.cpu() - before) / seconds * 100, process.rss() / 1e6)
