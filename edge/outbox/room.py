"""How much disk the outbox may use, and what it does when that is not enough."""

import os
import sqlite3
from pathlib import Path

from edge.component import format_size
from edge.errors import DefinitionError
from edge.outbox.schema import FILE, PAGE_SIZE

SMALLEST = 32 * 2**20
RESERVE = 16 * 2**20
_WAL_LIMIT = 8 * 2**20
_FIXED = 32 * PAGE_SIZE  # tree and list pages that a transaction touches beside its rows
_SHRINK_PAGES = 256
_PER_ROW = 256  # record header, keys, index entries


def cost(bodies: int, rows: int) -> int:
    """Bytes of pages that storing `rows` table rows of `bodies` bytes in all takes at most."""
    return bodies + bodies // 32 + rows * _PER_ROW + _FIXED


class Room:
    """Measures one outbox folder against its cap.

    Pages + WAL + shared memory + reserve + set-aside never pass `max_size`. New rows also leave the
    reserve alone; rolling and settling, which lead out of a full outbox, may use its room.
    """

    def __init__(self, folder: Path, max_size: int) -> None:
        if max_size < SMALLEST:
            raise DefinitionError(
                f"outbox.max_size: must be at least {format_size(SMALLEST)}, "
                f"got {format_size(max_size)}; the reserve alone takes {format_size(RESERVE)}"
            )
        self.max_size = max_size
        self.wal_limit = min(_WAL_LIMIT, max_size // 16)
        self._folder = folder
        self._reserve = folder / "reserve"
        self._file, self._wal, self._shm = (folder / (FILE + end) for end in ("", "-wal", "-shm"))
        self.aside = 0
        self.reserved = False

    def on_disk(self) -> int:
        """Bytes that the folder occupies now."""
        files = (self._file, self._wal, self._shm, self._reserve)
        return sum(map(size_of, files)) + self.aside

    def fits(self, db: sqlite3.Connection, need: int, *, keep_reserve: bool = True) -> bool:
        """Whether a transaction that writes `need` bytes stays under the cap and on the disk."""
        growth = max(0, need - free_bytes(db))
        return self._total(db, growth, need, keep_reserve) <= self._ceiling()

    def excess(self, db: sqlite3.Connection, need: int) -> int:
        """Bytes by which the file is too large for `need` more, even if they fit into free pages.

        Negative: it could grow by as much.
        """
        return self._total(db, 0, need, True) - self._ceiling()

    def _total(self, db: sqlite3.Connection, growth: int, wal: int, keep_reserve: bool) -> int:
        pages = max(_pragma(db, "page_count") * PAGE_SIZE, size_of(self._file))
        log = size_of(self._wal)
        if keep_reserve:  # the WAL may grow to its limit before it is emptied
            log = max(log, self.wal_limit)
        index = size_of(self._shm) + (log + wal) // 128
        return pages + growth + log + wal + index + self.aside + keep_reserve * RESERVE

    def _ceiling(self) -> int:
        """The cap, or what the disk can still give if that is less."""
        disk = os.statvfs(self._folder)
        return min(self.max_size, self.on_disk() + disk.f_bavail * disk.f_frsize)

    def used(self, db: sqlite3.Connection) -> int:
        """Bytes that are taken for good: pages in use, WAL at its limit, reserve, set-aside."""
        pages = _pragma(db, "page_count") - _pragma(db, "freelist_count")
        return pages * PAGE_SIZE + self.wal_limit + RESERVE + self.aside

    # -- set-aside

    def measure_aside(self) -> None:
        """Look how much is set aside; called when that changed."""
        folder = self._folder / "aside"
        self.aside = sum(path.stat().st_size for path in folder.rglob("*") if path.is_file())

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

    def restore_reserve(self, db: sqlite3.Connection) -> None:
        """Write the reserve again if it is missing and there is room."""
        self.reserved = size_of(self._reserve) == RESERVE
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
            os.posix_fallocate(handle, 0, RESERVE)
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


def is_loose(db: sqlite3.Connection) -> bool:
    """Whether most of the file is free, so that it is worth giving back."""
    free = free_bytes(db)
    return free > _WAL_LIMIT and free * 2 > _pragma(db, "page_count") * PAGE_SIZE


def shrink(db: sqlite3.Connection) -> None:
    """Take up to 256 free pages out of the file; it gets shorter when the WAL is emptied."""
    # Stepping through the result is what does the work.
    db.execute(f"PRAGMA incremental_vacuum({_SHRINK_PAGES})").fetchall()


def free_bytes(db: sqlite3.Connection) -> int:
    """Bytes of the file's free pages."""
    return _pragma(db, "freelist_count") * PAGE_SIZE


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
