"""One connection to a broker until it is lost: the bytes are ours, the protocol is paho's."""

import asyncio
import logging
import socket
import ssl
import termios
import time
from array import array
from collections.abc import Mapping, Sequence
from contextlib import suppress
from fcntl import ioctl
from typing import Any

from paho.mqtt.client import Client, ConnectFlags, DisconnectFlags
from paho.mqtt.reasoncodes import ReasonCode
from paho.mqtt.subscribeoptions import SubscribeOptions

from edge.errors import LinkDown
from edge.mqtt.endpoint import CONNECT_TIMEOUT, Endpoint
from edge.mqtt.failure import is_alert, spoken
from edge.mqtt.packets import PUBACK, Messages, Splitter, acknowledged, acknowledgement
from edge.mqtt.protocol import Limits, Protocol, Session, limits

log = logging.getLogger("edge.mqtt")

READ_SIZE = 256 * 1024
READ_MOST = 4 * 2**20
_TWIN = 0x8E
_OLD_BROKER = b"\x20\x02\x00\x01"
CLOSED = "the broker closed the connection"
_SPEAKS_OLD = "the broker does not speak MQTT 5; set protocol: 3.1.1"


class Channel:
    """One connection. Every method raises LinkDown when it is lost, and then it stays so.

    Reads only when `drain` is called, so that whoever calls it sets the pace.
    limits: what the broker takes. ended: the reason code with which it ended the connection.
    """

    def __init__(self, sock: socket.socket, endpoint: Endpoint, session: Session) -> None:
        sock.setblocking(False)
        self.granted: dict[str, int | str] = {}
        self.limits = Limits()
        self.ended: int | None = None
        self._socket = sock
        self._session = session
        self._guess = _guess(endpoint)
        self._five = endpoint.protocol == "5"
        self._splitter = Splitter(self._five, session.max_payload)
        self._keepalive = endpoint.keepalive.total_seconds()
        self._secure = endpoint.secure
        self._sent = time.monotonic()
        self._asked: float | None = None
        self._accepted: bool | None = None
        self._problem = CLOSED
        self._pending: dict[int, Sequence[str]] = {}
        self._answers: list[tuple[int, int]] = []
        self._waiter: asyncio.Future[None] | None = None
        self._writing = False
        self._loop = asyncio.get_running_loop()
        self._protocol = Protocol(sock, endpoint, session)
        self._protocol.on_connect = self._on_connect
        self._protocol.on_disconnect = self._on_disconnect
        self._protocol.on_subscribe = self._on_subscribe
        self._protocol.on_unsubscribe = self._on_unsubscribe
        self._protocol.on_socket_close = lambda *_: self._detach()

    async def greet(self) -> bool:
        """Introduce ourselves; returns whether the broker kept our session."""
        self._protocol.reconnect()
        with suppress(LinkDown):  # what the other side has said before it left tells more
            self._flush()
        try:
            async with asyncio.timeout(CONNECT_TIMEOUT):
                await self._answer()
        except TimeoutError:
            raise LinkDown(f"the broker did not answer within {CONNECT_TIMEOUT:.0f} s") from None
        assert self._accepted is not None
        return self._accepted

    async def _answer(self) -> None:
        nothing = Messages()
        while self._accepted is None:
            await self.readable(CONNECT_TIMEOUT)
            try:
                self._splitter.feed(self._read())
            except LinkDown as error:
                if is_alert(error.__cause__):
                    raise
                raise LinkDown(f"{error} without an answer{self._guess}") from error
            self._take(nothing, 0)

    async def readable(self, patience: float) -> None:
        """Wait until there is something to read, at most `patience` seconds."""
        if self._socket.fileno() < 0:
            return
        self._waiter = waiter = self._loop.create_future()
        self._loop.add_reader(self._socket.fileno(), _settle, waiter)
        try:
            await asyncio.wait([waiter], timeout=patience)
        finally:
            if self._socket.fileno() >= 0:
                self._loop.remove_reader(self._socket.fileno())

    def drain(self, messages: Messages, limit: int, most: int = READ_MOST) -> None:
        """Read what is there, until `messages` holds `limit`, or about `most` bytes were read.

        When it raises, `messages` holds what came before.
        """
        size = 0
        while True:
            self._take(messages, limit)
            if len(messages) >= limit or size >= most:
                return
            data = self._read()
            size += len(data)
            messages.size += len(data)
            self._splitter.feed(data)
            # Not until nothing is left: chasing a broker that still writes means a call per packet.
            if len(data) < READ_SIZE:
                self._take(messages, limit)
                return

    def _take(self, messages: Messages, limit: int) -> None:
        for packet in self._splitter.take(messages, limit):
            self._hear(packet)

    def _read(self) -> bytes:
        """What has arrived, up to READ_SIZE; empty if nothing has."""
        parts: list[bytes] = []
        try:
            # TLS gives one record at a time, and keeps what it has read where no selector sees it.
            while not parts or (self._secure and sum(map(len, parts)) < READ_SIZE):
                part = self._socket.recv(READ_SIZE)
                if not part:
                    break
                parts.append(part)
        except (BlockingIOError, ssl.SSLWantReadError, ssl.SSLWantWriteError):
            if not parts:
                self._check_answer()
                return b""
        except OSError as error:
            raise LinkDown(f"the connection broke: {spoken(error)}") from error
        if not parts:
            raise LinkDown(self._problem)
        self._asked = None
        return parts[0] if len(parts) == 1 else b"".join(parts)

    def _check_answer(self) -> None:
        # Judged only where nothing is left to read: while nobody reads, the answer to a ping waits
        # behind messages, and that is no sign of a dead broker.
        if self._asked is not None and time.monotonic() - self._asked > self._keepalive:
            raise LinkDown(f"the broker did not answer a ping for {self._keepalive:.0f} s")

    def _hear(self, packet: bytes) -> None:
        if packet == _OLD_BROKER and self._five:
            raise LinkDown(_SPEAKS_OLD)
        try:
            if packet[0] == PUBACK:
                self._answers.append(acknowledged(packet))
                return
            self._protocol.hear(packet)
        except LinkDown:
            raise
        except Exception as error:  # paho raises whatever its parser stumbles over
            raise LinkDown(f"the broker sent a malformed packet: {error!r}") from error
        if self._protocol.socket() is None:
            raise LinkDown(self._problem)
        self._flush()

    def keep_alive(self) -> None:
        """Ask the broker for a sign of life when we were silent for half the keepalive."""
        now = time.monotonic()
        if now - self._sent >= self._keepalive / 2:
            self._asked = self._asked or now
            self._write(b"\xc0\x00")

    def send(self, packets: bytes) -> None:
        """Write whole packets."""
        self._write(packets)

    @property
    def room(self) -> int:
        """Bytes that the kernel holds for us while nobody reads; it may give more later."""
        if self._socket.fileno() < 0:
            return 0
        return self._socket.getsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF)

    @property
    def unsent(self) -> int:
        """Bytes that the other side's machine has not confirmed yet."""
        waiting = array("i", [0])
        ioctl(self._socket.fileno(), termios.TIOCOUTQ, waiting)
        return len(self._protocol.outgoing) + waiting[0]

    def answers(self) -> Sequence[tuple[int, int]]:
        """Packet id and reason code of every PUBACK that was read since it was last asked for."""
        found, self._answers = self._answers, []
        return found

    def acknowledge(self, ids: Sequence[bytes]) -> None:
        """Tell the broker to forget messages."""
        self._write(acknowledgement(ids))

    def subscribe(self, filters: Mapping[str, int]) -> None:
        """Ask for topics; `granted` has the answer to each once it came."""
        if self._five:
            options = [
                (each, SubscribeOptions(qos=qos, retainHandling=self._retain_handling(each)))
                for each, qos in filters.items()
            ]
            _, number = self._protocol.subscribe(options)
        else:
            _, number = self._protocol.subscribe(list(filters.items()))
        if number is not None:
            self._pending[number] = list(filters)
        self._flush()

    def _retain_handling(self, filter_: str) -> int:
        return 0 if filter_.startswith("$share/") else self._session.retain_handling

    def unsubscribe(self, filters: Sequence[str]) -> None:
        """Give up topics."""
        _, number = self._protocol.unsubscribe(list(filters))
        if number is not None:
            self._pending[number] = ()
        self._flush()

    def _write(self, data: bytes) -> None:
        self._protocol.outgoing += data
        self._flush()

    def _flush(self) -> None:
        buffer = self._protocol.outgoing
        try:
            while buffer:
                del buffer[: self._socket.send(buffer)]
                self._sent = time.monotonic()
        except (BlockingIOError, ssl.SSLWantWriteError, ssl.SSLWantReadError):
            if not self._writing:
                self._loop.add_writer(self._socket.fileno(), self._flush_later)
                self._writing = True
            return
        except OSError as error:
            raise LinkDown(f"the connection broke: {spoken(error)}") from error
        if self._writing:
            self._loop.remove_writer(self._socket.fileno())
            self._writing = False

    def _flush_later(self) -> None:
        try:
            self._flush()
        except LinkDown:  # the next read or ping finds the same
            self._protocol.outgoing.clear()
            self._loop.remove_writer(self._socket.fileno())
            self._writing = False

    def _on_connect(
        self, _client: Client, _data: Any, flags: ConnectFlags, reason: ReasonCode, properties: Any
    ) -> None:
        if reason.is_failure:
            raise LinkDown(_refusal(str(reason)))
        self._keepalive = getattr(properties, "ServerKeepAlive", self._keepalive) or 65_535
        expiry = getattr(properties, "SessionExpiryInterval", self._session.expiry)
        if expiry < self._session.expiry:
            log.warning(
                "the broker keeps messages for %d s while we are away, not %d (session_expiry)",
                expiry,
                self._session.expiry,
            )
        self.limits = limits(properties)
        self._accepted = flags.session_present

    def _on_disconnect(
        self, _client: Client, _data: Any, flags: DisconnectFlags, reason: ReasonCode, _more: Any
    ) -> None:
        if flags.is_disconnect_packet_from_server:
            self.ended = int(reason.value)
        if not flags.is_disconnect_packet_from_server:
            self._problem = f"the broker sent what is not MQTT ({reason})"
        elif reason.value == _TWIN:
            self._problem = (
                f"the broker dropped us because another client connected as "
                f"{self._session.client_id!r}; give every replica its own number or client_id"
            )
        else:
            self._problem = f"the broker ended the connection: {reason}"

    def _on_subscribe(
        self, _client: Client, _data: Any, number: int, reasons: Sequence[ReasonCode], _more: Any
    ) -> None:
        for filter_, reason in zip(self._forget(number), reasons, strict=False):
            asked = self._session.filters[filter_]
            self.granted[filter_] = str(reason) if reason.is_failure else int(reason.value)
            if reason.is_failure:
                log.error(
                    "subscription to %r refused: %s; the broker's access list must allow %r "
                    "to read it; it is asked for again",
                    filter_,
                    reason,
                    self._session.client_id,
                )
            elif reason.value < asked:
                log.warning(
                    "subscription to %r granted with QoS %d instead of %d: messages are lost "
                    "while the connection is away",
                    filter_,
                    reason.value,
                    asked,
                )

    def _on_unsubscribe(
        self, _client: Client, _data: Any, number: int, _reasons: Any, _more: Any
    ) -> None:
        self._forget(number)

    def _forget(self, number: int) -> Sequence[str]:
        return self._pending.pop(number, ())

    @property
    def settled(self) -> bool:
        """Whether the broker has answered every subscription."""
        return not self._pending

    async def leave(self) -> None:
        """Say goodbye, give the last acknowledgements time to arrive, and close."""
        if self._protocol.socket() is None:
            return
        try:
            self._write(b"\xe0\x00")
            self._socket.shutdown(socket.SHUT_WR)
            # Closing a socket with unread data resets it, and the broker may then not have read
            # our last acknowledgements; so wait until it closes.
            deadline = time.monotonic() + 0.5
            while time.monotonic() < deadline:
                await self.readable(deadline - time.monotonic())
                while self._read():
                    pass
        except (LinkDown, OSError):
            pass
        finally:
            self.close()

    def close(self) -> None:
        """Close at once."""
        self._detach()
        self._protocol.on_disconnect = None
        self._protocol.close()
        self._socket.close()

    def _detach(self) -> None:
        if self._socket.fileno() >= 0:
            self._loop.remove_reader(self._socket.fileno())
            self._loop.remove_writer(self._socket.fileno())
        self._writing = False
        if self._waiter is not None:
            _settle(self._waiter)


def _settle(waiter: asyncio.Future[None]) -> None:
    if not waiter.done():
        waiter.set_result(None)


def _guess(endpoint: Endpoint) -> str:
    """What may be the matter when a server leaves at once."""
    guess = "; if it does not speak MQTT 5, set protocol: 3.1.1" if endpoint.protocol == "5" else ""
    if endpoint.secure and not endpoint.certificate:
        guess += "; if it asks for a certificate, set certificate and key"
    return guess


def _refusal(reason: str) -> str:
    remedy = {
        "Not authorized": "; check username, password and certificate",
        "Bad user name or password": "; check username and password",
        "Unsupported protocol version": "; set protocol: 3.1.1",
    }.get(reason, "")
    return f"the broker refused the connection: {reason}{remedy}"
