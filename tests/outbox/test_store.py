import asyncio
import sqlite3
import subprocess
from datetime import timedelta

import pytest

from edge.outbox import (
    Commit,
    Loss,
    NewEntry,
    Outbox,
    Parcel,
    Refusal,
    Reject,
    Remembered,
    inspection,
)
from tests.outbox.conftest import HandClock, OpenOutbox

MINUTE = timedelta(minutes=1)


def rows(number: int, sink: str = "lake", size: int = 1000, body: bytes = b"body") -> Commit:
    counts = {("source", "read"): number, ("source", "taken"): number}
    return Commit([NewEntry(sink, number, size, body)], counts=counts)


def roll(outbox: Outbox, sink: str = "lake", size: int = 10**9) -> list[Parcel]:
    """Roll what waits into one parcel per entry."""
    entries = outbox.take_entries(sink, size)
    parcels = [
        Parcel(
            f"site/p/{sink}/{outbox.id}-{e.first}", e.first, e.first + e.rows - 1, e.rows, e.body
        )
        for e in entries
    ]
    outbox.roll(sink, entries, parcels)
    return parcels


def balanced(outbox: Outbox) -> dict[str, dict[str, int]]:
    status = outbox.status()
    assert status["imbalances"] == []
    ledger: dict[str, dict[str, int]] = status["ledger"]
    return ledger


def test_a_commit_is_there_after_a_restart(open_outbox: OpenOutbox) -> None:
    outbox = open_outbox()
    outbox.commit(rows(3)._replace(position=b"at 3", memory=[Remembered("a", "s", True, b"m")]))
    first = outbox.id
    outbox.close()
    again = open_outbox()
    assert again.id == first
    restored = again.restore()
    assert restored.position == b"at 3"
    assert restored.memory["a"] == ("s", [b"m"])
    assert [e.rows for e in again.take_entries("lake", 1)] == [3]


def test_every_row_of_a_sink_gets_one_sequence_number(outbox: Outbox) -> None:
    for number in (3, 4, 5):
        outbox.commit(rows(number))
    outbox.commit(rows(2, "alarms"))
    assert [(e.first, e.rows) for e in outbox.take_entries("lake", 10**6)] == [
        (1, 3),
        (4, 4),
        (8, 5),
    ]
    assert [e.first for e in outbox.take_entries("alarms", 1)] == [1]
    assert outbox.next_sequence("lake") == 13


def test_entries_are_taken_oldest_first_up_to_the_size(outbox: Outbox) -> None:
    for _ in range(5):
        outbox.commit(rows(10))
    assert [e.first for e in outbox.take_entries("lake", 2500)] == [1, 11]
    assert [e.first for e in outbox.take_entries("lake", 1)] == [21]
    outbox.release_entries("lake", [1])
    outbox.release_entries("lake", [2, 3])
    assert [e.first for e in outbox.take_entries("lake", 10**6)] == [1, 11, 21, 31, 41]
    assert outbox.take_entries("lake", 10**6) == []


def test_rolling_is_due_by_size_or_by_age(outbox: Outbox, clock: HandClock) -> None:
    assert outbox.seconds_until_due("lake", 3000, MINUTE) is None
    outbox.commit(rows(1))
    clock.pass_seconds(20)
    outbox.commit(rows(1))
    assert outbox.seconds_until_due("lake", 3000, MINUTE) == 40
    outbox.commit(rows(1))
    assert outbox.seconds_until_due("lake", 3000, MINUTE) == 0
    outbox.take_entries("lake", 1000)
    assert outbox.seconds_until_due("lake", 3000, MINUTE) == 60
    clock.pass_seconds(61)
    assert outbox.seconds_until_due("lake", 3000, MINUTE) == 0


def test_a_clock_that_was_set_back_does_not_delay_rolling(outbox: Outbox, clock: HandClock) -> None:
    outbox.commit(rows(1))
    clock.pass_seconds(-86_400 * 365)
    assert outbox.seconds_until_due("lake", 3000, MINUTE) == 0
    assert outbox.depth("lake").oldest == timedelta(0)


