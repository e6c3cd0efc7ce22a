"""Messages to an MQTT broker at QoS 1, one per row, delivered when the broker acknowledges them."""

import logging
from collections.abc import Mapping, Sequence
from datetime import timedelta
from pathlib import Path
from typing import ClassVar

import polars as pl
from paho.mqtt.packettypes import PacketTypes
from paho.mqtt.reasoncodes import ReasonCode
from pydantic import Field, PrivateAttr, field_validator

from edge.component import Stream
from edge.errors import DefinitionError, Fault, LinkDown
from edge.mqtt import Endpoint, Session
from edge.mqtt.packets import text
from edge.mqtt.publisher import BLAMED, DENIED, STRIKES, TAKEN, TOO_LARGE, Message, Publisher
from edge.mqtt.template import Template
from edge.outbox.model import Divided, Parcel
from edge.sinks import Encoded, Order, Receipt, Roll, Sink
from edge.sinks.publication import (
    VALUE,
    Payload,
    Published,
    divide,
    make_publications,
    messages_of,
)
from edge.threads import off_loop

log = logging.getLogger("edge.sinks.mqtt")

_NEVER: Mapping[int, str] = {
    0x90: "the broker does not take the name of topic {topic!r}; correct `topic`",
    0x99: "the broker does not take the payload of {size} bytes for topic {topic!r}",
    TOO_LARGE: "message of {size} bytes for topic {topic!r} is larger than the broker takes;"
    " raise its limit and retry",
    BLAMED: f"the broker ended {STRIKES} connections after a message of {{size}} bytes for topic"
    " {topic!r}: it may be too large or not allowed; look at the broker's log, mend it and retry",
}
"""Reason codes with which a message can never be taken."""
_USER_PROPERTY = b"\x26" + text(b"edge_id")


