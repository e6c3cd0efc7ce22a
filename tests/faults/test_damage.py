"""A flipped bit anywhere, lost commits, copies put back: it starts, and says what is lost."""

import contextlib
import logging
import os
import shutil
import sqlite3
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from edge.errors import DefinitionError, EdgeError, OutboxFull
from edge.outbox import Commit, Limits, Loss, NewEntry, Outbox, Parcel, Reject, Remembered
from edge.outbox.inspection import books, disk_use, verify
from edge.outbox.model import SinkLimits
from edge.outbox.schema import VERSION
from tests.faults.mounts import ext4
from tests.faults.work import scratch
from tests.scripted import HandClock

SINKS = {"lake": SinkLimits(), "alarms": SinkLimits()}
BATCHES, ROWS = 60, 5
WAITING = {"lake": 28 * ROWS, "alarms": 30 * ROWS}  # one parcel went, one was refused


def opened(folder: Path, cap: int = 64 * 2**20) -> Outbox:
    outbox = Outbox(folder, limits=Limits(cap), sinks=SINKS, clock=HandClock())
    outbox.open(0)
    return outbox


def commit(outbox: Outbox, number: int) -> None:
    """Five rows, with something for every table."""
    sink = [*SINKS][number % 2]
    rejects = [Reject(f"bad {number % 3}", os.urandom(200), "t")] if number % 5 == 0 else []
    read, rejected = ("source", "read"), ("source", "rejected")
    counts = {read: ROWS + len(rejects), rejected: len(rejects), ("source", "taken"): ROWS}
    memory = [Remembered("common/dedupe", "s", number == 0, os.urandom(50 if number else 5_000))]
    entries = [NewEntry(sink, ROWS, 500, os.urandom((300, 3_000, 9_000)[number % 3]))]
    losses = [Loss("common/dedupe", "reset", 0, 0, f"reason {number}")]
    outbox.commit(Commit(entries, b"%d" % number, memory, counts, rejects, losses))


def roll(outbox: Outbox, sink: str, size: int = 10**9) -> bool:
    entries = outbox.take_entries(sink, size)
    if entries:
        made = [
            Parcel(f"{outbox.id}-{e.first}", e.first, e.first + e.rows - 1, e.rows, e.body)
            for e in entries
        ]
        outbox.roll(sink, entries, made)
    return bool(entries)


def drain(outbox: Outbox) -> dict[str, int]:
    """Deliver everything; gives the rows that left, by sink. Raises when it never ends."""
    rows = dict.fromkeys(SINKS, 0)
    for _ in range(100):
        busy = False
        for sink in SINKS:
            busy = roll(outbox, sink) or busy
            while parcels := outbox.take_parcels(sink, 1000):
                outbox.settle(sink, [parcel.id for parcel in parcels])
                rows[sink] += sum(parcel.rows for parcel in parcels)
        if not outbox.tend() and not busy:
            return rows
    raise AssertionError("it never ends")


