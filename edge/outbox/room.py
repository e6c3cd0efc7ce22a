"""How much disk the outbox may use, and what it does when that is not enough."""

import os
import sqlite3
import time
from pathlib import Path

from edge.component import format_size
from edge.errors import DefinitionError
from edge.outbox.schema import FILE

SMALLEST = 32 * 2**20
RESERVE = 16 * 2**20
_PARCEL = 8 * 2**20  # of the reserve, beside the WAL: what rolling writes when the disk is full
_WAL_LIMIT = 8 * 2**20
_LARGE_WAL_LIMIT = 32 * 2**20
_FIXED = 128 * 2**10  # tree and list pages that a transaction touches beside its rows
_TOUCHED = 24 * 2**10  # what it does write of them, about
_WORTHWHILE = 32  # bytes of the WAL for one that a checkpoint writes
_SHRINK_BYTES = 2**20
_SHRINKS = 8  # at a checkpoint, each a small transaction of its own
_SEARCHED = 64 * 2**20  # SQLite searches all free bytes for each page that it takes out
_LOOK_AGAIN = 1.0  # seconds for which a measured disk is trusted while there is plenty of room
_PER_ROW = 256  # record header, keys, index entries


def cost(bodies: int, rows: int) -> int:
    """Bytes of pages that storing `rows` table rows of `bodies` bytes in all takes at most."""
    return bodies + bodies // 32 + rows * _PER_ROW + _FIXED


