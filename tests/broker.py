"""A real Mosquitto on a free port, started, stopped, killed and restarted by a test."""

import os
import shutil
import signal
import socket
import subprocess
import time
from pathlib import Path

from tests.ports import free_port

MOSQUITTO = shutil.which("mosquitto", path=f"{os.environ.get('PATH', '')}:/usr/sbin")


class Broker:
    """One Mosquitto with its files in `folder`; as a context manager it runs inside the block.

    config: lines added to `listener PORT 127.0.0.1`, or a whole configuration in which `{port}` and
    `{folder}` are replaced, when it has a listener of its own.
    """

    def __init__(self, folder: Path, config: str = "allow_anonymous true") -> None:
        self.port = free_port()
        self.config = config
        self.folder = folder
        self._process: subprocess.Popen[bytes] | None = None
        folder.mkdir(parents=True, exist_ok=True)

    @property
    def url(self) -> str:
        return f"mqtt://127.0.0.1:{self.port}"

    def __enter__(self) -> "Broker":
        return self.start()

    def __exit__(self, *_: object) -> None:
        self.kill()

    def start(self) -> "Broker":
        """Start and wait until it answers."""
        text = self.config.replace("{port}", str(self.port)).replace("{folder}", str(self.folder))
        if "listener " not in text:
            text = f"listener {self.port} 127.0.0.1\n{text}"
        if os.getuid() == 0 and "user " not in text:
            # Otherwise it becomes `mosquitto`, which may not write its persistence folder.
            text = f"user root\n{text}"
        path = self.folder / "mosquitto.conf"
        path.write_text(text + "\n")
        assert MOSQUITTO, "mosquitto is not installed"
        with (self.folder / "mosquitto.log").open("ab") as log:
            self._process = subprocess.Popen(
                [MOSQUITTO, "-c", str(path)], stdout=log, stderr=subprocess.STDOUT
            )
        self._wait_until_it_answers()
        return self

    def stop(self) -> None:
        """End it in order: it saves its sessions."""
        self._end(signal.SIGTERM)

    def kill(self) -> None:
        """End it at once: it saves nothing."""
        self._end(signal.SIGKILL)

    def restart(self) -> None:
        """Stop it in order and start it on the same port."""
        self.stop()
        self.start()

    def reload(self) -> None:
        """Let it read its access list again; returns when it has."""
        assert self._process
        before = self.log().count("Reloading config")
        self._process.send_signal(signal.SIGHUP)
        deadline = time.monotonic() + 60
        while self.log().count("Reloading config") == before:
            assert time.monotonic() < deadline, self.log()
            time.sleep(0.01)

    def pause(self) -> None:
        """Freeze it: connections stay and nothing answers."""
        assert self._process
        self._process.send_signal(signal.SIGSTOP)

    def resume(self) -> None:
        """Let it go on after `pause`."""
        assert self._process
        self._process.send_signal(signal.SIGCONT)

    def log(self) -> str:
        """What it has written so far."""
        return (self.folder / "mosquitto.log").read_text(errors="replace")

    def _wait_until_it_answers(self) -> None:
        deadline = time.monotonic() + 60
        while time.monotonic() < deadline:
            assert self._process
            assert self._process.poll() is None, self.log()
            with socket.socket() as sock:
                if sock.connect_ex(("127.0.0.1", self.port)) == 0:
                    return
            time.sleep(0.01)
        raise AssertionError(f"mosquitto does not listen on {self.port}: {self.log()}")

    def _end(self, number: int) -> None:
        if self._process is not None:
            self._process.send_signal(number)
            self._process.wait(60)
            self._process = None