@pytest.fixture(scope="module")
def sound(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A closed outbox that has pages of every kind."""
    folder = tmp_path_factory.mktemp("sound") / "o"
    outbox = opened(folder)
    for number in range(BATCHES):
        commit(outbox, number)
        if number == BATCHES - 1:
            roll(outbox, "lake", 5_000)
            parcels = outbox.take_parcels("lake", 3)
            outbox.settle("lake", [parcels[0].id], {parcels[1].id: "too large"})
    outbox.close()
    (folder / "reserve").unlink()
    return folder


@pytest.fixture
def memory() -> Iterator[Path]:
    """A folder that costs no disk."""
    with tempfile.TemporaryDirectory(dir=scratch()) as name:
        yield Path(name)


def kinds_of_pages(file: Path) -> dict[str, int]:
    """One page of every kind: of each table and index its root, leaves and overflow, and others."""
    db = sqlite3.connect(file)
    query = "SELECT name || ' ' || pagetype, max(pageno) FROM dbstat GROUP BY 1"
    found = dict(db.execute(query).fetchall())
    size = db.execute("PRAGMA page_size").fetchone()[0]
    db.close()
    content = file.read_bytes()
    trunk = int.from_bytes(content[32:36])
    assert trunk, "there is a free page"
    first_free = (trunk - 1) * size
    leaves = int.from_bytes(content[first_free + 4 : first_free + 8])
    assert leaves, "and more than one"
    free_leaf = int.from_bytes(content[first_free + 8 : first_free + 12])
    return {**found, "header": 1, "pointer map": 2, "trunk": trunk, "free leaf": free_leaf}


# Flags, first free block, cells, start of content, right child and cell pointers of a page, then
# some of its content. Of page 1 the fields of the file's header.
PLACES = (0, 1, 3, 4, 5, 6, 8, 9, 11, 15, 18, 28, 31, 35, 39, 43, 47, 52, 55, 59, 63, 70)
CONTENT = (100, 103, 108, 900, 1500, 2000, 2030, 2047)


def flip(file: Path, at: int, bit: int) -> None:
    with file.open("r+b") as handle:
        handle.seek(at)
        (byte,) = handle.read(1)
        handle.seek(at)
        handle.write(bytes([byte ^ 1 << bit]))


def test_a_flipped_bit_in_any_kind_of_page_stops_no_start_and_loses_nothing_in_silence(
    sound: Path, memory: Path, caplog: pytest.LogCaptureFixture
) -> None:
    size = 2048
    kinds = kinds_of_pages(sound / "outbox.sqlite")
    assert len(kinds) > 24
    faults = []
    for turn, (kind, page) in enumerate(sorted(kinds.items())):
        places = (*PLACES, *CONTENT) if kind == "header" else (*PLACES[:9], *CONTENT)
        for place in places[turn % 3 :: 3]:
            folder = memory / "o"
            shutil.copytree(sound, folder)
            flip(folder / "outbox.sqlite", (page - 1) * size + place, (place + turn) % 8)
            caplog.clear()
            faults += [f"{kind} {place}: {fault}" for fault in faults_of(folder, caplog)]
            shutil.rmtree(folder)
    assert not faults, "\n".join(faults)


def faults_of(folder: Path, caplog: pytest.LogCaptureFixture) -> Iterator[str]:
    """What is wrong after a start on this, and a drain to the end."""
    before = said_by(folder)
    try:
        outbox = opened(folder)
        outbox.restore()
        rows = drain(outbox)
        status = outbox.status()
        commit(outbox, 1)
        outbox.close()
    except (Exception, AssertionError) as error:
        yield repr(error)
        return
    if status["imbalances"] and not (before and "the ledger is damaged" in caplog.text):
        yield f"does not balance, and nobody says so: {status['imbalances']}"
    for sink, there in WAITING.items():
        counts = status["ledger"].get(f"sink:{sink}", {})
        lost = counts.get("damaged", 0)
        if rows[sink] + lost < there:
            yield f"{sink}: {there} rows, {rows[sink]} delivered, {lost} said to be lost"
        if status["sinks"][sink]["buffered_rows"] or lost < 0:
            yield f"{sink}: {status['sinks'][sink]}, {counts}"


def said_by(folder: Path) -> list[str]:
    """What `edge outbox verify` says."""
    try:
        faults: list[str] = verify(folder)["faults"]
    except (EdgeError, sqlite3.Error) as error:
        return [str(error)]
    return faults


def test_a_damaged_parcel_is_named_by_verify_and_costs_its_rows(
    sound: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    folder = tmp_path / "o"
    shutil.copytree(sound, folder)
    file = folder / "outbox.sqlite"
    flip(file, (kinds_of_pages(file)["entry overflow"] - 1) * 2048 + 900, 3)
    (said,) = said_by(folder)
    assert said.endswith("does not match its checksum")
    outbox = opened(folder)
    rows = drain(outbox)
    ledger = outbox.status()["ledger"]
    outbox.close()
    damaged = [ledger[f"sink:{sink}"].get("damaged", 0) for sink in SINKS]
    assert sorted(damaged) == [0, ROWS]
    assert sum(rows.values()) == sum(WAITING.values()) - ROWS
    (loss,) = [loss for loss in books(folder)["losses"] if loss["kind"] == "damaged"]
    assert loss["reason"] == "the checksum does not match"


# -- the WAL


DIE = """
import os, sys
from pathlib import Path
from tests.faults.test_damage import commit, opened
outbox = opened(Path(sys.argv[1]))
for number in range(int(sys.argv[2])):
    commit(outbox, number)
os._exit(0)
"""


def die(folder: Path, commits: int) -> None:
    """A processor that is killed behind its commits: they are in the WAL."""
    command = [sys.executable, "-c", DIE, str(folder), str(commits)]
    subprocess.run(command, check=True, cwd=Path(__file__).parents[2])


@pytest.mark.parametrize(("place", "lost"), [("header", 10), ("middle", 10), ("shm", 0)])
def test_commits_that_a_damaged_wal_lost_are_in_the_ledger(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, place: str, lost: int
) -> None:
    folder = tmp_path / "o"
    opened(folder).close()
    die(folder, 10)
    wal, shm = folder / "outbox.sqlite-wal", folder / "outbox.sqlite-shm"
    file, at = {
        "header": (wal, 9),
        "middle": (wal, 32 + 24 + 100),
        "shm": (shm, 50),
    }[place]
    flip(file, at, 2)
    outbox = opened(folder)
    ledger = outbox.status()["ledger"]
    assert [ledger[f"sink:{sink}"].get("damaged", 0) for sink in SINKS] == [lost * ROWS // 2] * 2
    assert [ledger[f"sink:{sink}"]["appended"] for sink in SINKS] == [5 * ROWS] * 2
    assert outbox.status()["imbalances"] == []
    assert [outbox.next_sequence(sink) for sink in SINKS] == [5 * ROWS + 1] * 2
    outbox.close()
    losses = [loss for loss in books(folder)["losses"] if loss["kind"] == "damaged"]
    assert [(loss["first"], loss["last"]) for loss in losses] == [(1, 25), (1, 25)] * bool(lost)
    assert ("25 rows were acknowledged, but not in the file" in caplog.text) == bool(lost)


# -- copies


def test_an_older_file_put_back_gives_no_number_twice(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    folder = tmp_path / "o"
    outbox = opened(folder)
    commit(outbox, 0)
    outbox.close()
    shutil.copy(folder / "outbox.sqlite", tmp_path / "old")
    outbox = opened(folder)
    commit(outbox, 2)
    commit(outbox, 4)
    following = outbox.next_sequence("lake")
    outbox.close()
    shutil.copy(tmp_path / "old", folder / "outbox.sqlite")
    outbox = opened(folder)
    assert outbox.next_sequence("lake") == following
    assert outbox.status()["ledger"]["sink:lake"]["damaged"] == 2 * ROWS
    assert outbox.status()["imbalances"] == []
    assert "or an older copy put back" in caplog.text
    outbox.close()


def test_a_folder_put_back_or_copied_gives_new_rows_numbers_of_their_own(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    with ext4(tmp_path / "image", tmp_path / "disk") as disk:
        folder = disk / "o"
        outbox = opened(folder)
        commit(outbox, 0)
        outbox.close()
        shutil.copytree(folder, tmp_path / "backup")
        outbox = opened(folder)
        commit(outbox, 2)
        following = outbox.next_sequence("lake")
        outbox.close()
        assert following == 2 * ROWS + 1, "a start on the same file is no copy"
        shutil.rmtree(folder)
        shutil.copytree(tmp_path / "backup", folder)
        outbox = opened(folder)
        assert outbox.next_sequence("lake") >= 2**40
        assert [entry.first for entry in outbox.take_entries("lake", 10**9)] == [1]
        outbox.release_entries("lake", [1])
        assert outbox.status()["imbalances"] == []
        outbox.close()
        assert "the file is a copy" in caplog.text
        assert [loss["kind"] for loss in books(folder)["losses"]].count("copied") == 1
        outbox = opened(folder)
        assert outbox.next_sequence("lake") < 2**57, "it jumps once"
        commit(outbox, 4)
        drain(outbox)
        assert outbox.status()["imbalances"] == []
        outbox.close()


# -- what is set aside, and the cap

CAP = 40 * 2**20


def fill(outbox: Outbox, size: int) -> int:
    """Batches of five rows of `size` random bytes until it is full; how many."""
    for number in range(1000):
        entry = NewEntry("lake", ROWS, size, os.urandom(size))
        read, taken = ("source", "read"), ("source", "taken")
        try:
            outbox.commit(Commit([entry], counts={read: ROWS, taken: ROWS}))
        except OutboxFull:
            return number
    raise AssertionError("it is never full")


def damage_page(file: Path, table: str) -> None:
    """Rubbish in the root page of a table or index."""
    with contextlib.closing(sqlite3.connect(file)) as db:
        where = "SELECT rootpage FROM sqlite_schema WHERE name = ?"
        (page,) = db.execute(where, (table,)).fetchone()
        (size,) = db.execute("PRAGMA page_size").fetchone()
    with file.open("r+b") as content:
        content.seek((page - 1) * size)
        content.write(b"rubbish!" * (size // 8))


def test_a_full_outbox_that_is_damaged_stays_below_its_cap_and_loses_nothing(
    tmp_path: Path,
) -> None:
    folder = tmp_path / "o"
    outbox = opened(folder, CAP)
    batches = fill(outbox, 400_000)
    outbox.close()
    damage_page(folder / "outbox.sqlite", "entry_by_sink")
    outbox = opened(folder, CAP)
    while outbox.tend():
        assert disk_use(folder) <= CAP
    assert 0 < outbox._file.buffers["lake"].rescue_rows < batches * ROWS, "some do not fit yet"
    assert fill(outbox, 400_000) == 0, "intake waits"
    rows = 0
    while outbox.depth("lake").rows:
        roll(outbox, "lake", 400_000)
        for parcel in outbox.take_parcels("lake", 1):
            outbox.settle("lake", [parcel.id])
            rows += parcel.rows
        outbox.tend()
        assert disk_use(folder) <= CAP
    assert rows == batches * ROWS
    assert outbox.status()["imbalances"] == []
    while outbox.tend():
        pass
    assert [*(folder / "aside").iterdir()] == [], "copied to the end, and too large to keep"
    assert fill(outbox, 400_000) >= batches - 1
    outbox.close()


def test_of_damaged_rows_the_newest_are_kept_up_to_an_eighth_of_the_cap(tmp_path: Path) -> None:
    folder = tmp_path / "o"
    outbox = opened(folder, CAP)
    batches = fill(outbox, 400_000)
    outbox.close()
    with contextlib.closing(sqlite3.connect(folder / "outbox.sqlite")) as db, db:
        db.execute("UPDATE entry SET crc = crc + 1 WHERE id % 2 = 0")
    outbox = opened(folder, CAP)
    while roll(outbox, "lake", 400_000):
        assert disk_use(folder) <= CAP
        outbox.settle("lake", [parcel.id for parcel in outbox.take_parcels("lake", 9)])
    kept = {path.name: path.stat().st_size for path in (folder / "aside").iterdir()}
    assert len(kept) == CAP // 8 // 400_000
    assert "entry-2" not in kept
    assert f"entry-{batches // 2 * 2}" in kept
    ledger = outbox.status()["ledger"]["sink:lake"]
    assert ledger["damaged"] == batches // 2 * ROWS
    assert outbox.status()["imbalances"] == []
    outbox.close()


# -- versions


def test_a_newer_schema_is_refused_and_the_file_left_alone(sound: Path, tmp_path: Path) -> None:
    folder = tmp_path / "o"
    shutil.copytree(sound, folder)
    with sqlite3.connect(folder / "outbox.sqlite") as db:
        db.execute(f"PRAGMA user_version = {VERSION + 1}")
        db.execute("ALTER TABLE entry ADD COLUMN later")
    db.close()
    before = (folder / "outbox.sqlite").read_bytes()
    with pytest.raises(DefinitionError, match=f"by a newer version, got schema {VERSION + 1}"):
        opened(folder)
    assert (folder / "outbox.sqlite").read_bytes() == before


@pytest.mark.parametrize("bit", range(8))
def test_a_flipped_bit_is_not_taken_for_another_version(
    sound: Path, tmp_path: Path, bit: int
) -> None:
    folder = tmp_path / "o"
    shutil.copytree(sound, folder)
    flip(folder / "outbox.sqlite", 63, bit)
    outbox = opened(folder)
    assert sum(drain(outbox).values()) == sum(WAITING.values())
    outbox.close()


@pytest.mark.parametrize("share", [0.0, 0.001, 0.3, 0.9])
def test_a_file_cut_short_costs_what_lay_beyond(sound: Path, tmp_path: Path, share: float) -> None:
    folder = tmp_path / "o"
    shutil.copytree(sound, folder)
    file = folder / "outbox.sqlite"
    os.truncate(file, round(file.stat().st_size * share))
    outbox = opened(folder)
    rows = drain(outbox)
    status = outbox.status()
    outbox.close()
    assert status["imbalances"] == []
    for sink, there in WAITING.items():
        damaged = status["ledger"].get(f"sink:{sink}", {}).get("damaged", 0)
        assert rows[sink] + damaged in (there, 0), "0: not even the ledger was left to compare"


@pytest.fixture(autouse=True)
def _errors_are_seen(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.WARNING, "edge")
