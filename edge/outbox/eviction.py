"""What is dropped when there is no room: the oldest of the lowest priority, never what is held."""

import sqlite3
from collections.abc import Callable, Iterable, Iterator, Sequence

from edge.outbox import ledger
from edge.outbox.buffer import Buffer
from edge.outbox.ledger import Gone
from edge.outbox.model import Priority

LOWEST_FIRST: Sequence[Priority] = ("low", "normal", "high")


def evict_refused(
    db: sqlite3.Connection, buffers: Iterable[Buffer], enough: Callable[[], bool]
) -> None:
    """Delete quarantined parcels, oldest first, until it is enough: their rows are lost already."""
    for buffer in buffers:
        while buffer.refused_parcels and not enough():
            found = db.execute(
                "SELECT id FROM parcel WHERE sink = ? AND state = 'refused' ORDER BY first LIMIT 1",
                (buffer.id,),
            ).fetchone()
            if found is None or buffer.delete_refused(db, found[0]) is None:
                break


def evict_oldest(
    db: sqlite3.Connection, buffers: Iterable[Buffer], enough: Callable[[], bool], now: int
) -> None:
    """Drop waiting rows until it is enough or nothing is left that may go; all of it ledgered."""
    for priority in LOWEST_FIRST:
        level = [b for b in buffers if b.limits.priority == priority]
        while not enough():
            heads = {b.name: head for b in level if (head := _head(db, b))}
            if not heads:
                break
            oldest = min(level, key=lambda b: heads[b.name][0] if b.name in heads else _NEVER)
            _, kind, number = heads[oldest.name]
            gone = _drop(db, oldest, kind, number)
            ledger.note(db, oldest.name, "dropped", [gone._replace(reason="full")], now)


_NEVER = 2**63


def _head(db: sqlite3.Connection, buffer: Buffer) -> tuple[int, str, int] | None:
    """Time, kind and id of the oldest thing of a sink that nobody holds."""
    parcel = db.execute(
        "SELECT time, id FROM parcel WHERE sink = ? AND state = 'waiting' ORDER BY first LIMIT ?",
        (buffer.id, len(buffer.flying) + 1),
    )
    waiting = next((row for row in _rows(parcel) if row[1] not in buffer.flying), None)
    if waiting:
        return waiting[0], "parcel", waiting[1]
    entry = buffer.free_entry(db)
    return (entry[2], "entry", entry[0]) if entry else None


def _rows(cursor: sqlite3.Cursor) -> Iterator[tuple[int, int]]:
    yield from cursor.fetchall()


def _drop(db: sqlite3.Connection, buffer: Buffer, kind: str, number: int) -> Gone:
    if kind == "parcel":
        return buffer.delete_parcels(db, [number])[number]
    found = buffer.delete_entry(db, number)
    assert found is not None
    return found[0]
