"""Reads are as rare as the rate allows, and a broker that waits for us is noticed."""

from edge.mqtt.pace import LONGEST, SHORTEST, Pace


def batch(pace: Pace, reads: list[int]) -> tuple[int, bool]:
    """Reads of so many QoS 1 messages; where it ended, and whether because the broker waits."""
    outstanding = 0
    for count in reads:
        if outstanding and pace.stalled(outstanding):
            return outstanding, True
        outstanding += count
        pace.read(count, count * 145)
    pace.ended(outstanding)
    return outstanding, False


def test_a_flood_is_read_every_millisecond_and_a_trickle_as_rarely_as_may_be() -> None:
    pace = Pace()
    for _ in range(10):
        pace.read(0, 14_500)
    assert pace.nap(0) == LONGEST
    for _ in range(10):
        pace.read(0, 500_000)
    assert pace.nap(0) == SHORTEST


def test_a_nap_that_doubled_stays_where_it_is() -> None:
    for rate in (50_000, 1_000_000, 5_000_000, 20_000_000, 90_000_000):  # bytes a second
        pace = Pace()
        naps = [pace.nap(0)]
        for _ in range(20):
            pace.read(0, int(rate * naps[-1]))
            naps.append(pace.nap(0))
        assert naps[-1] == naps[-5]


def test_a_full_window_of_twenty_is_committed_at_once() -> None:
    assert batch(Pace(), [20, 0, 0]) == (20, True)


def test_naps_are_short_while_the_window_is_about_to_fill() -> None:
    pace = Pace()
    for _ in range(10):
        pace.read(2, 300)
    assert pace.nap(5) == LONGEST
    assert pace.nap(0) == LONGEST
    assert pace.nap(18) == SHORTEST


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
