"""The MQTT connection that source and sink share."""

from edge.mqtt.connection import Connection
from edge.mqtt.endpoint import Endpoint
from edge.mqtt.packets import Messages
from edge.mqtt.protocol import Session

__all__ = ["Connection", "Endpoint", "Messages", "Session"]
