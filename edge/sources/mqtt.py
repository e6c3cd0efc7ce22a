"""Messages of an MQTT broker, acknowledged after they are committed."""

from collections.abc import AsyncGenerator, Mapping, Sequence
from datetime import timedelta
from functools import partial
from pathlib import Path
from typing import Annotated, Literal

import polars as pl
from pydantic import BeforeValidator, Field, PrivateAttr, field_validator

from edge.clock import Clock
from edge.codec import Record
from edge.component import Duration, Names, Size, Stream
from edge.mqtt import Connection, Endpoint, Messages, Session
from edge.mqtt.gather import Gatherer
from edge.mqtt.rows import Retained, RowReader
from edge.mqtt.topics import Pattern, Topics
from edge.sources import Arrival, Batch, Source, nothing
from edge.threads import off_loop

_NEVER = 0xFFFFFFFF
_MOST_BYTES = 16 * 2**20
_RETAIN_HANDLING = {"skip": 2, "once": 1, "keep": 1}


def _qos(value: object) -> object:
    value = int(value) if value in ("0", "1", "2") else value  # text where it came from ${NAME}
    if value == 2:
        raise ValueError(
            "must be 0 or 1, got 2: in its four-way handshake the broker is told to forget before "
            "the rows are committed; qos: 1 loses nothing, and repeats are recognised"
        )
    return value


