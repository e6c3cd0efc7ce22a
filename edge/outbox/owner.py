"""Who may open an outbox: one process at a time, on a local disk."""

import fcntl
import os
import time
from collections.abc import Callable
from pathlib import Path

from edge.errors import DefinitionError, OutboxLocked

_REMOTE = {"nfs", "nfs4", "cifs", "smb", "smb3", "smbfs", "9p", "afs", "ceph", "lustre", "vboxsf"}
_REMOTE |= {f"fuse.{name}" for name in ("sshfs", "glusterfs", "ceph", "s3fs", "rclone")}
_LOOK_AGAIN = 0.05


def refuse_network_disk(folder: Path, mounts: str) -> None:
    """Raise DefinitionError when `folder` lies on a network disk; mounts: /proc/self/mountinfo.

    SQLite's WAL needs shared memory and locks that network file systems do not give
    (https://www.sqlite.org/wal.html, "all processes must be on the same host").
    """
    kind = filesystem(folder, mounts)
    if kind in _REMOTE:
        raise DefinitionError(
            f"outbox.path: must be on a local disk, got {folder} on {kind}; choose a local folder "
            "or a volume of this host"
        )


def filesystem(folder: Path, mounts: str) -> str:
    """The type of the file system that holds `folder` (`ext4`), by the longest mount point."""
    place = folder.resolve()
    best, kind = -1, ""
    for line in mounts.splitlines():
        left, _, right = line.partition(" - ")
        point = left.split()[4].encode().decode("unicode_escape")  # a space is written \040
        if len(point) >= best and place.is_relative_to(point):
            best, kind = len(point), right.split()[0]
    return kind


class Owner:
    """Holds `lock` of one outbox folder as long as the process lives."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._handle: int | None = None

    def take(self, wait: float, give_up: Callable[[], bool] = lambda: False) -> None:
        """Own the folder, waiting up to `wait` seconds or until `give_up`; raises OutboxLocked."""
        handle = os.open(self._path, os.O_RDWR | os.O_CREAT, 0o644)
        begin = time.monotonic()
        while not _try_lock(handle):
            waited = min(wait, time.monotonic() - begin)
            if waited >= wait or give_up():
                holder = os.pread(handle, 32, 0).decode().strip()
                os.close(handle)
                raise OutboxLocked(
                    f"outbox {self._path.parent}: another process owns it, got pid {holder or '?'} "
                    f"after {waited:.3g} s; stop that one, or give this pipeline its own "
                    "`outbox.path`"
                )
            time.sleep(_LOOK_AGAIN)
        os.ftruncate(handle, 0)
        os.pwrite(handle, f"{os.getpid()}\n".encode(), 0)
        self._handle = handle

    def leave(self) -> None:
        """Let the next one in."""
        if self._handle is not None:
            os.close(self._handle)
            self._handle = None


def is_owned(folder: Path) -> bool:
    """Whether a process owns the outbox just now. Looks, and takes nothing from anybody."""
    try:
        with (folder / "lock").open() as lock:
            fcntl.flock(lock, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except (FileNotFoundError, NotADirectoryError):
        return False
    except BlockingIOError:
        return True
    return False


def _try_lock(handle: int) -> bool:
    try:
        fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True