def test_what_is_left_over_from_a_rolling_stays_the_oldest(outbox: Outbox) -> None:
    outbox.commit(rows(10))
    outbox.commit(rows(10))
    entries = outbox.take_entries("lake", 1)
    rest = NewEntry("lake", 4, 400, b"left")
    outbox.roll("lake", entries, [Parcel("k", 1, 9, 6, b"sent")], rest=rest)
    left, following = outbox.take_entries("lake", 10**6)
    assert (left.first, left.rows, left.body) == (1, 4, b"left")
    assert following.first == 11
    assert outbox.settled_below("lake") == 1
    assert balanced(outbox)["sink:lake"]["buffered"] == 20


def test_a_rolling_that_loses_rows_is_refused(outbox: Outbox) -> None:
    outbox.commit(rows(10))
    entries = outbox.take_entries("lake", 1)
    with pytest.raises(ValueError, match="got 9 out of 10 rows"):
        outbox.roll("lake", entries, [Parcel("k", 1, 9, 9, b"")])
    outbox.release_entries("lake", [entry.id for entry in entries])
    assert outbox.depth("lake").rows == 10


def test_parcels_come_oldest_or_newest_first_and_only_once(outbox: Outbox) -> None:
    for _ in range(5):
        outbox.commit(rows(1))
    roll(outbox)
    assert [p.first for p in outbox.take_parcels("lake", 2)] == [1, 2]
    newest = outbox.take_parcels("lake", 2, newest=True)
    assert [p.first for p in newest] == [5, 4]
    assert [p.first for p in outbox.take_parcels("lake", 9)] == [3]
    outbox.release("lake", [p.id for p in newest])
    assert [p.first for p in outbox.take_parcels("lake", 9, size=1)] == [4]


def test_delivered_parcels_are_forgotten_and_refused_ones_kept(outbox: Outbox) -> None:
    for _ in range(3):
        outbox.commit(rows(2))
    roll(outbox)
    one, two, three = outbox.take_parcels("lake", 3)
    outbox.settle("lake", [one.id], {two.id: "too large"})
    outbox.release("lake", [three.id])
    assert balanced(outbox)["sink:lake"] == {
        "appended": 6,
        "delivered": 2,
        "refused": 2,
        "buffered": 2,
    }
    assert [p.id for p in outbox.take_parcels("lake", 9)] == [three.id]
    assert outbox.status()["sinks"]["lake"]["quarantined_rows"] == 2
    assert outbox.settled_below("lake") == 5


def test_a_retried_parcel_waits_again_at_its_old_place(outbox: Outbox) -> None:
    outbox.commit(rows(2))
    outbox.commit(rows(2))
    roll(outbox)
    bad = outbox.take_parcels("lake", 1)[0]
    outbox.settle("lake", [], {bad.id: "no access"})
    assert outbox.retry("lake") == 1
    assert balanced(outbox)["sink:lake"]["refused"] == 0
    assert [p.first for p in outbox.take_parcels("lake", 9)] == [1, 3]
    assert outbox.retry("lake") == 0


def test_refused_rows_are_ledgered_with_their_range(outbox: Outbox) -> None:
    outbox.commit(rows(10))
    entries = outbox.take_entries("lake", 1)
    outbox.roll("lake", entries, [Parcel("k", 1, 10, 9, b"")], [Refusal(4, 4, 1, "too long")])
    assert balanced(outbox)["sink:lake"]["refused"] == 1


def test_rekeyed_parcels_keep_their_bytes_under_a_new_id(outbox: Outbox) -> None:
    old = outbox.id
    outbox.commit(rows(2, body=b"bytes"))
    roll(outbox)
    parcel = outbox.take_parcels("lake", 1)[0]
    outbox.rekey("lake", [parcel.id])
    assert outbox.id != old
    again = outbox.take_parcels("lake", 1)[0]
    assert again.key == parcel.key.replace(old, outbox.id)
    assert again.body == b"bytes"


