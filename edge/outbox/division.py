"""A parcel whose rows did not all fare alike: taken apart in one transaction."""

import sqlite3
from collections.abc import Mapping

from edge.outbox import ledger
from edge.outbox.buffer import Buffer
from edge.outbox.file import OutboxFile
from edge.outbox.ledger import Gone
from edge.outbox.model import Divided, Parcel
from edge.outbox.room import cost


def divide(file: OutboxFile, sink: str, parcels: Mapping[int, Divided]) -> None:
    """Count what arrived, quarantine what is refused, let the rest wait at the old place.

    A parcel that is not there (a rescue has still to copy it) stays whole and goes again. Raises
    ValueError when rows of a parcel are missing or too many, OutboxFull.
    """
    buffer, now = file.buffers[sink], file.clock.now()
    pieces = [piece for divided in parcels.values() for piece in _pieces(divided)]

    def work(db: sqlite3.Connection) -> None:
        number = file.numbers.parcel
        for parcel, divided in parcels.items():
            number = _divide(db, buffer, parcel, divided, number, now)

    bodies = sum(len(piece.body) for piece in pieces)
    file.write(work, cost(bodies, len(pieces) + len(parcels)), leaving=True)
    file.numbers.parcel += len(pieces)
    file.read(buffer.find_oldest)


def _divide(
    db: sqlite3.Connection, buffer: Buffer, parcel: int, divided: Divided, number: int, now: int
) -> int:
    """Give the pieces the ids `number`, `number + 1`, ...; gives the id after them."""
    found = db.execute("SELECT time FROM parcel WHERE id = ?", (parcel,)).fetchone()
    gone = buffer.delete_parcels(db, [parcel]).get(parcel)
    if gone is None:
        return number
    pieces = _pieces(divided)
    _check(buffer.name, gone, divided.delivered + sum(piece.rows for piece in pieces))
    after = buffer.insert_parcels(db, pieces, number, found[0])
    refused = [
        buffer.quarantine(db, place, reason)
        for place, (_, reason) in enumerate(divided.refused, number)
    ]
    ledger.note(db, buffer.name, "refused", [item for item in refused if item], now)
    ledger.add(db, {(ledger.sink_part(buffer.name), "delivered"): divided.delivered})
    return after


def _pieces(divided: Divided) -> list[Parcel]:
    """The refused ones first."""
    rest = [divided.rest] if divided.rest else []
    return [*(piece for piece, _ in divided.refused), *rest]


def _check(sink: str, gone: Gone, rows: int) -> None:
    if gone.rows != rows:
        raise ValueError(
            f"sink {sink!r}: dividing must keep every row, got {rows} out of {gone.rows} rows;"
            " mend the sink's send"
        )
