"""CRC-32C of what is stored, and reading it back only if it is what was written."""

import json
import sqlite3
from collections.abc import Callable
from typing import Any

from crc32c import crc32c

from edge.outbox.model import Entry, Parcel

_PARCEL = "key, first, last, rows, attributes, crc, body, time"


def entry_crc(first: int, rows: int, body: bytes) -> int:
    """CRC-32C of an entry: its numbers count too, not only its bytes."""
    return crc32c(body, crc32c(f"{first} {rows}".encode()))


def parcel_crc(key: str, first: int, last: int, rows: int, attributes: str, body: bytes) -> int:
    """CRC-32C of a parcel: what is sent, under which key, for which rows."""
    return crc32c(body, crc32c(f"{first} {last} {rows} {key} {attributes}".encode()))


def is_sound(crc: object, compute: Callable[..., int], *values: Any) -> bool:
    """Whether values from the file have their checksum; damaged ones may be of any type."""
    try:
        return compute(*values) == crc
    except (TypeError, ValueError, AttributeError):
        return False


def read_entry(db: sqlite3.Connection, number: int, sink: int) -> Entry | None:
    """One entry of a sink; None if it is not there as the index says, or its checksum is wrong."""
    crc, *values = db.execute(
        "SELECT crc, id, first, rows, size, time, body FROM entry NOT INDEXED "
        "WHERE id = ? AND sink = ?",
        (number, sink),
    ).fetchone() or (None, *[None] * 6)
    entry = Entry(*values)
    return entry if is_sound(crc, entry_crc, entry.first, entry.rows, entry.body) else None


def read_parcel(db: sqlite3.Connection, number: int, sink: int) -> Parcel | None:
    """One waiting parcel of a sink; None as for `read_entry`."""
    found = db.execute(
        f"SELECT {_PARCEL} FROM parcel NOT INDEXED WHERE id = ? AND sink = ? AND state = 'waiting'",
        (number, sink),
    ).fetchone()
    if found is None:
        return None
    key, first, last, rows, text, crc, body, time = found
    if not is_sound(crc, parcel_crc, key, first, last, rows, text, body):
        return None
    return Parcel(key, first, last, rows, body, json.loads(text), number, time)
