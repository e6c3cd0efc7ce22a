"""A real processor in a process of its own, for tests that end it."""

import os
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

_KEYS = ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY")


class Processor:
    """`edge run` on a definition, started and ended again and again; its log is kept beside it."""

    def __init__(self, definition: Path, *arguments: str, **environment: str) -> None:
        self._definition = definition
        self._arguments = arguments
        self._environment = environment
        self._log = definition.with_name("processor.log")

    @contextmanager
    def running(self, word: bytes = b": started") -> Iterator["subprocess.Popen[bytes]"]:
        """One life of it, from the moment that its log says `word`: it owns the outbox."""
        name, folder = self._definition.name, self._definition.parent
        command = [sys.executable, "-m", "edge", "run", name, *self._arguments]
        said = self._log.stat().st_size if self._log.exists() else 0
        with self._log.open("ab") as log:
            process = subprocess.Popen(command, cwd=folder, env=self._around(), stderr=log)
        try:
            until(lambda: word in self._since(said) or process.poll() is not None)
            yield process
        finally:
            process.kill()
            process.wait()

    def _since(self, said: int) -> bytes:
        with self._log.open("rb") as log:
            log.seek(said)
            return log.read()

    def _around(self) -> dict[str, str]:
        cloud = dict.fromkeys(_KEYS, "test") | {"AWS_DEFAULT_REGION": "eu-west-1"}
        return {**os.environ, **cloud, **self._environment}

    def said(self) -> str:
        """Its log, of all lives."""
        return self._log.read_text(errors="replace")

    def tail(self) -> str:
        """Its last words."""
        return self.said()[-3000:]


def until(happened: Callable[[], object], seconds: float = 300.0) -> None:
    """Look again and again; raises TimeoutError when it does not happen."""
    deadline = time.monotonic() + seconds
    while not happened():
        if time.monotonic() > deadline:
            raise TimeoutError("not within its time")
        time.sleep(0.01)
