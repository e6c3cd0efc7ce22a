"""Processes that the demo starts and always takes with it: start, kill, orderly stop, log file."""

import asyncio
import contextlib
import os
import random
import signal
import socket
import time
from collections.abc import Mapping, Sequence
from pathlib import Path

from edge.errors import EdgeError


class DemoError(EdgeError):
    """The demo cannot be set up or did not come to its end."""


class Child:
    """One process; what it prints goes to `log`."""

    def __init__(self, name: str, process: asyncio.subprocess.Process, log: Path) -> None:
        self.name = name
        self.log = log
        self._process = process

    @classmethod
    async def start(
        cls,
        name: str,
        command: Sequence[str | Path],
        log: Path,
        env: Mapping[str, str] | None = None,
        folder: Path | None = None,
    ) -> "Child":
        """Start `command`; its own session keeps Ctrl-C in the terminal away from it."""
        log.parent.mkdir(parents=True, exist_ok=True)
        with log.open("ab") as out:
            process = await asyncio.create_subprocess_exec(
                *command,
                stdin=asyncio.subprocess.DEVNULL,
                stdout=out,
                stderr=out,
                env=env,
                cwd=folder,
                start_new_session=True,
            )
        return cls(name, process, log)

    @property
    def pid(self) -> int:
        return self._process.pid

    @property
    def running(self) -> bool:
        return self._process.returncode is None

    async def listening(self, port: int, seconds: float = 90.0) -> None:
        """Wait until it takes connections on `port`; raises DemoError when it does not."""
        deadline = time.monotonic() + seconds
        while time.monotonic() < deadline:
            self.must_run()
            with contextlib.suppress(OSError):
                _, writer = await asyncio.open_connection("127.0.0.1", port)
                writer.close()
                await writer.wait_closed()
                return
            await asyncio.sleep(0.05)
        raise DemoError(f"{self.name}: not listening on port {port} after {seconds:.0f} s")

    def must_run(self) -> None:
        """Raises DemoError with the last lines of its log when it has ended by itself."""
        if not self.running:
            tail = self.log.read_text(errors="replace").splitlines()[-15:]
            code = self._process.returncode
            raise DemoError("\n".join([f"{self.name}: ended with {code}, see {self.log}", *tail]))

    async def kill(self) -> None:
        """SIGKILL: it gets no chance to write anything."""
        await self._end(signal.SIGKILL, 10.0)

    async def stop(self, seconds: float = 15.0) -> int:
        """SIGTERM, and SIGKILL `seconds` later; returns the exit code (-9: had to be killed)."""
        try:
            return await self._end(signal.SIGTERM, seconds)
        except TimeoutError:
            return await self._end(signal.SIGKILL, 10.0)

    async def _end(self, number: signal.Signals, seconds: float) -> int:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(self._process.pid, number)
        return await asyncio.wait_for(self._process.wait(), seconds)


# Below those that the kernel gives to outgoing connections, from 32768 on: one of them could take a
# port before its server does, or be connected to itself while that is not there yet.
_PORTS = range(10_000, 20_000)


def free_port() -> int:
    """A TCP port of 127.0.0.1 that nobody listens on now."""
    while True:
        port = random.SystemRandom().choice(_PORTS)
        with contextlib.suppress(OSError), socket.socket() as probe:
            probe.bind(("127.0.0.1", port))
            return port
