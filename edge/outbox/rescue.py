"""Damage: a file that SQLite cannot read is set aside, and its rows are copied out one by one."""

import json
import logging
import os
import secrets
import sqlite3
import struct
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from edge.outbox import ledger
from edge.outbox.buffer import Buffer, load_buffers
from edge.outbox.checksum import entry_crc, is_sound, parcel_crc
from edge.outbox.model import Loss
from edge.outbox.room import cost, size_of, sync_folder
from edge.outbox.schema import FILE, PAGE_SIZE, connect, connect_to_rescue

if TYPE_CHECKING:
    from edge.outbox.file import OutboxFile

log = logging.getLogger("edge.outbox")

_STEP_ROWS = 200
_STEP_BYTES = 2**20
_DONE = "done"
_INTERIOR_TABLE = 5
_FOLLOWING = {"parcel": "entry", "entry": _DONE}
_COLUMNS = {
    "entry": "id, sink, first, last, rows, size, time, crc, body",
    "parcel": "id, sink, state, key, first, last, rows, time, reason, attributes, crc, body",
}


def unfinished(folder: Path) -> list[Path]:
    """Damaged files that were set aside and not copied to the end, oldest first."""
    found = (folder / "aside").glob("damaged-*")
    left = [path for path in found if path.is_dir() and not (path / "done").exists()]
    return sorted(left, key=lambda path: int(path.name.partition("-")[2]))


def move_aside(folder: Path) -> None:
    """Move the file and its WAL away; a crash at any point leaves them in one of both places."""
    aside = folder / "aside"
    taken = (int(path.name.partition("-")[2]) for path in aside.glob("damaged-*"))
    place = aside / f"damaged-{max(taken, default=0) + 1}"
    place.mkdir()
    for name in (FILE, FILE + "-wal"):
        if (folder / name).exists():
            os.link(folder / name, place / name)
    sync_folder(place)
    sync_folder(aside)
    for name in (FILE, FILE + "-wal", FILE + "-shm"):
        (folder / name).unlink(missing_ok=True)
    sync_folder(folder)


def keep_body(
    folder: Path, db: sqlite3.Connection, table: str, number: int, room: int
) -> int | None:
    """Write the bytes of a row with a wrong checksum below `aside`, if there is `room` for them.

    Gives how many bytes it has, None if there is no such row.
    """
    found = db.execute(f"SELECT body FROM {table} WHERE id = ?", (number,)).fetchone()
    if found is None:
        return None
    data = found[0] if isinstance(found[0], bytes) else str(found[0]).encode()
    if len(data) <= room:
        try:
            _keep(folder / "aside" / f"{table}-{number}", data)
        except OSError as error:
            log.warning("%s %d is damaged and its bytes cannot be kept (%s)", table, number, error)
    return len(data)


def _keep(place: Path, data: bytes) -> None:
    with place.open("wb") as file:
        file.write(data)
        file.flush()
        os.fsync(file.fileno())
    sync_folder(place.parent)


# -- what the damaged file remembers


def copy_state(place: Path, new: sqlite3.Connection, names: Sequence[str], now: int) -> None:
    """Copy position, sinks, ledger, memory and lists as far as they can be read; no rows.

    The rows that the sinks still had become `rescue_rows`: buffered, and to be found by `Rescue`.
    names: the sinks of the definition, if the file cannot even tell those.
    """
    old = _open(place / FILE)
    try:
        found = _all(old, "SELECT name, value FROM meta")
        meta = {name: value for name, value in found if isinstance(name, str)}
        meta.pop("outbox", None)
        new.executemany("INSERT OR REPLACE INTO meta VALUES (?, ?)", meta.items())
        counters = _all(old, "SELECT part, counter, value FROM ledger")
        if not all(
            isinstance(p, str) and isinstance(c, str) and isinstance(v, int) for p, c, v in counters
        ):
            counters = []
        new.executemany("INSERT OR REPLACE INTO ledger VALUES (?, ?, ?)", counters)
        _copy_sinks(old, new, meta, names)
        for table in ("memory", "loss", "rejected", "request"):
            rows = _all(old, f"SELECT * FROM {table} ORDER BY id", part=True)
            if rows:
                marks = ", ".join("?" * len(rows[0]))
                new.executemany(f"INSERT OR IGNORE INTO {table} VALUES ({marks})", rows)
    finally:
        old.close()
    loss = Loss("outbox", "damaged", 0, size_of(place / FILE), f"the file became {place.name}")
    ledger.lose(new, [loss], now)


def _open(path: Path) -> sqlite3.Connection:
    """The damaged file; an empty one instead if SQLite takes it for no database at all.

    Damage where the tables are named would hide everything, but what stands there is known.
    """
    for mend in (False, True):
        try:
            if mend:
                _mend_schema(path)
            return connect_to_rescue(path)
        except (sqlite3.Error, OSError) as error:
            log.warning("%s cannot be opened (%s)", path, error)
    return sqlite3.connect(":memory:", check_same_thread=False)