def test_depth_follows_without_looking_at_the_file(outbox: Outbox, clock: HandClock) -> None:
    assert outbox.depth("lake") == (0, 0, None)
    outbox.commit(rows(2))
    clock.pass_seconds(5)
    outbox.commit(rows(3))
    assert outbox.depth("lake") == (5, 8, timedelta(seconds=5))
    entries = outbox.take_entries("lake", 1)
    outbox.roll("lake", entries, [Parcel("k", 1, 2, 2, b"123456")])
    assert outbox.depth("lake") == (5, 10, timedelta(seconds=5))
    outbox.settle("lake", [p.id for p in outbox.take_parcels("lake", 1)])
    assert outbox.depth("lake") == (3, 4, timedelta(0))


def test_memory_is_a_log_that_is_made_whole_again(outbox: Outbox) -> None:
    assert outbox.wants_whole("common/dedupe")
    outbox.commit(Commit(memory=[Remembered("common/dedupe", "s", True, b"w" * 1000)]))
    changes = 0
    while not outbox.wants_whole("common/dedupe"):
        outbox.commit(Commit(memory=[Remembered("common/dedupe", "s", False, b"c" * 20_000)]))
        changes += 1
    assert changes == 14  # the first past four times 64 KiB
    assert len(outbox.restore().memory["common/dedupe"].states) == 15
    outbox.commit(Commit(memory=[Remembered("common/dedupe", "s", True, b"new")]))
    assert outbox.restore().memory["common/dedupe"].states == [b"new"]


def test_memory_of_another_shape_replaces_what_was_kept(outbox: Outbox) -> None:
    outbox.commit(Commit(memory=[Remembered("a", "one", True, b"1")]))
    outbox.commit(Commit(memory=[Remembered("a", "two", True, b"2")]))
    assert outbox.restore().memory["a"] == ("two", [b"2"])


def test_a_failed_commit_leaves_nothing_behind(outbox: Outbox) -> None:
    outbox.commit(rows(2))
    bad = rows(3)._replace(position="text", losses=[Loss("a", "late", "x", 0, "r")])  # type: ignore[list-item,arg-type]
    with pytest.raises(TypeError):
        outbox.commit(bad._replace(memory=[Remembered("a", "s", True, 5)]))  # type: ignore[list-item]
    assert outbox.depth("lake").rows == 2
    outbox.commit(rows(1))
    assert outbox.next_sequence("lake") == 4
    assert balanced(outbox)["sink:lake"]["appended"] == 3


def test_rejected_payloads_are_kept_bounded_and_listed(outbox: Outbox) -> None:
    for start in range(0, 3000, 500):
        rejects = [Reject("not JSON", b"%d" % n, "plant/a") for n in range(start, start + 500)]
        outbox.commit(
            Commit(counts={("source", "read"): 500, ("source", "rejected"): 500}, rejects=rejects)
        )
    outbox.commit(
        Commit(
            counts={("source", "read"): 200, ("source", "rejected"): 200},
            rejects=[Reject("too large", b"x" * 2**20, None)] * 200,
        )
    )
    assert balanced(outbox)["source"]["rejected"] == 3200
    assert outbox.status()["outbox"]["bytes"] < 40 * 2**20


def test_rejected_payloads_are_one_loss_for_every_cause(outbox: Outbox) -> None:
    folder = outbox._file.folder
    reasons = [f"field 'x' must be int, got {n}.7" for n in range(600)]
    reasons += [f"payload is not JSON: unexpected end: line 1 column {n}" for n in range(400)]
    outbox.commit(Commit(rejects=[Reject(reason, b"12345") for reason in reasons]))
    losses = {loss["reason"]: loss["rows"] for loss in inspection.books(folder)["losses"]}
    assert losses == {"field 'x' must be int": 600, "payload is not JSON": 400}
    assert [each["reason"] for each in inspection.rejects(folder)] == reasons[::-1]


def test_the_list_of_losses_stays_short(outbox: Outbox, clock: HandClock) -> None:
    for n in range(3000):
        if n % 100 == 0:
            losses = [
                Loss("common/window", "late", 1, 10, f"key {k}", k, k) for k in range(n, n + 100)
            ]
            outbox.commit(Commit(losses=losses))
    with sqlite3.connect(outbox._file.folder / "outbox.sqlite") as db:
        count, total, first, last = db.execute(
            "SELECT count(*), sum(rows), min(first), max(last) FROM loss"
        ).fetchone()
    db.close()
    assert count <= 1001
    assert (total, first, last) == (3000, 0, 2999)


