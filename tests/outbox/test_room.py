import os
import random
import resource
import sqlite3
import subprocess
from collections.abc import Iterator
from contextlib import suppress
from datetime import timedelta
from pathlib import Path

import pytest

from edge.errors import DefinitionError, OutboxFull
from edge.outbox import Commit, Limits, NewEntry, Outbox, Parcel, Refusal, Remembered, SinkLimits
from tests.outbox.conftest import HandClock, OpenOutbox

MIB = 2**20
SMALLEST = Limits(32 * MIB)


def rows(size: int, sink: str = "lake", number: int = 10) -> Commit:
    counts = {("source", "read"): number, ("source", "taken"): number}
    return Commit([NewEntry(sink, number, size, os.urandom(size))], counts=counts)


def fill(outbox: Outbox, sink: str = "lake", size: int = 500_000) -> int:
    """Commit until it is full; gives how many got in."""
    for number in range(1000):
        try:
            outbox.commit(rows(size, sink))
        except OutboxFull:
            return number
    raise AssertionError("never full")


def disk_use(folder: Path) -> int:
    return sum(path.stat().st_size for path in folder.rglob("*") if path.is_file())


def roll_all(outbox: Outbox, sink: str, size: int, times: int = 1) -> None:
    """As much as there is room for; times: so much larger are parcels than entries."""
    while entries := outbox.take_entries(sink, size):
        parcels = [
            Parcel(f"{e.id}", e.first, e.first + e.rows - 1, e.rows, times * e.body)
            for e in entries
        ]
        try:
            outbox.roll(sink, entries, parcels)
        except OutboxFull:
            outbox.release_entries(sink, [entry.id for entry in entries])
            return


def drain(outbox: Outbox, sink: str) -> int:
    """Roll and deliver everything; gives the rows delivered."""
    delivered = 0
    while True:
        roll_all(outbox, sink, 4 * MIB)
        parcels = outbox.take_parcels(sink, 100)
        if not parcels:
            return delivered
        outbox.settle(sink, [parcel.id for parcel in parcels])
        delivered += sum(parcel.rows for parcel in parcels)


def test_a_cap_below_32_mib_is_refused(open_outbox: OpenOutbox) -> None:
    with pytest.raises(DefinitionError, match=r"at least 32\.0 MiB, got 31\.0 MiB"):
        open_outbox(limits=Limits(31 * MIB))


def test_a_full_outbox_blocks_intake_and_goes_on_after_a_delivery(
    open_outbox: OpenOutbox, clock: HandClock
) -> None:
    outbox = open_outbox(limits=SMALLEST)
    outbox.commit(rows(10))
    clock.pass_seconds(3 * 86_400 + 4 * 3_600)
    accepted = fill(outbox) + 1
    with pytest.raises(
        OutboxFull, match=r"oldest 3 d 4 h; intake waits until sink 'lake' delivers"
    ):
        outbox.commit(rows(500_000))
    outbox.commit(rows(10)._replace(entries=[], memory=[Remembered("a", "s", True, b"x")]))
    assert outbox.status()["ledger"]["sink:lake"]["appended"] == accepted * 10
    assert drain(outbox, "lake") == accepted * 10
    outbox.commit(rows(500_000))
    assert outbox.status()["imbalances"] == []


def test_drop_oldest_makes_room_from_the_lowest_priority(open_outbox: OpenOutbox) -> None:
    sinks = {"lake": SinkLimits("low"), "alarms": SinkLimits("high")}
    outbox = open_outbox(limits=Limits(32 * MIB, "drop_oldest"), sinks=sinks)
    for _ in range(5):
        outbox.commit(rows(500_000, "alarms"))
    for _ in range(60):
        outbox.commit(rows(500_000, "lake"))
    ledger = outbox.status()["ledger"]
    assert ledger["sink:alarms"] == {"appended": 50, "buffered": 50}
    assert ledger["sink:lake"]["dropped"] > 300
    assert outbox.status()["imbalances"] == []
    left = outbox.take_entries("lake", 10**9)
    assert left[-1].first == 591
    assert left[0].first == ledger["sink:lake"]["dropped"] + 1


