"""Which rows of a batch get in when the outbox, or a sink's share of it, is full."""

import sqlite3
from collections.abc import Sequence
from typing import NamedTuple

from edge.component import format_size
from edge.errors import OutboxFull
from edge.outbox.buffer import Buffer
from edge.outbox.eviction import evict_oldest, evict_refused
from edge.outbox.file import OutboxFile
from edge.outbox.model import NewEntry
from edge.outbox.room import cost


class Admitted(NamedTuple):
    """The entries that are stored, and those that are dropped at the door (`drop_newest`)."""

    stored: Sequence[NewEntry]
    turned_away: Sequence[NewEntry]


def admit(
    file: OutboxFile, db: sqlite3.Connection, entries: Sequence[NewEntry], rest: int
) -> Admitted:
    """Make room for `entries` and `rest` bytes of memory and rejects, as the policies say.

    Runs inside the transaction of the commit. Raises OutboxFull when rows have to wait outside.
    """
    stored = [entry for entry in entries if _within_share(file, db, entry)]

    if not file.room.fits(db, need(stored, rest)):
        stored = _make_way(file, db, stored, rest)
    kept = {id(entry) for entry in stored}
    return Admitted(stored, [entry for entry in entries if id(entry) not in kept])


def _make_way(
    file: OutboxFile, db: sqlite3.Connection, entries: Sequence[NewEntry], rest: int
) -> list[NewEntry]:
    """Drop what the policies give up, lost rows first; gives the entries that are stored now."""
    stored = list(entries)

    def enough() -> bool:
        return file.room.fits(db, need(stored, rest))

    if file.room.could_fit(db, need(stored, rest)):
        evict_refused(db, file.buffers.values(), enough)
    if not enough():
        stored = [e for e in stored if policy(file, file.buffers[e.sink]) != "drop_newest"]
    if not enough() and file.room.could_fit(db, need(stored, rest)):
        losing = [b for b in file.buffers.values() if policy(file, b) == "drop_oldest"]
        evict_oldest(db, losing, enough, file.clock.now())
    if not enough():
        _squeeze(file, db, stored, rest)
    return stored


def need(entries: Sequence[NewEntry], rest: int) -> int:
    """Bytes that a commit writes."""
    return cost(sum(len(entry.body) for entry in entries) + rest, len(entries))


def policy(file: OutboxFile, buffer: Buffer) -> str:
    """What happens to a sink's rows when there is no room."""
    return buffer.limits.when_full or file.limits.when_full


def _within_share(file: OutboxFile, db: sqlite3.Connection, entry: NewEntry) -> bool:
    """Whether the sink's own `max_size` lets the entry in, after dropping what may be dropped."""
    buffer = file.buffers[entry.sink]
    limit = buffer.limits.max_size

    def enough() -> bool:
        return limit is None or buffer.bytes + len(entry.body) <= limit

    if enough():
        return True
    evict_refused(db, [buffer], enough)
    if policy(file, buffer) == "drop_oldest":
        evict_oldest(db, [buffer], enough, file.clock.now())
    if not enough() and policy(file, buffer) == "block":
        raise OutboxFull(
            f"outbox {file.folder}: sink {entry.sink!r} is full at {format_size(buffer.bytes)} of "
            f"its max_size {format_size(limit or 0)}; intake waits until it delivers"
        )
    return enough()


def _squeeze(
    file: OutboxFile, db: sqlite3.Connection, stored: Sequence[NewEntry], rest: int
) -> None:
    """Let memory, position and ledger through when no rows come with them; else rows wait."""
    if stored or not file.room.fits(db, need((), rest), keep_reserve=False):
        raise OutboxFull(file.describe_full(f"{format_size(need(stored, rest))} more do not fit"))
    file.room.give_up_reserve()
