"""A queue read as the runner reads it: batch by batch, with memory kept for the next start."""

import asyncio
import json
from collections.abc import AsyncIterator, Iterable
from contextlib import asynccontextmanager
from typing import Any

import polars as pl

from edge.clock import Clock
from edge.codec import Record, Reject
from edge.component import Stream
from edge.sources import Arrival, Batch
from edge.sources.sqs import SqsSource
from tests.cloud import Cloud

RECORD = Record(fields={"n": "int", "name": "optional str"})


class Reading:
    """Lives of one source; `memory` is what the outbox would have kept.

    One receiver, unless told: moto gives a message to two calls that come at the same time.
    rows: the most of one step.
    """

    def __init__(
        self, cloud: Cloud, record: Record = RECORD, rows: int = 10_000, **options: Any
    ) -> None:
        self._cloud = cloud
        self._record = record
        self._batch = Batch(rows=rows)
        self._options = {"queue": "plant", "visibility": "30s", "receivers": 1, **options}
        self.memory: list[bytes] = []
        self.frames: list[pl.DataFrame] = []
        self.rejects: list[Reject] = []
        self.redelivered = 0
        self.owed: list[Arrival] = []

    @asynccontextmanager
    async def running(self, clock: Clock | None = None) -> AsyncIterator["Reading"]:
        self.source = SqsSource(endpoint_url=self._cloud.url, **self._options)
        self.source.bind(self._record, Stream(), "edge-test", self._batch, clock or Clock())
        self.source.restore(self.memory)
        self._arrivals = self.source.arrivals(None)
        try:
            yield self
        finally:
            await self._arrivals.aclose()
            await self.source.close()

    async def step(self, acknowledge: bool = True) -> bool:
        """One arrival, committed; False if there was none."""
        arrival = await anext(self._arrivals)
        if arrival is None:
            return False
        left = len(arrival.rejects) + arrival.redelivered + arrival.retained
        assert arrival.read == arrival.frame.height + left
        self.memory += [state] if (state := self.source.snapshot(False)) else []
        self.frames.append(arrival.frame)
        self.rejects += arrival.rejects
        self.redelivered += arrival.redelivered
        if acknowledge:
            await arrival.acknowledge()
        else:
            self.owed.append(arrival)
        return True

    async def read(self, rows: int, acknowledge: bool = True) -> None:
        """Steps until so many rows, rejects and repeats came in all."""
        async with asyncio.timeout(40):
            while self.total < rows:
                await self.step(acknowledge)

    @property
    def total(self) -> int:
        return len(self.numbers) + len(self.rejects) + self.redelivered

    @property
    def numbers(self) -> list[int]:
        return [n for frame in self.frames for n in frame["n"].to_list()]


def send(cloud: Cloud, bodies: Iterable[Any], queue: str = "plant", **options: Any) -> None:
    """Messages with these bodies, as JSON where they are no text; `ids` are their edge_id."""
    client = cloud.client("sqs")
    ids = options.pop("ids", None)
    url = client.get_queue_url(QueueName=queue)["QueueUrl"]
    entries = []
    for at, body in enumerate(bodies):
        attributes = dict(options.get("attributes", {}))
        if ids:
            attributes["edge_id"] = ids[at]
        entry = {
            "Id": str(at % 10),
            "MessageBody": body if isinstance(body, str) else json.dumps(body),
            "MessageAttributes": {
                name: {"DataType": "String", "StringValue": text}
                for name, text in attributes.items()
            },
        }
        if queue.endswith(".fifo"):
            entry["MessageGroupId"] = str(body["name"])
            entry["MessageDeduplicationId"] = f"{at}-{body}"[:100].replace(" ", "")
        entries.append(entry)
    for start in range(0, len(entries), 10):
        client.send_message_batch(QueueUrl=url, Entries=entries[start : start + 10])


def numbered(numbers: Iterable[int]) -> list[dict[str, Any]]:
    return [{"n": n, "name": f"d{n % 3}"} for n in numbers]