def test_rows_in_flight_are_never_dropped(open_outbox: OpenOutbox) -> None:
    outbox = open_outbox(limits=Limits(32 * MIB, "drop_oldest"))
    outbox.commit(rows(500_000))
    outbox.commit(rows(500_000))
    held = outbox.take_entries("lake", 1)
    outbox.roll("lake", held, [Parcel("k", 1, 10, 10, held[0].body)])
    flying = outbox.take_parcels("lake", 1)
    held = outbox.take_entries("lake", 1)
    for _ in range(60):
        outbox.commit(rows(500_000))
    outbox.roll("lake", held, [Parcel("l", 11, 20, 10, held[0].body)])
    outbox.settle("lake", [flying[0].id])
    assert outbox.status()["imbalances"] == []
    assert outbox.status()["ledger"]["sink:lake"]["delivered"] == 10


def test_drop_newest_keeps_what_is_there_and_the_position(open_outbox: OpenOutbox) -> None:
    outbox = open_outbox(limits=Limits(32 * MIB, "drop_newest"))
    for number in range(60):
        outbox.commit(rows(500_000)._replace(position=b"%d" % number))
    assert outbox.restore().position == b"59"
    lake = outbox.status()["ledger"]["sink:lake"]
    assert lake["appended"] == 600
    assert lake["dropped"] == 600 - lake["buffered"] > 0
    assert outbox.take_entries("lake", 1)[0].first == 1
    assert outbox.status()["imbalances"] == []


@pytest.mark.parametrize("policy", ["block", "drop_oldest", "drop_newest"])
def test_a_sink_keeps_to_its_own_share(open_outbox: OpenOutbox, policy: str) -> None:
    share = SinkLimits(max_size=2 * MIB, when_full=policy)  # type: ignore[arg-type]
    outbox = open_outbox(sinks={"lake": share, "alarms": SinkLimits()})
    for number in range(8):
        try:
            outbox.commit(rows(500_000, "lake"))
        except OutboxFull:
            assert (policy, number) == ("block", 4)
            break
    assert outbox.depth("lake").bytes == 2_000_000
    outbox.commit(rows(500_000, "alarms"))
    assert outbox.status()["imbalances"] == []


def test_a_commit_that_was_written_is_never_said_to_have_failed(
    open_outbox: OpenOutbox, folder: Path
) -> None:
    outbox = open_outbox()
    outbox.commit(rows(5 * MIB))
    outbox._file._empty_wal()
    outbox._file.room.give_up_reserve()
    most = (folder / "outbox.sqlite").stat().st_size
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (most, hard))  # the WAL may grow, the file may not
    try:
        outbox.commit(rows(200_000))
        entries = outbox.take_entries("lake", 1)
        outbox.roll("lake", entries, [Parcel("a", 1, 10, 10, bytes(1000))])
        outbox.settle("lake", [parcel.id for parcel in outbox.take_parcels("lake", 1)])
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    assert drain(outbox, "lake") == 10
    assert outbox.status()["imbalances"] == []


def test_a_batch_larger_than_a_share_does_not_block_for_ever(open_outbox: OpenOutbox) -> None:
    outbox = open_outbox(sinks={"lake": SinkLimits(max_size=2 * MIB, when_full="block")})
    outbox.commit(rows(3 * MIB))
    with pytest.raises(OutboxFull):
        outbox.commit(rows(1))
    assert drain(outbox, "lake") == 10
    outbox.commit(rows(3 * MIB))


def test_an_empty_outbox_turns_away_what_it_can_never_take(open_outbox: OpenOutbox) -> None:
    outbox = open_outbox(limits=SMALLEST)
    [small] = rows(1000).entries
    outbox.commit(Commit([*rows(8 * MIB).entries, small]))
    assert outbox.status()["ledger"]["sink:lake"]["dropped"] == 10
    assert drain(outbox, "lake") == 10


