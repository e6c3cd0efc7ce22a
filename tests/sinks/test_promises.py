"""What every sink promises, whatever it is, for every case of the table in places.py."""

import asyncio
from collections.abc import Iterator
from pathlib import Path

import pytest

from edge.errors import LinkDown
from edge.outbox.model import Parcel
from edge.sinks import SINKS, Receipt
from tests.cloud import Cloud
from tests.sinks.places import PLACES, Place, numbered, place, rows


@pytest.fixture(params=PLACES)
def spot(request: pytest.FixtureRequest, tmp_path: Path, cloud: Cloud) -> Iterator[Place]:
    with place(request.param, tmp_path, cloud) as made:
        yield made
        asyncio.run(made.sink.close())


def parcels_of(spot: Place, count: int = 24) -> list[Parcel]:
    return numbered(spot.sink.encode(rows(count)).parcels)


def send(spot: Place, parcels: list[Parcel]) -> Receipt:
    return asyncio.run(spot.sink.send(parcels))


def test_every_sink_has_a_case() -> None:
    assert {name.partition("-")[0] for name in PLACES} == set(SINKS)


def test_every_row_is_delivered_refused_or_left(spot: Place) -> None:
    encoded = spot.sink.encode(rows(24))
    assert sum(parcel.rows for parcel in encoded.parcels) == 24
    assert not encoded.refused
    assert encoded.rest is None


def test_the_same_rows_give_the_same_bytes(spot: Place) -> None:
    assert spot.sink.encode(rows(24)) == spot.sink.encode(rows(24))


def test_keys_are_never_used_twice(spot: Place) -> None:
    parcels = [*spot.sink.encode(rows(24)).parcels, *spot.sink.encode(rows(24, 25)).parcels]
    assert len({parcel.key for parcel in parcels}) == len(parcels)


def test_the_same_parcels_twice_leave_the_same_end_state(spot: Place) -> None:
    parcels = parcels_of(spot)
    everything = [parcel.id for parcel in parcels]
    assert sorted(send(spot, parcels).delivered) == everything
    once = dict(spot.holds())
    assert sorted(send(spot, parcels).delivered) == everything
    assert spot.holds() == once
    assert len(once) >= len(parcels)


# Standard output takes all or nothing.
@pytest.mark.parametrize("spot", sorted(set(PLACES) - {"console"}), indirect=True)
def test_a_failure_of_one_parcel_leaves_the_others_delivered(spot: Place) -> None:
    parcels = parcels_of(spot)
    spot.fail_one()
    receipt = send(spot, parcels)
    missing = [parcel for parcel in parcels if parcel.id not in receipt.delivered]
    assert receipt.problem
    assert not receipt.refused
    assert 0 < len(missing) < len(parcels)
    spot.mend()
    assert sorted(send(spot, missing).delivered) == [parcel.id for parcel in missing]
    assert len(spot.holds()) == len(parcels)


def test_no_network_is_link_down_and_nothing_is_lost(spot: Place) -> None:
    parcels = parcels_of(spot)
    spot.cut()
    with pytest.raises(LinkDown):
        send(spot, parcels)
    spot.mend()
    assert sorted(send(spot, parcels).delivered) == [parcel.id for parcel in parcels]
