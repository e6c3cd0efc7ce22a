"""Messages in an SQS queue: one per row or rows packed together, standard and FIFO queues."""

import asyncio
import functools
import hashlib
import logging
from collections import defaultdict
from collections.abc import Mapping, Sequence
from datetime import timedelta
from typing import Annotated, Any, ClassVar, NamedTuple

import polars as pl
from pydantic import AfterValidator, Field, PrivateAttr

from edge.aws import AwsService, Target, Verdict, WebPage, classify, classify_code
from edge.aws.grants import assumed, queue_arn
from edge.aws.queue import (
    ENTRIES,
    ID_ATTRIBUTE,
    PAYLOAD_SIZE,
    QueueName,
    find_url,
    region_of_queue,
    target_of,
)
from edge.component import Permission, Size, Stream
from edge.errors import DefinitionError, Fault, LinkDown
from edge.outbox.model import Parcel
from edge.sinks import Encoded, Order, Receipt, Roll, Sink, split_id
from edge.sinks.claim import LARGEST_BODY, Claim
from edge.sinks.message import ID_TYPE, LARGEST, group_names, make_messages, overhead
from edge.sinks.receipt import join, receipt_for

log = logging.getLogger("edge.sinks.sqs")

LANES = 10
"""Calls side by side, as many as boto3 keeps connections."""
COMMON_LIMIT = 256 * 2**10
"""What a message and a call may hold when the queue cannot be asked: the limit before 2025."""

_NOT_TEXT = Verdict(
    "never", "parcel", "the parcel is no text: it was made for a sink of another kind"
)


def _check_pack(size: Size) -> Size:
    if not 2**10 <= size <= 2**20:
        raise ValueError(f"must be between 1KiB and 1MiB, got {str(size)!r}")
    return size


class _Queue(NamedTuple):
    url: str
    limit: int