def _mend_schema(path: Path) -> None:
    """Put the pages of a new file that name its tables over those of a damaged one.

    A file begins with them, in the same places. The first one also loses the list of free pages.
    """
    model = path.with_name("model")
    connect(model, 2**20).close()
    content = model.read_bytes()
    model.unlink()
    with path.open("r+b") as file:
        for number in _schema_pages(content):
            page = bytearray(content[(number - 1) * PAGE_SIZE : number * PAGE_SIZE])
            if number == 1:
                # https://www.sqlite.org/fileformat.html#the_database_header: pages, first free
                # page, free pages
                struct.pack_into(">I", page, 28, size_of(path) // PAGE_SIZE)
                struct.pack_into(">II", page, 32, 0, 0)
            file.seek((number - 1) * PAGE_SIZE)
            file.write(page)


def _schema_pages(content: bytes) -> list[int]:
    """The first page of a file and, where it is an interior page, those below it."""
    # https://www.sqlite.org/fileformat.html#b_tree_pages; of page 1 it starts behind the header.
    kind, _, cells, _, _ = struct.unpack_from(">BHHHB", content, 100)
    if kind != _INTERIOR_TABLE:
        return [1]
    places = struct.unpack_from(f">{cells}H", content, 112)
    children = [struct.unpack_from(">I", content, place)[0] for place in (*places, 108)]
    return [1, *children]


def _all(old: sqlite3.Connection, query: str, *, part: bool = False) -> list[Any]:
    """All rows of a query; when one cannot be read none, or those before it."""
    rows: list[Any] = []
    try:
        rows.extend(old.execute(query))
    except sqlite3.Error:
        return rows if part else []
    return rows


def _copy_sinks(
    old: sqlite3.Connection, new: sqlite3.Connection, meta: dict[str, Any], names: Sequence[str]
) -> None:
    stored = _sinks_as_stored(old) or _sinks_as_ledgered(new, meta, names)
    known = ledger.read(new)
    for sink in stored:
        kept = (sink.next_sequence, sink.rows, sink.link, sink.link_since, sink.link_reason)
        new.execute(
            "INSERT OR IGNORE INTO sink "
            "(id, name, next_sequence, rescue_rows, link, link_since, link_reason) "
            "VALUES (?, ?, ?, ?, ?, ?, ?)",
            (sink.id, sink.name, *kept),
        )
        if not known:  # the ledger is lost: it starts again with what was waiting
            ledger.add(new, {(ledger.sink_part(sink.name), "appended"): sink.rows})


def _sinks_as_stored(old: sqlite3.Connection) -> list[Buffer]:
    try:
        return list(load_buffers(old).values())
    except sqlite3.Error:
        return []


def _sinks_as_ledgered(
    new: sqlite3.Connection, meta: dict[str, Any], names: Sequence[str]
) -> list[Buffer]:
    """The sinks from their counters: every appended row took a sequence number."""
    counters = ledger.read(new)
    try:
        ids = dict(json.loads(meta.get("sinks", "{}")))
    except (TypeError, ValueError):
        ids = {}
    ids = ids or {name: number for number, name in enumerate(names, 1)}
    found = []
    for name, number in ids.items():
        counts = counters.get(ledger.sink_part(name), {})
        appended = sum(counts.get(counter, 0) for counter in ledger.SINK_IN)
        gone = sum(counts.get(counter, 0) for counter in ledger.SINK_OUT)
        # Without counters no number is known to be free but one far away from all.
        first = appended + 1 if counts else (1 + secrets.randbelow(1000)) << 42
        found.append(Buffer(number, name, next_sequence=first, rescue_rows=max(0, appended - gone)))
    return found


# -- its rows


class Rescue:
    """Copies entries and parcels out of one damaged file, in steps; start-up never waits for it.

    skip: what the link settled in the meantime, as (table, id).
    """

    def __init__(self, file: "OutboxFile", place: Path) -> None:
        self._file = file
        self._place = place
        self._key = f"rescue {place.name}"
        self._old = _open(place / FILE)
        self._ids = {buffer.id: buffer for buffer in file.buffers.values()}
        self._last = {table: _last_id(self._old, table) for table in _COLUMNS}
        file.numbers.entry = max(file.numbers.entry, self._last["entry"] + 1)
        file.numbers.parcel = max(file.numbers.parcel, self._last["parcel"] + 1)
        found = file.db.execute("SELECT value FROM meta WHERE name = ?", (self._key,)).fetchone()
        self._table: str
        self._after: int
        self._table, self._after = json.loads(found[0]) if found else ("parcel", 0)
        self.skip: set[tuple[str, int]] = set()

    def close(self) -> None:
        """Leave the damaged file."""
        self._old.close()

    def step(self) -> bool:
        """Copy some rows; False when everything that can be read is copied. Raises OutboxFull."""
        if self._table == _DONE:
            self._leave()
            return False
        rows, after, ended = self._gather()
        table = self._table
        following = (_FOLLOWING[table], 0) if ended else (table, after)

        def work(db: sqlite3.Connection) -> None:
            for row in rows:
                self._copy(db, table, row)
            progress = (self._key, json.dumps(following))
            db.execute("INSERT OR REPLACE INTO meta VALUES (?, ?)", progress)
            if following[0] == _DONE:
                self._finish(db)

        need = cost(sum(len(row[-1]) for row in rows), len(rows))
        self._file.write(work, need, leaving=True)
        self._table, self._after = following
        for buffer in self._ids.values():
            self._file.read(buffer.find_oldest)
        return True

    def _leave(self) -> None:
        self.close()
        (self._place / "done").touch()
        sync_folder(self._place)

    def _gather(self) -> tuple[list[Any], int, bool]:
        """The next readable rows, the last id looked at, and whether the table is at its end."""
        rows: list[Any] = []
        after, size = self._after, 0
        while len(rows) < _STEP_ROWS and size < _STEP_BYTES:
            number = self._next_id(after)
            if number is None:
                return rows, after, True
            after = number
            row = self._read(number)
            if row is not None and (self._table, number) not in self.skip:
                rows.append(row)
                size += len(row[-1])
        return rows, after, False

    def _next_id(self, after: int) -> int | None:
        """The first id behind `after` that SQLite can reach.

        Where it fails the search leaps ahead, twice as far each time, then closes in from behind.
        """
        last = self._last[self._table]
        failed, leap = after, 1
        found = self._try(after)
        while found is _FAILED:
            failed, leap = failed + leap, leap * 2
            if failed >= last:
                return self._close_in(after, last) if last > after else None
            found = self._try(failed)
        return self._close_in(after, failed) if failed != after else found

    def _close_in(self, low: int, high: int) -> int | None:
        """The first reachable id, when searching behind `low` fails and behind `high` does not."""
        while high - low > 1:
            middle = (low + high) // 2
            if self._try(middle) is _FAILED:
                low = middle
            else:
                high = middle
        found = self._try(high)
        return None if found is _FAILED else found

    def _try(self, after: int) -> int | None:
        query = f"SELECT id FROM {self._table} NOT INDEXED WHERE id > ? ORDER BY id LIMIT 1"
        try:
            found = self._old.execute(query, (after,)).fetchone()
        except sqlite3.Error:
            return _FAILED
        if found is None or found[0] > _HIGHEST:
            return None
        number: int = found[0]
        return number if number > after else _FAILED  # a page whose ids are not in order

    def _read(self, number: int) -> Any:
        """One row; None if it cannot be read, or its checksum or its sink is wrong."""
        query = f"SELECT {_COLUMNS[self._table]} FROM {self._table} NOT INDEXED WHERE id = ?"
        try:
            row = self._old.execute(query, (number,)).fetchone()
        except sqlite3.Error:
            return None
        if row is None or row[1] not in self._ids or not _is_sound(self._table, row):
            return None
        return row

    def _copy(self, db: sqlite3.Connection, table: str, row: Any) -> None:
        buffer = self._ids[row[1]]
        marks = ", ".join("?" * len(row))
        done = db.execute(f"INSERT OR IGNORE INTO {table} VALUES ({marks})", row)
        if done.rowcount != 1:
            return
        rows = buffer.adopt(table, row)
        known = min(rows, buffer.rescue_rows)
        buffer.rescue_rows -= known
        ledger.add(db, {(ledger.sink_part(buffer.name), "appended"): rows - known})

    def _finish(self, db: sqlite3.Connection) -> None:
        """Ledger what was buffered and could not be found."""
        if len(unfinished(self._file.folder)) > 1:
            return
        for buffer in self._ids.values():
            lost, buffer.rescue_rows, buffer.changed = buffer.rescue_rows, 0, True
            part = ledger.sink_part(buffer.name)
            ledger.add(db, {(part, "damaged"): lost})
            if lost:
                loss = Loss(part, "damaged", lost, 0, f"cannot be read in {self._place.name}")
                ledger.lose(db, [loss], self._file.clock.now())


_FAILED = -1
_HIGHEST = 2**52  # no outbox gives so many ids: beyond is damage


def _last_id(old: sqlite3.Connection, table: str) -> int:
    """The highest id of the table and of its index: either may have lost its end."""
    highest = 0
    for how in ("NOT INDEXED", f"INDEXED BY {table}_by_sink"):
        try:
            (last,) = old.execute(f"SELECT coalesce(max(id), 0) FROM {table} {how}").fetchone()
        except sqlite3.Error:
            continue
        if isinstance(last, int) and highest < last <= _HIGHEST:
            highest = last
    return highest


def _is_sound(table: str, row: Any) -> bool:
    if table == "entry":
        _, _, first, _, rows, size, time, crc, body = row
        whole = isinstance(size, int) and isinstance(time, int)
        return whole and is_sound(crc, entry_crc, first, rows, body)
    _, _, state, key, first, last, rows, time, _, attributes, crc, body = row
    whole = state in ("waiting", "refused") and isinstance(time, int)
    return whole and is_sound(crc, parcel_crc, key, first, last, rows, attributes, body)
