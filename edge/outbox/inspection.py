"""What a command sees of an outbox from outside, while the processor runs or not."""

import json
import sqlite3
from base64 import b64encode
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from edge.errors import DefinitionError, EdgeError
from edge.outbox import disk, ledger
from edge.outbox.buffer import Buffer, load_buffers
from edge.outbox.checksum import entry_crc, is_sound, parcel_crc
from edge.outbox.packed import sent_bytes
from edge.outbox.room import size_of
from edge.outbox.schema import (
    FILE,
    Damage,
    connect_to_read,
    is_being_made,
    is_damage,
    refuse_others,
)

_FAULTS = 20  # of SQLite's own check that are told
_NEWEST = 50  # losses, and causes of rejected payloads, that an overview has
_SAMPLE = 200  # bytes of a rejected payload in an overview
_LOSSES = (
    "SELECT part, kind, reason, rows, bytes, first, last, first_time, last_time FROM loss "
    "ORDER BY last_time DESC"
)
_FILES = (FILE, FILE + "-wal", FILE + "-shm", "reserve")


def disk_use(folder: Path) -> int:
    """Bytes that the outbox folder occupies."""
    aside = sum(path.stat().st_size for path in (folder / "aside").rglob("*") if path.is_file())
    return sum(size_of(folder / name) for name in _FILES) + aside


def read_status(db: sqlite3.Connection, folder: Path, now: int) -> dict[str, Any]:
    """The numbers of `edge status --json`."""
    meta = dict(db.execute("SELECT name, value FROM meta WHERE name <> 'position'"))
    counters = ledger.read(db)
    source = counters.get("source", {})
    used, rate = disk_use(folder), _number(meta.get("bytes_per_hour"))
    left = max(0, _number(meta.get("max_size")) - used)
    read_at = _number(meta.get("read_at"))
    sinks = {b.name: _sink_status(db, b, counters, now) for b in load_buffers(db).values()}
    return {
        "outbox_id": meta.get("outbox"),
        "rows_read": source.get("read", 0),
        "last_read_seconds": max(0, now - read_at) / 1e6 if read_at else None,
        "rows_rejected": source.get("rejected", 0),
        "rows_failed": counters.get("pipeline", {}).get("failed", 0),
        "source": _source_status(meta.get("source")),
        "ledger": counters,
        "imbalances": ledger.imbalances(counters),
        "sinks": sinks,
        "outbox": {
            "bytes": used,
            "max_bytes": meta.get("max_size"),
            "hours_until_full": round(left / rate, 2) if rate > 0 else None,
            "disk_problem": disk.problem(folder),
        },
    }


def overview(db: sqlite3.Connection, folder: Path, now: int) -> dict[str, Any]:
    """`status`, `losses` newest first, and `rejects`: what the latest rejected payloads share."""
    return {
        "status": read_status(db, folder, now),
        "losses": _dicts(db, f"{_LOSSES} LIMIT {_NEWEST}"),
        "rejects": _reject_causes(db),
    }


def _reject_causes(db: sqlite3.Connection) -> list[dict[str, Any]]:
    """Cause, topic, how many are kept, time and first characters of the newest; newest first."""
    found: dict[tuple[str, str | None], dict[str, Any]] = {}
    for number, time, reason, topic in db.execute(
        "SELECT id, time, reason, topic FROM rejected ORDER BY id DESC"
    ):
        what = ledger.cause(str(reason).splitlines()[-1] if reason else ""), topic
        if what not in found and len(found) < _NEWEST:
            sample = db.execute(
                "SELECT substr(payload, 1, ?) FROM rejected WHERE id = ?", (_SAMPLE, number)
            ).fetchone()[0]
            text = bytes(sample or b"").decode(errors="replace")
            line = {"reason": what[0], "topic": topic, "rows": 0, "last": time, "sample": text}
            found[what] = line
        if what in found:
            found[what]["rows"] += 1
    return list(found.values())


def _sink_status(
    db: sqlite3.Connection, buffer: Buffer, counters: dict[str, dict[str, int]], now: int
) -> dict[str, Any]:
    buffer.find_oldest(db)
    counts = counters[ledger.sink_part(buffer.name)]
    return {
        "buffered_rows": buffer.rows,
        "buffered_bytes": buffer.waiting_bytes,
        "delivered_rows": counts.get("delivered", 0),
        "oldest_seconds": None if buffer.oldest is None else max(0, now - buffer.oldest) / 1e6,
        "link": None if buffer.link_since is None else buffer.link,  # None: never tried
        "link_reason": buffer.link_reason,
        "link_since": buffer.link_since,
        "entries": buffer.entries,
        "parcels": buffer.parcels,
        "quarantined_parcels": buffer.refused_parcels,
        "quarantined_rows": buffer.refused_rows,
    }


def _number(noted: object) -> int:
    """A value of `meta` that should be a number; 0 where it is missing or damaged."""
    return noted if isinstance(noted, int) else 0


