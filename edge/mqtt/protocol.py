"""What paho does for us: packets with a meaning, without sockets, threads or reconnects."""

import socket
from collections.abc import Mapping
from typing import NamedTuple

from paho.mqtt.client import Client
from paho.mqtt.enums import CallbackAPIVersion, MQTTProtocolVersion
from paho.mqtt.packettypes import PacketTypes
from paho.mqtt.properties import Properties

from edge.mqtt.endpoint import Endpoint

_LARGEST = 268_435_455
"""Bytes of the largest packet we ask for, all but the largest that MQTT knows. What a publisher of
3.1.1 may send is a byte larger in MQTT 5: unasked, Mosquitto 2.0.11 then sends nothing any more."""


class Session(NamedTuple):
    """What a broker should keep for a client, and what it should send it.

    filters: topic filter -> QoS. expiry: seconds the session outlives its connection (MQTT 5).
    receive_maximum: unacknowledged messages (MQTT 5). retain_handling: MQTT 5, 3.8.3.1.
    clean: nothing of an earlier connection is wanted.
    """

    client_id: str
    filters: Mapping[str, int]
    expiry: int
    receive_maximum: int
    retain_handling: int
    max_payload: int
    clean: bool = False


class Limits(NamedTuple):
    """What a broker takes from us, as far as it says so (MQTT 5, 3.2.2.3).

    in_flight: messages it has not acknowledged. packet: bytes of a whole packet, by default what
    the length field can say. qos: the highest. retain: whether it keeps the last message.
    """

    in_flight: int = 65_535
    packet: int = 268_435_460
    qos: int = 2
    retain: bool = True


class Protocol(Client):
    """paho with its two socket calls turned to buffers; one object per connection."""

    def __init__(self, sock: socket.socket, endpoint: Endpoint, session: Session) -> None:
        five = endpoint.protocol == "5"
        super().__init__(
            CallbackAPIVersion.VERSION2,
            client_id=session.client_id,
            clean_session=None if five else session.clean,
            protocol=MQTTProtocolVersion.MQTTv5 if five else MQTTProtocolVersion.MQTTv311,
            reconnect_on_failure=False,
            manual_ack=True,
        )
        self.outgoing = bytearray()
        self._connected_socket = sock
        self._incoming = b""
        if endpoint.username is not None:
            password = endpoint.password
            secret = password.get_secret_value() if password else None
            self.username_pw_set(endpoint.username, secret)
        host, port = endpoint.address
        keepalive = round(endpoint.keepalive.total_seconds())
        if five:
            self.connect_async(
                host, port, keepalive, clean_start=session.clean, properties=_properties(session)
            )
        else:
            self.connect_async(host, port, keepalive)

    def hear(self, packet: bytes) -> None:
        """Let paho act on one whole packet; what it answers is in `outgoing` afterwards."""
        self._incoming = packet
        self.loop_read()
        if self.want_write():
            self.loop_write()

    def close(self) -> None:
        """Close the socket without a word."""
        self._sock_close()

    def _create_socket(self) -> socket.socket:
        return self._connected_socket

    def _sock_recv(self, bufsize: int) -> bytes:
        if not self._incoming:
            raise BlockingIOError
        part, self._incoming = self._incoming[:bufsize], self._incoming[bufsize:]
        return part

    def _sock_send(self, buf: bytes | bytearray) -> int:
        # Acknowledgements are written beside paho; one buffer keeps packets from interleaving.
        self.outgoing += buf
        return len(buf)


def _properties(session: Session) -> Properties:
    found = Properties(PacketTypes.CONNECT)  # type: ignore[no-untyped-call]
    found.SessionExpiryInterval = session.expiry
    found.ReceiveMaximum = session.receive_maximum
    found.TopicAliasMaximum = 0
    found.MaximumPacketSize = _LARGEST
    return found


def limits(properties: Properties | None) -> Limits:
    """What the properties of a CONNACK say; None is MQTT 3.1.1."""
    default = Limits()
    return Limits(
        getattr(properties, "ReceiveMaximum", default.in_flight),
        getattr(properties, "MaximumPacketSize", default.packet),
        getattr(properties, "MaximumQoS", default.qos),
        bool(getattr(properties, "RetainAvailable", default.retain)),
    )