def test_quarantined_parcels_give_way_to_new_rows(open_outbox: OpenOutbox) -> None:
    outbox = open_outbox(limits=SMALLEST)
    fill(outbox)
    roll_all(outbox, "lake", 2 * MIB)
    refused = outbox.take_parcels("lake", 1000)
    outbox.settle("lake", [], {parcel.id: "never" for parcel in refused})
    outbox.commit(rows(500_000))
    status = outbox.status()
    assert status["imbalances"] == []
    assert 0 < status["sinks"]["lake"]["quarantined_parcels"] < len(refused)


@pytest.mark.parametrize("policy", ["block", "drop_oldest", "drop_newest"])
def test_a_sink_that_cannot_send_leaves_the_others_a_way_out_of_a_full_outbox(
    open_outbox: OpenOutbox, policy: str
) -> None:
    outbox = open_outbox(limits=Limits(32 * MIB, policy))  # type: ignore[arg-type]
    both = [entry for sink in ("lake", "alarms") for entry in rows(100_000, sink).entries]
    for _ in range(100):
        try:
            outbox.commit(Commit(both))
        except OutboxFull:
            break
    roll_all(outbox, "lake", 300_000, times=4)
    assert outbox.status()["sinks"]["lake"]["parcels"]
    waiting = outbox.depth("alarms").rows
    assert waiting > 100
    assert drain(outbox, "alarms") == waiting
    assert outbox.status()["imbalances"] == []


def test_what_a_destination_refuses_does_not_stop_the_rows_behind_it(
    open_outbox: OpenOutbox,
) -> None:
    outbox = open_outbox(limits=SMALLEST)
    fill(outbox)
    while outbox.depth("lake").rows:
        roll_all(outbox, "lake", MIB, times=4)
        parcels = outbox.take_parcels("lake", 100)
        assert parcels
        outbox.settle("lake", [], {parcel.id: "never" for parcel in parcels})
    assert outbox.status()["imbalances"] == []


def test_memory_that_grows_in_a_full_outbox_leaves_the_way_out_open(
    open_outbox: OpenOutbox,
) -> None:
    outbox = open_outbox(limits=SMALLEST)
    full = fill(outbox)
    with suppress(OutboxFull):
        for number in range(100):
            piece = Remembered("window", "s", number == 0, os.urandom(MIB))
            outbox.commit(Commit(memory=[piece]))
    assert drain(outbox, "lake") == 10 * full


def test_a_full_outbox_rolls_at_once_whatever_its_interval(open_outbox: OpenOutbox) -> None:
    outbox = open_outbox(limits=SMALLEST)

    def due() -> float | None:
        return outbox.seconds_until_due("lake", 2**40, timedelta(hours=1))

    outbox.commit(rows(1000))
    assert due() == 3600
    fill(outbox)
    assert due() == 0
    [entry] = outbox.take_entries("lake", 1)
    outbox.roll("lake", [entry], [Parcel("key", entry.first, entry.first + 9, 10, entry.body)])
    assert due() == 3600  # what is rolled is sent first


@pytest.mark.parametrize("seed", range(6))
def test_the_disk_use_never_passes_the_cap(
    open_outbox: OpenOutbox, folder: Path, seed: int
) -> None:
    chance = random.Random(seed)
    policy = ("block", "drop_oldest", "drop_newest")[seed % 3]
    limits = Limits(32 * MIB if seed < 4 else 40 * MIB, policy)  # type: ignore[arg-type]
    outbox = open_outbox(limits=limits)
    top = 0
    for _ in range(250):
        act_at_random(outbox, chance)
        top = max(top, disk_use(folder))
        assert top <= limits.max_size
    assert top > limits.max_size * 0.75
    assert outbox.status()["imbalances"] == []


