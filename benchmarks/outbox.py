"""Reads the product's outbox from outside, cheaply enough not to disturb what is measured."""

import sqlite3
from pathlib import Path
from typing import NamedTuple


class Buffered(NamedTuple):
    """Rows and body bytes that wait for the sinks, as entries and as parcels rolled from them."""

    entry_rows: int
    entry_bytes: int
    parcel_rows: int
    parcel_bytes: int

    @property
    def rows(self) -> int:
        """All that waits."""
        return self.entry_rows + self.parcel_rows


class Outbox:
    """The outbox in `folder`, read through one connection that never keeps a query open."""

    def __init__(self, folder: Path) -> None:
        self.path = folder / "outbox.sqlite"
        self._database: sqlite3.Connection | None = None

    def read(self) -> int:
        """Messages read from the source and committed so far, rejected ones included."""
        return self._count("source", "read")

    def appended(self) -> int:
        """Rows committed for the sink `lake` so far."""
        return self._count("sink:lake", "appended")

    def delivered(self, sink: str) -> int:
        """Rows that have arrived at `sink` so far."""
        return self._count(f"sink:{sink}", "delivered")

    def buffered(self) -> Buffered:
        """Rows and bytes that wait now."""
        return Buffered(
            *self._ask(
                "SELECT sum(entry_rows), sum(entry_bytes), sum(parcel_rows), sum(parcel_bytes)"
                " FROM sink"
            )
        )

    def tried(self) -> bool:
        """Whether the link has made up its mind, be it up or down."""
        return bool(self._ask("SELECT count(link_since) FROM sink")[0])

    def close(self) -> None:
        """Let go of the file: whoever closes it last truncates the WAL, and that is the owner."""
        if self._database:
            self._database.close()
            self._database = None

    def _count(self, part: str, counter: str) -> int:
        query = "SELECT coalesce(max(value), 0) FROM ledger WHERE part = ? AND counter = ?"
        return self._ask(query, part, counter)[0]

    def _ask(self, query: str, *values: str) -> tuple[int, ...]:
        if not self._database:
            self._database = sqlite3.connect(
                f"file:{self.path}?mode=ro", uri=True, isolation_level=None
            )
        return tuple(self._database.execute(query, values).fetchone())
