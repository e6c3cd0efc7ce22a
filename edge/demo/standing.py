"""How the processor stands, read from its outbox whether it runs, is dead or is starting."""

import contextlib
import sqlite3
import time
from collections.abc import Mapping
from pathlib import Path
from typing import NamedTuple

from edge.outbox.inspection import read_status
from edge.outbox.schema import FILE, connect_to_read


class Standing(NamedTuple):
    """What is durable now. sinks: rows delivered and rows kept, by sink; share: of the outbox."""

    ledger: Mapping[str, Mapping[str, int]]
    sinks: Mapping[str, tuple[int, int]]
    share: float = 0.0

    @property
    def taken(self) -> int:
        return self.ledger.get("source", {}).get("taken", 0)

    def drained(self, total: int) -> bool:
        """All `total` readings are taken and nothing waits for a sink."""
        return self.taken >= total and not any(kept for _, kept in self.sinks.values())


def read_standing(folder: Path) -> Standing:
    """All zero while there is no outbox yet."""
    if not (folder / FILE).exists():
        return Standing({}, {})
    with contextlib.closing(connect_to_read(folder / FILE)) as db:
        try:
            status = read_status(db, folder, time.time_ns() // 1000)
        except sqlite3.OperationalError:  # its tables are being made
            return Standing({}, {})
    sinks = {
        name: (sink["delivered_rows"], sink["buffered_rows"])
        for name, sink in status["sinks"].items()
    }
    room = status["outbox"]
    share = room["bytes"] / room["max_bytes"] if room["max_bytes"] else 0.0
    return Standing(status["ledger"], sinks, share)