def _source_status(noted: object) -> dict[str, Any] | None:
    """What the source last said of itself; None before its first start, or where it is damaged."""
    try:
        found = json.loads(str(noted))
    except ValueError:
        return None
    return found if isinstance(found, dict) else None


# -- from another process: each opens, copies and closes, because a reader holds the WAL


@contextmanager
def _looking(folder: Path) -> Iterator[sqlite3.Connection]:
    """One snapshot of the file, for the length of the block."""
    if not size_of(folder / FILE):
        raise DefinitionError(
            f"outbox {folder}: there is none; has the pipeline run here, with this `outbox.path`?"
        )
    db = connect_to_read(folder / FILE)
    try:
        db.execute("BEGIN")
        refuse_others(db, folder / FILE)
        if is_being_made(db):
            raise DefinitionError(f"outbox {folder}: is being made; look again in a moment")
        yield db
    except sqlite3.DatabaseError as error:
        if not is_damage(error):
            raise
        raise EdgeError(
            f"outbox {folder}: the file is damaged, got {error}; `edge run` sets it aside and "
            "copies what can be read"
        ) from error
    finally:
        db.close()


def status(folder: Path, now: int) -> dict[str, Any]:
    """`edge status --json` of one pipeline; now: microseconds UTC.

    Raises DefinitionError when there is no outbox or it is of another version, EdgeError when the
    file is damaged; so do all functions here.
    """
    with _looking(folder) as db:
        return read_status(db, folder, now)


def parcels(folder: Path, sink: str | None = None, limit: int = 1000) -> list[dict[str, Any]]:
    """The oldest parcels, waiting and quarantined, without their bodies."""
    with _looking(folder) as db:
        return _dicts(
            db,
            "SELECT parcel.id, name AS sink, state, key, first, last, rows, time, "
            "length(body) AS bytes, reason FROM parcel JOIN sink ON sink.id = parcel.sink "
            "WHERE ?1 IS NULL OR name = ?1 ORDER BY parcel.id LIMIT ?2",
            (sink, limit),
        )


def entries(folder: Path, sink: str | None = None, limit: int = 1000) -> list[dict[str, Any]]:
    """The oldest entries, without their bodies."""
    with _looking(folder) as db:
        return _dicts(
            db,
            "SELECT entry.id, name AS sink, first, last, rows, size, time, length(body) AS bytes "
            "FROM entry JOIN sink ON sink.id = entry.sink "
            "WHERE ?1 IS NULL OR name = ?1 ORDER BY entry.id LIMIT ?2",
            (sink, limit),
        )


def books(folder: Path) -> dict[str, Any]:
    """`ledger`: counters by part, `imbalances`: equations that fail, `losses`: newest first."""
    with _looking(folder) as db:
        counters = ledger.read(db)
        losses = _dicts(db, _LOSSES)
    return {"ledger": counters, "imbalances": ledger.imbalances(counters), "losses": losses}


def rejects(folder: Path, limit: int = 1000) -> list[dict[str, Any]]:
    """The latest rejected payloads, newest first; `payload` is bytes, at most 64 KiB of `size`."""
    with _looking(folder) as db:
        return _dicts(
            db,
            "SELECT id, time, reason, topic, size, payload FROM rejected ORDER BY id DESC LIMIT ?",
            (limit,),
        )


def answer(folder: Path, request: int) -> str | None:
    """What became of a request; None while nobody has carried it out."""
    with _looking(folder) as db:
        found = db.execute("SELECT answer FROM request WHERE id = ?", (request,)).fetchone()
    return found[0] if found else None


def _untold(count: int) -> None:
    """Nobody asks how far it is."""


def held(folder: Path) -> int:
    """How many entries and parcels there are, for who shows how far `verify` or `export` is."""
    with _looking(folder) as db:
        query = "SELECT (SELECT count(*) FROM entry) + (SELECT count(*) FROM parcel)"
        return int(db.execute(query).fetchone()[0])


def verify(folder: Path, done: Callable[[int], None] = _untold) -> dict[str, Any]:
    """Check every page and checksum, every equation, and the counters against what is there.

    Gives `entries` and `parcels` checked, `faults` as sentences. Reads everything, row by row.
    done: called with 1 for each entry and parcel.
    """
    faults: list[str] = []
    checked = {"entry": 0, "parcel": 0}
    try:
        for table in checked:
            for name, number, sound in _checksums(folder, table):
                checked[table] += 1
                done(1)
                if not sound:
                    faults.append(f"sink {name!r}: {table} {number} does not match its checksum")
        with _looking(folder) as db:
            faults += ledger.imbalances(ledger.read(db)) + _miscounted(db) + _misshapen(db)
    except DefinitionError:
        raise
    except EdgeError as error:
        faults.append(str(error))
    return {"entries": checked["entry"], "parcels": checked["parcel"], "faults": faults}


