"""An MQTT source driven by hand, and a publisher for it."""

import asyncio
import json
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager
from typing import Any

import polars as pl
from paho.mqtt import publish
from paho.mqtt.enums import MQTTProtocolVersion

from edge.codec import Record
from edge.component import Stream
from edge.sources import Arrival, Batch
from edge.sources.mqtt import MqttSource
from tests.broker import Broker
from tests.mqtt.wire import HastyClock

OPEN = "allow_anonymous true\nmax_queued_messages 0"
KEPT = f"{OPEN}\npersistence true\npersistence_location {{folder}}/\nautosave_interval 1"
RECORD = Record(
    time="ts",
    key=("device",),
    fields={"ts": "timestamp_ms", "n": "int"},  # type: ignore[arg-type]
)


class Intake:
    """A source driven by hand, with the memory that an outbox would hold."""

    def __init__(
        self, url: str, *, record: Record = RECORD, batch: Batch | None = None, **options: Any
    ):
        self.url, self.record, self.options = url, record, options
        self.batch = batch or Batch(10_000, 0.05)
        self.memory: list[bytes] = []
        self.nones = 0

    @asynccontextmanager
    async def running(self, **changes: Any) -> AsyncIterator["Intake"]:
        """A process with this source, ended in order."""
        options = {"topics": "plant/{device}", **self.options, **changes}
        self.source = MqttSource(url=self.url, **options)
        self.schema = self.source.bind(self.record, Stream(), "edge-test", self.batch, HastyClock())
        self.source.restore(self.memory)
        self.arrivals = self.source.arrivals(None)
        try:
            yield self
        finally:
            await self.arrivals.aclose()
            await self.source.close()

    async def next(self) -> Arrival:
        """The next arrival, even an empty one, not yet committed."""
        async for arrival in self.arrivals:
            if arrival is not None:
                if self.schema is not None:
                    assert arrival.frame.schema == self.schema
                lost = len(arrival.rejects) + arrival.redelivered + arrival.retained
                assert arrival.read == arrival.frame.height + lost
                return arrival
            self.nones += 1
        raise AssertionError("the source ended")

    def commit(self) -> None:
        """Keep what the source wants remembered."""
        change = self.source.snapshot(False)
        self.memory += [change] if change else []

    async def connected(self) -> None:
        """Read on until the broker has answered the subscriptions."""

        async def read() -> None:
            async for arrival in self.arrivals:
                self.commit()
                assert arrival is None or not arrival.read
                answers = self.status["subscriptions"]
                if arrival is None and self.status["connected"] and answers:
                    return

        await asyncio.wait_for(read(), 60)

    async def read(self, count: int, acknowledge: bool = True) -> "Total":
        """Read and commit until `count` messages were read."""
        total = Total()
        async with asyncio.timeout(60):
            while total.read < count:
                arrival = await self.next()
                self.commit()
                if acknowledge:
                    await arrival.acknowledge()
                total.add(arrival)
        return total

    @property
    def status(self) -> dict[str, Any]:
        return dict(self.source.status())


class Total:
    """What several arrivals brought."""

    def __init__(self) -> None:
        self.arrivals: list[Arrival] = []
        self.read = self.redelivered = self.retained = 0

    def add(self, arrival: Arrival) -> None:
        self.arrivals.append(arrival)
        self.read += arrival.read
        self.redelivered += arrival.redelivered
        self.retained += arrival.retained

    @property
    def frame(self) -> pl.DataFrame:
        return pl.concat(arrival.frame for arrival in self.arrivals)

    @property
    def numbers(self) -> list[int]:
        return self.frame["n"].to_list()

    @property
    def rejects(self) -> list[tuple[str | None, str]]:
        return [(each.topic, each.reason) for one in self.arrivals for each in one.rejects]


def reading(number: int) -> bytes:
    return json.dumps({"ts": 1_700_000_000_000 + number, "n": number}).encode()


async def send(
    broker: Broker,
    numbers: Sequence[int | bytes],
    topic: str = "plant/a",
    qos: int = 1,
    **options: Any,
) -> None:
    """Publish readings with these numbers, or these payloads."""
    payloads = [each if isinstance(each, bytes) else reading(each) for each in numbers]
    messages = [
        {"topic": topic, "payload": each, "qos": qos, "retain": options.get("retain", False)}
        for each in payloads
    ]
    await asyncio.to_thread(
        publish.multiple, messages, hostname="127.0.0.1", port=broker.port, client_id="publisher",
        auth=options.get("auth"), protocol=MQTTProtocolVersion.MQTTv311,
    )  # fmt: skip


async def read_until(intake: Intake, condition: Callable[[], object]) -> None:
    async for _ in intake.arrivals:
        if condition():
            return
