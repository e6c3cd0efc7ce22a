"""What is remembered of a session survives a start, and costs ten bytes a message."""

import logging

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
            memory.hand_over(change)
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
    memory.hand_over({7: 111})
    assert memory.is_repeat(7, 111)
    assert not memory.is_repeat(7, 112)
    assert not memory.is_repeat(8, 111)
    memory.hand_over({7: 222})
    assert not memory.is_repeat(7, 111)


def test_a_lost_session_is_forgotten_also_after_a_start() -> None:
    memory = Seen()
    memory.hand_over({7: 111})
    first = memory.snapshot(True)
    assert memory.forget_session()
    assert not memory.forget_session()
    memory.hand_over({8: 222})
    found = restored(first, memory.snapshot(False))
    assert not found.is_repeat(7, 111)
    assert found.is_repeat(8, 222)


def test_nothing_new_is_no_snapshot() -> None:
    memory = Seen()
    assert memory.snapshot(False) is None
    memory.hand_over({7: 111})
    assert memory.snapshot(False) is not None
    assert memory.snapshot(False) is None


def test_a_change_costs_ten_bytes_a_message() -> None:
    memory = Seen()
    memory.hand_over({number: number * 2**40 for number in range(1, 10_001)})
    change = memory.snapshot(False)
    assert change is not None
    assert len(change) < 100_200


def test_hashes_of_another_version_are_put_aside(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    memory = Seen()
    memory.subscribe(["a"])
    memory.hand_over({7: 111})
    old = memory.snapshot(True)
    memory.hand_over({8: 222})
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
