import json
import sqlite3
from contextlib import closing
from pathlib import Path

import pytest

from edge.codec import compress
from edge.errors import DefinitionError, EdgeError
from edge.outbox import Commit, Loss, NewEntry, Outbox, Parcel, Reject, inspection
from edge.outbox.packed import PACKED
from edge.outbox.request import carry_out
from tests.outbox.conftest import HandClock


@pytest.fixture
def used(outbox: Outbox) -> Outbox:
    """Two parcels (one refused) and one entry for `lake`, one rejected payload."""
    for _ in range(3):
        outbox.commit(
            Commit(
                [NewEntry("lake", 2, 10, b"body")],
                counts={("source", "read"): 2, ("source", "taken"): 2},
            )
        )
    rejects = [Reject("not JSON", b"\xff{", "plant/a")]
    counts = {("source", "read"): 1, ("source", "rejected"): 1}
    outbox.commit(Commit(counts=counts, rejects=rejects))
    entries = outbox.take_entries("lake", 20)
    parcels = [Parcel(f"a/b={e.first}", e.first, e.first + 1, 2, b"parcel") for e in entries]
    outbox.roll("lake", entries, parcels)
    outbox.settle("lake", [], {outbox.take_parcels("lake", 1)[0].id: "no access"})
    return outbox


def test_the_status_is_the_same_from_inside_and_outside(
    used: Outbox, folder: Path, clock: HandClock
) -> None:
    clock.pass_seconds(90)
    status = inspection.status(folder, clock.now())
    assert status == used.status()
    assert status["sinks"]["lake"]["oldest_seconds"] == 90
    assert (status["rows_read"], status["rows_rejected"]) == (7, 1)
    assert json.loads(json.dumps(status)) == status


def test_the_age_of_the_row_that_was_read_last_is_told(
    outbox: Outbox, folder: Path, clock: HandClock
) -> None:
    assert inspection.status(folder, clock.now())["last_read_seconds"] is None
    read = {("source", "read"): 2, ("source", "taken"): 2}
    outbox.commit(Commit([NewEntry("lake", 2, 10, b"body")], counts=read))
    clock.pass_seconds(60)
    outbox.commit(Commit([NewEntry("lake", 1, 10, b"body")]))  # a window that closed: nothing came
    clock.pass_seconds(30)
    assert inspection.status(folder, clock.now())["last_read_seconds"] == 90


def test_it_can_be_looked_at_while_stopped(used: Outbox, folder: Path, clock: HandClock) -> None:
    used.close()
    assert inspection.status(folder, clock.now())["sinks"]["lake"]["buffered_rows"] == 4


def test_parcels_entries_rejects_and_losses_are_listed(used: Outbox, folder: Path) -> None:
    first, second = inspection.parcels(folder, "lake")
    assert (first["state"], first["reason"], second["state"]) == ("refused", "no access", "waiting")
    assert inspection.parcels(folder, "alarms") == []
    assert [entry["first"] for entry in inspection.entries(folder)] == [5]
    assert inspection.rejects(folder)[0]["payload"] == b"\xff{"
    losses = inspection.books(folder)["losses"]
    assert {(loss["kind"], loss["rows"]) for loss in losses} == {("rejected", 1), ("refused", 2)}


def test_verify_finds_what_does_not_match(used: Outbox, folder: Path) -> None:
    assert inspection.verify(folder) == {"entries": 1, "parcels": 2, "faults": []}
    used.close()
    with sqlite3.connect(folder / "outbox.sqlite") as db:
        db.execute("UPDATE entry SET body = 'other'")
        db.execute("UPDATE sink SET parcel_rows = 9 WHERE name = 'lake'")
    db.close()
    faults = inspection.verify(folder)["faults"]
    assert faults[0] == "sink 'lake': entry 3 does not match its checksum"
    assert faults[1].startswith("sink:lake: appended 6 + summaries 0 is not ")
    assert len(faults) == 3


def test_everything_that_waits_can_be_exported(used: Outbox, folder: Path, tmp_path: Path) -> None:
    target = tmp_path / "out"
    assert inspection.export(folder, target) == {"entries": 1, "parcels": 2, "rejected": 1}
    files = sorted(str(p.relative_to(target)) for p in target.rglob("*") if p.is_file())
    assert files == [
        "lake/entry-5-6.arrow",
        "lake/parcel-1-b=1",
        "lake/parcel-2-b=3",
        "rejected.ndjson",
    ]


def test_a_packed_parcel_is_exported_as_it_would_be_sent(
    outbox: Outbox, folder: Path, tmp_path: Path
) -> None:
    outbox.commit(Commit([NewEntry("lake", 2, 10, b"body")]))
    entries = outbox.take_entries("lake", 10)
    packed = compress(b"plain text", "zstd")
    outbox.roll("lake", entries, [Parcel("a/b", 1, 2, 2, packed, PACKED)])
    inspection.export(folder, tmp_path / "sound")
    assert (tmp_path / "sound/lake/parcel-1-b").read_bytes() == b"plain text"
    outbox.close()
    with sqlite3.connect(folder / "outbox.sqlite") as db:
        db.execute("UPDATE parcel SET body = x'28b52f'")
    db.close()
    inspection.export(folder, tmp_path / "damaged")
    assert (tmp_path / "damaged/lake/parcel-1-b").read_bytes() == b"\x28\xb5\x2f"


def test_a_running_processor_carries_out_requests(used: Outbox, folder: Path) -> None:
    request = carry_out(folder, "retry", "lake")
    assert isinstance(request, str)
    assert inspection.answer(folder, int(request)) is None
    used.tend()
    assert inspection.answer(folder, int(request)) == "1 parcels"
    assert used.depth("lake").rows == 6


def test_a_stopped_outbox_is_changed_by_the_command_itself(used: Outbox, folder: Path) -> None:
    used.close()
    assert carry_out(folder, "retry", "lake", [99]) == 0
    assert carry_out(folder, "retry", "lake") == 1
    assert carry_out(folder, "drop", "lake") == 3
    books = inspection.books(folder)
    assert books["imbalances"] == []
    assert books["ledger"]["sink:lake"]["dropped"] == 6
    with pytest.raises(DefinitionError, match="has no sink 'lak'; known are alarms, lake"):
        carry_out(folder, "drop", "lak")


def test_an_outbox_that_is_just_being_made_is_not_taken_for_a_damaged_one(tmp_path: Path) -> None:
    with closing(sqlite3.connect(tmp_path / "outbox.sqlite")) as db:
        db.execute("PRAGMA journal_mode=WAL")  # as a new file is before its tables come
        with pytest.raises(DefinitionError, match="is being made; look again in a moment"):
            inspection.status(tmp_path, 0)


def test_no_outbox_and_a_damaged_one_say_what_to_do(tmp_path: Path) -> None:
    with pytest.raises(DefinitionError, match="there is none; has the pipeline run here"):
        inspection.status(tmp_path, 0)
    (tmp_path / "outbox.sqlite").write_bytes(b"garbage" * 1000)
    with pytest.raises(EdgeError, match="`edge run` sets it aside"):
        inspection.status(tmp_path, 0)


def test_losses_of_a_commit_are_listed(outbox: Outbox, folder: Path) -> None:
    outbox.commit(Commit(losses=[Loss("lake/window", "late", 3, 30, "behind the watermark", 5, 9)]))
    loss = inspection.books(folder)["losses"][0]
    assert (loss["part"], loss["rows"], loss["first"], loss["last"]) == ("lake/window", 3, 5, 9)
