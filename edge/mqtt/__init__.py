"""The MQTT connection that source and sink share."""

from edge.mqtt.channel import Session
from edge.mqtt.connection import Connection
from edge.mqtt.endpoint import Endpoint
from edge.mqtt.packets import Messages

__all__ = ["Connection", "Endpoint", "Messages", "Session"]
