"""What is said of the disk below an outbox: full, read-only, out of inodes, slow."""

import logging
import os
import sqlite3
from pathlib import Path

from edge.clock import Clock
from edge.component import format_size
from edge.outbox.room import RESERVE

log = logging.getLogger("edge.outbox")

SLOW = 1.0
"""Seconds of a commit from which on the disk is said to be slow."""
_TELL_AGAIN = 60.0  # seconds
_LITTLE = 2**20  # bytes free, with which nothing can be done


def problem(folder: Path) -> str | None:
    """Why the disk takes nothing more, as it is now; the file could not say so itself."""
    disk = os.statvfs(folder)
    free = disk.f_bavail * disk.f_frsize
    if disk.f_flag & os.ST_RDONLY or "emergency_ro" in _mount_options(folder):
        return "the disk is read-only"
    if disk.f_files and not disk.f_favail:
        return "the disk has no inodes left"
    # A full outbox gives up its reserve, which is then free for what leads out of it.
    given_up = 0 if (folder / "reserve").exists() else 2 * RESERVE
    if free < max(_LITTLE, given_up):
        return f"the disk is full, {format_size(free)} are free"
    return None


def has_room(folder: Path) -> bool:
    """Whether the disk can take what any transaction writes."""
    disk = os.statvfs(folder)
    return disk.f_bavail * disk.f_frsize >= 2 * RESERVE


def refusal(folder: Path, error: sqlite3.Error) -> str | None:
    """The message where a disk with room takes no writes; None where it is full."""
    if not has_room(folder):
        return None
    return (
        f"outbox {folder}: the disk takes no writes, {error}; it is read-only or fails, see the "
        "kernel's log; intake waits until it does"
    )


def _mount_options(folder: Path) -> str:
    """What the kernel says of the file system; it makes one that has errors read-only."""
    device = os.stat(folder).st_dev
    number = f" {os.major(device)}:{os.minor(device)} "
    try:
        lines = Path("/proc/self/mountinfo").read_text().splitlines()
    except OSError:
        return ""
    return " ".join(line for line in lines if number in line)


class Slowness:
    """Tells of a disk that needs seconds for a commit, once a minute."""

    def __init__(self, folder: Path, clock: Clock) -> None:
        self._folder, self._clock = folder, clock
        self._told = -_TELL_AGAIN

    def since(self, began: float) -> None:
        """A commit that began then has ended."""
        now = self._clock.steady()
        if now - began < SLOW or now < self._told + _TELL_AGAIN:
            return
        self._told = now
        log.warning(
            "outbox %s: a commit took %.1f s; the disk is slow, look at its health and at who else "
            "uses it",
            self._folder,
            now - began,
        )
