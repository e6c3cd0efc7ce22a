"""What a person decides about parcels: let refused ones wait again, or forget them."""

import json
import sqlite3
from collections.abc import Sequence
from functools import partial

from edge.outbox import ledger
from edge.outbox.file import OutboxFile
from edge.outbox.room import cost


def retry(file: OutboxFile, sink: str, parcels: Sequence[int] | None) -> int:
    """Put quarantined parcels (None: all) back in line, and their rows back to buffered."""
    buffer, part = file.buffers[sink], ledger.sink_part(sink)
    numbers = _choose(file, sink, "refused", parcels)

    def work(db: sqlite3.Connection) -> int:
        back = [gone for number in numbers if (gone := buffer.requeue(db, number))]
        ledger.add(db, {(part, "refused"): -sum(gone.rows for gone in back)})
        for gone in back:
            ledger.regain(db, part, gone.reason, gone.rows, gone.bytes)
        return len(back)

    done = file.write(work, cost(0, len(numbers)), leaving=True)
    file.read(buffer.find_oldest)
    return done


def drop(file: OutboxFile, sink: str, parcels: Sequence[int] | None) -> int:
    """Forget parcels, quarantined or waiting; None: all, and the entries too."""
    buffer, now = file.buffers[sink], file.clock.now()
    refused = _choose(file, sink, "refused", parcels)
    waiting = [n for n in _choose(file, sink, "waiting", parcels) if n not in buffer.flying]

    def work(db: sqlite3.Connection) -> int:
        gone = list(buffer.delete_parcels(db, waiting).values())
        while parcels is None and (entry := buffer.free_entry(db)):
            gone += [found[0] for found in [buffer.delete_entry(db, entry[0])] if found]
        dropped = [item._replace(reason="by command") for item in gone]
        ledger.note(db, sink, "dropped", dropped, now)
        return len(gone) + sum(buffer.delete_refused(db, n) is not None for n in refused)

    done = file.write(work, cost(0, len(refused) + len(waiting)), leaving=True)
    file.read(buffer.find_oldest)
    return done


def carry_out_requests(file: OutboxFile) -> None:
    """Do what commands asked for while the processor owned the file, and leave the answers."""
    for number, action, sink, text in file.read(_open_requests):
        parcels = json.loads(text) if text else None
        act = retry if action == "retry" else drop
        answer = f"{act(file, sink, parcels)} parcels" if sink in file.buffers else "no sink"
        file.write(partial(_answer, number, answer), cost(0, 1), leaving=True)


def _open_requests(db: sqlite3.Connection) -> list[tuple[int, str, str, str | None]]:
    query = "SELECT id, action, sink, parcels FROM request WHERE answer IS NULL ORDER BY id"
    return db.execute(query).fetchall()


def _answer(number: int, answer: str, db: sqlite3.Connection) -> None:
    db.execute("UPDATE request SET answer = ? WHERE id = ?", (answer, number))


def _choose(file: OutboxFile, sink: str, state: str, parcels: Sequence[int] | None) -> list[int]:
    query = "SELECT id FROM parcel WHERE sink = ? AND state = ?"
    number = file.buffers[sink].id
    found = file.read(lambda db: db.execute(query, (number, state)).fetchall())
    return [n for (n,) in found if parcels is None or n in parcels]
