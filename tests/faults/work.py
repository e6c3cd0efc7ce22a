"""An outbox and a file sink at work, and what must be true of whatever a fault leaves of them."""

import asyncio
import os
import random
import sqlite3
from collections import Counter
from collections.abc import Callable, Container
from functools import partial
from pathlib import Path

import polars as pl

from edge.clock import Clock
from edge.component import Stream
from edge.outbox import Commit, Limits, NewEntry, Outbox, Parcel, Remembered, SinkLimits
from edge.outbox.room import sync_folder
from edge.sinks.file import FileSink
from tests.scripted import HandClock

LIMITS = Limits(32 * 2**20)
SINKS = {"lake": SinkLimits(), "alarms": SinkLimits(max_size=40_000, when_full="drop_oldest")}
ROWS = 3
SPOILT = b"spoilt"

Say = Callable[[str], None]


def open_outbox(folder: Path, clock: Clock | None = None) -> Outbox:
    """The outbox of the work; a rescue is left to the caller."""
    outbox = Outbox(folder, limits=LIMITS, sinks=SINKS, clock=clock or HandClock())
    outbox.open(0)
    return outbox


class Work:
    """Commits, rolls, sends and settles; says a commit's number once it is acknowledged.

    Rows are the sequence numbers of a sink, one to a line of the file they end in.
    """

    def __init__(self, place: Path, say: Say, seed: int = 1) -> None:
        self.outbox = open_outbox(place / "outbox")
        self.sink = sink_of(place / "out")
        self._say = say
        self._chance = random.Random(seed)
        self._number = int(self.outbox.restore().position or 0)

    def commit(self, size: int = 4_000) -> None:
        """Three rows for each sink, memory and position in one commit."""
        self._number = number = self._number + 1
        entries = []
        for name in SINKS:
            first = self.outbox.next_sequence(name)
            body = body_of(range(first, first + ROWS), self._chance.randbytes(size // 2).hex())
            entries.append(NewEntry(name, ROWS, size, body))
        memory = [Remembered("count", "s", number % 10 == 1, b"%d" % number)]
        counts = {("source", "read"): ROWS, ("source", "taken"): ROWS}
        self.outbox.commit(Commit(entries, b"%d" % number, memory, counts))
        self._say(f"committed {number}")

    def roll(self, name: str, size: int = 12_000) -> None:
        """Some entries become one parcel."""
        roll(self.outbox, name, size)

    def send(self, name: str, count: int = 2) -> None:
        """Some parcels become files and are forgotten."""
        send(self.outbox, self.sink, name, count)

    def refuse(self, name: str) -> None:
        """A parcel is refused, and then asked for again."""
        for parcel in self.outbox.take_parcels(name, 1):
            self.outbox.settle(name, [], {parcel.id: "too large"})
        self.outbox.retry(name)

    def meet_other_bytes(self, name: str) -> None:
        """The key of a parcel is taken by something else: it gets another."""
        (parcel,) = self.outbox.take_parcels(name, 1)
        self.outbox.release(name, [parcel.id])
        taken = self.sink._root / parcel.key
        self._say(f"planted {taken.name}")
        taken.parent.mkdir(parents=True, exist_ok=True)
        with taken.open("wb") as file:
            file.write(SPOILT)
            file.flush()
            os.fsync(file.fileno())
        sync_folder(taken.parent)
        self.send(name, 1)

    def spoil(self, name: str) -> None:
        """The bytes of the oldest entry are not what they were."""
        (entry,) = self.outbox.take_entries(name, 1)
        self.outbox.release_entries(name, [entry.id])
        db = self.outbox._file.db
        db.execute("UPDATE entry SET body = ? WHERE id = ?", (SPOILT, entry.id))
        self.roll(name)

    def break_file(self) -> None:
        """SQLite finds damage: the file is set aside, some of its rows are copied."""
        self.outbox._file.set_aside(sqlite3.DatabaseError("as if"))
        self.outbox.rescue_step()

    def close(self) -> None:
        """An orderly end."""
        self.outbox.close()


def everything(place: Path, say: Say) -> None:
    """Each thing that an outbox does to its disk, at least once."""
    work = Work(place, say)
    for number in range(14):
        work.commit()
        work.roll("lake") if number % 3 == 2 else work.roll("alarms")
        if number % 3 == 0:
            work.send("lake")
    work.refuse("lake")
    for _ in range(3):  # the share of `alarms` is full: its oldest rows go
        work.commit(16_000)
    work.roll("lake", 10**9)
    work.outbox._file.room.give_up_reserve()
    work.commit()
    work.spoil("lake")
    work.roll("lake")
    work.meet_other_bytes("lake")
    work.close()
    work = Work(place, say)
    work.commit()
    work.break_file()
    for _ in range(3):
        work.commit()
        work.roll("lake")
        work.send("lake")
    while work.outbox.tend():
        pass
    work.outbox._file._empty_wal()
    work.commit()
    work.close()


def at_random(place: Path, say: Say, seed: int, steps: int = 40) -> None:
    """The same things in any order."""
    chance = random.Random(seed)
    work = Work(place, say, seed)
    for _ in range(steps):
        name = chance.choice([*SINKS])
        acts = [
            partial(work.commit, chance.choice([100, 4_000, 16_000])),
            partial(work.roll, name, chance.choice([1, 12_000, 10**9])),
            partial(work.send, name, chance.choice([1, 3])),
            partial(work.refuse, name),
            work.outbox.tend,
            work.outbox._file._empty_wal,
            work.outbox._file.room.give_up_reserve,
            work.break_file,
        ]
        chance.choices(acts, [9, 5, 4, 1, 2, 1, 1, 0.5])[0]()
    work.close()


# -- the pieces, also for what is left


def body_of(rows: range, filling: str = "") -> bytes:
    return "".join(f"{row} {filling}\n" for row in rows).encode()


def sink_of(folder: Path) -> FileSink:
    sink = FileSink(path=folder, format="ndjson")
    sink.bind(pl.Schema({"row": pl.Int64}), Stream(folder=folder), True, "none")
    return sink


def roll(outbox: Outbox, name: str, size: int) -> bool:
    entries = outbox.take_entries(name, size)
    if not entries:
        return False
    first, last = entries[0].first, entries[-1].first + entries[-1].rows - 1
    rows, body = sum(entry.rows for entry in entries), b"".join(entry.body for entry in entries)
    outbox.roll(
        name, entries, [Parcel(f"{name}/{outbox.id}-{first}-{last}", first, last, rows, body)]
    )
    outbox.release_entries(name, [entry.id for entry in entries])
    return True


def send(outbox: Outbox, sink: FileSink, name: str, count: int) -> bool:
    parcels = outbox.take_parcels(name, count)
    if not parcels:
        return False
    receipt = asyncio.run(sink.send(parcels))
    outbox.settle(name, receipt.delivered)
    if receipt.rekey:
        outbox.rekey(name, receipt.rekey)
    outbox.release(name, [parcel.id for parcel in parcels])
    return True


def drain(outbox: Outbox, place: Path) -> None:
    """Rescue, roll and send until nothing is left."""
    sink = sink_of(place / "out")
    busy = True
    while busy:
        busy = outbox.tend()
        for name in SINKS:
            while roll(outbox, name, 10**9) or send(outbox, sink, name, 1000):
                busy = True


def delivered(place: Path, name: str, planted: Container[str] = ()) -> Counter[int]:
    """How often each row lies in the files of a sink, without those of somebody else."""
    rows: Counter[int] = Counter()
    for file in place.glob(f"out/{name}/*"):
        if file.name.startswith(".") or file.name in planted:
            continue
        content = file.read_bytes()
        assert content.endswith(b"\n"), f"{file} is torn"
        rows.update(int(line.split()[0]) for line in content.splitlines())
    return rows


def check(place: Path, said: tuple[str, ...]) -> None:
    """Start on what a fault left, and demand every acknowledged row, once, or its ledger line."""
    committed = max(
        (int(text.split()[1]) for text in said if text.startswith("committed")), default=0
    )
    planted = {text.split()[1] for text in said if text.startswith("planted")}
    outbox = open_outbox(place / "outbox")
    try:
        restored = outbox.restore()
        position = int(restored.position or 0)
        assert committed <= position <= committed + 1
        if position:
            assert restored.memory["count"].states[-1] == b"%d" % position
        for name in SINKS:
            outbox.retry(name)
        drain(outbox, place)
        status = outbox.status()
        assert status["imbalances"] == []
        for name in SINKS:
            rows, counts = delivered(place, name, planted), status["ledger"][f"sink:{name}"]
            assert not [row for row, times in rows.items() if times > 1], "rows came twice"
            assert set(rows) <= set(range(1, position * ROWS + 1))
            lost = counts.get("dropped", 0) + counts.get("damaged", 0)
            assert len(rows) == position * ROWS - lost
            assert counts.get("damaged", 0) in (0, ROWS), "the one entry that was spoilt"
            assert status["sinks"][name]["buffered_rows"] == 0
    finally:
        outbox.close()


def scratch() -> Path:
    """A folder in memory where there is one: thousands of images need no disk."""
    memory = Path("/dev/shm")
    return memory if os.access(memory, os.W_OK) else Path("/tmp")