def test_an_unbalanced_ledger_says_which_equation(outbox: Outbox) -> None:
    outbox.commit(Commit(counts={("source", "read"): 5, ("source", "taken"): 4}))
    assert outbox.status()["imbalances"] == [
        "source: read 5 is not rejected 0 + redelivered 0 + retained 0 + taken 4"
    ]


def test_a_link_that_was_never_tried_is_neither_up_nor_down(outbox: Outbox) -> None:
    outbox.set_link("lake", False, "no route")
    sinks = outbox.status()["sinks"]
    assert (sinks["lake"]["link"], sinks["alarms"]["link"]) == ("down", None)


def test_link_state_is_written_only_when_it_changes(outbox: Outbox) -> None:
    outbox.set_link("lake", True)
    changes = outbox._file.db.total_changes
    outbox.set_link("lake", True)
    assert outbox._file.db.total_changes == changes
    outbox.set_link("lake", False, "no route")
    lake = outbox.status()["sinks"]["lake"]
    assert (lake["link"], lake["link_reason"]) == ("down", "no route")


def test_the_source_is_noted_when_it_changes_and_its_progress_now_and_then(
    outbox: Outbox, clock: HandClock
) -> None:
    def noted(at_once: bool = False, **status: object) -> object:
        outbox.set_source({"kind": "dataset", **status}, at_once=at_once)
        return inspection.status(outbox._file.folder, 0)["source"]

    assert inspection.status(outbox._file.folder, 0)["source"] is None
    first = {"kind": "dataset", "file": "a", "bytes_done": 1}
    assert noted(file="a", bytes_done=1) == first
    clock.pass_seconds(4)
    assert noted(file="a", bytes_done=2) == first
    assert noted(file="b", bytes_done=3) == {"kind": "dataset", "file": "b", "bytes_done": 3}
    clock.pass_seconds(6)
    assert noted(file="b", bytes_done=4) == {"kind": "dataset", "file": "b", "bytes_done": 4}
    assert noted(file="b", bytes_done=5, at_once=True)["bytes_done"] == 5  # type: ignore[index]
    before = outbox._file.db.total_changes
    noted(file="b", bytes_done=5)
    assert outbox._file.db.total_changes == before


def test_the_sinks_of_an_earlier_definition_are_kept(open_outbox: OpenOutbox) -> None:
    outbox = open_outbox()
    outbox.commit(rows(7, "alarms"))
    outbox.close()
    later = open_outbox(sinks={})
    assert later.status()["sinks"]["alarms"]["buffered_rows"] == 7
    assert later.drop("alarms") == 1
    assert balanced(later)["sink:alarms"] == {"appended": 7, "dropped": 7, "buffered": 0}


def test_it_runs_on_its_own_thread(outbox: Outbox) -> None:
    async def main() -> int:
        await outbox.call("commit", rows(2))
        entries = await outbox.call("take_entries", "lake", 10)
        return int(entries[0].rows)

    assert asyncio.run(main()) == 2


def test_hours_until_full_follow_the_recent_rate(outbox: Outbox, clock: HandClock) -> None:
    for _ in range(13):
        outbox.commit(rows(1, body=b"x" * 100_000))
        clock.pass_seconds(10)
    hours = outbox.status()["outbox"]["hours_until_full"]
    assert 1.0 < hours < 2.0  # 36 MB an hour into what 64 MiB leave free


def test_the_plain_sqlite_tool_reads_it(outbox: Outbox) -> None:
    outbox.commit(rows(2))
    file = outbox._file.folder / "outbox.sqlite"
    done = subprocess.run(
        ["sqlite3", file, "SELECT name, rows FROM entry JOIN sink ON sink.id = entry.sink"],
        capture_output=True,
        text=True,
        check=True,
    )
    assert done.stdout == "lake|2\n"
