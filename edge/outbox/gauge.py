"""What is noted for `edge status` alone: how fast the outbox fills, how its source stands."""

import sqlite3
from collections.abc import Callable, Mapping

RATE_EVERY = 60.0  # seconds between two looks at how fast the outbox fills
PROGRESS_EVERY = 5.0  # seconds between two notes of the source that differ in numbers only
READ_EVERY = 1.0  # seconds between two notes of when rows came: a page of its own in each commit


class Gauge:
    """Decides what of it is worth a transaction; times are steady seconds."""

    def __init__(self) -> None:
        self._filling: tuple[float, int] | None = None
        self._source: Mapping[str, object] | None = None
        self._noted = 0.0
        self._read = -READ_EVERY

    def note_read(self, db: sqlite3.Connection, moment: float, now: int) -> None:
        """Rows came at `now`, microseconds UTC; known to a second."""
        if moment - self._read >= READ_EVERY:
            set_meta(db, "read_at", now)
            self._read = moment

    def measure_filling(
        self, db: sqlite3.Connection, moment: float, used: Callable[[sqlite3.Connection], int]
    ) -> None:
        """Once a minute, note how fast the outbox fills."""
        if self._filling is None:
            self._filling = moment, used(db)
        elif moment - self._filling[0] >= RATE_EVERY:
            before, self._filling = self._filling, (moment, used(db))
            rate = (self._filling[1] - before[1]) / (moment - before[0])
            set_meta(db, "bytes_per_hour", round(rate * 3600))

    def is_due(self, source: Mapping[str, object], moment: float) -> bool:
        """Whether the source says something else than was noted, or has come further."""
        if self._source is None or _words(source) != _words(self._source):
            return True
        return source != self._source and moment - self._noted >= PROGRESS_EVERY

    def noted(self, source: Mapping[str, object], moment: float) -> None:
        """This is what the file has now."""
        self._source, self._noted = source, moment


def set_meta(db: sqlite3.Connection, name: str, value: object) -> None:
    """Write one row of the table `meta`."""
    db.execute("INSERT OR REPLACE INTO meta VALUES (?, ?)", (name, value))


def _words(status: Mapping[str, object]) -> dict[str, object]:
    """What a source says of itself, without the numbers that only show its progress."""
    return {
        k: v for k, v in status.items() if isinstance(v, bool) or not isinstance(v, int | float)
    }
