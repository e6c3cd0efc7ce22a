"""What subscribers of a broker would get, also while none of them is there."""

import uuid
from typing import Any, NamedTuple

from paho.mqtt.client import Client, MQTTMessage
from paho.mqtt.enums import CallbackAPIVersion, MQTTProtocolVersion
from paho.mqtt.packettypes import PacketTypes
from paho.mqtt.properties import Properties

_END = "listener/end"


class Heard(NamedTuple):
    """One message; edge_id is its user property."""

    topic: str
    payload: bytes
    retain: bool
    edge_id: str | None


class Listener:
    """A subscriber of everything whose session the broker keeps; connected only in `heard`."""

    def __init__(self, port: int) -> None:
        self._port = port
        self._name = f"listener-{uuid.uuid4().hex[:8]}"
        self._messages: list[Heard] = []
        self._ends: set[bytes] = set()
        client, state = self._connect()
        client.on_subscribe = lambda *_: state.append("subscribed")
        client.subscribe("#", qos=1)
        _loop(client, lambda: "subscribed" in state)
        client.disconnect()

    def heard(self) -> list[Heard]:
        """All messages so far."""
        client, _ = self._connect()
        end = uuid.uuid4().hex.encode()
        client.publish(_END, end, qos=1)  # comes behind everything that was acknowledged before
        _loop(client, lambda: end in self._ends)
        client.disconnect()
        return self._messages

    def by_id(self) -> dict[str, bytes]:
        """Payloads by `edge_id`, as a consumer keeps them who drops repeats."""
        found: dict[str, bytes] = {}
        for message in self.heard():
            assert message.edge_id
            assert found.setdefault(message.edge_id, message.payload) == message.payload
        return found

    def _connect(self) -> tuple[Client, list[str]]:
        state: list[str] = []
        client = Client(
            CallbackAPIVersion.VERSION2, self._name, protocol=MQTTProtocolVersion.MQTTv5
        )
        client.on_connect = lambda *_: state.append("connected")
        client.on_message = self._take
        properties = Properties(PacketTypes.CONNECT)
        properties.SessionExpiryInterval = 3600
        properties.ReceiveMaximum = 65_535
        client.connect("127.0.0.1", self._port, clean_start=False, properties=properties)
        _loop(client, lambda: "connected" in state)
        return client, state

    def _take(self, _client: Client, _data: Any, message: MQTTMessage) -> None:
        if message.topic == _END:
            self._ends.add(message.payload)
            return
        properties = dict(getattr(message.properties, "UserProperty", ()))
        self._messages.append(
            Heard(message.topic, message.payload, message.retain, properties.get("edge_id"))
        )


def _loop(client: Client, done: Any) -> None:
    for _ in range(2_000_000):
        if done():
            return
        assert client.loop(timeout=10) == 0, "the listener lost its connection"
    raise AssertionError("the listener waits in vain")
