"""What a command sees of an outbox from outside, while the processor runs or not."""

import json
import sqlite3
from pathlib import Path
from typing import Any

from edge.outbox import ledger
from edge.outbox.buffer import load_buffers
from edge.outbox.room import size_of
from edge.outbox.schema import FILE

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
    used, rate = disk_use(folder), meta.get("bytes_per_hour", 0)
    left = max(0, meta.get("max_size", 0) - used)
    return {
        "outbox_id": meta.get("outbox"),
        "rows_read": source.get("read", 0),
        "rows_rejected": source.get("rejected", 0),
        "ledger": counters,
        "imbalances": ledger.imbalances(counters),
        "sinks": {name: _sink_status(db, name, counters, now) for name in load_buffers(db)},
        "outbox": {
            "bytes": used,
            "max_bytes": meta.get("max_size"),
            "hours_until_full": round(left / rate, 2) if rate > 0 else None,
        },
    }


def _sink_status(
    db: sqlite3.Connection, name: str, counters: dict[str, dict[str, int]], now: int
) -> dict[str, Any]:
    buffer = load_buffers(db)[name]
    buffer.find_oldest(db)
    counts = counters[ledger.sink_part(name)]
    return {
        "buffered_rows": buffer.rows,
        "buffered_bytes": buffer.waiting_bytes,
        "delivered_rows": counts.get("delivered", 0),
        "oldest_seconds": None if buffer.oldest is None else max(0, now - buffer.oldest) / 1e6,
        "link": buffer.link,
        "link_reason": buffer.link_reason,
        "link_since": buffer.link_since,
        "entries": buffer.entries,
        "parcels": buffer.parcels,
        "quarantined_parcels": buffer.refused_parcels,
        "quarantined_rows": buffer.refused_rows,
    }


def open_requests(db: sqlite3.Connection) -> list[dict[str, Any]]:
    """What commands asked for and nobody has answered yet."""
    found = db.execute(
        "SELECT id, action, sink, parcels FROM request WHERE answer IS NULL ORDER BY id"
    ).fetchall()
    return [
        {"id": number, "action": action, "sink": sink, "parcels": text and json.loads(text)}
        for number, action, sink, text in found
    ]
