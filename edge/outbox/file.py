"""The open outbox file: every transaction goes through here, full disk and damage included."""

import json
import logging
import secrets
import sqlite3
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

from edge.clock import Clock
from edge.component import format_size
from edge.errors import OutboxFull
from edge.outbox import disk, ledger
from edge.outbox.buffer import Buffer, load_buffers
from edge.outbox.memory import Memory
from edge.outbox.model import Entry, Limits, Loss, SinkLimits
from edge.outbox.rescue import Rescue, copy_state, keep_body, move_aside, unfinished
from edge.outbox.room import (
    Room,
    checkpoint,
    cost,
    empty_wal,
    free_bytes,
    give_back,
    shrink,
    size_of,
    sync_folder,
)
from edge.outbox.schema import FILE, Damage, connect, is_damage, is_full
from edge.outbox.stamp import Stamp, catch_up, leave_numbers

log = logging.getLogger("edge.outbox")
T = TypeVar("T")
Work = Callable[[sqlite3.Connection], T]

_TRIES = 2


@dataclass
class Numbers:
    """The ids of the next entry and parcel; never given twice while the process lives."""

    entry: int = 1
    parcel: int = 1

    def load(self, db: sqlite3.Connection) -> None:
        """Start behind what is stored."""
        (entry,) = db.execute("SELECT coalesce(max(id), 0) FROM entry").fetchone()
        (parcel,) = db.execute("SELECT coalesce(max(id), 0) FROM parcel").fetchone()
        self.entry, self.parcel = max(self.entry, entry + 1), max(self.parcel, parcel + 1)