class SqsSink(AwsService, Sink):
    """Sends rows as JSON messages to an SQS queue.

    ```yaml
    sqs:
      queue: plant-alarms
    ```

    A message is one row as a JSON object, or with `pack` a JSON array of rows. Each carries
    `edge_id` as an attribute, by which a consumer drops repeats: SQS delivers at least once, and a
    FIFO queue recognises a repeat only within five minutes. A FIFO queue gets the key of the row
    as its group; a group waits where one of its messages was not taken, though those sent in the
    same call may be ahead of it. Needs sqs:SendMessage, sqs:GetQueueUrl and sqs:GetQueueAttributes.

    With `claim` a message that is too large for the queue goes by a bucket, first its body, then a
    pointer to it that Amazon's SQS extended clients follow. Needs s3:PutObject on the prefix;
    whoever reads the queue needs s3:GetObject. Without it such a message is refused.
    """

    service: ClassVar[str] = "sqs"
    # Alarms go this way: fast, but ten messages to a call where there are many.
    roll_default: ClassVar[Roll] = Roll(2**20, timedelta(milliseconds=200))
    send_limit: ClassVar[int] = ENTRIES * LANES

    queue: QueueName = Field(
        description="Name, URL or ARN of the queue; looked up when the first message goes."
    )
    pack: Annotated[Size, AfterValidator(_check_pack)] | None = Field(
        None,
        description="Pack rows into JSON arrays of up to this size (`256KiB`); at most the queue's"
        " MaximumMessageSize. One message per row where it is left out.",
    )
    claim: Claim | None = Field(
        None,
        description="Bucket for what is above the queue's limit, `{bucket: plant-claims, prefix:"
        " alarms/}`, with the options of an `s3` bucket; profile, role and region as above where it"
        " names none.",
    )
    _identity: bool = PrivateAttr(True)
    _claims: Claim | None = PrivateAttr(None)
    _group_by: tuple[str, ...] | None = PrivateAttr(None)
    _found: _Queue | None = PrivateAttr(None)

    def natural_order(self) -> Order:
        """A FIFO queue keeps the order of the key."""
        return "key" if self._fifo() else "none"

    def bind(self, columns: pl.Schema | None, stream: Stream, identity: bool, order: str) -> None:
        """Choose what keeps its order; DefinitionError when key columns do not reach the sink."""
        self._identity = identity
        if not self._fifo() and order == "none":
            self._group_by = None
            return
        self._group_by = () if order == "all" else stream.key
        missing = [name for name in self._group_by if columns is not None and name not in columns]
        if missing:
            reason = (
                f"messages keep their order by the key, but {', '.join(map(repr, missing))} is not"
                f" among the columns, which are {', '.join(columns or ())}; keep the key columns"
                " or set `order: all`"
            )
            raise DefinitionError(Fault("queue", reason))

    def encode(self, frame: pl.DataFrame) -> Encoded:
        """One parcel per message; a row that no queue can take is refused with its size."""
        groups = None if self._group_by is None else group_names(frame, self._group_by)
        pack = self.pack and min(self.pack, self._found.limit if self._found else self.pack)
        largest = LARGEST_BODY if self.claim else LARGEST
        return make_messages(frame, groups, pack, self._identity, largest)

    async def send(self, parcels: Sequence[Parcel]) -> Receipt:
        """Send the messages, each group in its order; LinkDown when SQS settled none of them."""
        try:
            if self._found is None:
                await self.call(self._find)
        except Exception as error:
            return receipt_for(classify(error, self._target()), parcels)
        lanes = map(self._send_lane, _lanes(parcels))
        return join(await asyncio.gather(*lanes, return_exceptions=True))

    def permissions(self, path: str) -> Sequence[Permission]:
        """To send to the queue and ask for its limit, and to put what goes by the bucket."""
        claims = self._bucket()
        by_bucket = claims.permissions(path) if claims else ()
        if not self.asks_aws():
            return by_bucket
        actions = ["sqs:SendMessage", "sqs:GetQueueAttributes"]
        if not self.queue.startswith("http"):
            actions.append("sqs:GetQueueUrl")
        queue = queue_arn(self.queue, self._region())
        return [*assumed(self.role_arn, [Permission(tuple(actions), queue)]), *by_bucket]

    async def close(self) -> None:
        """Release the connections."""
        await super().close()
        if self._claims is not None:
            await self._claims.close()

    async def _send_lane(self, parcels: Sequence[Parcel]) -> Receipt:
        """One call after the other; a group in which a message was not settled is left there."""
        parts: list[Receipt | BaseException] = []
        rest = parcels
        while rest:
            batch = self._batch(rest)
            try:
                part = await (self._send_batch(batch) if batch else self._send_large(rest[0]))
            except LinkDown as error:
                parts.append(LinkDown(str(error)))  # that one holds this frame, and so the parcels
                break
            parts.append(part)
            settled = {*part.delivered, *part.refused}
            if batch and not settled:
                break
            tried, rest = rest[: len(batch) or 1], rest[len(batch) or 1 :]
            stuck = {_group(parcel) for parcel in tried if parcel.id not in settled} - {None}
            rest = [parcel for parcel in rest if _group(parcel) not in stuck]
        return join(parts)

    def _batch(self, parcels: Sequence[Parcel]) -> Sequence[Parcel]:
        """The first parcels that fit into one call; none if the first alone is too large."""
        room = self._limit()
        for count, parcel in enumerate(parcels[:ENTRIES]):
            room -= self._size(parcel)
            if room < 0:
                return parcels[:count]
        return parcels[:ENTRIES]

    async def _send_batch(self, batch: Sequence[Parcel]) -> Receipt:
        """One call. One refused for what it may hold is halved until the culprit stands alone."""
        try:
            return await self.call(functools.partial(self._call, batch))
        except UnicodeDecodeError:
            verdict = _NOT_TEXT
        except Exception as error:
            verdict = classify(error, self._target())
        if verdict.cause not in ("parcel", "settings") or len(batch) == 1:
            if verdict.cause == "parcel" and self.claim and not _is_pointer(batch[0]):
                return await self._send_large(batch[0])
            return receipt_for(verdict, batch)
        self._found = None  # asked again: the queue's limit may have been lowered
        half = len(batch) // 2
        first = await self._send_batch(batch[:half])
        if first.problem and _group(batch[0]) is not None:
            return first
        try:
            return join([first, await self._send_batch(batch[half:])])
        except LinkDown as error:
            return join([first, error])

    async def _send_large(self, parcel: Parcel) -> Receipt:
        """By way of the bucket; its failures hold up no other message than this one."""
        if (claims := self._bucket()) is None:
            return self._too_large(parcel)
        try:
            parcel.body.decode()
            pointer = await claims.check_in(parcel)
        except UnicodeDecodeError:
            return receipt_for(_NOT_TEXT, [parcel])
        except Exception as error:
            verdict = classify(error, claims.target)
            if verdict.fate == "never":
                return receipt_for(verdict, [parcel])
            return Receipt(problem=verdict.problem)
        return pointer if isinstance(pointer, Receipt) else await self._send_batch([pointer])

    def _bucket(self) -> Claim | None:
        if self.claim and self._claims is None:
            self._claims = self.lend(self.claim)
        return self._claims

    def _call(self, batch: Sequence[Parcel], client: Any) -> Receipt:
        queue = self._found or self._find(client)
        entries = [self._entry(index, parcel) for index, parcel in enumerate(batch)]
        answer = client.send_message_batch(QueueUrl=queue.url, Entries=entries)
        delivered = [batch[int(entry["Id"])].id for entry in answer.get("Successful", ())]
        parts = [self._failed(batch[int(entry["Id"])], entry) for entry in answer.get("Failed", ())]
        if not delivered and not parts:
            raise WebPage("no answer for any entry")
        return join([Receipt(delivered), *parts])

    def _failed(self, parcel: Parcel, entry: Mapping[str, Any]) -> Receipt:
        """What one entry's failure means; one that SQS lays on the sender stays a failure."""
        verdict = classify_code(
            entry["Code"],
            entry.get("Message", ""),
            self._target(),
            operation="SendMessageBatch",
            unknown="parcel" if entry.get("SenderFault") else "busy",
        )
        if verdict.fate == "never":
            return Receipt(refused={parcel.id: verdict.problem})
        return Receipt(problem=verdict.problem)

    def _entry(self, index: int, parcel: Parcel) -> Mapping[str, Any]:
        entry: dict[str, Any] = {"Id": str(index), "MessageBody": parcel.body.decode()}
        named: dict[str, Any] = {}
        if self._identity:
            named[ID_ATTRIBUTE] = {"DataType": ID_TYPE, "StringValue": parcel.key}
        if size := parcel.attributes.get(PAYLOAD_SIZE):
            named[PAYLOAD_SIZE] = {"DataType": "Number", "StringValue": str(size)}
        if named:
            entry["MessageAttributes"] = named
        if self._fifo():
            # Parcels rolled for a standard queue have no group.
            entry["MessageGroupId"] = _group(parcel) or split_id(parcel.key).path
            entry["MessageDeduplicationId"] = hashlib.sha256(parcel.key.encode()).hexdigest()
        return entry

    def _too_large(self, parcel: Parcel) -> Receipt:
        reason = (
            f"message of {self._size(parcel)} bytes, {self._target().name} takes {self._limit()};"
            " raise its MaximumMessageSize or set `claim`, and retry"
        )
        return Receipt(refused={parcel.id: reason})

    def _size(self, parcel: Parcel) -> int:
        return len(parcel.body) + (overhead(parcel.key) if self._identity else 0)

    def _limit(self) -> int:
        return self._found.limit if self._found else COMMON_LIMIT

    def _find(self, client: Any) -> _Queue:
        """URL and limit of the queue, remembered."""
        url = find_url(self.queue, client)
        self._found = _Queue(url, self._ask_limit(client, url))
        return self._found

    def _ask_limit(self, client: Any, url: str) -> int:
        try:
            answer = client.get_queue_attributes(
                QueueUrl=url, AttributeNames=["MaximumMessageSize"]
            )
            return int(answer.get("Attributes", {}).get("MaximumMessageSize", COMMON_LIMIT))
        except client.exceptions.ClientError as error:
            verdict = classify(error, self._target())
            if verdict.fate == "again":
                raise
            # Not allowed to ask; if something else is wrong, sending will tell.
            log.info("%s; taking %d bytes as its limit", verdict.problem, COMMON_LIMIT)
            return COMMON_LIMIT

    def _fifo(self) -> bool:
        return self.queue.endswith(".fifo")

    def _region(self) -> str | None:
        return self.region or region_of_queue(self.queue)

    def _target(self) -> Target:
        return target_of(self.queue)


def _is_pointer(parcel: Parcel) -> bool:
    return PAYLOAD_SIZE in parcel.attributes


def _group(parcel: Parcel) -> str | None:
    group: str | None = parcel.attributes.get("group")
    return group


def _lanes(parcels: Sequence[Parcel]) -> Sequence[Sequence[Parcel]]:
    """What is sent side by side: full calls, and each group with all its messages in one lane."""
    count = min(LANES, -(-len(parcels) // ENTRIES))
    groups: dict[object, list[Parcel]] = defaultdict(list)
    for index, parcel in enumerate(parcels):
        groups[_group(parcel) or index // ENTRIES].append(parcel)
    lanes: list[list[Parcel]] = [[] for _ in range(count)]
    for messages in sorted(groups.values(), key=len, reverse=True):
        min(lanes, key=len).extend(messages)
    return [lane for lane in lanes if lane]
