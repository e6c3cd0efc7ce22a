"""What is noted beside the file, so that a file that forgot commits, or is a copy, is found out."""

import fcntl
import logging
import os
import secrets
import sqlite3
import struct
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any

import orjson
from crc32c import crc32c

from edge.outbox import ledger
from edge.outbox.buffer import Buffer
from edge.outbox.model import Loss

log = logging.getLogger("edge.outbox")

_GENERATION = 0x80087601  # FS_IOC_GETVERSION of <linux/fs.h>: another number in each new file
_MOST = 2**16
_BLOCK = 40  # bits of sequence numbers: those of a copy go on in a block of their own
_BLOCKS = 2**16


class Stamp:
    """The next sequence number of every sink, and which file that was; written behind each commit.

    Not synced, so it costs next to nothing: after a power cut it may be behind the file, which says
    nothing. Ahead of it, it tells that commits which were acknowledged are gone.
    """

    def __init__(self, file: Path) -> None:
        self._file = file
        self._path = file.with_name("stamp")
        self._handle: int | None = None
        self._identity: list[int] = []
        self._noted: tuple[object, ...] = ()

    def open(self) -> Mapping[str, Any]:
        """What is noted; empty when nothing is, or nothing sound."""
        self.close()
        self._identity = _identity(self._file)
        with suppress(OSError):
            self._handle = os.open(self._path, os.O_RDWR | os.O_CREAT, 0o644)
            return _unpack(os.pread(self._handle, _MOST, 0))
        return {}

    def note(self, outbox: str, buffers: Mapping[str, Buffer]) -> None:
        """Note how far a commit came; a disk that takes nothing takes no stamp either."""
        noted = (outbox, *(buffer.next_sequence for buffer in buffers.values()))
        if self._handle is None or noted == self._noted:
            return
        following = {name: buffer.next_sequence for name, buffer in buffers.items()}
        text = orjson.dumps({"outbox": outbox, "file": self._identity, "next": following})
        with suppress(OSError):
            os.pwrite(self._handle, b"%08x %s\n" % (crc32c(text), text), 0)
            self._noted = noted

    def close(self) -> None:
        """Leave it; harmless when not open."""
        if self._handle is not None:
            os.close(self._handle)
        self._handle, self._noted = None, ()

    def is_of_another_file(self, found: Mapping[str, Any]) -> bool:
        """Whether this file has come into the folder since: it was copied, or put back."""
        before = found.get("file")
        return bool(before and self._identity) and before != self._identity


def _unpack(text: bytes) -> Mapping[str, Any]:
    crc, _, body = text.partition(b"\n")[0].partition(b" ")
    try:
        return dict(orjson.loads(body)) if int(crc, 16) == crc32c(body) else {}
    except ValueError:
        return {}


def _identity(file: Path) -> list[int]:
    """Inode and its generation, which no copy has; empty where the file system has no such numbers.

    Inodes alone are no identity: freed ones are given again, and vfat draws new ones at each mount.
    """
    handle = os.open(file, os.O_RDONLY)
    try:
        (generation,) = struct.unpack("I4x", fcntl.ioctl(handle, _GENERATION, bytes(8)))
        return [os.fstat(handle).st_ino, generation]
    except OSError:
        return []
    finally:
        os.close(handle)


def catch_up(
    db: sqlite3.Connection, buffers: Mapping[str, Buffer], found: Mapping[str, Any], now: int
) -> None:
    """Ledger rows whose commits are gone, and never give their sequence numbers again."""
    for name, following in found["next"].items():
        buffer = buffers.get(name)
        gone = following - buffer.next_sequence if buffer else 0
        if not buffer or gone <= 0:
            continue
        part, first = ledger.sink_part(name), buffer.next_sequence
        why = "acknowledged, but not in the file: its WAL was damaged, or an older copy put back"
        log.error("sink %r: %d rows were %s", name, gone, why)
        ledger.add(db, {(part, "appended"): gone, (part, "damaged"): gone})
        ledger.lose(db, [Loss(part, "damaged", gone, 0, why, first, following - 1)], now)
        buffer.next_sequence, buffer.changed = following, True


def leave_numbers(db: sqlite3.Connection, buffers: Mapping[str, Buffer], now: int) -> None:
    """Go on far behind what the original of this copy may have given to other rows meanwhile."""
    why = "the file is a copy: what it still has may have been sent already, under the same ids"
    log.warning("outbox: %s; new rows get numbers of their own", why)
    block = 1 + secrets.randbelow(_BLOCKS)
    for buffer in buffers.values():
        buffer.next_sequence = ((buffer.next_sequence >> _BLOCK) + block) << _BLOCK
        buffer.changed = True
    ledger.lose(db, [Loss("outbox", "copied", 0, 0, why)], now)
