"""A share that others write to, and that fails: what lies in a folder, seen through FUSE.

`python -m tests.faults.share FOLDER PLACE FAULTS` shows FOLDER at PLACE until it is unmounted.
FAULTS is a file of lines `call errno path`: a call (`getattr`, `readdir`, `open`, `read`) for what
lies at the path or below fails so. A stopped process (SIGSTOP) is a server that does not answer.
"""

import errno
import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import mfusepy

from tests.processor import until


class Through(mfusepy.Operations):
    """Reads what lies below a folder."""

    use_ns = True

    def __init__(self, folder: Path, faults: Path) -> None:
        self._folder, self._faults = folder, faults

    def _at(self, call: str, path: str) -> str:
        for line in self._faults.read_text().splitlines():
            name, number, place = line.split()
            if name == call and (path == place or path.startswith(place.rstrip("/") + "/")):
                raise mfusepy.FuseOSError(getattr(errno, number))
        return str(self._folder) + path

    def getattr(self, path: str, fh: int | None = None) -> dict[str, Any]:
        found = os.lstat(self._at("getattr", path))
        names = ("st_mode", "st_ino", "st_nlink", "st_uid", "st_gid", "st_size")
        return {name: getattr(found, name) for name in names} | {"st_mtime": found.st_mtime_ns}

    def readdir(self, path: str, fh: int) -> list[str]:
        return [".", "..", *os.listdir(self._at("readdir", path))]

    def open(self, path: str, flags: int) -> int:
        return os.open(self._at("open", path), flags)

    def read(self, path: str, size: int, offset: int, fh: int) -> bytes:
        self._at("read", path)
        return os.pread(fh, size, offset)

    def release(self, path: str, fh: int) -> int:
        os.close(fh)
        return 0


class Share:
    """The folder that others write to, where it is seen, and what goes wrong on the way."""

    def __init__(self, folder: Path) -> None:
        self.written, self.seen, self._faults = (
            folder / "written",
            folder / "seen",
            folder / "faults",
        )
        self.written.mkdir()
        self.seen.mkdir()
        self.heal()
        self._process: subprocess.Popen[bytes] | None = None

    def fail(self, call: str, number: str, path: str = "/") -> None:
        with self._faults.open("a") as file:
            file.write(f"{call} {number} {path}\n")

    def heal(self) -> None:
        self._faults.write_text("")

    def mount(self) -> None:
        command = [sys.executable, "-m", "tests.faults.share"]
        places = [str(self.written), str(self.seen), str(self._faults)]
        process = subprocess.Popen([*command, *places], cwd=Path(__file__).parents[2])
        until(lambda: self.seen.is_mount() or process.poll() is not None)
        assert self.seen.is_mount(), "FUSE is needed: /dev/fuse, and apt-get install fuse3"
        self._process = process

    def unmount(self) -> None:
        """An empty folder is left."""
        subprocess.run(["umount", "-l", self.seen], check=False)
        self._end()

    def die(self) -> None:
        """The mount stays, and every call fails (ENOTCONN)."""
        assert self._process is not None
        self._process.kill()
        self._process.wait()

    def freeze(self) -> None:
        """No call comes back until `thaw`."""
        assert self._process is not None
        self._process.send_signal(signal.SIGSTOP)

    def thaw(self) -> None:
        assert self._process is not None
        self._process.send_signal(signal.SIGCONT)

    def _end(self) -> None:
        if self._process is not None:
            self._process.send_signal(signal.SIGCONT)
            self._process.terminate()
            try:
                self._process.wait(10)
            except subprocess.TimeoutExpired:
                self._process.kill()
                self._process.wait()


@contextmanager
def shared(folder: Path) -> Iterator[Share]:
    """A share, mounted; unmounted at the end."""
    share = Share(folder)
    share.mount()
    try:
        yield share
    finally:
        share.unmount()


if __name__ == "__main__":
    source, place, faults = sys.argv[1:]
    mfusepy.FUSE(
        Through(Path(source), Path(faults)),
        place,
        foreground=True,
        nothreads=True,
        fsname="share",
        direct_io=True,  # nothing out of a cache
        attr_timeout=0,
        entry_timeout=0,
    )
