"""The publisher: a real MQTT client that sends recorded readings at QoS 1 and counts PUBACKs."""

import asyncio
import contextlib
import time
from collections.abc import Sequence
from urllib.parse import urlsplit

import paho.mqtt.client as paho
from paho.mqtt.enums import CallbackAPIVersion, MQTTProtocolVersion
from paho.mqtt.reasoncodes import ReasonCode

from edge.demo.children import DemoError
from edge.demo.expected import LINE, MACHINE, Reading

TOPIC = f"plant/{LINE}/{MACHINE}/temperature"
_TICK = 0.02  # seconds between two bursts
_OUTSTANDING = 2000  # messages without PUBACK; a broker that stops answering stops the sensor
_NOBODY = 0x10  # MQTT 5, PUBACK: "no matching subscribers"


class Sensor:
    """Publishes to the broker at `url` (`mqtt://host:port`).

    unheard: messages that the broker took although it had no session to keep them for.
    """

    def __init__(self, url: str) -> None:
        self.published = 0
        self.acknowledged = 0
        self.unheard = 0
        self._url = url
        self._client = _client(url)
        self._client.max_inflight_messages_set(_OUTSTANDING)
        self._client.on_publish = self._on_publish

    async def start(self) -> None:
        """Connect; raises DemoError when nobody answers."""
        await asyncio.to_thread(_connect, self._client, self._url)
        self._client.loop_start()

    def close(self) -> None:
        self._client.disconnect()
        self._client.loop_stop()

    def publish(self, topic: str, payload: bytes) -> None:
        """One message, unless the broker has stopped to answer."""
        if self.published - self.acknowledged < _OUTSTANDING:
            self._client.publish(topic, payload, qos=1)
            self.published += 1

    async def begin(self, first: Reading) -> bool:
        """Publish the first reading; True once the broker knows somebody who wants it.

        Published before the processor has ever subscribed, a message is acknowledged and gone.
        """
        self.published, self.acknowledged, self.unheard = 1, 0, 0
        sent = self._client.publish(TOPIC, first.payload, qos=1)
        await asyncio.to_thread(sent.wait_for_publish, 10.0)
        return self.acknowledged > self.unheard

    async def replay(self, series: Sequence[Reading], seconds: float) -> None:
        """Publish what has not been, evenly over `seconds`; ends with the last PUBACK."""
        start = time.monotonic()
        while self.acknowledged < len(series):
            due = int(len(series) * min(1.0, (time.monotonic() - start) / seconds))
            due = min(due, self.acknowledged + _OUTSTANDING)
            for reading in series[self.published : due]:
                self._client.publish(TOPIC, reading.payload, qos=1)
                self.published += 1
            await asyncio.sleep(_TICK)

    def _on_publish(
        self, _client: object, _data: object, _id: int, reason: ReasonCode, _properties: object
    ) -> None:
        # Only paho's network thread counts these; `published` is the event loop's.
        self.unheard += reason.value == _NOBODY
        self.acknowledged += 1


def forget_session(url: str, client_id: str) -> None:
    """Leave nothing behind on a broker that is not ours: a clean start ends what was kept."""
    client = _client(url, client_id)
    with contextlib.suppress(DemoError):
        _connect(client, url)
        client.loop_start()
        client.disconnect()
        client.loop_stop()


def _client(url: str, client_id: str = "") -> paho.Client:
    client = paho.Client(
        CallbackAPIVersion.VERSION2, client_id, protocol=MQTTProtocolVersion.MQTTv5
    )
    parts = urlsplit(url)
    if parts.username:
        client.username_pw_set(parts.username, parts.password)
    return client


def _connect(client: paho.Client, url: str) -> None:
    """Raises DemoError when nobody answers, or the URL is not one of plain MQTT."""
    parts = urlsplit(url)
    if parts.scheme != "mqtt" or not parts.hostname:
        raise DemoError(f"demo: EDGE_DEMO_BROKER must be like mqtt://host:1883, got {url!r}")
    port = parts.port or 1883
    try:
        client.connect(parts.hostname, port)
    except OSError as error:
        raise DemoError(
            f"broker {parts.hostname}:{port}: cannot be reached ({error}); "
            "start it or unset EDGE_DEMO_BROKER"
        ) from error
