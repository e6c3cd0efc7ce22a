"""Messages of an SQS queue, deleted after they are committed."""

from collections.abc import AsyncGenerator, Mapping, Sequence
from datetime import timedelta
from typing import Annotated, Any, ClassVar

import polars as pl
from pydantic import AfterValidator, Field, PrivateAttr

from edge.aws import AwsService
from edge.aws.claims import Claims
from edge.aws.grants import assumed, queue_arn
from edge.aws.queue import QueueName, region_of_queue
from edge.aws.receiver import Message, Receiver, Reception
from edge.aws.taken import Taken
from edge.clock import Clock
from edge.codec import TIMESTAMP, FieldSpec, Record, Reject
from edge.codec.array import ArrayDecoder
from edge.component import Names, Permission, PositiveDuration, Size, Stream
from edge.sources import Arrival, Batch, Source
from edge.threads import off_loop

_MOST_BYTES = 8 * 2**20


def _check_visibility(span: timedelta) -> timedelta:
    if not 1 <= span.total_seconds() <= 43_200:
        raise ValueError("must be between 1s and 12h, which is what SQS allows")
    return span


class SqsSource(AwsService, Source):
    """Reads messages of an SQS queue, standard or FIFO.

    ```yaml
    sqs:
      queue: plant-events
    ```

    A message is one row, or a JSON array of rows as an `sqs` sink with `pack` writes it. It is
    deleted after the commit that holds its rows; until then it stays hidden from others
    (`visibility`, extended for up to the 12 hours that SQS allows). What comes again is recognised
    by the `edge_id` that our sinks give, or by the id of SQS, and counted once per message
    as `redelivered`: of the newest `remember` messages, about 0.17 kB of memory each.

    A message that makes no row is rejected with its reason, kept in the outbox and deleted: no
    repeat could change it. One that ends the process comes again until the queue's dead-letter
    queue takes it; let it allow five receives or more, for a lost link costs one too. Where the
    queue cannot be read, the source tries for as long as it takes, and `edge status` says why.

    Bodies that went by a bucket are fetched from `claim` and nowhere else. While the bucket cannot
    be read, what was received with such a message waits with it. Objects are not deleted.

    A FIFO queue keeps the order within a group. Several processors may read one queue; each
    recognises only what it took itself. Needs sqs:ReceiveMessage, sqs:DeleteMessage,
    sqs:ChangeMessageVisibility, sqs:GetQueueUrl where the queue is not named by its URL, and
    s3:GetObject for claims.
    """

    service: ClassVar[str] = "sqs"

    queue: QueueName = Field(
        description="Name, URL or ARN of the queue; looked up when it is first read."
    )
    visibility: Annotated[PositiveDuration, AfterValidator(_check_visibility)] = Field(
        default=timedelta(minutes=1),
        description="How long a message stays hidden when the processor is gone, 1s to 12h",
    )
    receivers: int = Field(
        default=4, ge=1, le=10, description="Calls side by side while the queue is full"
    )
    in_flight: int = Field(
        default=5_000,
        ge=10,
        le=120_000,
        description="Most messages received and not yet deleted",
    )
    attributes: Names = Field(
        default=(), description="Attributes of a message that become columns (text)"
    )
    claim: Claims | None = Field(
        default=None,
        description="Bucket of bodies too large for the queue, `{bucket: plant-claims, prefix:"
        " events/}`; profile, role and region as above where it names none",
    )
    max_payload: Size = Field(
        default=Size(16 * 2**20), description="A larger body in the bucket is rejected"
    )
    remember: int = Field(
        default=200_000, ge=1, description="How many messages are recognised when they come again"
    )

    _clock: Clock = PrivateAttr()
    _batch: Batch = PrivateAttr()
    _decoder: ArrayDecoder = PrivateAttr()
    _infers: bool = PrivateAttr()
    _taken: Taken = PrivateAttr()
    _receiver: Receiver | None = PrivateAttr(None)
    _claims: Claims | None = PrivateAttr(None)

    def bind(
        self, record: Record, stream: Stream, identity: str, batch: Batch, clock: Clock
    ) -> pl.Schema | None:
        self._clock, self._batch = clock, batch
        self._decoder = ArrayDecoder(record, self.attributes)
        self._infers = self._decoder.plain.columns is None
        self._taken = Taken(self.remember)
        return self._columns()

    def snapshot(self, whole: bool) -> bytes | None:
        return self._taken.snapshot(whole)

    def restore(self, states: Sequence[bytes]) -> None:
        self._taken.restore(states)
        if self._decoder.plain.columns is None and self._taken.fields:
            self._decoder.plain.fields = self._taken.fields

    def fields(self) -> Mapping[str, FieldSpec] | None:
        return self._decoder.plain.fields

    def status(self) -> Mapping[str, object]:
        return self._receiver.status() if self._receiver else {"connected": False}

    async def arrivals(self, position: bytes | None) -> AsyncGenerator[Arrival | None, None]:
        """Batches of messages; a queue has no positions, so `position` is not used."""
        receiver = self._ready()
        most = min(_MOST_BYTES, self._batch.bytes)
        receiver.start(self._batch.rows, most)
        last: Sequence[Message] = ()
        try:
            while True:
                messages = await receiver.gather(self._batch.rows, self._batch.wait, most)
                last = messages
                yield await self._arrival(messages, receiver) if messages else None
                last = ()
        finally:
            # Of the last ones nobody has said that they are committed.
            await receiver.leave(last)

    async def close(self) -> None:
        if self._receiver is not None:
            await self._receiver.close()
        if self._claims is not None:
            await self._claims.close()
        await super().close()

    def permissions(self, path: str) -> Sequence[Permission]:
        """To receive and delete, and to get what went by the bucket."""
        claims = self._bucket()
        by_bucket = claims.permissions(path) if claims else ()
        if not self.asks_aws():
            return by_bucket
        actions = ["sqs:ReceiveMessage", "sqs:DeleteMessage", "sqs:ChangeMessageVisibility"]
        if not self.queue.startswith("http"):
            actions.append("sqs:GetQueueUrl")
        wanted = [Permission(tuple(actions), queue_arn(self.queue, self._region()))]
        return [*assumed(self.role_arn, wanted), *by_bucket]

    def _ready(self) -> Receiver:
        if self._receiver is None:
            how = Reception(
                self.queue,
                round(self.visibility.total_seconds()),
                self.receivers,
                self.in_flight,
                self.max_payload,
            )
            self._receiver = Receiver(self, self._bucket(), how, self._clock)
        return self._receiver

    def _bucket(self) -> Claims | None:
        if self.claim and self._claims is None:
            self._claims = self.lend(self.claim)
        return self._claims

    async def _arrival(self, messages: Sequence[Message], receiver: Receiver) -> Arrival:
        arrival = await off_loop(len(messages), self._rows, messages)

        async def acknowledge() -> None:
            receiver.forget(messages)

        return arrival._replace(acknowledge=acknowledge)

    def _rows(self, messages: Sequence[Message]) -> Arrival:
        fresh = [message for message in messages if self._taken.take(message.name)]
        whole = [message for message in fresh if message.fault is None]
        rejects = [Reject(each.fault, each.body) for each in fresh if each.fault is not None]
        found = self._decoder.decode([message.body for message in whole])
        rejects += [Reject(reason, payload) for _, payload, reason in found.rejects]
        frame = found.frame
        if self._infers:
            self._taken.learn_fields(self._decoder.plain.fields)
            frame = frame.drop(self.attributes, strict=False)
        frame = frame.hstack([*self._captured(whole, found.origin), _times(whole, found.origin)])
        redelivered = len(messages) - len(fresh)
        for message in messages:
            message.body = b""  # kept until it is deleted, which may be long after
        return Arrival(
            frame,
            read=frame.height + len(rejects) + redelivered,
            rejects=rejects,
            redelivered=redelivered,
        )

    def _captured(self, messages: Sequence[Message], origin: pl.Series) -> Sequence[pl.Series]:
        return [
            pl.Series(name, [each.attributes.get(name) for each in messages], dtype=pl.String)[
                origin
            ]
            for name in self.attributes
        ]

    def _columns(self) -> pl.Schema | None:
        fields = self._decoder.plain.columns
        if fields is None:
            return None
        others = {name: kind for name, kind in fields.items() if name not in self.attributes}
        captures = dict.fromkeys(self.attributes, pl.String())
        return pl.Schema({**others, **captures, "edge_received": TIMESTAMP})

    def _region(self) -> str | None:
        return self.region or region_of_queue(self.queue)

    def _settings(self) -> Mapping[str, Any]:
        # Long polls keep theirs for 20 s; others must not wait for them.
        return {"max_pool_connections": self.receivers + 10}


def _times(messages: Sequence[Message], origin: pl.Series) -> pl.Series:
    received = [message.received for message in messages]
    return pl.Series("edge_received", received, dtype=pl.Int64).cast(TIMESTAMP)[origin]
