"""What every sink promises, whatever it is, for every case of the table in places.py."""

import asyncio
from collections.abc import Iterator
from pathlib import Path

import pytest

from edge.outbox.model import Parcel
from edge.promises.sink import (
    gives_the_same_bytes,
    never_uses_a_key_twice,
    numbered,
    puts_every_row_in_one_place,
    rows,
    says_that_the_link_is_down,
    send,
    takes_repeats,
)
from edge.sinks import SINKS
from tests.cloud import Cloud
from tests.sinks.places import PLACES, Place, place


@pytest.fixture(params=PLACES)
def spot(request: pytest.FixtureRequest, tmp_path: Path, cloud: Cloud) -> Iterator[Place]:
    with place(request.param, tmp_path, cloud) as made:
        yield made
        asyncio.run(made.sink.close())


def parcels_of(spot: Place) -> list[Parcel]:
    return numbered(spot.sink.encode(rows(24)).parcels)


def test_every_sink_has_a_case() -> None:
    assert {name.partition("-")[0] for name in PLACES} == set(SINKS)


def test_every_row_is_delivered_refused_or_left(spot: Place) -> None:
    puts_every_row_in_one_place(spot.sink, rows(24))


def test_nothing_is_refused_or_left_that_fits(spot: Place) -> None:
    encoded = spot.sink.encode(rows(24))
    assert sum(parcel.rows for parcel in encoded.parcels) == 24
    assert not encoded.refused
    assert encoded.rest is None


def test_the_same_rows_give_the_same_bytes(spot: Place) -> None:
    gives_the_same_bytes(spot.sink, rows(24))


def test_keys_are_never_used_twice(spot: Place) -> None:
    never_uses_a_key_twice(spot.sink, [rows(24), rows(24, 25)])


def test_the_same_parcels_twice_leave_the_same_end_state(spot: Place) -> None:
    takes_repeats(spot.sink, parcels_of(spot), spot.holds)


# Standard output takes all or nothing.
@pytest.mark.parametrize("spot", sorted(set(PLACES) - {"console"}), indirect=True)
def test_a_failure_of_one_parcel_leaves_the_others_delivered(spot: Place) -> None:
    parcels = parcels_of(spot)
    spot.fail_one()
    receipt = asyncio.run(spot.sink.send(parcels))
    missing = [parcel for parcel in parcels if parcel.id not in receipt.delivered]
    assert receipt.problem
    assert not receipt.refused
    assert 0 < len(missing) < len(parcels)
    spot.mend()
    assert sorted(send(spot.sink, missing).delivered) == [parcel.id for parcel in missing]
    assert len(spot.holds()) == len(parcels)


def test_no_network_is_link_down_and_nothing_is_lost(spot: Place) -> None:
    says_that_the_link_is_down(spot.sink, parcels_of(spot), spot.cut, spot.mend)
