"""Entries become parcels: in one transaction, and every row of them in exactly one place."""

import sqlite3
from collections.abc import Sequence

from edge.component import format_size
from edge.errors import OutboxFull, TooLarge
from edge.outbox import ledger
from edge.outbox.buffer import Buffer
from edge.outbox.eviction import evict_refused
from edge.outbox.file import OutboxFile
from edge.outbox.ledger import Gone
from edge.outbox.model import Entry, NewEntry, Parcel, Refusal
from edge.outbox.room import cost, free_bytes


def roll(
    file: OutboxFile,
    sink: str,
    entries: Sequence[Entry],
    parcels: Sequence[Parcel],
    refused: Sequence[Refusal],
    rest: NewEntry | None,
) -> None:
    """Put parcels in the place of entries; see `Outbox.roll`."""
    buffer, now = file.buffers[sink], file.clock.now()
    _check(sink, entries, parcels, refused, rest)
    bodies = sum(len(p.body) for p in parcels) + (len(rest.body) if rest else 0)
    need = cost(bodies, len(parcels) + len(refused) + len(entries) + 1)
    rows = sum(entry.rows for entry in entries) - (rest.rows if rest else 0)
    _see_to_room(file, buffer, need, rows)
    numbers = [entry.id for entry in entries]

    def work(db: sqlite3.Connection) -> list[int]:
        missing = file.take_out_entries(db, buffer, entries)
        time = min(entry.time for entry in entries)
        buffer.insert_parcels(db, parcels, file.numbers.parcel, time)
        if rest is not None:
            # In the place of the oldest, so that it stays the oldest.
            span = entries[0].first, entries[-1].first + entries[-1].rows - 1
            buffer.insert_entry(db, numbers[0], span, rest, time)
        gone = [Gone(r.first, r.last, r.rows, 0, r.reason) for r in refused]
        ledger.note(db, sink, "refused", gone, now)
        return missing

    missing = file.write(work, need, leaving=True)
    file.skip("entry", missing)
    file.numbers.parcel += len(parcels)


def _see_to_room(file: OutboxFile, buffer: Buffer, need: int, rows: int) -> None:
    """Raise what `roll` raises unless `need` bytes may be written.

    Out of a full outbox each sink rolls one turn after the other, and little ahead of what it can
    send: one whose link is down must not take the way out of the others.
    """
    room, sinks = file.room, len(file.sinks)
    buffer.bulky = False
    if file.make_fit(need):
        return
    what = f"{format_size(need)} of parcels do not fit beside what waits"
    turn = room.turn(sinks)
    leave = sinks * turn if buffer.parcels else 0
    if need > turn:
        if rows > 1:
            raise TooLarge(f"{what}; fewer may")
        buffer.bulky = True
        leave = leave or turns_owed(file)
    if room.fits(file.db, need, leave=leave) or _fits_without_refused(file, need, leave):
        return
    if rows > 1 and not buffer.parcels:
        raise TooLarge(f"{what}; fewer may")
    if not leave and _never_fits(file, need):
        raise TooLarge(f"{what}; raise outbox.max_size")
    raise OutboxFull(file.describe_full(what))


def turns_owed(file: OutboxFile) -> int:
    """Bytes of the reserve's room that sinks need to roll which have nothing to send."""
    owed = [
        name
        for name, buffer in file.buffers.items()
        if name in file.sinks and buffer.entries and not (buffer.parcels or buffer.bulky)
    ]
    return len(owed) * file.room.turn(len(file.sinks))


def _fits_without_refused(file: OutboxFile, need: int, leave: int) -> bool:
    """Whether it fits once what is quarantined gives way: its rows are lost already."""
    buffers = file.buffers.values()
    if not any(buffer.refused_parcels for buffer in buffers):
        return False
    file.evict(lambda db: evict_refused(db, buffers, lambda: free_bytes(db) >= need + leave))
    return file.make_fit(need) or file.room.fits(file.db, need, leave=leave)


def _never_fits(file: OutboxFile, need: int) -> bool:
    """Whether no delivery will make room for parcels that do not fit now."""
    waits = any(buffer.parcels for buffer in file.buffers.values())
    room = file.room
    stuck = need > room.largest_leaving and not waits and room.is_undisturbed()
    return stuck or 2 * need > room.max_size


def _check(
    sink: str,
    entries: Sequence[Entry],
    parcels: Sequence[Parcel],
    refused: Sequence[Refusal],
    rest: NewEntry | None,
) -> None:
    went_in = sum(entry.rows for entry in entries)
    came_out = sum(p.rows for p in parcels) + sum(r.rows for r in refused)
    came_out += rest.rows if rest else 0
    if went_in != came_out:
        raise ValueError(
            f"sink {sink!r}: rolling must keep every row, got {came_out} out of {went_in} rows; "
            "`encode` has to put each in exactly one of parcels, refused and rest"
        )
