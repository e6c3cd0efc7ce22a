"""What waits for one sink: its counters, the entries and parcels they count, and who holds them."""

import json
import sqlite3
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from typing import Any

from edge.outbox import ledger
from edge.outbox.checksum import entry_crc, parcel_crc, read_entry, read_parcel
from edge.outbox.ledger import Gone, sink_part
from edge.outbox.model import Entry, NewEntry, Parcel, SinkLimits
from edge.outbox.schema import Damage

STORED = (  # the columns of `sink` behind id and name
    "next_sequence",
    "entries",
    "entry_rows",
    "entry_size",
    "entry_bytes",
    "parcels",
    "parcel_rows",
    "parcel_bytes",
    "refused_parcels",
    "refused_rows",
    "refused_bytes",
    "rescue_rows",
    "link",
    "link_since",
    "link_reason",
)
_SAVE = f"UPDATE sink SET {', '.join(f'{name} = ?' for name in STORED)} WHERE id = ?"


@dataclass
class Buffer:
    """One row of the table `sink`, and what is only known while running.

    held: entries being rolled, with their size; flying: parcels being sent, with their rows.
    Neither is dropped. oldest: when the oldest waiting row was committed, microseconds UTC.
    tight: there was no room for more when last asked; bulky: its next row is more than a turn.
    The methods run inside the caller's transaction.
    """

    id: int
    name: str
    next_sequence: int = 1
    entries: int = 0
    entry_rows: int = 0
    entry_size: int = 0
    entry_bytes: int = 0
    parcels: int = 0
    parcel_rows: int = 0
    parcel_bytes: int = 0
    refused_parcels: int = 0
    refused_rows: int = 0
    refused_bytes: int = 0
    rescue_rows: int = 0
    link: str = "down"
    link_since: int | None = None
    link_reason: str | None = None
    limits: SinkLimits = field(default_factory=SinkLimits)
    held: dict[int, int] = field(default_factory=dict)
    flying: dict[int, int] = field(default_factory=dict)
    oldest: int | None = None
    tight: bool = False
    bulky: bool = False
    changed: bool = False

    @property
    def rows(self) -> int:
        """Rows that wait; those that a rescue has still to copy included."""
        return self.entry_rows + self.parcel_rows + self.rescue_rows

    @property
    def bytes(self) -> int:
        """Bytes the sink occupies: what waits and what is quarantined."""
        return self.waiting_bytes + self.refused_bytes

    @property
    def waiting_bytes(self) -> int:
        """Bytes of the entries and parcels that wait."""
        return self.entry_bytes + self.parcel_bytes

    # -- counters

    def load(self, values: Sequence[Any]) -> None:
        """Take the stored counters, in the order of STORED."""
        for name, value in zip(STORED, values, strict=True):
            setattr(self, name, value)
        self.changed = False

    def values(self) -> list[Any]:
        """The stored counters, in the order of STORED."""
        return [getattr(self, name) for name in STORED]

    def save(self, db: sqlite3.Connection) -> None:
        """Write the counters if they changed."""
        if self.changed:
            db.execute(_SAVE, [*self.values(), self.id])
            self.changed = False

    def find_oldest(self, db: sqlite3.Connection) -> None:
        """Look at the heads of both queues."""
        heads = db.execute(
            "SELECT * FROM (SELECT time FROM entry WHERE sink = ?1 ORDER BY id LIMIT 1) UNION ALL "
            "SELECT * FROM (SELECT time FROM parcel WHERE sink = ?1 AND state = 'waiting' "
            "ORDER BY first LIMIT 1)",
            (self.id,),
        ).fetchall()
        self.oldest = min((time for (time,) in heads if isinstance(time, int)), default=None)

    def _count_entry(self, sign: int, rows: int, size: int, length: int) -> None:
        self.entries += sign
        self.entry_rows += sign * rows
        self.entry_size += sign * size
        self.entry_bytes += sign * length
        self.changed = True

    def _count_parcels(self, number: int, rows: int, length: int) -> None:
        self.parcels += number
        self.parcel_rows += rows
        self.parcel_bytes += length
        self.changed = True

    def _count_refused(self, number: int, rows: int, length: int) -> None:
        self.refused_parcels += number
        self.refused_rows += rows
        self.refused_bytes += length
        self.changed = True

    # -- entries

    def append(self, db: sqlite3.Connection, new: NewEntry, number: int, now: int) -> None:
        """Store rows behind all others, under the next sequence numbers."""
        first, self.next_sequence = self.next_sequence, self.next_sequence + new.rows
        self.insert_entry(db, number, (first, self.next_sequence - 1), new, now)

    def turn_away(self, new: NewEntry, reason: str) -> Gone:
        """Rows that never get in still use up their sequence numbers."""
        first, self.next_sequence = self.next_sequence, self.next_sequence + new.rows
        self.changed = True
        return Gone(first, self.next_sequence - 1, new.rows, len(new.body), reason)

    def insert_entry(
        self, db: sqlite3.Connection, number: int, span: tuple[int, int], new: NewEntry, time: int
    ) -> None:
        """Store rows under sequence numbers they already have."""
        crc = entry_crc(span[0], new.rows, new.body)
        db.execute(
            "INSERT INTO entry VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?)",
            (number, self.id, *span, new.rows, new.size, time, crc, new.body),
        )
        self._count_entry(1, new.rows, new.size, len(new.body))

    def free_entry(self, db: sqlite3.Connection, after: int = 0) -> tuple[int, int, int] | None:
        """Id, size and time of the oldest entry that is not held and lies behind `after`."""
        last = max(self.held, default=0)
        found: tuple[int, int, int] | None = db.execute(
            "SELECT id, size, time FROM entry WHERE sink = ? AND id > ? ORDER BY id LIMIT 1",
            (self.id, max(after, last)),
        ).fetchone()
        if found and not all(isinstance(value, int) for value in found):
            raise Damage(f"sink {self.name!r}: an entry has {found} as id, size and time")
        return found

    def take_entries(self, db: sqlite3.Connection, size: int) -> tuple[list[Entry], list[int]]:
        """Hold the oldest free entries, at least one; also gives the ids of damaged ones."""
        taken: list[Entry] = []
        damaged: list[int] = []
        last = max(self.held, default=0)
        while free := self.free_entry(db, last):
            last = free[0]
            if (taken or damaged) and size < free[1]:
                break
            size -= free[1]
            entry = read_entry(db, last, self.id)
            if entry is None:
                damaged.append(last)
            else:
                taken.append(entry)
            if size <= 0:
                break
        if not taken and not damaged and self.entries > len(self.held):
            raise Damage(f"sink {self.name!r}: {self.entries} entries are counted, none is found")
        self.held.update((entry.id, entry.size) for entry in taken)
        return taken, damaged

    def delete_entry(self, db: sqlite3.Connection, number: int) -> tuple[Gone, int] | None:
        """Take one entry out; gives what it was and its time, None if it is not there."""
        found = db.execute(
            "DELETE FROM entry WHERE id = ? AND sink = ? "
            "RETURNING first, last, rows, size, length(body), time",
            (number, self.id),
        ).fetchone()
        if found is None:
            return None
        first, last, rows, size, length, time = found
        self._count_entry(-1, rows, size, length)
        return Gone(first, last, rows, length), time

    # -- parcels

    def insert_parcels(
        self, db: sqlite3.Connection, parcels: Iterable[Parcel], number: int, time: int
    ) -> int:
        """Store parcels under the ids `number`, `number + 1`, ...; gives the id after them."""
        rows = size = 0
        values = []
        start = number
        for key, first, last, count, body, attributes, *_ in parcels:
            text = json.dumps(attributes) if attributes else "{}"
            crc = parcel_crc(key, first, last, count, text, body)
            values.append((number, self.id, key, first, last, count, time, text, crc, body))
            rows += count
            size += len(body)
            number += 1
        db.executemany(
            "INSERT INTO parcel VALUES (?, ?, 'waiting', ?, ?, ?, ?, ?, NULL, ?, ?, ?)", values
        )
        self._count_parcels(number - start, rows, size)
        return number

    def take_parcels(
        self, db: sqlite3.Connection, count: int, newest: bool, size: int
    ) -> tuple[list[Parcel], list[int]]:
        """Mark parcels as flying, at least one; also gives the ids of damaged ones."""
        found = db.execute(
            "SELECT id, length(body) FROM parcel WHERE sink = ? AND state = 'waiting' "
            f"ORDER BY first {'DESC' if newest else ''}, id LIMIT ?",
            (self.id, count + len(self.flying)),
        ).fetchall()
        if not found and self.parcels:
            raise Damage(f"sink {self.name!r}: {self.parcels} parcels are counted, none is found")
        taken: list[Parcel] = []
        damaged: list[int] = []
        for number, length in [row for row in found if row[0] not in self.flying][:count]:
            if taken and size < length:
                break
            size -= length
            parcel = read_parcel(db, number, self.id)
            if parcel is None:
                damaged.append(number)
            else:
                taken.append(parcel)
        self.flying.update((parcel.id, parcel.rows) for parcel in taken)
        return taken, damaged

    def delete_parcels(self, db: sqlite3.Connection, numbers: Sequence[int]) -> dict[int, Gone]:
        """Take waiting parcels out; gives what each was, for those that were there."""
        gone = {}
        for number in numbers:
            found = db.execute(
                "DELETE FROM parcel WHERE id = ? AND sink = ? AND state = 'waiting' "
                "RETURNING first, last, rows, length(body)",
                (number, self.id),
            ).fetchone()
            if found is not None:
                gone[number] = Gone(*found)
        rows, size = _sums(gone.values())
        self._count_parcels(-len(gone), -rows, -size)
        return gone

    def quarantine(self, db: sqlite3.Connection, number: int, reason: str) -> Gone | None:
        """Keep a parcel that the destination refused, out of the way."""
        found = db.execute(
            "UPDATE parcel SET state = 'refused', reason = ? WHERE id = ? AND sink = ? "
            "AND state = 'waiting' RETURNING first, last, rows, length(body)",
            (reason, number, self.id),
        ).fetchone()
        if found is None:
            return None
        gone = Gone(*found)._replace(reason=reason)
        self._count_parcels(-1, -gone.rows, -gone.bytes)
        self._count_refused(1, gone.rows, gone.bytes)
        return gone

    def requeue(self, db: sqlite3.Connection, number: int) -> Gone | None:
        """Let a quarantined parcel wait again, at its old place."""
        found = db.execute(
            "UPDATE parcel SET state = 'waiting' WHERE id = ? AND sink = ? AND state = 'refused' "
            "RETURNING first, last, rows, length(body), reason",
            (number, self.id),
        ).fetchone()
        if found is None:
            return None
        gone = Gone(*found)
        self._count_parcels(1, gone.rows, gone.bytes)
        self._count_refused(-1, -gone.rows, -gone.bytes)
        return gone

    def delete_refused(self, db: sqlite3.Connection, number: int) -> Gone | None:
        """Take a quarantined parcel out for good; its rows are in the ledger as refused."""
        found = db.execute(
            "DELETE FROM parcel WHERE id = ? AND sink = ? AND state = 'refused' "
            "RETURNING first, last, rows, length(body), reason",
            (number, self.id),
        ).fetchone()
        if found is None:
            return None
        gone = Gone(*found)
        self._count_refused(-1, -gone.rows, -gone.bytes)
        return gone

    def rekey(self, db: sqlite3.Connection, number: int, old: str, new: str) -> Gone | None:
        """Replace the outbox id in the key of a parcel; its bytes stay."""
        parcel = read_parcel(db, number, self.id)
        if parcel is None:
            return None
        head, _, tail = parcel.key.rpartition(f"{old}-")
        key = f"{head}{new}-{tail}"
        text = json.dumps(dict(parcel.attributes)) if parcel.attributes else "{}"
        crc = parcel_crc(key, *parcel[1:4], text, parcel.body)
        db.execute("UPDATE parcel SET key = ?, crc = ? WHERE id = ?", (key, crc, number))
        return Gone(parcel.first, parcel.last, parcel.rows, len(parcel.body))

    def found_elsewhere(self, db: sqlite3.Connection, rows: int) -> None:
        """Rows that were held in memory left, while a rescue still has to copy them.

        Or has given them up: then they are not damaged after all.
        """
        known = min(rows, self.rescue_rows)
        self.rescue_rows -= known
        self.changed = self.changed or known > 0
        part = sink_part(self.name)
        back = min(rows - known, ledger.value(db, part, "damaged"))
        ledger.add(db, {(part, "damaged"): -back, (part, "appended"): rows - known - back})

    def adopt(self, table: str, row: Sequence[Any]) -> int:
        """Count a whole table row that a rescue copied; gives the rows that wait because of it."""
        length = len(row[-1])
        if table == "entry":
            self._count_entry(1, row[4], row[5], length)
        elif row[2] == "refused":
            self._count_refused(1, row[6], length)
            return 0
        else:
            self._count_parcels(1, row[6], length)
        rows: int = row[4] if table == "entry" else row[6]
        return rows

    def discard(self, db: sqlite3.Connection, table: str, number: int) -> int:
        """Take a damaged entry or parcel out; gives the rows that are lost with it.

        What the row says of itself may be wrong: lost is what was counted and is not there now.
        """
        if not db.execute(f"DELETE FROM {table} WHERE id = ?", (number,)).rowcount:
            return 0
        if table == "entry":
            rows, length, size = _left(db, "entry", "sink = ?", self.id)
            lost = max(0, self.entry_rows - rows)
            lost_bytes = max(0, self.entry_bytes - length)
            self._count_entry(-1, lost, max(0, self.entry_size - size), lost_bytes)
            self.held.pop(number, None)
        else:
            rows, length, _ = _left(db, "parcel", "sink = ? AND state = 'waiting'", self.id)
            lost = max(0, self.parcel_rows - rows)
            self._count_parcels(-1, -lost, -max(0, self.parcel_bytes - length))
        return lost

    def settled_below(self, db: sqlite3.Connection) -> int:
        """The lowest sequence number that still waits, or the next one to be given."""
        if self.rescue_rows:
            return 1  # what a rescue has not found yet may be anywhere
        (lowest,) = db.execute(
            "SELECT min(first) FROM (SELECT * FROM (SELECT first FROM entry WHERE sink = ?1 "
            "ORDER BY id LIMIT 1) UNION ALL SELECT * FROM (SELECT first FROM parcel "
            "WHERE sink = ?1 AND state = 'waiting' ORDER BY first LIMIT 1))",
            (self.id,),
        ).fetchone()
        return self.next_sequence if lowest is None else int(lowest)


def _left(db: sqlite3.Connection, table: str, where: str, sink: int) -> tuple[int, int, int]:
    """Rows, bytes and uncompressed bytes of what a sink has left in a table."""
    size = "size" if table == "entry" else "0"
    rows, length, whole = db.execute(
        f"SELECT total(rows), total(length(body)), total({size}) FROM {table} WHERE {where}",
        (sink,),
    ).fetchone()
    return int(rows), int(length), int(whole)


def _sums(gone: Iterable[Gone]) -> tuple[int, int]:
    rows = size = 0
    for item in gone:
        rows += item.rows
        size += item.bytes
    return rows, size


def load_buffers(db: sqlite3.Connection) -> dict[str, Buffer]:
    """Every sink that the file knows, by name."""
    buffers = {}
    for number, name, *values in db.execute(f"SELECT id, name, {', '.join(STORED)} FROM sink"):
        if not isinstance(name, str) or not all(isinstance(n, int) for n in values[:12]):
            raise Damage(f"table sink: sink {name!r} has {values}")
        buffers[name] = Buffer(number, name)
        buffers[name].load(values)
    return buffers
