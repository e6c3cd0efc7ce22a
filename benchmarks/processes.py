"""Processes that are measured from outside: their processor time, memory and disk writes."""

import os
import subprocess
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from types import TracebackType
from typing import Self


class Failed(Exception):
    """A benchmark could not be measured; the text says what happened."""


class Process:
    """A command that runs in `folder`, its standard error kept in `<name>.err` there.

    output: the file its standard output is written to; None: thrown away.
    """

    def __init__(
        self,
        name: str,
        command: Sequence[str],
        folder: Path,
        env: Mapping[str, str] | None = None,
        output: Path | None = None,
    ) -> None:
        self.name = name
        self.errors = folder / f"{name}.err"
        with self.errors.open("ab") as errors, open(output or os.devnull, "wb") as out:
            self._popen = subprocess.Popen(
                command,
                cwd=folder,
                env={**os.environ, **(env or {})},
                stdin=subprocess.DEVNULL,
                stdout=out,
                stderr=errors,
            )
        self.pid = self._popen.pid

    def cpu(self) -> float:
        """User and system seconds used so far by all its threads, also after it has ended."""
        # What clock_getcpuclockid(3) returns: exact, where /proc/PID/stat counts 10 ms ticks.
        # It lasts until the process is reaped, which only `stop` does.
        return time.clock_gettime((~self.pid << 3) | 2)

    def rss(self) -> int:
        """Resident bytes now; 0 when it has ended."""
        return self._status("VmRSS")

    def peak(self) -> int:
        """The most resident bytes it had so far; 0 when it has ended."""
        # Not ru_maxrss: that starts at the size of the process that forked this one.
        return self._status("VmHWM")

    def written(self) -> int:
        """Bytes it caused to be written to the storage layer, page cache hits merged."""
        for line in Path(f"/proc/{self.pid}/io").read_text().splitlines():
            if line.startswith("write_bytes"):
                return int(line.split()[1])
        raise Failed(f"{self.name}: /proc/{self.pid}/io has no write_bytes")

    def alive(self) -> bool:
        """True until it has ended."""
        return os.waitid(os.P_PID, self.pid, os.WEXITED | os.WNOWAIT | os.WNOHANG) is None

    def until(self, happened: Callable[[], bool], patience: float) -> None:
        """Wait until it `happened`; Failed if it has ended or `patience` seconds have gone by."""
        deadline = time.monotonic() + patience
        while not happened():
            if time.monotonic() > deadline or not self.alive():
                raise Failed(f"{self.name}: it did not come to it: {self.complaint()}")
            time.sleep(0.005)

    def end(self, patience: float = 60.0) -> None:
        """Ask it to end (SIGTERM), kill it after `patience` seconds; it can still be measured."""
        deadline = time.monotonic() + patience
        if self.alive():
            self._popen.terminate()
        while self.alive():
            if time.monotonic() > deadline:
                self._popen.kill()
            time.sleep(0.01)

    def stop(self) -> int:
        """End it and let go of it; returns the exit code."""
        if self._popen.returncode is None:
            self.end()
        return self._popen.wait()

    def complaint(self) -> str:
        """The last line it wrote to standard error."""
        lines = self.errors.read_text(errors="replace").strip().splitlines()
        return lines[-1] if lines else "nothing on standard error"

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.stop()

    def _status(self, field: str) -> int:
        for line in Path(f"/proc/{self.pid}/status").read_text().splitlines():
            if line.startswith(field):
                return int(line.split()[1]) * 1024
        return 0
