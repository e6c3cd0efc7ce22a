"""A saturated broker: how many messages a second, and what one costs."""

import time
from collections.abc import Callable, Mapping
from functools import partial
from operator import attrgetter
from typing import NamedTuple

from benchmarks.broker import FLOOD, WINDOW, Broker, Configuration
from benchmarks.consumers import (
    Consumer,
    Running,
    Task,
    edge,
    hand_written,
    mosquitto_sub,
    null,
    tapped,
)
from benchmarks.plan import Plan, Rounds, interleave
from benchmarks.processes import Failed
from benchmarks.publisher import Packets, flood, flooding, packets
from benchmarks.table import Bar, Row

_PATIENCE = 20.0  # seconds without a new message: what is missing was lost
_PARCEL = 150_000  # readings, which hold more than `roll.size`


class Flooded(NamedTuple):
    """rate: messages a second, first to last durable one; cpu: microseconds per message."""

    rate: float
    cpu: float

    def __str__(self) -> str:
        return f"{self.rate:,.0f} msg/s, {self.cpu:.2f} µs"


def qos0(plan: Plan) -> list[Row]:
    """QoS 0, the broker saturated: rate and processor time of what is durable in the outbox."""
    contenders = {
        "null": null,
        "mosquitto_sub": mosquitto_sub,
        "hand-written": hand_written,
        "edge": edge,
    }
    found = _compete(plan, FLOOD, contenders, qos=0)
    row = _Rows("qos0", FLOOD, found)
    return [
        row.rate("null", Bar("at least", 0.85, "ratio")),
        row.cpu("", Bar("at most", 3.5)),
        row.cpu("mosquitto_sub", Bar("at most", 0.75, "ratio")),
        row.cpu("hand-written", Bar("at most", 1 / 6, "ratio")),
    ]


def qos1(plan: Plan) -> list[Row]:
    """QoS 1, acknowledged after the commit, the broker saturated."""
    contenders = {"mosquitto_sub": mosquitto_sub, "hand-written": hand_written, "edge": edge}
    row = _Rows("qos1", FLOOD, _compete(plan, FLOOD, contenders, qos=1))
    return [
        row.rate("mosquitto_sub", Bar("at least", 0.95, "ratio")),
        row.cpu("", Bar("at most", 5.0)),
        row.cpu("hand-written", Bar("at most", 1 / 5, "ratio")),
    ]


def window(plan: Plan) -> list[Row]:
    """QoS 1 with a tenth of the messages: the broker sends 20 and waits to hear of them."""
    contenders = {"mosquitto_sub": mosquitto_sub, "edge": edge}
    found = _compete(plan._replace(messages=plan.messages // 10), WINDOW, contenders, qos=1)
    return [_Rows("window", WINDOW, found).rate("mosquitto_sub", Bar("at least", 5000.0))]


def rejects(plan: Plan) -> list[Row]:
    """QoS 0, one payload in a hundred is no reading: the others must not wait for it long."""
    found = interleave(
        plan,
        {
            "edge, all good": partial(_flood, plan, FLOOD, edge, 0),
            "edge": partial(_flood, plan, FLOOD, edge, 0, bad_every=100),
        },
    )
    row = _Rows("rejects", FLOOD, found)
    bar = Bar("at least", 0.5, "ratio")
    return [row.rate("edge, all good", bar), row.cpu("edge, all good", None)]


def tap(plan: Plan) -> list[Row]:
    """QoS 0, somebody looks at 1,000 rows a second: what that costs the processor."""
    contenders = {"edge, unseen": edge, "edge": tapped}
    row = _Rows("tap", FLOOD, _compete(plan, FLOOD, contenders, qos=0))
    bar = Bar("at most", 1.05, "ratio")
    return [row.cpu("edge, unseen", bar), row.rate("edge, unseen", None)]


class _Rows(NamedTuple):
    """Makes rows of what `edge` measured in a flood, beside one of the others where named."""

    benchmark: str
    broker: Configuration
    found: Rounds[Flooded]

    def rate(self, baseline: str, bar: Bar | None) -> Row:
        return self._row("message rate", "msg/s", attrgetter("rate"), baseline, bar)

    def cpu(self, baseline: str, bar: Bar | None) -> Row:
        return self._row("CPU per message", "µs", attrgetter("cpu"), baseline, bar)

    def _row(
        self,
        measure: str,
        unit: str,
        of: Callable[[Flooded], float],
        baseline: str,
        bar: Bar | None,
    ) -> Row:
        values = self.found.values("edge", of)
        baselines = self.found.values(baseline, of) if baseline else []
        problem = self.found.problem("edge", baseline)
        name = self.broker.name
        return Row(self.benchmark, measure, unit, values, baseline, baselines, bar, name, problem)


def _compete(
    plan: Plan, configuration: Configuration, contenders: Mapping[str, Consumer], qos: int
) -> Rounds[Flooded]:
    turns = {
        name: partial(_flood, plan, configuration, consumer, qos)
        for name, consumer in contenders.items()
    }
    return interleave(plan, turns)


def _flood(
    plan: Plan, configuration: Configuration, consumer: Consumer, qos: int, bad_every: int = 0
) -> Flooded:
    """One consumer on a broker of its own takes the whole stream, once it is warm."""
    warming = packets(max(1, round(plan.messages / 3000)) * 1000, qos)
    stream = packets(plan.messages, qos, bad_every, warming.messages)
    count = warming.messages + stream.messages
    with plan.scratch() as folder, Broker(configuration, folder) as broker:
        running = consumer(Task(broker, folder, qos, count))
        with running.process as process:
            broker.wait_subscribed(process)
            _warm_up(running, broker, warming)
            before = process.cpu()
            with flooding(broker, stream):
                rate = watch(running, count, warming.messages)
            cpu = process.cpu() - before
            check(running, warming, stream)
            running.close()
    return Flooded(rate, cpu / stream.messages * 1e6)


def _warm_up(running: Running, broker: Broker, stream: Packets) -> None:
    """Until the first parcel was made and tried, which imports boto3, once in a process's life."""
    flood(broker, stream)
    # The last few bytes of a file that is not closed yet may still be in a buffer.
    running.process.until(lambda: running.seen() >= stream.messages - 100, _PATIENCE)
    if stream.messages >= _PARCEL:
        running.process.until(running.tried, _PATIENCE)


def check(running: Running, *streams: Packets) -> None:
    """Who rejects or forgets readings has less to do, and is not compared."""
    results = sum(stream.results for stream in streams)
    messages = sum(stream.messages for stream in streams)
    if running.results and (made := running.results()) != results:
        expected = f"expected {results:,} of {messages:,} messages"
        raise Failed(f"{running.process.name}: made {made:,} rows, {expected}")


def watch(running: Running, count: int, before: int = 0) -> float:
    """Wait until `count` messages are durable; messages a second from the first to the last.

    before: so many of them were when it began.
    """
    first: tuple[float, int] | None = None
    seen, changed = before, time.monotonic()
    while True:
        ended = not running.process.alive()
        now, earlier, seen = time.monotonic(), seen, running.seen()
        if seen > earlier:
            first, changed = first or (now, seen), now
        if first and seen >= count:
            return _rate(seen - first[1], now - first[0])
        if ended or now - changed > _PATIENCE:
            name, words = running.process.name, running.process.complaint()
            raise Failed(f"{name}: {seen:,} of {count:,} messages came, then no more: {words}")
        time.sleep(0.01)


def _rate(messages: int, seconds: float) -> float:
    if not messages:
        raise Failed("all messages came at once, which has no rate; take more --messages")
    return messages / seconds
