"""The outbox: what a batch changes is written in one transaction, and leaves piece by piece."""

import json
import secrets
import sqlite3
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from datetime import timedelta
from functools import partial
from pathlib import Path
from typing import Any, TypeVar

from edge.clock import Clock
from edge.errors import OutboxFull
from edge.outbox import ahead, division, inspection, ledger, memory, quarantine, rolling
from edge.outbox.admission import Admitted, admit
from edge.outbox.buffer import Buffer
from edge.outbox.disk import Slowness
from edge.outbox.file import OutboxFile
from edge.outbox.gauge import Gauge, set_meta
from edge.outbox.model import (
    Commit,
    Depth,
    Divided,
    Entry,
    Limits,
    Loss,
    NewEntry,
    Parcel,
    Refusal,
    Restored,
    SinkLimits,
)
from edge.outbox.owner import Owner, refuse_network_disk
from edge.outbox.room import cost, make_folder
from edge.threads import Worker

T = TypeVar("T")


class Outbox:
    """Entries, parcels, memory, position and ledger of one pipeline, in one SQLite file.

    Every method runs on one thread at a time: await `call` from the event loop. Only `id`, `depth`,
    `wants_whole`, `can_remember`, `next_sequence` and `has_entries` never touch the file and may be
    used from anywhere.
    """

    def __init__(
        self,
        folder: Path,
        *,
        limits: Limits,
        sinks: Mapping[str, SinkLimits],
        clock: Clock,
    ) -> None:
        """Opens nothing. Raises DefinitionError for a `max_size` below 32 MiB."""
        self._file = OutboxFile(folder, limits, sinks, clock)
        self._clock = clock
        self._slowness = Slowness(folder, clock)
        self._owner = Owner(folder / "lock")
        self._thread = Worker("outbox")
        self._gauge = Gauge()

    async def call(self, method: str, *args: Any, **options: Any) -> Any:
        """Run a method on the outbox's own thread."""
        return await self._thread.call(partial(getattr(self, method), *args, **options))

    # -- life

    @property
    def id(self) -> str:
        """8 hexadecimal characters, drawn when the file was created; part of every identity."""
        return self._file.id

    def open(self, wait: float = 90.0, *, give_up: Callable[[], bool] = lambda: False) -> None:
        """Own the folder and open the file, whatever its content is.

        Waits up to `wait` seconds for another owner, asking again and again whether to `give_up`.
        Raises OutboxLocked, DefinitionError on a network disk or when another version wrote the
        file.
        """
        folder = self._file.folder
        make_folder(folder)
        refuse_network_disk(folder, Path("/proc/self/mountinfo").read_text())
        self._owner.take(wait, give_up)
        try:
            self._file.open()
        except BaseException:
            self._owner.leave()
            raise

    def close(self) -> None:
        """Close the file and let the next owner in. Harmless when not open."""
        self._file.close()
        self._owner.leave()
        self._thread.close()

    def restore(self) -> Restored:
        """Where the source stood and what every part remembered at the last commit."""
        (kept, damaged) = self._file.read(memory.read)
        if damaged:
            now = self._clock.now()
            self._file.write(lambda db: memory.give_up(db, damaged, now), cost(0, 10))
        position = self._file.read(
            lambda db: db.execute("SELECT value FROM meta WHERE name = 'position'").fetchone()
        )
        return Restored(position[0] if position else None, kept)

    def can_remember(self, size: int) -> bool:
        """Whether an empty outbox holds `size` bytes of memory beside what comes of a batch."""
        return size <= self._file.room.largest // 2

    def wants_whole(self, name: str) -> bool:
        """Whether the next memory of `name` should be everything instead of a change."""
        return self._file.memory.wants_whole(name)

    # -- in

    def commit(self, commit: Commit, divisible: bool = False) -> None:
        """Write everything that one batch changes, durably, or nothing of it.

        Rows appended per sink, and a loss for every rejected payload, are counted here. Rows that
        come as parcels become entries where they cannot be stored as they are. Raises
        OutboxFull when there is no room and the policy is `block`; TooLarge for what is `divisible`
        and would take too much of an empty outbox. Of what is not, entries for which an empty
        outbox would be too small are counted as dropped.
        """
        file, now = self._file, self._clock.now()
        if ahead.takes(file, commit):
            admitted = Admitted(commit.entries, ())
        else:
            commit = commit.unrolled()
            admitted = admit(file, commit, divisible)

        def work(db: sqlite3.Connection) -> int:
            counts: Counter[tuple[str, str]] = Counter(commit.counts)
            next_parcel = ahead.append(db, file, commit, now)
            for number, new in enumerate(admitted.stored, file.numbers.entry):
                file.buffers[new.sink].append(db, new, number, now)
            for sink, rows in appended.items():
                counts[ledger.sink_part(sink), "appended"] += rows
            for new, reason in admitted.turned_away:
                gone = file.buffers[new.sink].turn_away(new, reason)
                ledger.note(db, new.sink, "dropped", [gone], now)
            self._write_state(db, commit, now)
            ledger.add(db, counts)
            return next_parcel

        began, appended = file.clock.steady(), commit.appended()
        file.numbers.parcel = file.write(work)
        self._slowness.since(began)
        file.numbers.entry += len(commit.entries)
        file.memory.wrote(commit.memory)
        for sink in appended:
            buffer = file.buffers[sink]
            if buffer.oldest is None and buffer.rows:
                buffer.oldest = now

    def _write_state(self, db: sqlite3.Connection, commit: Commit, now: int) -> None:
        self._file.memory.write(db, commit.memory)
        if commit.position is not None:
            set_meta(db, "position", commit.position)
        if commit.counts.get(("source", "read")):
            self._gauge.note_read(db, self._clock.steady(), now)
        if commit.rejects:
            ledger.reject(db, commit.rejects, now)
        if commit.losses:
            ledger.lose(db, commit.losses, now)
        self._gauge.measure_filling(db, self._clock.steady(), self._file.room.used)

    # -- rolling

    def seconds_until_due(self, sink: str, size: int, every: timedelta) -> float | None:
        """When entries should be rolled: None there are none, 0 now, else after so many seconds."""
        buffer = self._file.buffers[sink]
        if buffer.entry_size - sum(buffer.held.values()) >= size:
            return 0.0
        free = self._file.read(buffer.free_entry)
        if free is None:
            return None
        if buffer.tight and not buffer.parcels:
            return 0.0  # nothing else makes room
        age = (self._clock.now() - free[2]) / 1e6
        return max(0.0, every.total_seconds() - age) if age >= 0 else 0.0

    def take_entries(self, sink: str, size: int) -> list[Entry]:
        """The oldest free entries up to `size` uncompressed bytes, at least one; [] if none.

        They are held: nobody else gets or drops them until `roll` or `release_entries`. Damaged
        ones are set aside and ledgered, and not among them.
        """
        buffer = self._file.buffers[sink]
        taken, damaged = self._file.read(lambda db: buffer.take_entries(db, size))
        if damaged:
            self._file.set_rows_aside(buffer, "entry", damaged)
        if damaged and not taken:
            return self.take_entries(sink, size)
        return taken

    def roll(
        self,
        sink: str,
        entries: Sequence[Entry],
        parcels: Sequence[Parcel],
        refused: Sequence[Refusal] = (),
        rest: NewEntry | None = None,
    ) -> None:
        """Put parcels in the place of entries, in one transaction.

        rest: rows that were left over; they become the oldest entry, under the sequence numbers
        that their column `edge_sequence` carries. Every row of `entries` must be in parcels,
        refused or rest: ValueError. Raises OutboxFull: send first what is rolled, or wait until
        others have; TooLarge: take fewer, and one row alone will never fit.
        """
        rolling.roll(self._file, sink, entries, parcels, refused, rest)
        self.release_entries(sink, [entry.id for entry in entries])
        self._left(self._file.buffers[sink])

    def release_entries(self, sink: str, entries: Sequence[int]) -> None:
        """Let go of entries that were taken and not rolled, by id."""
        held = self._file.buffers[sink].held
        for number in entries:
            held.pop(number, None)

    # -- out

    def take_parcels(
        self, sink: str, count: int, *, newest: bool = False, size: int = 2**31
    ) -> list[Parcel]:
        """Up to `count` waiting parcels of at most `size` bytes in all, at least one; [] if none.

        Oldest first, or newest first. They are in flight until `settle`, `release` or `rekey`.
        """
        buffer = self._file.buffers[sink]
        taken, damaged = self._file.read(lambda db: buffer.take_parcels(db, count, newest, size))
        if damaged:
            self._file.set_rows_aside(buffer, "parcel", damaged)
        if damaged and not taken:
            return self.take_parcels(sink, count, newest=newest, size=size)
        return taken

    def settle(
        self, sink: str, delivered: Sequence[int], refused: Mapping[int, str] | None = None
    ) -> None:
        """Forget delivered parcels, quarantine refused ones (id and reason), in one transaction."""
        file, buffer, now = self._file, self._file.buffers[sink], self._clock.now()
        reasons = refused or {}

        def work(db: sqlite3.Connection) -> list[int]:
            rows, missing = file.take_out_parcels(db, buffer, delivered)
            ledger.add(db, {(ledger.sink_part(sink), "delivered"): rows})
            gone = [buffer.quarantine(db, number, why) for number, why in reasons.items()]
            ledger.note(db, sink, "refused", [item for item in gone if item], now)
            return missing

        need = cost(0, len(delivered) + len(reasons))
        file.skip("parcel", file.write(work, need, leaving=True))
        self.release(sink, [*delivered, *reasons])
        self._left(buffer)
        with suppress(sqlite3.Error):  # `tend` tries again, and tells
            file.checkpoint_step()

    def divide(self, sink: str, parcels: Mapping[int, Divided]) -> None:
        """Settle parcels whose rows did not all fare alike, by id; raises OutboxFull."""
        division.divide(self._file, sink, parcels)
        self.release(sink, [*parcels])

    def release(self, sink: str, parcels: Sequence[int]) -> None:
        """Parcels that were taken and not delivered wait again, by id."""
        flying = self._file.buffers[sink].flying
        for number in parcels:
            flying.pop(number, None)

    def rekey(self, sink: str, parcels: Sequence[int]) -> None:
        """Draw a new outbox id, put it into the keys of these parcels, and note it in the ledger.

        For keys that other bytes hold already: this file is a restored copy of an older one.
        """
        file, buffer, now = self._file, self._file.buffers[sink], self._clock.now()
        new = secrets.token_hex(4)

        def work(db: sqlite3.Connection) -> None:
            done = [gone for n in parcels if (gone := buffer.rekey(db, n, file.id, new))]
            part = ledger.sink_part(sink)
            why = f"key was taken by other bytes; outbox id {file.id} became {new}"
            ledger.lose(
                db, [Loss(part, "rekeyed", 0, g.bytes, why, g.first, g.last) for g in done], now
            )
            set_meta(db, "outbox", new)

        file.write(work, cost(0, 4 * len(parcels)), leaving=True)
        file.id = new
        self.release(sink, parcels)

    def _left(self, buffer: Buffer) -> None:
        """After rows have left: what is the oldest now."""
        self._file.read(buffer.find_oldest)

    # -- looking

    def depth(self, sink: str) -> Depth:
        """How much of a sink waits. Touches memory only."""
        buffer = self._file.buffers[sink]
        oldest = buffer.oldest
        age = None if oldest is None else timedelta(microseconds=max(0, self._clock.now() - oldest))
        return Depth(buffer.rows, buffer.waiting_bytes, age)

    def settled_below(self, sink: str) -> int:
        """Every row of the sink with a sequence number below this one is settled."""
        return self._file.read(self._file.buffers[sink].settled_below)

    def has_entries(self, sink: str) -> bool:
        """Whether rows of the sink wait that were not rolled yet."""
        return bool(self._file.buffers[sink].entries)

    def next_sequence(self, sink: str) -> int:
        """The sequence number that the sink's next row will get."""
        return self._file.buffers[sink].next_sequence

    def set_link(self, sink: str, up: bool, reason: str | None = None) -> None:
        """Note whether the sink's destination can be reached; written only when that changes."""
        buffer, now = self._file.buffers[sink], self._clock.now()
        link = "up" if up else "down"
        if (buffer.link, buffer.link_reason) == (link, reason):
            return

        def work(_: sqlite3.Connection) -> None:
            if buffer.link != link or buffer.link_since is None:
                buffer.link_since = now
            buffer.link, buffer.link_reason, buffer.changed = link, reason, True

        self._file.write(work, cost(0, 1), leaving=True)

    def set_source(self, status: Mapping[str, object], *, at_once: bool = False) -> None:
        """Note how the source stands, in JSON values; written only when that changes.

        Numbers alone are written every 5 s, unless `at_once`; nothing where there is no room.
        """
        moment = self._clock.steady()
        if not (at_once or self._gauge.is_due(status, moment)):
            return
        text = json.dumps(status, default=str)
        with suppress(OutboxFull):
            if self._file.make_fit(cost(len(text), 1)):
                self._file.write(lambda db: set_meta(db, "source", text))
                self._gauge.noted(status, moment)

    def status(self) -> dict[str, Any]:
        """What `edge status --json` shows of this pipeline."""
        return self.look(inspection.read_status)

    def look(self, read: Callable[[sqlite3.Connection, Path, int], T]) -> T:
        """What `read` finds, given the file, its folder and the time, microseconds UTC."""
        return self._file.read(lambda db: read(db, self._file.folder, self._clock.now()))

    # -- by hand

    def retry(self, sink: str, parcels: Sequence[int] | None = None) -> int:
        """Let quarantined parcels (None: all) wait again; gives how many."""
        return quarantine.retry(self._file, sink, parcels)

    def drop(self, sink: str, parcels: Sequence[int] | None = None) -> int:
        """Forget parcels, waiting or quarantined; None: all of the sink, and its entries.

        Never what is held or in flight. Gives how many went; waiting rows are ledgered as dropped.
        """
        return quarantine.drop(self._file, sink, parcels)

    # -- housekeeping

    def tend(self) -> bool:
        """Do one small step of what can wait; call it when idle. True: there is more to do now.

        Carries out requests of commands, copies rows out of a damaged file, empties a long WAL,
        gives disk back.
        """
        quarantine.carry_out_requests(self._file)
        self._file.checkpoint_step()
        return self.rescue_step() or self._file.shrink_step()

    def rescue_step(self) -> bool:
        """Copy some rows out of a file that was set aside; False when there is nothing to copy."""
        return self._file.rescue_step()
