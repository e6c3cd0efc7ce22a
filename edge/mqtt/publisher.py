"""Messages to a broker at QoS 1, many in flight, each with the answer it got."""

import asyncio
from collections import deque
from collections.abc import MutableMapping, Sequence
from pathlib import Path
from typing import NamedTuple

from edge.errors import LinkDown
from edge.mqtt.channel import CLOSED, Channel
from edge.mqtt.dial import dial
from edge.mqtt.endpoint import Endpoint
from edge.mqtt.failure import explain
from edge.mqtt.packets import Messages, text, variable
from edge.mqtt.protocol import Limits, Session

PATIENCE = 30.0
"""Seconds in which neither a PUBACK comes nor a byte leaves, until the connection is given up."""
STRIKES = 10
"""Connections that end while one and the same message is alone in flight, before it is blamed."""
RECONNECTS = 10
"""Connections made anew within one sending because the broker ended one over a topic it denies."""

TAKEN = (0x00, 0x10)
"""Success, and nobody has subscribed to it (MQTT 5, 3.4.2.1)."""
DENIED = 0x87
TOO_LARGE = 0x95
BLAMED = 0x100
"""No reason code of MQTT: the connection ended over and over when only this message was out."""
_ABOUT_THE_MESSAGE = (0x90, TOO_LARGE, 0x99)
_PERHAPS = (None, 0x80, 0x81, 0x82, 0x83, DENIED)
"""No reason code, or one that may have to do with what was sent; any other has its own cause."""

_PUBLISH = 0x32  # QoS 1
_RETAINED = 0x33
_FLYING_BYTES = 4 * 2**20
_LAST_ID = 65_535


class Message(NamedTuple):
    """What is published: bytes as they go over the wire; properties in MQTT 5 only."""

    topic: bytes
    payload: bytes
    properties: bytes = b""


class _Silent(LinkDown):
    """The broker is there and says nothing."""


class Publisher:
    """One connection, made when it is needed and kept while it is not.

    Not made again by itself: whoever publishes decides when to try.
    """

    def __init__(
        self, endpoint: Endpoint, session: Session, folder: Path, *, in_flight: int, retain: bool
    ) -> None:
        self._endpoint = endpoint
        self._session = session
        self._folder = folder
        self._in_flight = in_flight
        self._retain = retain
        self._five = endpoint.protocol == "5"
        self._channel: Channel | None = None
        self._watch: asyncio.Task[None] | None = None
        self._last_id = 0
        self._window = in_flight
        self._suspect: Message | None = None
        self._strikes = 0

    async def publish(self, messages: Sequence[Message], answers: MutableMapping[int, int]) -> None:
        """Send messages in order; `answers` gets index -> reason code of each as it comes.

        Raises LinkDown when the connection is lost or not made; those without an answer may or may
        not have arrived.
        """
        await self._stop_watching()
        denied: set[bytes] = set()
        for left in range(RECONNECTS, -1, -1):
            known, kept = len(denied), self._channel is not None
            try:
                channel = await self._open()
                await self._send(channel, messages, answers, denied)
                break
            except (LinkDown, OSError) as error:
                self._drop()
                # One that was kept may have ended just now, unseen.
                stale = kept and not isinstance(error, _Silent)
                if not left or (len(denied) == known and not stale):
                    raise self._explained(error) from error
            except BaseException:
                self._drop()
                raise
        self._watch = asyncio.create_task(self._stay(channel), name="mqtt publisher")

    async def close(self) -> None:
        """Leave the broker."""
        await self._stop_watching()
        channel, self._channel = self._channel, None
        if channel is not None:
            await channel.leave()

    async def _open(self) -> Channel:
        if self._channel is None:
            channel, _ = await dial(self._endpoint, self._session, self._folder)
            self._channel = channel
            if channel.limits.qos < 1:
                raise LinkDown("the broker takes no messages of QoS 1, so none can be confirmed")
            if self._retain and not channel.limits.retain:
                raise LinkDown("the broker keeps no retained messages; set retain: false")
        return self._channel

    async def _send(
        self,
        channel: Channel,
        messages: Sequence[Message],
        answers: MutableMapping[int, int],
        denied: set[bytes],
    ) -> None:
        first_byte = _RETAINED if self._retain else _PUBLISH
        flight = _Flight(messages, answers, denied, first_byte, self._five, self._last_id)
        try:
            while flight.goes_on:
                if packets := flight.next(self._window, channel.limits):
                    channel.send(packets)
                if flight.flying:
                    await channel.readable(PATIENCE / 8)
                    self._hear(channel, flight)
        except _Silent:
            raise
        except LinkDown:
            self._judge(channel, flight)
            raise
        finally:
            self._last_id = flight.last_id

    def _hear(self, channel: Channel, flight: "_Flight") -> None:
        try:
            channel.drain(Messages(), 1)
        finally:
            came = channel.answers()
            flight.land(came)
            self._window = min(self._window + len(came), self._in_flight)
        unsent = 0 if came else channel.unsent
        if not unsent:  # else the answer to a ping would wait behind what is not yet sent
            channel.keep_alive()
        flight.check_patience(bool(came), unsent)

    def _judge(self, channel: Channel, flight: "_Flight") -> None:
        """Whether a message is to blame for the end of the connection it was on.

        MQTT 3.1.1 has no reason codes, and some brokers hang up on a message they do not allow. So
        the first one goes again alone, and the window grows with every answer; a message that is
        alone whenever the connection ends is blamed, lest it block the way for ever.
        """
        if flight.flying:
            self._window = 1
        if len(flight.flying) != 1 or flight.denial:
            return
        (index,) = flight.flying.values()
        if channel.ended in _ABOUT_THE_MESSAGE:
            flight.answers[index] = channel.ended
        elif channel.ended in _PERHAPS and self._is_struck_out(flight.messages[index]):
            flight.answers[index] = BLAMED

    def _is_struck_out(self, message: Message) -> bool:
        self._strikes = self._strikes + 1 if message == self._suspect else 1
        self._suspect = message
        return self._strikes >= STRIKES

    async def _stay(self, channel: Channel) -> None:
        """Keep an idle connection alive, and notice when it ends."""
        pause = max(0.2, min(self._endpoint.keepalive.total_seconds() / 4, 15.0))
        try:
            while True:
                await channel.readable(pause)
                channel.drain(Messages(), 1)
                channel.answers()
                channel.keep_alive()
        except (LinkDown, OSError):
            self._drop()
        finally:
            if self._watch is not None:  # nobody stopped it: the event loop itself is ending
                self._drop()

    async def _stop_watching(self) -> None:
        watch, self._watch = self._watch, None
        if watch is not None and not watch.done():
            watch.cancel()
            await asyncio.wait([watch])

    def _explained(self, error: LinkDown | OSError) -> LinkDown:
        why = explain(error, self._endpoint.secure) if isinstance(error, OSError) else str(error)
        if why == CLOSED:
            why += (
                "; its log may say why: a topic that is not allowed, a message too large, another"
                f" client called {self._session.client_id!r}"
            )
        return LinkDown(f"{self._endpoint.url}: {why}")

    def _drop(self) -> None:
        channel, self._channel = self._channel, None
        if channel is not None:
            channel.close()


