"""The outbox: entries, parcels, memory, position and ledger of one pipeline in one SQLite file."""

from edge.outbox.model import (
    Commit,
    Depth,
    Divided,
    Entry,
    Kept,
    Limits,
    Loss,
    NewEntry,
    Parcel,
    Priority,
    Refusal,
    Reject,
    Remembered,
    Restored,
    SinkLimits,
    WhenFull,
)
from edge.outbox.store import Outbox

__all__ = [
    "Commit",
    "Depth",
    "Divided",
    "Entry",
    "Kept",
    "Limits",
    "Loss",
    "NewEntry",
    "Outbox",
    "Parcel",
    "Priority",
    "Refusal",
    "Reject",
    "Remembered",
    "Restored",
    "SinkLimits",
    "WhenFull",
]
