"""Reads are as rare as the rate allows, and a broker that waits for us is noticed."""

import pytest

from edge.mqtt.pace import LONGEST, SHORTEST, Pace

_ROOM = 8 * 2**20


def batch(pace: Pace, reads: list[int]) -> tuple[int, bool]:
    """Reads of so many QoS 1 messages; where it ended, and whether because the broker waits."""
    outstanding = 0
    for count in reads:
        if outstanding and pace.stalled(outstanding):
            return outstanding, True
        outstanding += count
        pace.read(count, count * 145, pace.nap(0), _ROOM)
    pace.ended(outstanding)
    return outstanding, False


def naps(rate: int, room: int = _ROOM) -> list[float]:
    """Of 20 reads of what came meanwhile, at `rate` bytes a second."""
    pace = Pace()
    found = [pace.nap(0)]
    for _ in range(20):
        pace.read(0, int(rate * found[-1]), found[-1], room)
        found.append(pace.nap(0))
    return found


def test_a_flood_is_read_every_millisecond_and_a_trickle_as_rarely_as_may_be() -> None:
    assert naps(200_000)[-1] == LONGEST
    assert naps(600_000_000)[-1] == SHORTEST


def test_a_nap_that_doubled_stays_where_it_is() -> None:
    for rate in (50_000, 1_000_000, 5_000_000, 20_000_000, 90_000_000):
        found = naps(rate)
        assert found[-1] == found[-5]


def test_a_nap_that_was_cut_short_or_overslept_says_the_same_of_the_stream() -> None:
    pace, rate = Pace(), 13_000_000
    for part in (1, 0.5, 0.01, 3, 1, 0.3) * 5:
        seconds = part * pace.nap(0)
        pace.read(0, int(rate * seconds), seconds, _ROOM)
    assert pace.nap(0) == naps(rate)[-1]


@pytest.mark.parametrize("room", [4096, 131_072, 425_984, _ROOM])
def test_what_comes_during_a_nap_fits_into_what_the_kernel_has_for_it(room: int) -> None:
    for rate in (50_000, 1_000_000, 4_000_000):
        pace = Pace()
        for _ in range(20):
            came = min(int(rate * pace.nap(0)), room // 2)  # then the broker is stopped
            pace.read(0, came, pace.nap(0), room)
        assert pace.nap(0) == SHORTEST or rate * pace.nap(0) < room // 2


def test_a_full_window_of_twenty_is_committed_at_once() -> None:
    assert batch(Pace(), [20, 0, 0]) == (20, True)


def test_naps_are_short_while_the_window_is_about_to_fill() -> None:
    pace = Pace()
    for _ in range(10):
        pace.read(2, 300, pace.nap(0), _ROOM)
    assert pace.nap(5) == LONGEST
    assert pace.nap(0) == LONGEST
    assert pace.nap(18) == SHORTEST


def test_naps_are_as_long_as_may_be_where_the_broker_does_not_stop() -> None:
    pace = Pace()
    for _ in range(2):
        batch(pace, [300, 300, 300])
    for _ in range(10):
        pace.read(100, 14_500, pace.nap(0), _ROOM)
    assert pace.nap(850) == LONGEST


def test_where_the_broker_stops_naps_are_short_again() -> None:
    pace = Pace()
    for _ in range(10):
        batch(pace, [300, 300, 300])
    batch(pace, [500, 400])
    assert pace.stalled(900)
    assert pace.nap(700) == SHORTEST
    assert pace.nap(0) == SHORTEST


@pytest.mark.parametrize("cut", [True, False])
def test_what_work_leaves_in_the_kernel_makes_no_nap_longer(cut: bool) -> None:
    pace = Pace()
    while pace.nap(0) < 0.016:
        pace.read(0, 1000, pace.nap(0), _ROOM)
    pace.read(0, 1_450_000 if cut else 3_500_000, 3.0, _ROOM, cut)
    assert pace.nap(0) < 0.016


def test_after_a_full_window_the_next_one_is_read_at_once() -> None:
    pace = Pace()
    for _ in range(10):
        batch(pace, [20, 0])
    assert pace.nap(0) == SHORTEST


def test_a_larger_window_is_learned_where_the_stream_stops() -> None:
    pace = Pace()
    assert batch(pace, [60, 40, 0, 0]) == (100, True)
    assert batch(pace, [60, 40, 5]) == (100, True)
    assert batch(pace, [60, 30, 0, 0]) == (90, False)


def test_a_stream_that_never_stops_is_never_cut_short() -> None:
    pace = Pace()
    for _ in range(5):
        assert batch(pace, [50, 50, 50, 50, 50]) == (250, False)


def test_a_window_smaller_than_usual_is_learned_from_batches_that_end_alike() -> None:
    pace = Pace()
    for _ in range(3):
        assert batch(pace, [10, 0, 0]) == (10, False)
    assert batch(pace, [10, 0, 0]) == (10, True)


def test_a_trickle_is_not_taken_for_a_small_window() -> None:
    pace = Pace()
    for _ in range(10):
        assert batch(pace, [1, 0, 0]) == (1, False)


def test_a_new_connection_is_learned_anew() -> None:
    pace = Pace()
    batch(pace, [500, 0, 0])
    pace.reset(receive_maximum=15)
    assert batch(pace, [15, 0, 0]) == (15, True)
