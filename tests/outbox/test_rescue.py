import random
import shutil
import sqlite3
from collections.abc import Callable
from pathlib import Path

import pytest

from edge.errors import DefinitionError
from edge.outbox import Commit, NewEntry, Outbox, Parcel, Remembered
from edge.outbox.schema import PAGE_SIZE
from tests.outbox.conftest import OpenOutbox

ENTRIES = 60


def fill(outbox: Outbox) -> None:
    """Ten rolled and twenty waiting batches for `lake`, thirty for `alarms`, with memory."""
    chance = random.Random(1)
    for number in range(ENTRIES):
        sink = "lake" if number < 30 else "alarms"
        body = chance.randbytes(chance.choice([300, 3_000, 9_000]))
        counts = {("source", "read"): 5, ("source", "taken"): 5}
        memory = [Remembered("common/dedupe", "s", number == 0, b"state %d" % number)]
        entries = [NewEntry(sink, 5, 500, body)]
        outbox.commit(Commit(entries, b"at %d" % number, memory, counts))
    entries = outbox.take_entries("lake", 5000)
    parcels = [Parcel(f"k/{outbox.id}-{e.first}", e.first, e.first + 4, 5, e.body) for e in entries]
    outbox.roll("lake", entries, parcels)


@pytest.fixture(scope="module")
def sound(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A closed, sound outbox to copy from."""
    from edge.outbox import Limits, SinkLimits
    from tests.outbox.conftest import HandClock

    folder = tmp_path_factory.mktemp("sound") / "o"
    outbox = Outbox(
        folder,
        limits=Limits(64 * 2**20),
        sinks={"lake": SinkLimits(), "alarms": SinkLimits()},
        clock=HandClock(),
    )
    outbox.open(0)
    fill(outbox)
    outbox.close()
    (folder / "reserve").unlink()
    return folder


def settle_everything(outbox: Outbox) -> int:
    """Rescue, roll and deliver until nothing is left; gives the rows delivered."""
    rows = 0
    while True:
        while outbox.rescue_step():
            pass
        done = settle_once(outbox, "lake") + settle_once(outbox, "alarms")
        if not done and not outbox.rescue_step():
            return rows
        rows += done


def settle_once(outbox: Outbox, sink: str) -> int:
    while entries := outbox.take_entries(sink, 10**9):
        parcels = [Parcel(f"{e.id}", e.first, e.first, e.rows, e.body) for e in entries]
        outbox.roll(sink, entries, parcels)
    rows = 0
    while parcels := outbox.take_parcels(sink, 1000):
        outbox.settle(sink, [parcel.id for parcel in parcels])
        rows += sum(parcel.rows for parcel in parcels)
    return rows


def zero_length(file: Path, _: random.Random) -> None:
    file.write_bytes(b"")


def garbage(file: Path, chance: random.Random) -> None:
    file.write_bytes(chance.randbytes(200_000))


def cut(file: Path, chance: random.Random) -> None:
    content = file.read_bytes()
    file.write_bytes(content[: chance.randrange(len(content))])


def blank_page(file: Path, chance: random.Random) -> None:
    content = bytearray(file.read_bytes())
    start = chance.randrange(len(content) // PAGE_SIZE) * PAGE_SIZE
    content[start : start + PAGE_SIZE] = bytes(PAGE_SIZE)
    file.write_bytes(content)


def flip(file: Path, chance: random.Random) -> None:
    content = bytearray(file.read_bytes())
    page = chance.randrange(len(content) // PAGE_SIZE) * PAGE_SIZE
    # Headers and cell pointers lie at the start of a page: that is where it hurts.
    for _ in range(chance.choice([1, 1, 5])):
        content[page + chance.randrange(chance.choice([16, 120, PAGE_SIZE]))] ^= chance.randrange(
            1, 256
        )
    file.write_bytes(content)


@pytest.mark.parametrize("damage", [zero_length, garbage, cut, blank_page, flip])
def test_whatever_the_file_holds_it_opens_and_works(
    sound: Path,
    tmp_path: Path,
    open_outbox: OpenOutbox,
    damage: Callable[[Path, random.Random], None],
) -> None:
    times = {zero_length: 1, garbage: 3, cut: 25, blank_page: 40, flip: 80}[damage]
    for seed in range(times):
        folder = tmp_path / f"{seed}"
        shutil.copytree(sound, folder)
        damage(folder / "outbox.sqlite", random.Random(seed))
        outbox = open_outbox(folder)
        outbox.restore()
        for sink in ("lake", "alarms"):
            counts = {("source", "read"): 1, ("source", "taken"): 1}
            outbox.commit(Commit([NewEntry(sink, 1, 10, b"new row")], counts=counts))
        delivered = settle_everything(outbox)
        assert delivered >= 2
        assert outbox.depth("lake").rows == outbox.depth("alarms").rows == 0, seed
        outbox.close()
        shutil.rmtree(folder)


def test_a_lost_page_costs_its_rows_and_no_others(
    sound: Path, tmp_path: Path, open_outbox: OpenOutbox
) -> None:
    """Over all pages: most leave nearly everything, and the ledger says exactly what is gone."""
    pages = (sound / "outbox.sqlite").stat().st_size // PAGE_SIZE
    lost = []
    for page in range(pages):
        folder = tmp_path / f"{page}"
        shutil.copytree(sound, folder)
        with (folder / "outbox.sqlite").open("r+b") as file:
            file.seek(page * PAGE_SIZE)
            file.write(b"\xff" * PAGE_SIZE)
        outbox = open_outbox(folder)
        delivered = settle_everything(outbox)
        status = outbox.status()
        assert status["imbalances"] == [], page
        damaged = sum(part.get("damaged", 0) for part in status["ledger"].values())
        if "sink:lake" in status["ledger"]:
            assert delivered + damaged == ENTRIES * 5, page
        lost.append(ENTRIES * 5 - delivered)
        outbox.close()
        shutil.rmtree(folder)
    assert sorted(lost)[len(lost) // 2] <= 5  # one batch
    assert sum(rows > 50 for rows in lost) <= 6  # the root pages


def test_damage_seen_while_running_is_rescued_in_flight(
    open_outbox: OpenOutbox, folder: Path
) -> None:
    outbox = open_outbox()
    fill(outbox)
    flying = outbox.take_parcels("lake", 4)
    held = outbox.take_entries("lake", 1500)
    before = outbox.id
    outbox._file.set_aside(sqlite3.DatabaseError("as if a page were damaged"))
    assert outbox.id != before
    assert outbox.restore().position == b"at 59"
    assert outbox.wants_whole("common/dedupe")
    # What was under way when it happened is settled, although nothing is copied yet.
    outbox.settle("lake", [parcel.id for parcel in flying])
    one = Parcel("k", held[0].first, held[-1].first + 4, 5 * len(held), b"all")
    outbox.roll("lake", held, [one])
    assert outbox.status()["imbalances"] == []
    assert settle_everything(outbox) == (ENTRIES - 4) * 5
    status = outbox.status()
    assert status["imbalances"] == []
    assert status["ledger"]["sink:lake"] == {"appended": 150, "delivered": 150, "buffered": 0}
    assert not status["ledger"]["sink:alarms"].get("damaged")


def test_a_rescue_goes_on_after_a_restart(open_outbox: OpenOutbox) -> None:
    outbox = open_outbox()
    fill(outbox)
    for _ in range(500):
        outbox.commit(Commit([NewEntry("lake", 1, 10, b"x")]))
    outbox._file.set_aside(sqlite3.DatabaseError("as if"))
    outbox.rescue_step()
    outbox.close()
    again = open_outbox()
    assert again.depth("lake").rows == 150 + 500
    assert settle_everything(again) == ENTRIES * 5 + 500
    assert again.status()["imbalances"] == []


def test_a_wrong_checksum_costs_one_parcel(open_outbox: OpenOutbox, folder: Path) -> None:
    outbox = open_outbox()
    fill(outbox)
    outbox.close()
    with sqlite3.connect(folder / "outbox.sqlite") as db:
        db.execute("UPDATE parcel SET body = 'changed' WHERE id = 3")
        db.execute("UPDATE entry SET rows = 6 WHERE id = 40")
    db.close()
    again = open_outbox()
    assert settle_everything(again) == ENTRIES * 5 - 10
    status = again.status()
    assert status["ledger"]["sink:lake"]["damaged"] == 5
    assert status["imbalances"] == []
    assert (folder / "aside" / "parcel-3").read_bytes() == b"changed"


def test_a_file_of_a_newer_version_is_left_alone(open_outbox: OpenOutbox, folder: Path) -> None:
    outbox = open_outbox()
    outbox.close()
    with sqlite3.connect(folder / "outbox.sqlite") as db:
        db.execute("PRAGMA user_version = 99")
        db.execute("CREATE TABLE later (value)")
    db.close()
    content = (folder / "outbox.sqlite").read_bytes()
    with pytest.raises(DefinitionError, match="was written by a newer version, got schema 99"):
        open_outbox()
    assert (folder / "outbox.sqlite").read_bytes() == content


def test_a_lost_first_page_costs_nothing(
    sound: Path, tmp_path: Path, open_outbox: OpenOutbox
) -> None:
    folder = tmp_path / "o"
    shutil.copytree(sound, folder)
    with (folder / "outbox.sqlite").open("r+b") as file:
        file.write(random.Random(1).randbytes(PAGE_SIZE))
    outbox = open_outbox(folder)
    assert outbox.restore().position == b"at 59"
    assert settle_everything(outbox) == ENTRIES * 5
    assert outbox.status()["imbalances"] == []