def _misshapen(db: sqlite3.Connection) -> list[str]:
    """What SQLite itself finds wrong with its pages, trees and indices."""
    found = [text for (text,) in db.execute(f"PRAGMA integrity_check({_FAULTS})")]
    return [f"SQLite: {line}" for text in found if text != "ok" for line in text.splitlines()]


def _checksums(folder: Path, table: str) -> Iterator[tuple[str, int, bool]]:
    for name, row in _rows(folder, table):
        sound = _sound_entry(row) if table == "entry" else _sound_parcel(row)
        yield name, row["id"], sound


def _rows(folder: Path, table: str) -> Iterator[tuple[str, dict[str, Any]]]:
    """Every row of a table with the name of its sink, one short look each."""
    after = 0
    while True:
        with _looking(folder) as db:
            found = _dicts(
                db,
                f"SELECT sink.name AS sink_name, {table}.* FROM {table} "
                f"JOIN sink ON sink.id = {table}.sink WHERE {table}.id > ? "
                f"ORDER BY {table}.id LIMIT 1",
                (after,),
            )
            if found and found[0]["id"] <= after:
                raise Damage(f"{table}: after {after} comes {found[0]['id']}")
        if not found:
            return
        after = found[0]["id"]
        yield found[0].pop("sink_name"), found[0]


def _miscounted(db: sqlite3.Connection) -> list[str]:
    """Sinks whose counters differ from what their rows add up to."""
    faults = []
    for buffer in load_buffers(db).values():
        counted = (buffer.entries, buffer.entry_rows, buffer.parcels, buffer.parcel_rows)
        there = (
            db.execute(
                "SELECT count(*), coalesce(sum(rows), 0) FROM entry WHERE sink = ?", (buffer.id,)
            ).fetchone()
            + db.execute(
                "SELECT count(*), coalesce(sum(rows), 0) FROM parcel WHERE sink = ? "
                "AND state = 'waiting'",
                (buffer.id,),
            ).fetchone()
        )
        if counted != there:
            faults.append(
                f"sink {buffer.name!r}: entries, rows, parcels, rows are counted as "
                f"{counted}, there are {there}"
            )
    return faults


def export(folder: Path, target: Path, done: Callable[[int], None] = _untold) -> dict[str, int]:
    """Copy what waits below `target`: bodies of entries and parcels, rejected payloads.

    `<sink>/entry-<first>-<last>.arrow` is an Arrow IPC stream, `<sink>/parcel-<id>-<name>` the
    bytes that would be sent, `rejected.ndjson` has the payloads in base64. A file appears whole, or
    not at all. Gives counts. done: called with 1 for each entry and parcel.
    """
    written = {"entries": 0, "parcels": 0, "rejected": 0}
    for name, row in _rows(folder, "entry"):
        _write(target / name / f"entry-{row['first']}-{row['last']}.arrow", [row["body"]])
        written["entries"] += 1
        done(1)
    for name, row in _rows(folder, "parcel"):
        last = row["key"].rpartition("/")[2]
        _write(target / name / f"parcel-{row['id']}-{last}", _sent(row))
        written["parcels"] += 1
        done(1)
    items = rejects(folder)
    texts = ({**item, "payload": b64encode(item["payload"]).decode()} for item in items)
    lines = (f"{json.dumps(text)}\n".encode() for text in texts)
    _write(target / "rejected.ndjson", lines)
    written["rejected"] = len(items)
    return written


def _write(file: Path, pieces: Iterable[bytes]) -> None:
    """Under its name only once it is whole: whoever is cut off leaves no half of a file."""
    file.parent.mkdir(parents=True, exist_ok=True)
    part = file.with_name(f".{file.name}.part")
    try:
        with part.open("wb") as copy:
            copy.writelines(pieces)
        part.replace(file)
    except BaseException:
        part.unlink(missing_ok=True)
        raise


def _sent(row: dict[str, Any]) -> Iterable[bytes]:
    """The bytes a parcel would be sent as; those of a damaged one as they are."""
    attributes = json.loads(row["attributes"]) if _sound_parcel(row) else {}
    return sent_bytes(row["body"], attributes)


def _sound_entry(row: dict[str, Any]) -> bool:
    """Whether an entry is what was written."""
    return is_sound(row["crc"], entry_crc, row["first"], row["rows"], row["body"])


def _sound_parcel(row: dict[str, Any]) -> bool:
    """Whether a parcel is what was written."""
    fields = (row[name] for name in ("key", "first", "last", "rows", "attributes", "body"))
    return is_sound(row["crc"], parcel_crc, *fields)


def _dicts(
    db: sqlite3.Connection, query: str, values: tuple[Any, ...] = ()
) -> list[dict[str, Any]]:
    cursor = db.execute(query, values)
    names = [column[0] for column in cursor.description]
    return [dict(zip(names, row, strict=True)) for row in cursor]
