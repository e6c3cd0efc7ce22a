"""A real Mosquitto of its own for every measurement, with the configuration the row names."""

import os
import shutil
import socket
import subprocess
import time
from pathlib import Path
from types import TracebackType
from typing import NamedTuple, Self

from benchmarks.processes import Failed, Process
from edge.demo.children import free_port


class Configuration(NamedTuple):
    """A broker configuration; `name` is how the table calls it."""

    name: str
    lines: tuple[str, ...]


FLOOD = Configuration(
    "no limits",
    ("max_inflight_messages 0", "max_queued_messages 0", "max_queued_bytes 0"),
)
WINDOW = Configuration(
    "window 20",  # max_inflight_messages is 20 by default; only the queue must hold the flood
    ("max_queued_messages 0", "max_queued_bytes 0"),
)
DEFAULT = Configuration("default", ())

_COMMON = (
    "allow_anonymous true",
    "persistence false",
    "log_dest stderr",
    "log_type error",
    "log_type warning",
    "log_type subscribe",
)


class Broker:
    """Mosquitto on a free port of this machine, for the length of a `with` block."""

    def __init__(self, configuration: Configuration, folder: Path) -> None:
        self.port = free_port()
        config = folder / "mosquitto.conf"
        lines = [f"listener {self.port} 127.0.0.1", *_COMMON, *configuration.lines]
        if os.getuid() == 0:
            lines.append("user root")  # else it becomes `mosquitto`, who may not read the folder
        config.write_text("\n".join(lines) + "\n")
        self.process = Process("mosquitto", [_program(), "-c", str(config)], folder)

    def __enter__(self) -> Self:
        deadline = time.monotonic() + 60
        while True:
            try:
                self.connect().close()
                return self
            except OSError as error:
                if time.monotonic() > deadline or not self.process.alive():
                    self.process.stop()
                    raise Failed(f"mosquitto: {self.process.complaint()}") from error
                time.sleep(0.01)

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.process.stop()

    def connect(self) -> socket.socket:
        """A new TCP connection to it."""
        return socket.create_connection(("127.0.0.1", self.port), timeout=60)

    def wait_subscribed(self, process: Process, count: int = 1, patience: float = 30.0) -> None:
        """Return once `count` subscriptions were made; raises Failed if `process` ended before."""
        deadline = time.monotonic() + patience
        while self._subscriptions() < count:
            if not process.alive() or time.monotonic() > deadline:
                raise Failed(f"{process.name}: did not subscribe: {process.complaint()}")
            time.sleep(0.01)

    def _subscriptions(self) -> int:
        # `<time>: <client> <qos> <filter>`, written once per subscription and never per message.
        lines = self.process.errors.read_text(errors="replace").splitlines()
        return sum("plant/" in line for line in lines)


def mosquitto_version() -> str:
    """Such as 2.0.11."""
    told = subprocess.run([_program(), "-h"], capture_output=True, text=True).stdout
    return told.split()[2]


def _program() -> str:
    """Debian puts it where the PATH of a plain user does not look."""
    found = shutil.which("mosquitto") or shutil.which("mosquitto", path="/usr/sbin:/usr/local/sbin")
    if not found:
        raise Failed("mosquitto: not found; `make bench` installs it, or apt-get install mosquitto")
    return found
