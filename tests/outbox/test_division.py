"""A parcel whose rows did not all fare alike is settled row by row, and the ledger balances."""

import sqlite3
from contextlib import suppress

import pytest

from edge.errors import OutboxFull
from edge.outbox import Divided, Outbox, Parcel
from tests.outbox.conftest import OpenOutbox
from tests.outbox.test_store import balanced, roll, rows


def piece(first: int, last: int, count: int, body: bytes = b"piece") -> Parcel:
    return Parcel(f"site/p/lake/x-{first}", first, last, count, body)


def rolled(outbox: Outbox, number: int = 10) -> int:
    """A parcel in flight, by id."""
    outbox.commit(rows(number))
    roll(outbox)
    (parcel,) = outbox.take_parcels("lake", 1)
    return parcel.id


def test_what_arrived_is_counted_and_the_rest_waits_at_its_old_place(outbox: Outbox) -> None:
    number = rolled(outbox)
    outbox.commit(rows(1))
    roll(outbox)
    outbox.divide("lake", {number: Divided(6, [(piece(3, 3, 1), "too large")], piece(7, 9, 3))})
    assert [p.first for p in outbox.take_parcels("lake", 9)] == [7, 11]
    counts = balanced(outbox)["sink:lake"]
    assert (counts["delivered"], counts["refused"], counts["buffered"]) == (6, 1, 4)
    assert outbox.depth("lake").rows == 4


def test_a_refused_piece_can_be_tried_again(outbox: Outbox) -> None:
    number = rolled(outbox)
    outbox.divide("lake", {number: Divided(9, [(piece(3, 3, 1, b"body"), "too large")])})
    assert outbox.take_parcels("lake", 9) == []
    assert outbox.retry("lake") == 1
    (again,) = outbox.take_parcels("lake", 9)
    assert (again.first, again.rows, again.body) == (3, 1, b"body")
    assert balanced(outbox)["sink:lake"]["buffered"] == 1


def test_a_division_survives_a_restart(open_outbox: OpenOutbox) -> None:
    outbox = open_outbox()
    number = rolled(outbox)
    outbox.divide("lake", {number: Divided(8, [], piece(9, 10, 2))})
    outbox.close()
    again = open_outbox()
    assert [p.first for p in again.take_parcels("lake", 9)] == [9]
    assert balanced(again)["sink:lake"]["delivered"] == 8


def test_a_division_that_loses_rows_changes_nothing(outbox: Outbox) -> None:
    number = rolled(outbox)
    with pytest.raises(ValueError, match="must keep every row, got 9 out of 10"):
        outbox.divide("lake", {number: Divided(8, [], piece(9, 9, 1))})
    outbox.release("lake", [number])
    assert [p.rows for p in outbox.take_parcels("lake", 9)] == [10]
    assert balanced(outbox)["sink:lake"]["buffered"] == 10


def test_a_parcel_that_is_gone_is_not_counted_twice(outbox: Outbox) -> None:
    number = rolled(outbox)
    for _ in range(2):
        outbox.divide("lake", {number: Divided(8, [], piece(9, 10, 2))})
    assert balanced(outbox)["sink:lake"]["delivered"] == 8


def test_a_full_outbox_divides_what_it_holds(open_outbox: OpenOutbox) -> None:
    outbox = open_outbox()
    body = b"x" * 2**20
    with suppress(OutboxFull):
        while True:
            outbox.commit(rows(10, body=body))
    while outbox.take_entries("lake", 2**20):
        pass
    outbox.release_entries("lake", range(1, 10_000))
    roll(outbox, size=1)
    (parcel,) = outbox.take_parcels("lake", 1)
    rest = parcel._replace(key=f"{parcel.key}0", first=parcel.first + 9, rows=1)
    outbox.divide("lake", {parcel.id: Divided(9, [], rest)})
    assert balanced(outbox)["sink:lake"]["delivered"] == 9
    with sqlite3.connect(outbox._file.folder / "outbox.sqlite") as db:
        assert db.execute("PRAGMA integrity_check").fetchone() == ("ok",)