class Room:
    """Measures one outbox folder against its cap.

    Pages + WAL + shared memory + reserve + set-aside never pass `max_size`. New rows also leave the
    reserve alone; rolling and settling, which lead out of a full outbox, may use its room.

    largest: bytes that one commit into an empty outbox may write, about. largest_leaving: bytes
    that one transaction out of a full outbox may write when no parcel waits in it.
    """

    def __init__(self, folder: Path, max_size: int) -> None:
        if max_size < SMALLEST:
            raise DefinitionError(
                f"outbox.max_size: must be at least {format_size(SMALLEST)}, "
                f"got {format_size(max_size)}; the reserve alone takes {format_size(RESERVE)}"
            )
        self.max_size = max_size
        # A page that is freed before the WAL is emptied is never written a second time.
        self.wal_limit = min(_WAL_LIMIT, max_size // 16)
        self.wal_limit = max(self.wal_limit, min(_LARGE_WAL_LIMIT, max_size // 64))
        self.reserve = max(RESERVE, self.wal_limit + _PARCEL)
        # Pages, the same again in the WAL, and its index.
        self.largest = (max_size - self.reserve - self.wal_limit) * 64 // 130
        self.largest_leaving = (self.reserve + self.wal_limit) * 64 // 130
        self._folder = folder
        self._reserve = folder / "reserve"
        self._file, self._wal, self._shm = (folder / (FILE + end) for end in ("", "-wal", "-shm"))
        self._left = 0  # bytes that certainly fit, by the last measurement
        self._measured = -_LOOK_AGAIN
        self._asked = 0  # bytes that the next transaction may write
        self._written = 0  # bytes since the WAL was emptied, about
        self.aside = 0
        self.reserved = False

    def on_disk(self) -> int:
        """Bytes that the folder occupies now."""
        files = (self._file, self._wal, self._shm, self._reserve)
        return sum(map(size_of, files)) + self.aside

    def turn(self, sinks: int) -> int:
        """Bytes that each of so many sinks may write out of a full outbox, whatever the others do.

        Two more turns: one in the WAL while it is written, one for a sink that rolls ahead.
        """
        return (self.reserve + self.wal_limit) * 63 // 64 // (sinks + 2)

    def fits(self, db: sqlite3.Connection, need: int, *, leave: int | None = None) -> bool:
        """Whether a transaction that writes `need` bytes stays under the cap and on the disk.

        leave: bytes of the reserve's room that must be left; None: all, the reserve stays.
        With plenty of room the disk is measured once a second: it costs a third of a small commit.
        """
        keep_reserve = leave is None
        self._asked = need
        takes = 3 * need  # pages, WAL and its index
        if keep_reserve and takes < self._left and time.monotonic() < self._measured + _LOOK_AGAIN:
            self._left -= takes
            return True
        growth = max(0, need - free_bytes(db))
        left = self._ceiling() - self._total(db, growth, need, keep_reserve) - (leave or 0)
        if keep_reserve:
            self._left, self._measured = left // 2, time.monotonic()
        return left >= 0

    def is_undisturbed(self) -> bool:
        """Whether what does not fit now lacks no room because of a reader or of the disk."""
        return not size_of(self._wal) and self._ceiling() >= self.max_size

    def wrote(self) -> None:
        """A transaction is in the WAL: what was last asked for."""
        self._written += max(0, self._asked - _FIXED) + _TOUCHED
        self._asked = 0

    def is_time_to_checkpoint(self, db: sqlite3.Connection) -> bool:
        """Whether the WAL is nearly as long as it gets, or holds little that is still in use.

        Pages in use are written a second time, into the file; those freed by then are not.
        """
        if self._written < self.wal_limit // 4:
            return False
        return (
            self._written > self.wal_limit * 3 // 4 or used_bytes(db) < self._written // _WORTHWHILE
        )

    def wal_is_empty(self) -> None:
        """What was written so far is in the file."""
        self._written = 0

    def look_again(self) -> None:
        """Measure the disk before anything else is written: it is not as it was."""
        self._left = 0

    def excess(self, db: sqlite3.Connection, need: int) -> int:
        """Bytes by which the file is too large for `need` more, even if they fit into free pages.

        Negative: it could grow by as much.
        """
        return self._total(db, 0, need, True) - self._ceiling()

    def _total(self, db: sqlite3.Connection, growth: int, wal: int, keep_reserve: bool) -> int:
        pages = max(_pragma(db, "page_count") * _pragma(db, "page_size"), size_of(self._file))
        log = size_of(self._wal)
        if keep_reserve:  # the WAL may grow to its limit before it is emptied
            log = max(log, self.wal_limit)
        index = size_of(self._shm) + (log + wal) // 128
        return pages + growth + log + wal + index + self.aside + keep_reserve * self.reserve

    def _ceiling(self) -> int:
        """The cap, or what the disk can still give if that is less."""
        disk = os.statvfs(self._folder)
        return min(self.max_size, self.on_disk() + disk.f_bavail * disk.f_frsize)

    def used(self, db: sqlite3.Connection) -> int:
        """Bytes that are taken for good: pages in use, WAL at its limit, reserve, set-aside."""
        return used_bytes(db) + self.wal_limit + self.reserve + self.aside

    # -- set-aside

    def measure_aside(self) -> None:
        """Look how much is set aside; called when that changed."""
        folder = self._folder / "aside"
        self.aside = sum(path.stat().st_size for path in folder.rglob("*") if path.is_file())
        self.look_again()

    def trim_aside(self) -> None:
        """Keep an eighth of the cap at most of what is set aside and done with: newest first."""
        folder = self._folder / "aside"
        done = [p for p in folder.iterdir() if p.is_file() or (p / "done").exists()]
        left = self.max_size // 8
        for path in sorted(done, key=lambda p: p.stat().st_mtime_ns, reverse=True):
            files = [path] if path.is_file() else list(path.iterdir())
            left -= sum(map(size_of, files))
            if left < 0:
                for file in files:
                    file.unlink()
                if path.is_dir():
                    path.rmdir()
        self.measure_aside()

    # -- the reserve

    def give_up_reserve(self) -> None:
        """Release the reserve: at ENOSPC not even a DELETE succeeds without it."""
        self._reserve.unlink(missing_ok=True)
        self.reserved = False
        self.look_again()

    def restore_reserve(self, db: sqlite3.Connection) -> None:
        """Write the reserve again if it is missing and there is room."""
        self.reserved = size_of(self._reserve) == self.reserve
        if self.reserved or not self.fits(db, _FIXED):
            return
        try:
            self._write_reserve()
            self.reserved = True
        except OSError:
            self.give_up_reserve()

    def _write_reserve(self) -> None:
        handle = os.open(self._reserve, os.O_WRONLY | os.O_CREAT, 0o644)
        try:
            os.posix_fallocate(handle, 0, self.reserve)
            os.fsync(handle)
        finally:
            os.close(handle)


def empty_wal(db: sqlite3.Connection) -> bool:
    """Move the WAL into the file and cut it to nothing; False while a reader holds it."""
    db.execute("PRAGMA busy_timeout = 0")
    try:
        busy: int = db.execute("PRAGMA wal_checkpoint(TRUNCATE)").fetchone()[0]
    finally:
        db.execute("PRAGMA busy_timeout = 10000")
    return not busy


def give_back(db: sqlite3.Connection, most: int) -> bool:
    """Make a file shorter that is mostly free; whether there may be more to give back.

    Little is taken out step by step. Much, such as a long outage leaves, waits until what is in use
    comes to `most` bytes at most: those are held in memory and written anew, without the rest.
    """
    free = free_bytes(db)
    if free <= _WAL_LIMIT or not _is_mostly_free(db):
        return False
    if free <= _SEARCHED:
        shrink(db)
        return True
    if used_bytes(db) > most or not empty_wal(db):
        return False
    db.execute("VACUUM")
    return True


def shrink(db: sqlite3.Connection) -> None:
    """Take up to 1 MiB of free pages out of the file; it gets shorter when the WAL is emptied.

    Not more at a time: pages taken out are written to the WAL when they do not fit into the cache.
    """
    # Not `execute`, which does one step and so takes out one page.
    pages = _SHRINK_BYTES // _pragma(db, "page_size")
    db.executescript(f"PRAGMA incremental_vacuum({pages})")


def checkpoint(db: sqlite3.Connection) -> None:
    """Move the WAL into the file, without the pages that are free by now.

    They would be written for nothing: twice as much as all else while the link is up.
    """
    for _ in range(_SHRINKS):
        if not _SHRINK_BYTES // 4 <= free_bytes(db) <= _SEARCHED or not _is_mostly_free(db):
            break
        shrink(db)
    db.execute("PRAGMA wal_checkpoint(PASSIVE)").fetchone()


def _is_mostly_free(db: sqlite3.Connection) -> bool:
    return _pragma(db, "freelist_count") * 2 > _pragma(db, "page_count")


def used_bytes(db: sqlite3.Connection) -> int:
    """Bytes of the file's pages that hold something."""
    pages = _pragma(db, "page_count") - _pragma(db, "freelist_count")
    return pages * _pragma(db, "page_size")


def free_bytes(db: sqlite3.Connection) -> int:
    """Bytes of the file's free pages."""
    return _pragma(db, "freelist_count") * _pragma(db, "page_size")


def size_of(path: Path) -> int:
    """Bytes of a file, 0 if there is none."""
    try:
        return path.stat().st_size
    except FileNotFoundError:
        return 0


def _pragma(db: sqlite3.Connection, name: str) -> int:
    value: int = db.execute("PRAGMA " + name).fetchone()[0]
    return value


def sync_folder(folder: Path) -> None:
    """Make new names in a folder durable."""
    handle = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def make_folder(folder: Path) -> None:
    """Make a folder, and those above it, so that a power cut does not take their names away."""
    if folder.is_dir():
        return
    if not folder.parent.exists():
        make_folder(folder.parent)
    folder.mkdir(exist_ok=True)
    sync_folder(folder.parent)