class MqttSource(Endpoint, Source):
    """Reads topics of an MQTT broker.

    ```yaml
    mqtt:
      url: mqtts://broker.example:8883
      topics:
        - plant/{line}/{device}/telemetry
      username: edge
      password: ${MQTT_PASSWORD:-}
    ```

    Delivery: at QoS 1 a message is acknowledged after its rows are committed, so none is lost that
    the broker kept. What the broker sends again after a lost connection is recognised by packet id
    and a hash of topic and payload, so none is doubled either while the broker keeps the session
    and `share` is not used. At QoS 0 messages are lost while the connection is away.

    A message whose topic matches several entries of `topics` is taken by the first.
    """

    own_memory = True

    topics: Names = Field(
        min_length=1,
        description="Topic filters; `{name}` matches one level and becomes a column, + and # work",
        examples=["plant/{line}/{device}/telemetry"],
    )
    qos: Annotated[Literal[0, 1], BeforeValidator(_qos)] = Field(
        default=1, description="0: may be lost on the way; 1: kept by the broker until committed"
    )
    retained: Retained = Field(
        default="once",
        description="The last message of a topic that a broker sends to new subscribers: never "
        "taken, taken if it differs from the one taken before, or always taken",
    )
    share: str | None = Field(
        default=None,
        description="Group of replicas that split the messages; repeats are then not recognised",
    )
    session_expiry: Duration = Field(
        default=timedelta(days=7),
        description="How long the broker keeps messages for us while we are away (MQTT 5)",
    )
    receive_maximum: int = Field(
        default=20_000,
        ge=1,
        le=65_535,
        description="Most messages a broker may have unacknowledged on their way to us (MQTT 5)",
    )
    max_payload: Size = Field(
        default=Size(2**20), description="A larger payload is rejected, its first 1 KiB is kept"
    )
    recognise: bool | None = Field(
        default=None,
        description="Whether repeats are recognised; left out: if the payload has the event time "
        "(`record.time`), because otherwise two readings may be alike",
    )

    _folder: Path = PrivateAttr()
    _clock: Clock = PrivateAttr()
    _session: Session = PrivateAttr()
    _reader: RowReader = PrivateAttr()
    _gatherer: Gatherer = PrivateAttr()
    _connection: Connection | None = PrivateAttr(default=None)

    @field_validator("topics")
    @classmethod
    def _are_filters(cls, topics: tuple[str, ...]) -> tuple[str, ...]:
        for topic in topics:
            Pattern(topic)
        return topics

    @field_validator("share")
    @classmethod
    def _is_group(cls, share: str | None) -> str | None:
        if share is not None and (not share or set(share) & set("/+#")):
            raise ValueError(f"must be a name without /, + and #, got {share!r}")
        return share

    @field_validator("max_payload")
    @classmethod
    def _fits_memory(cls, size: Size) -> Size:
        if not 1 <= size <= _MOST_BYTES:
            raise ValueError(f"must be between 1B and {Size(_MOST_BYTES)}, got {size}")
        return size

    def bind(
        self, record: Record, stream: Stream, identity: str, batch: Batch, clock: Clock
    ) -> pl.Schema | None:
        patterns = [Pattern(topic) for topic in self.topics]
        topics = Topics(patterns)
        timed = record.time is not None if self.recognise is None else self.recognise
        recognise = timed and self.qos == 1 and self.share is None
        decoder = record.decoder(topics.names)
        self._reader = RowReader(decoder, topics, self.retained, recognise, self.max_payload)
        self._gatherer = Gatherer(batch.rows, batch.wait, batch.bytes, clock)
        self._folder, self._clock = stream.folder, clock
        prefix = f"$share/{self.share}/" if self.share else ""
        self._session = Session(
            client_id=self.client_id or identity,
            filters={prefix + pattern.filter: self.qos for pattern in patterns},
            expiry=min(round(self.session_expiry.total_seconds()), _NEVER),
            receive_maximum=self.receive_maximum,
            retain_handling=_RETAIN_HANDLING[self.retained],
            max_payload=self.max_payload,
        )
        return self._reader.columns

    def snapshot(self, whole: bool) -> bytes | None:
        return self._reader.seen.snapshot(whole)

    def restore(self, states: Sequence[bytes]) -> None:
        self._reader.seen.restore(states)
        self._reader.use_remembered_fields()

    def series(self) -> Sequence[str]:
        return tuple(dict.fromkeys(name for each in self.topics for name in Pattern(each).names))

    def status(self) -> Mapping[str, object]:
        return self._connection.status() if self._connection else {"connected": False}

    async def arrivals(self, position: bytes | None) -> AsyncGenerator[Arrival | None, None]:
        """Batches of messages; MQTT has no positions, so `position` is not used."""
        filters, seen, gatherer = self._session.filters, self._reader.seen, self._gatherer
        connection = Connection(self, self._session, self._folder, self._clock)
        known = seen.subscriptions
        self._connection = connection
        try:
            # Committed before the broker is asked, so that no start ever fails to know a filter
            # that the session still has.
            if seen.subscribe({*known, *filters}):
                yield Arrival(self._nothing())
            connection.start(known)
            generation = 0
            while True:
                if connection.generation != generation:
                    generation = connection.generation
                    gatherer.pace.reset(self.receive_maximum if self.protocol == "5" else 65_535)
                    if not connection.kept and seen.forget_session():
                        yield Arrival(self._nothing())
                messages = await gatherer.gather(connection)
                if connection.settled:
                    seen.subscribe(filters)
                yield await self._arrival(messages, connection) if messages else None
        finally:
            self._connection = None
            await connection.close()

    def _nothing(self) -> pl.DataFrame:
        return pl.DataFrame(schema=self._reader.columns)

    async def _arrival(self, messages: Messages, connection: Connection) -> Arrival:
        rows = await off_loop(len(messages), self._reader.read, messages)
        ids = list(filter(None, messages.ids))
        acknowledge = partial(_acknowledge, connection, messages.generation, ids)
        left_out = len(rows.rejects) + rows.redelivered + rows.retained
        return Arrival(
            rows.frame,
            acknowledge=acknowledge if ids else nothing,
            read=rows.frame.height + left_out,
            rejects=rows.rejects,
            redelivered=rows.redelivered,
            retained=rows.retained,
        )


async def _acknowledge(connection: Connection, generation: int, ids: Sequence[bytes]) -> None:
    connection.acknowledge(generation, ids)
