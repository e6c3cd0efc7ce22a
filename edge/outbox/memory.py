"""What the parts of a pipeline remember: an append-only log per name, made whole now and then."""

import sqlite3
from collections.abc import Sequence
from dataclasses import dataclass

from crc32c import crc32c

from edge.outbox import ledger
from edge.outbox.checksum import is_sound
from edge.outbox.model import WAITING, Kept, Loss, Remembered

_TIMES = 4  # the log may grow to so many times the whole; a row per key would write 10 times more
_SMALLEST = 64 * 2**10  # a whole smaller than this counts as this much, so tiny ones are not redone


@dataclass(slots=True)
class _Length:
    shape: str
    whole: int = 0
    changes: int = 0


class Memory:
    """The memory table; sizes are kept here so that nobody has to ask SQLite."""

    def __init__(self) -> None:
        self._lengths: dict[str, _Length] = {}

    def wants_whole(self, name: str) -> bool:
        """Whether the next piece under `name` should be everything and not a change."""
        length = self._lengths.get(name)
        return length is None or length.changes > _TIMES * max(length.whole, _SMALLEST)

    def load(self, db: sqlite3.Connection) -> None:
        """Learn the sizes of what is stored."""
        self._lengths = {}
        for name, shape, whole, size in db.execute(
            "SELECT name, shape, whole, sum(length(body)) FROM memory GROUP BY name, shape, whole "
            "ORDER BY whole DESC"
        ):
            if whole:
                self._lengths[name] = _Length(shape, whole=size)
            elif name in self._lengths:
                self._lengths[name].changes = size

    def want_all(self) -> None:
        """Ask every part for everything: what is stored may have holes."""
        self._lengths = {}

    def write(self, db: sqlite3.Connection, pieces: Sequence[Remembered]) -> None:
        """Store pieces, inside the transaction of their rows."""
        for piece in pieces:
            known = self._lengths.get(piece.name)
            if piece.whole or (known and known.shape != piece.shape):
                db.execute("DELETE FROM memory WHERE name = ?", (piece.name,))
            db.execute(
                "INSERT INTO memory (name, shape, whole, crc, body) VALUES (?, ?, ?, ?, ?)",
                (piece.name, piece.shape, piece.whole, crc32c(piece.body), piece.body),
            )

    def wrote(self, pieces: Sequence[Remembered]) -> None:
        """Count pieces, after their transaction."""
        for piece in pieces:
            if piece.whole:
                self._lengths[piece.name] = _Length(piece.shape, whole=len(piece.body))
            elif piece.name in self._lengths:
                self._lengths[piece.name].changes += len(piece.body)


def give_up(db: sqlite3.Connection, names: Sequence[str], now: int) -> None:
    """Ledger memory that is damaged. Rows that waited in it are lost, and counted once."""
    rows = dict.fromkeys(names, 0)
    if WAITING in rows:
        found = db.execute("SELECT shape FROM memory WHERE name = ?", (WAITING,)).fetchone()
        rows[WAITING] = int(found[0]) if found and str(found[0]).isdecimal() else 0
        db.execute("DELETE FROM memory WHERE name = ?", (WAITING,))
    losses = [Loss(name, "damaged", rows[name], 0, "memory is damaged") for name in names]
    ledger.lose(db, losses, now)


def read(db: sqlite3.Connection) -> tuple[dict[str, Kept], list[str]]:
    """Everything remembered, and the names of which a part is damaged.

    A name's states end before its first damaged piece.
    """
    shapes: dict[str, str] = {}
    states: dict[str, list[bytes]] = {}
    damaged: list[str] = []
    for name, shape, whole, crc, body in db.execute(
        "SELECT name, shape, whole, crc, body FROM memory ORDER BY id"
    ):
        if name in damaged:
            continue
        sound = is_sound(crc, crc32c, body) and isinstance(name, str) and isinstance(shape, str)
        if not sound or shapes.get(name, shape) != shape or not (whole or name in states):
            damaged.append(str(name))
            continue
        shapes[name] = shape
        states.setdefault(name, []).append(body)
    return {name: Kept(shapes[name], bodies) for name, bodies in states.items()}, damaged
