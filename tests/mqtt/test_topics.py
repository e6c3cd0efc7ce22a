"""Topic filters are checked when they are read, and captures become columns."""

import polars as pl
import pytest
from hypothesis import given
from hypothesis import strategies as st
from paho.mqtt.client import topic_matches_sub

from edge.mqtt.topics import Pattern, Topics


@pytest.mark.parametrize(
    ("text", "topic", "captures"),
    [
        ("plant/{line}/{device}/t", "plant/1/a b/t", {"line": "1", "device": "a b"}),
        ("plant/{line}/t", "plant//t", {"line": ""}),
        ("plant/{line}/t", "plant/1/2/t", None),
        ("plant/+/t", "plant/1/t", {}),
        ("plant/#", "plant", {}),
        ("plant/{line}/#", "plant/1/2/3", {"line": "1"}),
        ("#", "a/b", {}),
        ("#", "$SYS/uptime", None),
        ("{first}/x", "$SYS/x", None),
        ("$SYS/{name}", "$SYS/uptime", {"name": "uptime"}),
        ("a.c", "abc", None),
        ("{x}", "two\nlines", {"x": "two\nlines"}),
    ],
)
def test_a_pattern_matches_whole_levels(
    text: str, topic: str, captures: dict[str, str] | None
) -> None:
    assert Pattern(text).match(topic) == captures


LEVELS = st.lists(st.sampled_from(["a", "b", "", "+", "$x"]), min_size=1, max_size=4)


@given(LEVELS, st.booleans(), LEVELS)
def test_a_pattern_matches_what_paho_says_its_filter_matches(
    levels: list[str], hash_: bool, topic: list[str]
) -> None:
    text = "/".join([*levels, "#"] if hash_ else levels)
    name = "/".join(level.replace("+", "c") for level in topic)
    if text and name:
        assert (Pattern(text).match(name) is not None) == topic_matches_sub(text, name)


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("", "must be a topic of 1 to 65535 bytes without null, got ''"),
        ("a/#/b", "must have # only as the whole last level, got 'a/#/b'"),
        ("a/b#", "must have # only as the whole last level, got 'a/b#'"),
        ("a/b+/c", "must have + only as a whole level, got 'b+' in 'a/b+/c'"),
        (
            "a/x{line}",
            "must capture a whole level as {name} with letters, digits and _, "
            "got 'x{line}' in 'a/x{line}'",
        ),
        ("{a}/{a}", "must capture each name once, got 'a' twice in '{a}/{a}'"),
        ("{edge_id}", "must not capture 'edge_id': columns starting with edge_ are reserved"),
        (
            "$share/g/a",
            "must be a plain topic, got '$share/g/a'; write share: GROUP beside topics",
        ),
    ],
)
def test_what_is_no_filter_is_refused_with_the_reason(text: str, reason: str) -> None:
    with pytest.raises(ValueError) as caught:
        Pattern(text)
    assert str(caught.value) == reason


def columns(topics: Topics, places: list[int]) -> pl.DataFrame:
    return pl.DataFrame(topics.columns(pl.Series(places, dtype=pl.UInt32)))


def test_captures_are_columns_and_the_first_pattern_that_matches_wins() -> None:
    topics = Topics([Pattern("plant/{line}/x"), Pattern("plant/{line}/{device}"), Pattern("o/{z}")])
    names = [b"plant/1/x", b"plant/2/y", b"o/9", b"plant/1/x"]
    places, faults = topics.places(names)
    assert faults == {}
    assert columns(topics, places).rows() == [
        ("1", None, None),
        ("2", "y", None),
        (None, None, "9"),
        ("1", None, None),
    ]


def test_a_topic_that_no_pattern_knows_is_a_fault_of_its_message_only() -> None:
    topics = Topics([Pattern("a/{x}")])
    places, faults = topics.places([b"a/1", b"gone/1", b"a/\xff", b"a/2"])
    assert faults == {
        1: "topic matches none of the topics of this source",
        2: "topic is not UTF-8",
    }
    assert columns(topics, places)["x"].to_list() == [
        "1",
        None,
        None,
        "2",
    ]


def test_endless_new_topics_do_not_fill_the_memory() -> None:
    topics = Topics([Pattern("{x}")])
    for start in range(0, 300_000, 50_000):
        names = [b"%d" % number for number in range(start, start + 50_000)]
        places, _ = topics.places(names)
        assert max(places) < 200_000
        assert columns(topics, places)["x"][-1] == names[-1].decode()