def act_at_random(outbox: Outbox, chance: random.Random) -> None:
    """Something that intake or a link does, of a random size."""
    sink = chance.choice(["lake", "alarms"])
    kind = chance.random()
    try:
        if kind < 0.6:
            memory = [Remembered("a", "s", outbox.wants_whole("a"), os.urandom(50_000))]
            size = chance.choice([100, 20_000, 400_000, 1_500_000])
            outbox.commit(rows(size, sink)._replace(memory=memory))
        elif kind < 0.8:
            roll_at_random(outbox, sink, chance)
        elif parcels := outbox.take_parcels(sink, 50, newest=chance.random() < 0.5):
            refused = {p.id: "no" for p in parcels if chance.random() < 0.1}
            outbox.settle(sink, [p.id for p in parcels if p.id not in refused], refused)
        else:
            outbox.tend()
    except OutboxFull:
        pass
    for name in ("lake", "alarms"):
        outbox.release(name, list(outbox._file.buffers[name].flying))


def roll_at_random(outbox: Outbox, sink: str, chance: random.Random) -> None:
    entries = outbox.take_entries(sink, chance.choice([1, MIB, 8 * MIB]))
    if not entries:
        return
    first, total = entries[0].first, sum(entry.rows for entry in entries)
    parcels = [
        Parcel(f"{n}", first, first, 1, os.urandom(chance.choice([50, 3_000, 40_000])))
        for n in range(total - 1)
    ]
    try:
        outbox.roll(sink, entries, parcels, [Refusal(first, first, 1, "too large")])
    finally:
        outbox.release_entries(sink, [entry.id for entry in entries])


def test_a_reader_that_holds_the_wal_fills_the_outbox_but_not_past_the_cap(
    open_outbox: OpenOutbox, folder: Path
) -> None:
    outbox = open_outbox(limits=SMALLEST)
    outbox.commit(rows(1000))
    reader = sqlite3.connect(folder / "outbox.sqlite")
    reader.execute("BEGIN")
    reader.execute("SELECT count(*) FROM entry").fetchone()
    with pytest.raises(OutboxFull):
        churn(outbox, 1000)
    assert disk_use(folder) <= SMALLEST.max_size
    reader.close()
    outbox.commit(rows(100_000))


def churn(outbox: Outbox, times: int) -> None:
    """Rows come and go; little is stored at a time."""
    for _ in range(times):
        outbox.commit(rows(100_000))
        entries = outbox.take_entries("lake", 1)
        outbox.roll("lake", entries, [], [Refusal(1, 1, 10, "no")])


def test_the_file_shrinks_after_a_drain(open_outbox: OpenOutbox, folder: Path) -> None:
    outbox = open_outbox(limits=Limits(96 * MIB))
    for _ in range(60):
        outbox.commit(rows(500_000))
    drain(outbox, "lake")
    file = folder / "outbox.sqlite"
    steps = sum(1 for _ in iter(outbox.tend, False))
    assert 10 < steps < 40  # of a mebibyte each
    outbox.commit(rows(10))
    assert file.stat().st_size + (folder / "outbox.sqlite-wal").stat().st_size < 20 * MIB
    outbox.close()
    assert file.stat().st_size < 9 * MIB


def test_what_a_long_outage_leaves_is_given_back_at_once_when_little_waits(
    open_outbox: OpenOutbox, folder: Path
) -> None:
    """Taking pages out one by one costs the square of their number: minutes after gigabytes."""
    outbox = open_outbox(limits=Limits(512 * MIB))
    file = folder / "outbox.sqlite"
    outbox.commit(rows(12 * MIB, "alarms"))
    for _ in range(100):
        outbox.commit(rows(MIB))
    drain(outbox, "lake")
    assert not outbox.tend()
    assert file.stat().st_size > 100 * MIB
    drain(outbox, "alarms")
    outbox.commit(rows(MIB))
    before = outbox.status()["ledger"]
    assert sum(1 for _ in iter(outbox.tend, False)) == 1
    outbox.commit(rows(10))
    outbox.commit(rows(10))
    outbox.close()
    assert file.stat().st_size < 3 * MIB
    outbox = open_outbox(limits=Limits(512 * MIB))
    assert outbox.status()["ledger"]["source"]["taken"] == before["source"]["taken"] + 20
    assert drain(outbox, "lake") == 30
    assert outbox.status()["imbalances"] == []


