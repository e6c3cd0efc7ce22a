"""Which rows of a batch get in when the outbox, or a sink's share of it, is full."""

import sqlite3
from collections import Counter
from collections.abc import Sequence
from typing import NamedTuple

from edge.component import format_size
from edge.errors import OutboxFull, TooLarge
from edge.outbox import ledger
from edge.outbox.buffer import Buffer
from edge.outbox.eviction import LOWEST_FIRST, evict_oldest, evict_refused
from edge.outbox.file import OutboxFile
from edge.outbox.model import Commit, NewEntry, Priority
from edge.outbox.rolling import turns_owed
from edge.outbox.room import cost, free_bytes

TOO_LARGE = "an empty outbox is too small for it; raise outbox.max_size"
_PIECES = 4  # an empty outbox, or share of it, takes so many pieces of a batch that is too large


class Admitted(NamedTuple):
    """The entries that are stored, and those that are dropped at the door, each with the reason."""

    stored: Sequence[NewEntry]
    turned_away: Sequence[tuple[NewEntry, str]]


def admit(file: OutboxFile, commit: Commit, divisible: bool) -> Admitted:
    """Make room for what a commit writes, as the policies say.

    What is dropped for it is gone, and ledgered, before the commit that follows. Raises OutboxFull
    when rows have to wait outside; TooLarge for what is divisible and had better be divided.
    Entries of anything else for which an empty outbox would be too small are turned away, the
    largest first.
    """
    entries, rest = commit.entries, rest_bytes(commit)
    mark_tight(file, False)
    stored = _within_shares(file, entries, divisible)
    fits = _find_room(file, need(stored, rest), losing=[])
    if not fits:
        mark_tight(file, True)
    too_large: set[int] = set()
    if not fits and divisible:
        _refuse_large(file, stored, rest)
    elif not fits:
        too_large = _hopeless(file, stored, rest)
        stored = [entry for entry in stored if id(entry) not in too_large]
        fits = bool(too_large) and _find_room(file, need(stored, rest), losing=[])
    for priority in LOWEST_FIRST:
        if not fits and (fewer := _without_newest(file, stored, priority)) != stored:
            stored = fewer
            fits = _find_room(file, need(stored, rest), losing=[])
    if not fits:
        losing = [b for b in file.buffers.values() if policy(file, b) == "drop_oldest"]
        if not _find_room(file, need(stored, rest), losing):
            _squeeze(file, stored, rest)
    kept = {id(entry) for entry in stored}
    gone = [entry for entry in entries if id(entry) not in kept]
    return Admitted(stored, [(e, TOO_LARGE if id(e) in too_large else "full") for e in gone])


