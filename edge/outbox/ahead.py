"""Rows that come as parcels, rolled before they are committed: stored so where that is right."""

import sqlite3
from collections import Counter

from edge.outbox.admission import mark_tight, need, rest_bytes
from edge.outbox.file import OutboxFile
from edge.outbox.model import Commit, Rolled


def takes(file: OutboxFile, commit: Commit) -> bool:
    """Whether a commit with parcels can be stored as it is, without anything giving way."""
    if not (commit.rolled and all(_holds(file, each) for each in commit.rolled)):
        return False
    if not (
        _within_shares(file, commit) and file.make_fit(need(commit.entries, rest_bytes(commit)))
    ):
        return False
    mark_tight(file, False)
    return True


def _holds(file: OutboxFile, rolled: Rolled) -> bool:
    """Whether its keys and row ids are those of the next rows."""
    buffer = file.buffers[rolled.sink]
    next_row = file.id, buffer.next_sequence
    return (rolled.outbox, rolled.first) == next_row and not buffer.entries


def _within_shares(file: OutboxFile, commit: Commit) -> bool:
    """Whether the sinks' own `max_size` lets all of it in."""
    sizes: Counter[str] = Counter()
    for entry in commit.entries:
        sizes[entry.sink] += len(entry.body)
    for rolled in commit.rolled:
        sizes[rolled.sink] += sum(len(parcel.body) for parcel in rolled.parcels)
    limits = {name: file.buffers[name].limits.max_size for name in sizes}
    return all(
        limit is None or file.buffers[name].bytes + sizes[name] <= limit
        for name, limit in limits.items()
    )


def append(db: sqlite3.Connection, file: OutboxFile, commit: Commit, now: int) -> int:
    """Store the parcels behind all rows; gives the id that the next parcel gets."""
    number = file.numbers.parcel
    for sink, _, first, rows, parcels, _ in commit.rolled:
        buffer = file.buffers[sink]
        # Damage that shows only here has brought another file, which counts on or further.
        buffer.next_sequence = max(buffer.next_sequence, first + rows)
        number = buffer.insert_parcels(db, parcels, number, now)
    return number