class _Flight:
    """Messages on their way over one connection: which are out, which were answered."""

    def __init__(
        self,
        messages: Sequence[Message],
        answers: MutableMapping[int, int],
        denied: set[bytes],
        first_byte: int,
        five: bool,
        last_id: int,
    ) -> None:
        self.messages = messages
        self.answers = answers
        self.flying: dict[int, int] = {}  # packet id -> index
        self.last_id = last_id
        self.denial = False
        self._unsent = 0
        self._first = bytes((first_byte,))
        self._five = five
        self._denied = denied
        self._waiting = deque(n for n in range(len(messages)) if n not in answers)
        self._bytes = 0
        self._waited = asyncio.get_running_loop().time()

    @property
    def goes_on(self) -> bool:
        """Whether something is to be sent or to be heard."""
        return bool(self._waiting or self.flying)

    def next(self, most: int, limits: Limits) -> bytes:
        """The packets that may go now; what is too large for the broker is answered instead."""
        packets = []
        if not self.flying:
            self._waited = asyncio.get_running_loop().time()
        most = min(most, limits.in_flight)
        while self._waiting and len(self.flying) < most:
            index = self._waiting[0]
            message = self.messages[index]
            if self.flying and self._bytes + len(message.payload) > _FLYING_BYTES:
                break
            self._waiting.popleft()
            packet_id = self._free_id()
            packet = self._packet(message, packet_id)
            if message.topic in self._denied:
                self.answers[index] = DENIED
            elif len(packet) > limits.packet:
                self.answers[index] = TOO_LARGE
            else:
                packets.append(packet)
                self.flying[packet_id] = index
                self._bytes += len(message.payload)
        return b"".join(packets)

    def land(self, came: Sequence[tuple[int, int]]) -> None:
        """Note answers."""
        for packet_id, reason in came:
            index = self.flying.pop(packet_id, None)
            if index is None:
                raise LinkDown(f"the broker acknowledged packet {packet_id}, which was not sent")
            self._bytes -= len(self.messages[index].payload)
            self.answers[index] = reason
            if reason == DENIED:
                self.denial = True
                self._denied.add(self.messages[index].topic)

    def check_patience(self, heard: bool, unsent: int) -> None:
        """Raises LinkDown when for too long nothing was answered and no byte has left."""
        now = asyncio.get_running_loop().time()
        moved, self._unsent = unsent != self._unsent, unsent
        if heard or moved:
            self._waited = now
        elif now - self._waited >= PATIENCE:
            raise _Silent(f"the broker acknowledged nothing for {PATIENCE:.0f} s")

    def _free_id(self) -> int:
        while True:
            self.last_id = self.last_id % _LAST_ID + 1
            if self.last_id not in self.flying:
                return self.last_id

    def _packet(self, message: Message, packet_id: int) -> bytes:
        topic, payload, properties = message
        if self._five:
            properties = variable(len(properties)) + properties
        size = len(topic) + len(payload) + len(properties) + 4
        return b"".join(
            (
                self._first,
                variable(size),
                text(topic),
                packet_id.to_bytes(2, "big"),
                properties,
                payload,
            )
        )