class MqttSink(Endpoint, Sink):
    """Publishes rows as messages of an MQTT broker.

    ```yaml
    mqtt:
      url: mqtts://broker.example:8883
      topic: plant/{line}/{device}/clean
    ```

    A message is one row as a JSON object, or the column `value` alone, at QoS 1: delivered when the
    broker has acknowledged it, whether or not anybody subscribes. What is not acknowledged when the
    connection ends goes again, so a message arrives at least once; `edge_id` in the object, and in
    MQTT 5 as a user property, tells a repeat. Rows go in their order over one connection, many in
    flight; a message that was put off comes after those sent with it.

    In the topic `{column}` is what the row has there, with `/ + # %` and control characters escaped
    as in a URL (`a/b` is `a%2Fb`); null and empty text are `null`. What the broker's access list
    does not allow is tried again while nothing else goes either, else set aside, so that one topic
    does not keep back the others. A broker that speaks 3.1.1 cannot say no: it acknowledges what it
    throws away, or hangs up.
    """

    # Alarms go this way too: fast, but a parcel holds many messages where there are many.
    roll_default: ClassVar[Roll] = Roll(2**20, timedelta(milliseconds=200))
    send_limit: ClassVar[int] = 8

    client_id: str | None = Field(
        default=None,
        min_length=1,
        max_length=65_535,
        description="Name at the broker; default `edge-<site>-<pipeline>-<replica>-<sink>`",
    )
    topic: str = Field(
        description="Topic of a row; `{column}` is replaced by what the row has there",
        examples=["plant/{line}/{device}/clean"],
    )
    format: Payload = Field(
        "json", description="json: the row as an object; value: the column `value` as plain text"
    )
    retain: bool = Field(
        False, description="The broker keeps the last message of each topic for new subscribers"
    )
    max_inflight: int = Field(
        1000,
        ge=1,
        le=65_535,
        description="Most messages without an acknowledgement; MQTT 5 brokers may allow fewer",
    )

    _identity: bool = PrivateAttr(True)
    _client_id: str = PrivateAttr("edge")
    _folder: Path = PrivateAttr(Path())
    _publisher: Publisher | None = PrivateAttr(None)

    @field_validator("topic")
    @classmethod
    def _is_template(cls, topic: str) -> str:
        Template(topic)
        return topic

    def natural_order(self) -> Order:
        """Subscribers expect the messages of a topic in their order, its last one last."""
        return "all"

    def bind(self, columns: pl.Schema | None, stream: Stream, identity: bool, order: str) -> None:
        """DefinitionError for a column of `topic`, or `value`, that does not reach the sink."""
        self._identity = identity
        self._client_id = self.client_id or stream.client
        self._folder = stream.folder
        if columns is None:
            return
        faults = [
            Fault("topic", f"column {name!r} {reason}")
            for name in Template(self.topic).columns
            if (reason := _unfit(name, columns))
        ]
        if self.format == "value" and VALUE not in columns:
            faults.append(Fault("format", f"column {VALUE!r} {_missing(columns)}"))
        if faults:
            raise DefinitionError(*faults)

    def encode(self, frame: pl.DataFrame) -> Encoded:
        """Up to 1,000 messages to a parcel; what no packet has room for is refused."""
        return make_publications(frame, Template(self.topic), self.format, self._identity)

    async def send(self, parcels: Sequence[Parcel]) -> Receipt:
        """Publish the messages; LinkDown when none was acknowledged."""
        held, foreign = await off_loop(sum(p.rows for p in parcels), _unpacked, parcels)
        parts = [(parcel, held[parcel.id]) for parcel in parcels if parcel.id in held]
        messages = [self._message(p.key, each) for p, found in parts for each in found]
        answers: dict[int, int] = {}
        down: LinkDown | None = None
        try:
            if messages:
                await self._connection().publish(messages, answers)
        except LinkDown as error:
            down = error
        receipt = self._receipt(parts, answers)
        settled = receipt.delivered or receipt.divided or receipt.refused or foreign
        if down is not None and not settled:
            raise down
        problem = receipt.problem or (str(down) if down else None)
        return receipt._replace(refused={**receipt.refused, **foreign}, problem=problem)

    async def close(self) -> None:
        """Leave the broker."""
        publisher, self._publisher = self._publisher, None
        if publisher is not None:
            await publisher.close()

    def _connection(self) -> Publisher:
        if self._publisher is None:
            session = Session(self._client_id, {}, 0, 1, 0, 2**10, clean=True)
            self._publisher = Publisher(
                self, session, self._folder, in_flight=self.max_inflight, retain=self.retain
            )
        return self._publisher

    def _message(self, key: str, message: Published) -> Message:
        properties = b""
        if self._identity and self.protocol == "5":
            stem = key[: key.rindex("-") + 1]
            properties = _USER_PROPERTY + text(f"{stem}{message.sequence}".encode())
        return Message(message.topic.encode(), message.payload.encode(), properties)

    def _receipt(
        self, parts: Sequence[tuple[Parcel, Sequence[Published]]], answers: Mapping[int, int]
    ) -> Receipt:
        """What the answers, by place in everything that was sent, mean for each parcel."""
        others = any(reason in TAKEN for reason in answers.values())
        delivered: list[int] = []
        divided: dict[int, Divided] = {}
        problem: str | None = None
        start = 0
        for parcel, messages in parts:
            found = {n: answers[start + n] for n in range(len(messages)) if start + n in answers}
            start += len(messages)
            taken = {place for place, reason in found.items() if reason in TAKEN}
            if len(taken) == len(messages):
                delivered.append(parcel.id)
                continue
            refused = {
                place: self._refusal(messages[place], reason)
                for place, reason in found.items()
                if reason in _NEVER or (reason == DENIED and others)
            }
            again = {n: why for n, why in found.items() if n not in taken and n not in refused}
            if again and problem is None:
                place, reason = next(iter(again.items()))
                problem = self._put_off(messages[place].topic, reason)
            if taken or refused:
                divided[parcel.id] = divide(parcel, messages, taken, refused)
        return Receipt(delivered, problem=problem, divided=divided)

    def _refusal(self, message: Published, reason: int) -> str:
        if reason == DENIED:
            return f"{self._denial(message.topic)} and retry"
        return _NEVER[reason].format(topic=message.topic, size=len(message.payload.encode()))

    def _denial(self, topic: str) -> str:
        return (
            f"{self.url}: the broker does not allow {self.username or self._client_id!r} to publish"
            f" to topic {topic!r} (not authorized); grant it in its access list"
        )

    def _put_off(self, topic: str, reason: int) -> str:
        if reason == DENIED:
            return self._denial(topic)
        return f"{self.url}: the broker put off topic {topic!r} ({_spoken(reason)})"


def _unpacked(
    parcels: Sequence[Parcel],
) -> tuple[dict[int, Sequence[Published]], dict[int, str]]:
    """The messages of every parcel, and why a parcel has none, by parcel id."""
    held: dict[int, Sequence[Published]] = {}
    foreign: dict[int, str] = {}
    for parcel in parcels:
        try:
            held[parcel.id] = messages_of(parcel)
        except ValueError as error:
            foreign[parcel.id] = f"{error}: it was made for a sink of another kind"
    return held, foreign


def _spoken(reason: int) -> str:
    try:
        return str(ReasonCode(PacketTypes.PUBACK, identifier=reason))
    except (KeyError, ValueError, AssertionError):
        return f"reason code 0x{reason:02x}"


def _unfit(name: str, columns: pl.Schema) -> str | None:
    if name not in columns:
        return _missing(columns)
    if columns[name].is_nested() or columns[name] in (pl.Binary, pl.Object):
        return f"cannot be part of a topic, got type {columns[name]}"
    return None


def _missing(columns: pl.Schema) -> str:
    return f"is not among the columns, which are {', '.join(columns)}"