def test_what_came_and_went_is_not_written_into_the_file(
    open_outbox: OpenOutbox, folder: Path
) -> None:
    """The WAL is emptied without the pages that are free by then, at work and at the end."""
    outbox = open_outbox(limits=Limits(96 * MIB))
    file, wal = folder / "outbox.sqlite", folder / "outbox.sqlite-wal"
    most = 0
    for _ in range(40):
        churn(outbox, 10)
        most = max(most, wal.stat().st_size)
        outbox.tend()
        assert file.stat().st_size < MIB
    assert most < 6 * MIB
    outbox.commit(rows(4 * MIB))
    drain(outbox, "lake")
    outbox.close()
    assert file.stat().st_size < MIB


def test_the_wal_is_emptied_when_a_delivery_has_left_little_to_move(
    open_outbox: OpenOutbox, folder: Path
) -> None:
    outbox = open_outbox(limits=Limits(96 * MIB))
    file, wal = folder / "outbox.sqlite", folder / "outbox.sqlite-wal"
    for _ in range(30):
        for _ in range(4):
            outbox.commit(rows(250_000))
        drain(outbox, "lake")
        assert file.stat().st_size < MIB
    assert wal.stat().st_size < 6 * MIB


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A real ext4 file system of 48 MiB."""
    if os.geteuid() != 0:
        pytest.skip("needs root to mount a file system")
    image, place = tmp_path / "disk.img", tmp_path / "disk"
    place.mkdir()
    with image.open("wb") as file:
        file.truncate(48 * MIB)
    subprocess.run(["mkfs.ext4", "-q", "-m", "0", image], check=True)
    if subprocess.run(["mount", "-o", "loop", image, place], capture_output=True).returncode:
        pytest.skip("this machine has no loop devices")
    yield place
    subprocess.run(["umount", "-l", place], check=True)


@pytest.mark.parametrize("policy", ["block", "drop_oldest", "drop_newest"])
def test_a_full_disk_is_survived(open_outbox: OpenOutbox, small_disk: Path, policy: str) -> None:
    outbox = open_outbox(small_disk / "o", limits=Limits(256 * MIB, policy))  # type: ignore[arg-type]
    if policy == "block":
        fill(outbox)
    else:
        for _ in range(80):
            outbox.commit(rows(500_000))
    hog = small_disk / "hog"
    fill_disk(hog)
    try:
        outbox.commit(rows(500_000))
    except OutboxFull:
        assert policy == "block"
    rest = drain(outbox, "lake")
    ledger = outbox.status()["ledger"]["sink:lake"]
    assert outbox.status()["imbalances"] == []
    assert ledger["delivered"] == rest > 0
    hog.unlink()
    outbox.commit(rows(500_000))
    outbox.tend()
    assert (small_disk / "o" / "reserve").stat().st_size == 16 * MIB


def fill_disk(file: Path) -> None:
    """Somebody else takes the last byte."""
    with file.open("wb", buffering=0) as hog:
        for size in (MIB, 4096, 512):
            try:
                while True:
                    hog.write(b"x" * size)
            except OSError:
                pass


def test_memory_does_not_grow_with_the_backlog(open_outbox: OpenOutbox) -> None:
    outbox = open_outbox(limits=Limits(256 * MIB))
    for _ in range(20):
        outbox.commit(rows(500_000))
    before = resident()
    for _ in range(180):
        outbox.commit(rows(500_000))
    outbox.take_entries("lake", 1)
    assert resident() - before < 8 * MIB


def resident() -> int:
    return int(Path("/proc/self/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")
