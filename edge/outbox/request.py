"""What a command wants done: by itself when nobody owns the outbox, else left as a request."""

import json
import sqlite3
from collections.abc import Sequence
from pathlib import Path
from typing import Literal

from edge.clock import Clock
from edge.errors import DefinitionError, OutboxLocked
from edge.outbox import inspection
from edge.outbox.model import Limits
from edge.outbox.schema import FILE
from edge.outbox.store import Outbox

Action = Literal["retry", "drop"]


def carry_out(
    folder: Path, action: Action, sink: str, parcels: Sequence[int] | None = None
) -> str | int:
    """Retry or drop parcels (None: all) of one sink.

    Gives how many there were; or, when the processor runs, the number of the request it will carry
    out, as text for `inspection.answer`. Raises DefinitionError for an unknown sink or no outbox.
    """
    known = inspection.status(folder, 0)
    if sink not in known["sinks"]:
        names = ", ".join(sorted(known["sinks"]))
        raise DefinitionError(f"outbox {folder}: has no sink {sink!r}; known are {names}")
    limits = Limits(known["outbox"]["max_bytes"])
    outbox = Outbox(folder, limits=limits, sinks={}, clock=Clock())
    try:
        outbox.open(wait=0)
    except OutboxLocked:
        return _ask(folder, action, sink, parcels)
    try:
        return outbox.retry(sink, parcels) if action == "retry" else outbox.drop(sink, parcels)
    finally:
        outbox.close()


def _ask(folder: Path, action: Action, sink: str, parcels: Sequence[int] | None) -> str:
    db = sqlite3.connect(folder / FILE, timeout=10, isolation_level=None)
    try:
        cursor = db.execute(
            "INSERT INTO request (time, action, sink, parcels) VALUES (?, ?, ?, ?)",
            (Clock().now(), action, sink, None if parcels is None else json.dumps(list(parcels))),
        )
        return str(cursor.lastrowid)
    finally:
        db.close()
