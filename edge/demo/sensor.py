"""The publisher: a real MQTT client that sends recorded readings at QoS 1 and counts PUBACKs."""

import asyncio
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

    unheard: messages of the replay that the broker took although no session wanted them.
    """

    def __init__(self, url: str) -> None:
        self.published = 0
        self.acknowledged = 0
        self.unheard = 0
        parts = urlsplit(url)
        self._host, self._port = parts.hostname or "localhost", parts.port or 1883
        self._client = paho.Client(CallbackAPIVersion.VERSION2, protocol=MQTTProtocolVersion.MQTTv5)
        self._client.max_inflight_messages_set(_OUTSTANDING)
        self._client.on_publish = self._on_publish
        if parts.username:
            self._client.username_pw_set(parts.username, parts.password)

    async def start(self) -> None:
        """Connect; raises DemoError when nobody answers."""
        try:
            await asyncio.to_thread(self._client.connect, self._host, self._port)
        except OSError as error:
            raise DemoError(
                f"broker {self._host}:{self._port}: cannot be reached ({error}); "
                "start it or unset EDGE_DEMO_BROKER"
            ) from error
        self._client.loop_start()

    def close(self) -> None:
        self._client.disconnect()
        self._client.loop_stop()

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
        # Only paho's network thread counts; `published` is the event loop's.
        self.unheard += reason.value == _NOBODY
        self.acknowledged += 1
