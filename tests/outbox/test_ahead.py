"""Rows that come as parcels are stored as such, or as an entry where that would not be right."""

import pytest

from edge.errors import OutboxFull
from edge.outbox import Commit, Limits, NewEntry, Outbox, Parcel, SinkLimits
from edge.outbox.model import Rolled
from tests.outbox.conftest import HandClock, OpenOutbox

MiB = 2**20


def rolled(
    outbox: Outbox,
    rows: int,
    sink: str = "lake",
    *,
    body: bytes = b"parcel",
    entry: bytes = b"entry",
    parcels: int = 1,
) -> Commit:
    first, each = outbox.next_sequence(sink), rows // parcels
    made = [
        Parcel(f"site/p/{sink}/{outbox.id}-{start}", start, start + each - 1, each, body)
        for start in range(first, first + rows, each)
    ]

    counts = {("source", "read"): rows, ("source", "taken"): rows}
    otherwise = NewEntry(sink, rows, 1000, entry)
    ahead = Rolled(sink, outbox.id, first, rows, made, lambda: otherwise)
    return Commit(counts=counts, rolled=[ahead])


def waiting(outbox: Outbox, sink: str = "lake") -> tuple[list[bytes], list[bytes]]:
    """Bodies of the entries and of the parcels that wait, which are held and in flight then."""
    entries = outbox.take_entries(sink, 10**9)
    parcels = outbox.take_parcels(sink, 100)
    assert outbox.status()["imbalances"] == []
    return [entry.body for entry in entries], [parcel.body for parcel in parcels]


def test_parcels_are_there_after_a_restart(open_outbox: OpenOutbox, clock: HandClock) -> None:
    outbox = open_outbox()
    commit = rolled(outbox, 6, parcels=2)
    outbox.commit(commit._replace(position=b"at 6"))
    assert outbox.depth("lake").rows == 6
    clock.pass_seconds(5)
    assert outbox.depth("lake").oldest.total_seconds() == 5
    outbox.close()
    again = open_outbox()
    assert again.restore().position == b"at 6"
    assert again.next_sequence("lake") == 7
    assert again.status()["ledger"]["sink:lake"]["appended"] == 6
    parcels = again.take_parcels("lake", 10)
    assert [(p.key, p.first, p.last, p.rows, p.body) for p in parcels] == [
        (p.key, p.first, p.last, p.rows, p.body) for p in commit.rolled[0].parcels
    ]
    again.settle("lake", [parcel.id for parcel in parcels])
    assert waiting(again) == ([], [])


def test_parcels_and_entries_of_several_sinks_come_in_one_commit(outbox: Outbox) -> None:
    commit = rolled(outbox, 4)
    outbox.commit(commit._replace(entries=[NewEntry("alarms", 2, 10, b"alarm")]))
    assert waiting(outbox) == ([], [b"parcel"])
    assert waiting(outbox, "alarms") == ([b"alarm"], [])


def test_parcels_do_not_stand_beside_entries_of_the_same_numbers(outbox: Outbox) -> None:
    late = rolled(outbox, 4)
    outbox.commit(rolled(outbox, 3))
    outbox.commit(late)
    assert waiting(outbox) == ([b"entry"], [b"parcel"])
    assert outbox.next_sequence("lake") == 8


def test_parcels_of_another_outbox_become_an_entry(outbox: Outbox) -> None:
    old = rolled(outbox, 4)
    outbox.commit(rolled(outbox, 3, "alarms"))
    (parcel,) = outbox.take_parcels("alarms", 1)
    outbox.rekey("alarms", [parcel.id])
    outbox.commit(old)
    assert waiting(outbox) == ([b"entry"], [])


def test_parcels_do_not_overtake_entries(outbox: Outbox) -> None:
    outbox.commit(Commit([NewEntry("lake", 2, 10, b"before")]))
    outbox.commit(rolled(outbox, 4))
    assert waiting(outbox) == ([b"before", b"entry"], [])


def test_an_entry_takes_the_place_of_parcels_too_large_for_the_share(
    open_outbox: OpenOutbox,
) -> None:
    outbox = open_outbox(sinks={"lake": SinkLimits(max_size=MiB)})
    outbox.commit(rolled(outbox, 4, body=bytes(2 * MiB)))
    assert waiting(outbox) == ([b"entry"], [])


def test_the_share_of_another_sink_holds_beside_parcels(open_outbox: OpenOutbox) -> None:
    shares = {"lake": SinkLimits(), "alarms": SinkLimits(max_size=MiB, when_full="drop_newest")}
    outbox = open_outbox(sinks=shares)
    outbox.commit(rolled(outbox, 4)._replace(entries=[NewEntry("alarms", 2, 9, bytes(2 * MiB))]))
    assert waiting(outbox) == ([b"entry"], [])
    assert outbox.status()["ledger"]["sink:alarms"]["dropped"] == 2


def test_an_entry_takes_the_place_of_parcels_for_which_there_is_no_room(
    open_outbox: OpenOutbox,
) -> None:
    outbox = open_outbox(limits=Limits(32 * MiB))
    outbox.commit(rolled(outbox, 4, body=bytes(20 * MiB)))
    assert waiting(outbox) == ([b"entry"], [])


def test_what_finds_no_room_in_any_form_waits_outside(open_outbox: OpenOutbox) -> None:
    outbox = open_outbox(limits=Limits(32 * MiB))
    large = bytes(2 * MiB)
    taken = 0

    def fill() -> None:
        nonlocal taken
        for _ in range(16):
            outbox.commit(rolled(outbox, 4, body=large, entry=large))
            taken += 1

    with pytest.raises(OutboxFull):
        fill()
    assert taken
    assert outbox.depth("lake").rows == 4 * taken
    assert outbox.next_sequence("lake") == 4 * taken + 1
    assert outbox.status()["imbalances"] == []
