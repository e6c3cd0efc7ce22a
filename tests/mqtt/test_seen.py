"""What is remembered of a session survives a start, and costs ten bytes a message."""

import logging
from array import array
from collections.abc import Mapping, Sequence

import pytest
from hypothesis import given
from hypothesis import strategies as st

from edge.mqtt import seen
from edge.mqtt.seen import Seen, fingerprints


def test_the_hash_is_the_one_that_outboxes_in_the_field_hold() -> None:
    """If this fails messages hash differently: change HASH, so that old memory is put aside."""
    assert seen.HASH == "xxh3-64"
    assert fingerprints([b"plant/1", b"a"], [b'{"ts":1}', b""]) == [
        1743199389363174414,
        970730967732026843,
    ]


def hand_over(memory: Seen, messages: Mapping[int, int]) -> None:
    memory.hand_over(array("H", messages), array("Q", messages.values()))


def restored(*states: bytes | None) -> Seen:
    other = Seen()
    other.restore([state for state in states if state])
    return other


CHANGES = st.lists(
    st.one_of(
        st.dictionaries(st.integers(1, 20), st.integers(0, 2**64 - 1), max_size=5),
        st.tuples(st.integers(0, 9), st.integers(0, 2**64 - 1)),
        st.sets(st.sampled_from("abc")),
        st.just("forget"),
    )
)


@given(CHANGES, st.integers(0, 30))
def test_changes_since_any_whole_give_the_same_memory(changes: list[object], start: int) -> None:
    memory, states = Seen(), list[bytes | None]()
    for place, change in enumerate(changes):
        if isinstance(change, dict):
            hand_over(memory, change)
        elif isinstance(change, tuple):
            memory.take_retained(*change)
        elif isinstance(change, set):
            memory.subscribe(change)
        else:
            memory.forget_session()
        if place == start:
            states.clear()
        states.append(memory.snapshot(whole=place in (0, start)))
    assert restored(*states).snapshot(True) == (memory.snapshot(True) if states else EMPTY)


EMPTY = Seen().snapshot(True)


def test_a_repeat_is_known_until_its_id_is_used_again() -> None:
    memory = Seen()
    hand_over(memory, {7: 111})
    assert memory.is_repeat(7, 111)
    assert not memory.is_repeat(7, 112)
    assert not memory.is_repeat(8, 111)
    hand_over(memory, {7: 222})
    assert not memory.is_repeat(7, 111)


@pytest.mark.parametrize(
    "ids",
    [range(1, 300), range(65_000, 65_536), [*range(65_500, 65_536), *range(1, 100)], [9, 3, 4, 9]],
)
def test_whatever_order_ids_come_in_the_newest_hash_counts(ids: Sequence[int]) -> None:
    memory = Seen()
    memory.hand_over(array("H", ids), array("Q", range(1, len(ids) + 1)))
    newest = dict(zip(ids, range(1, len(ids) + 1), strict=True))
    for found in (memory, restored(memory.snapshot(False)), restored(memory.snapshot(True))):
        assert all(found.is_repeat(packet_id, hashed) for packet_id, hashed in newest.items())
        assert not any(found.is_repeat(packet_id, 0) for packet_id in range(2**16))


def test_memory_that_is_cut_off_is_not_taken_for_less() -> None:
    memory = Seen()
    memory.hand_over(array("H", [1, 2]), array("Q", [111, 222]))
    state = memory.snapshot(True)
    assert state is not None
    with pytest.raises(ValueError, match="argument 2 is shorter"):
        restored(state[:-8])


def test_a_lost_session_is_forgotten_also_after_a_start() -> None:
    memory = Seen()
    hand_over(memory, {7: 111})
    first = memory.snapshot(True)
    assert memory.forget_session()
    assert not memory.forget_session()
    hand_over(memory, {8: 222})
    found = restored(first, memory.snapshot(False))
    assert not found.is_repeat(7, 111)
    assert found.is_repeat(8, 222)


def test_nothing_new_is_no_snapshot() -> None:
    memory = Seen()
    assert memory.snapshot(False) is None
    hand_over(memory, {7: 111})
    assert memory.snapshot(False) is not None
    assert memory.snapshot(False) is None


def test_a_change_costs_ten_bytes_a_message() -> None:
    memory = Seen()
    hand_over(memory, {number: number * 2**40 for number in range(1, 10_001)})
    change = memory.snapshot(False)
    assert change is not None
    assert len(change) < 100_200


def test_hashes_of_another_version_are_put_aside(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    memory = Seen()
    memory.subscribe(["a"])
    hand_over(memory, {7: 111})
    old = memory.snapshot(True)
    hand_over(memory, {8: 222})
    change = memory.snapshot(False)
    monkeypatch.setattr(seen, "HASH", "xxh4")
    with caplog.at_level(logging.WARNING):
        found = restored(old, change)
    assert not found.is_repeat(7, 111)
    assert found.subscriptions == ("a",)
    assert [record.getMessage() for record in caplog.records] == [
        "packet ids remembered with hash 'xxh3-64' are forgotten, this version has "
        "'xxh4'; messages that the broker sends again now are taken twice"
    ]