def _refuse_large(file: OutboxFile, entries: Sequence[NewEntry], rest: int) -> None:
    """A batch is divided rather than waited for, if it is a large part of an empty outbox."""
    size = sum(len(entry.body) for entry in entries)
    piece = min(file.room.largest // _PIECES, size)
    if piece == size and size > rest and _never_fits(file, need(entries, rest)):
        piece //= 2
    if piece < size:
        what = f"{format_size(size)} are much for one commit"
        raise TooLarge(f"outbox {file.folder}: {what}", piece / size)


def _hopeless(file: OutboxFile, entries: Sequence[NewEntry], rest: int) -> set[int]:
    """The largest entries, as many as must go so that an empty outbox could take the others."""
    left = sorted(entries, key=lambda entry: len(entry.body))
    gone: set[int] = set()
    if _never_fits(file, need((), rest)):
        return gone  # memory takes the room, and goes on taking it without them
    while left and _never_fits(file, need(left, rest)):
        gone.add(id(left.pop()))
    return gone


def _never_fits(file: OutboxFile, size: int) -> bool:
    """Whether so much does not fit, and no delivery will make room for it."""
    if file.make_fit(size):
        return False
    waits = any(buffer.rows for buffer in file.buffers.values())
    return size > file.room.largest or (not waits and file.room.is_undisturbed())


def _without_newest(
    file: OutboxFile, entries: Sequence[NewEntry], priority: Priority
) -> list[NewEntry]:
    """Entries without those of one priority whose policy is to drop the newest."""
    buffers = {entry.sink: file.buffers[entry.sink] for entry in entries}
    gone = [
        name
        for name, buffer in buffers.items()
        if buffer.limits.priority == priority and policy(file, buffer) == "drop_newest"
    ]
    return [entry for entry in entries if entry.sink not in gone]


def _find_room(file: OutboxFile, need: int, losing: Sequence[Buffer]) -> bool:
    """Whether `need` bytes fit, after dropping rows of `losing`, and rows that are lost already."""
    if file.make_fit(need):
        return True
    wanted = need + max(0, file.room.excess(file.db, need))
    droppable = sum(b.refused_bytes for b in file.buffers.values())
    droppable += sum(b.waiting_bytes for b in losing)
    if wanted > droppable + free_bytes(file.db):
        return False  # something else takes the room: a reader, a file set aside, the disk

    def work(db: sqlite3.Connection) -> None:
        def enough() -> bool:
            return free_bytes(db) >= wanted

        evict_refused(db, file.buffers.values(), enough)
        evict_oldest(db, losing, enough, file.clock.now())

    file.evict(work)
    return file.make_fit(need)


def need(entries: Sequence[NewEntry], rest: int) -> int:
    """Bytes that a commit writes."""
    return cost(sum(len(entry.body) for entry in entries) + rest, len(entries))


def rest_bytes(commit: Commit) -> int:
    """Bytes that a commit writes beside its entries: parcels, memory, position, rejects."""
    size = sum(len(piece.body) + 200 for piece in commit.memory) + len(commit.position or b"")
    size += sum(len(parcel.body) + 1000 for each in commit.rolled for parcel in each.parcels)
    size += sum(len(item.payload) + 400 for item, _ in ledger.keepable(commit.rejects))
    return size + 400 * len(commit.losses)


def policy(file: OutboxFile, buffer: Buffer) -> str:
    """What happens to a sink's rows when there is no room."""
    return buffer.limits.when_full or file.limits.when_full


def _within_shares(
    file: OutboxFile, entries: Sequence[NewEntry], divisible: bool
) -> list[NewEntry]:
    """Entries that the sinks' own `max_size` lets in."""
    stored = []
    sizes: Counter[str] = Counter()
    for entry in entries:
        size = sizes[entry.sink] + len(entry.body)
        if _within_share(file, entry.sink, size, divisible):
            stored.append(entry)
            sizes[entry.sink] = size
    return stored


def _within_share(file: OutboxFile, sink: str, size: int, divisible: bool) -> bool:
    """Whether a sink's share takes `size` bytes, after dropping what may be dropped."""
    buffer = file.buffers[sink]
    limit = buffer.limits.max_size

    def enough() -> bool:
        return limit is None or buffer.bytes + size <= limit

    def work(db: sqlite3.Connection) -> None:
        evict_refused(db, [buffer], enough)
        if policy(file, buffer) == "drop_oldest":
            evict_oldest(db, [buffer], enough, file.clock.now())

    if limit is not None and size > limit and divisible:
        what = f"sink {sink!r}: {format_size(size)} are more than its max_size {format_size(limit)}"
        raise TooLarge(f"outbox {file.folder}: {what}", limit / _PIECES / size)
    if not enough():
        buffer.tight = True
        file.evict(work)
    if not enough() and policy(file, buffer) == "block":
        if not buffer.rows:
            return True  # a row larger than the share: nothing will ever make more room
        raise OutboxFull(
            f"outbox {file.folder}: sink {sink!r} is full at {format_size(buffer.bytes)} of "
            f"its max_size {format_size(limit or 0)}; intake waits until it delivers"
        )
    return enough()


def mark_tight(file: OutboxFile, tight: bool) -> None:
    """Note for every sink whether there was no room for more."""
    for buffer in file.buffers.values():
        buffer.tight = tight


def _squeeze(file: OutboxFile, stored: Sequence[NewEntry], rest: int) -> None:
    """Let memory, position and ledger through when no rows come with them; else rows wait.

    They leave every sink the room to roll.
    """
    owed = turns_owed(file)
    leave = owed and owed + file.room.turn(len(file.sinks))
    if stored or not file.room.fits(file.db, need((), rest), leave=leave):
        raise OutboxFull(file.describe_full(f"{format_size(need(stored, rest))} more do not fit"))
    file.room.give_up_reserve()