class OutboxFile:
    """A connection with what is known about its content: buffers, memory sizes, ids, room."""

    def __init__(
        self, folder: Path, limits: Limits, sinks: Mapping[str, SinkLimits], clock: Clock
    ) -> None:
        self.folder = folder
        self.limits = limits
        self.clock = clock
        self.room = Room(folder, limits.max_size)
        self.stamp = Stamp(folder / FILE)
        self.memory = Memory()
        self.numbers = Numbers()
        self.buffers: dict[str, Buffer] = {}
        self.id = ""
        self.sinks = sinks
        self._db: sqlite3.Connection | None = None
        self._rescue: Rescue | None = None
        self._shrunk = False

    @property
    def db(self) -> sqlite3.Connection:
        """The connection; only the writer thread may use it."""
        assert self._db is not None, "the outbox is not open"
        return self._db

    # -- opening

    def open(self) -> None:
        """Open or create the file; a damaged one is set aside and what it says is copied."""
        (self.folder / "aside").mkdir(parents=True, exist_ok=True)
        self.room.measure_aside()
        try:
            self._connect()
        except sqlite3.Error as error:
            if not is_damage(error):
                raise
            self.set_aside(error)
        self.room.restore_reserve(self.db)
        for fault in self.read(lambda db: ledger.imbalances(ledger.read(db))):
            log.error("outbox %s: the ledger is damaged, no rows: %s", self.folder, fault)

    def _connect(self) -> None:
        fresh = not size_of(self.folder / FILE)
        self._db = connect(self.folder / FILE, self.room.wal_limit)
        if fresh:
            sync_folder(self.folder)
        self._load()

    def _load(self) -> None:
        self._transact(self._prepare)
        (self.id,) = self.db.execute("SELECT value FROM meta WHERE name = 'outbox'").fetchone()
        self.memory.load(self.db)
        self.numbers.load(self.db)
        for name, stored in load_buffers(self.db).items():
            buffer = self.buffers.setdefault(name, stored)
            buffer.load(stored.values())
            buffer.limits = self.sinks.get(name, SinkLimits())
            buffer.find_oldest(self.db)
        left = unfinished(self.folder)
        self._rescue = Rescue(self, left[0]) if left else None
        self._compare(self.stamp.open())

    def _compare(self, found: Mapping[str, Any]) -> None:
        """Find out whether this is the file that was here last, as far as it had come."""
        if found.get("outbox") == self.id:
            now, buffers = self.clock.now(), self.buffers
            self._transact(lambda db: catch_up(db, buffers, found, now))
            if self.stamp.is_of_another_file(found):
                self._transact(lambda db: leave_numbers(db, buffers, now))
        self.stamp.note(self.id, self.buffers)

    def _prepare(self, db: sqlite3.Connection) -> None:
        """Write what a new file, or a changed definition, needs.

        A new file after damage also takes over what the one set aside remembers.
        """
        named = db.execute("SELECT 1 FROM meta WHERE name = 'outbox'").fetchone()
        if not named and (old := unfinished(self.folder)):
            copy_state(old[-1], db, list(self.sinks), self.clock.now())
        db.execute("INSERT OR IGNORE INTO meta VALUES ('outbox', ?)", (secrets.token_hex(4),))
        db.execute(
            "INSERT INTO meta VALUES ('max_size', ?1) ON CONFLICT DO UPDATE SET value = ?1 "
            "WHERE value <> ?1",
            (self.room.max_size,),
        )
        known = {name for (name,) in db.execute("SELECT name FROM sink")}
        new = [(name,) for name in self.sinks if name not in known]
        db.executemany("INSERT INTO sink (name) VALUES (?)", new)
        ids = json.dumps(dict(db.execute("SELECT name, id FROM sink")))
        db.execute(
            "INSERT INTO meta VALUES ('sinks', ?1) ON CONFLICT DO UPDATE SET value = ?1 "
            "WHERE value <> ?1",
            (ids,),
        )

    def close(self) -> None:
        """Finish; the WAL is moved into the file."""
        if self._rescue is not None:
            self._rescue.close()
        if self._db is not None:
            with suppress(sqlite3.Error):  # on a full or damaged disk it is done at the next start
                checkpoint(self._db)
            self._db.close()
            self._db = None
        self.stamp.close()

    # -- damage

    def set_aside(self, error: sqlite3.Error) -> None:
        """Move a damaged file away, start a new one under a new id and copy what it remembers."""
        log.error("outbox %s: the file is damaged, set aside (%s)", self.folder, error)
        if self._db is not None:
            self._db.close()
        if self._rescue is not None:
            self._rescue.close()
        self.room.give_up_reserve()
        move_aside(self.folder)
        self.room.measure_aside()
        self._connect()
        self.memory.want_all()

    def rescue_step(self) -> bool:
        """Copy some rows out of a file that was set aside; whether there is more to copy."""
        if self._rescue is None:
            return False
        try:
            more = self._rescue.step()
        except OutboxFull:
            return False
        if not more:
            left = unfinished(self.folder)
            self._rescue = Rescue(self, left[0]) if left else None
            self.room.trim_aside()
        return self._rescue is not None

    def take_out_entries(
        self, db: sqlite3.Connection, buffer: Buffer, entries: Sequence[Entry]
    ) -> list[int]:
        """Delete rolled entries; gives those that a rescue has not copied yet."""
        missing = [e for e in entries if buffer.delete_entry(db, e.id) is None]
        buffer.found_elsewhere(db, sum(entry.rows for entry in missing))
        return [entry.id for entry in missing]

    def take_out_parcels(
        self, db: sqlite3.Connection, buffer: Buffer, numbers: Sequence[int]
    ) -> tuple[int, list[int]]:
        """Delete delivered parcels; gives their rows, and those not copied yet by a rescue."""
        gone = buffer.delete_parcels(db, numbers)
        missing = [n for n in numbers if n not in gone and n in buffer.flying]
        waiting = sum(buffer.flying[number] for number in missing)
        buffer.found_elsewhere(db, waiting)
        return sum(item.rows for item in gone.values()) + waiting, missing

    def skip(self, table: str, numbers: Sequence[int]) -> None:
        """Tell a rescue that these rows have left already."""
        if self._rescue is not None:
            self._rescue.skip.update((table, number) for number in numbers)

    def set_rows_aside(self, buffer: Buffer, table: str, numbers: Sequence[int]) -> None:
        """Take entries or parcels with a wrong checksum out, keep their bytes, ledger the loss."""
        spare = self.room.max_size - self.room.on_disk()
        found = self.read(lambda db: [keep_body(self.folder, db, table, n, spare) for n in numbers])
        if None in found:
            self.set_aside(Damage(f"{table} {numbers} are in the index only"))
            return
        self.room.trim_aside()

        def work(db: sqlite3.Connection) -> None:
            part = ledger.sink_part(buffer.name)
            for number, size in zip(numbers, found, strict=True):
                rows = buffer.discard(db, table, number)
                if not rows:  # the whole file was set aside in between
                    continue
                ledger.add(db, {(part, "damaged"): rows})
                loss = Loss(part, "damaged", rows, size or 0, "the checksum does not match")
                ledger.lose(db, [loss], self.clock.now())

        self.write(work, cost(0, len(numbers)), leaving=True)
        self.read(buffer.find_oldest)

    # -- transactions

    def read(self, work: Work[T]) -> T:
        """Look, without a transaction of its own; damage that shows is set aside first."""
        try:
            return work(self.db)
        except sqlite3.Error as error:
            if not is_damage(error):
                raise
            self.set_aside(error)
        return work(self.db)

    def write(self, work: Work[T], need: int = 0, *, leaving: bool = False) -> T:
        """Do `work` in one durable transaction that writes about `need` bytes.

        leaving: it takes rows out, so the room of the reserve may be used; other work has asked
        `make_fit` before. Work is done again from
        the start when the disk was full or the file damaged, so it must not change anything but
        the database and the buffers' counters. Raises OutboxFull.
        """
        if leaving:
            self._make_ready(need)
        for attempt in range(_TRIES):
            try:
                result = self._transact(work)
            except sqlite3.Error as error:
                self._recover(error, leaving and not attempt, attempt)
            else:
                self._restore_reserve()
                return result
        return self._transact(work)

    def evict(self, work: Work[None]) -> None:
        """Do work that drops rows, in a transaction of its own."""
        self.write(work, cost(0, 1), leaving=True)
        for buffer in self.buffers.values():
            self.read(buffer.find_oldest)

    def _recover(self, error: sqlite3.Error, leaving: bool, attempt: int) -> None:
        """Do what lets a failed transaction be tried again, or raise."""
        baseless = is_full(error, strictly=True) and disk.has_room(self.folder)
        if is_damage(error) or (baseless and attempt):
            self.set_aside(error)  # pages that lead nowhere are "full" too
        elif is_full(error) and leaving:
            self.room.give_up_reserve()
            self._empty_wal()
        elif baseless:
            self.room.look_again()
        elif is_full(error):
            self.room.look_again()
            told = disk.refusal(self.folder, error) or self.describe_full("the disk is full")
            raise OutboxFull(told) from error
        else:
            raise error

    def _transact(self, work: Work[T]) -> T:
        db = self.db
        db.execute("BEGIN IMMEDIATE")
        try:
            result = work(db)
            for buffer in self.buffers.values():
                buffer.save(db)
            db.execute("COMMIT")
        except BaseException:
            self._undo()
            raise
        self.room.wrote()
        self.stamp.note(self.id, self.buffers)
        return result

    def _undo(self) -> None:
        """Roll back, and take the counters back from the file."""
        try:
            if self.db.in_transaction:
                self.db.execute("ROLLBACK")
            stored = load_buffers(self.db)
            for name, buffer in self.buffers.items():
                buffer.load(stored[name].values())
        except (sqlite3.Error, KeyError):
            log.debug("the counters cannot be read again", exc_info=True)

    def _make_ready(self, need: int) -> None:
        """See to it that `need` bytes fit, at the expense of the reserve if it must be."""
        if self.make_fit(need):
            return
        if not self.room.fits(self.db, need, leave=0):
            raise OutboxFull(self.describe_full(f"{format_size(need)} more do not fit"))
        self.room.give_up_reserve()

    def make_fit(self, need: int) -> bool:
        """Whether `need` bytes fit, after giving back what lies idle: the WAL, then free pages."""
        return self.read(lambda _: self._make_fit(need))

    def _make_fit(self, need: int) -> bool:
        if self.room.fits(self.db, need):
            return True
        emptied = self._empty_wal()
        while emptied and not self.room.fits(self.db, need):
            if self.room.excess(self.db, need) <= 0 or not free_bytes(self.db):
                return False
            self._at_the_reserve(shrink)
            emptied = self._empty_wal()
        return emptied

    def shrink_step(self) -> bool:
        """Give some disk back if most of the file is free; whether there may be more to give."""
        most = self.room.wal_limit // 2
        more = self.read(lambda _: self._at_the_reserve(lambda db: give_back(db, most)))
        if self._shrunk and not more:  # only now does the file itself get shorter
            self.read(lambda _: self._at_the_reserve(checkpoint))
        self._shrunk = more
        return more

    def checkpoint_step(self) -> None:
        """Empty a WAL that has become long before SQLite does, at a moment when that is cheap."""
        if self.read(self.room.is_time_to_checkpoint):
            self.read(lambda _: self._at_the_reserve(checkpoint))
            self.room.wal_is_empty()

    def _empty_wal(self) -> bool:
        return self._at_the_reserve(empty_wal)

    def _at_the_reserve(self, work: Work[T]) -> T:
        """Do work that makes room; on a full disk it takes the room of the reserve to do so."""
        try:
            return work(self.db)
        except sqlite3.OperationalError as error:
            if not is_full(error):
                raise
        self.room.give_up_reserve()
        return work(self.db)

    def _restore_reserve(self) -> None:
        if self.room.reserved:
            return
        try:
            self._empty_wal()
            self.room.restore_reserve(self.db)
        except sqlite3.Error:  # what was asked for is done; who hears of an error does it twice
            log.debug("the reserve cannot be restored yet", exc_info=True)

    def describe_full(self, what: str) -> str:
        """The message of OutboxFull: how full, how old, what will help."""
        times = {b.oldest: b.name for b in self.buffers.values() if b.oldest is not None}
        at = f"outbox {self.folder}: full at {format_size(self.room.on_disk())}, {what}"
        if not times:
            return f"{at}; free space on the disk or raise outbox.max_size"
        oldest = min(times)
        age = _format_age(self.clock.now() - oldest)
        return f"{at}, oldest {age}; intake waits until sink {times[oldest]!r} delivers"


def _format_age(micros: int) -> str:
    """`3 d 4 h`, `5 min`: two units at most."""
    seconds = max(0, micros) // 1_000_000
    for size, unit, smaller, name in ((86_400, "d", 3_600, "h"), (3_600, "h", 60, "min")):
        if seconds >= size:
            return f"{seconds // size} {unit} {seconds % size // smaller} {name}"
    return f"{seconds // 60} min" if seconds >= 60 else f"{seconds} s"
