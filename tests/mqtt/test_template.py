"""A topic made of columns is legal whatever they hold, and no two values share a level."""

import polars as pl
import pytest
from hypothesis import given
from hypothesis import strategies as st
from paho.mqtt.client import topic_matches_sub

from edge.mqtt.template import Template


def topics(text: str, **columns: object) -> list[str]:
    return Template(text).topics(pl.DataFrame(columns)).to_list()


def test_a_column_stands_where_its_name_is() -> None:
    assert topics("plant/{line}/dev-{n}/clean", line=["l1", "l2"], n=[7, 8]) == [
        "plant/l1/dev-7/clean",
        "plant/l2/dev-8/clean",
    ]
    assert topics("{line}/{line}", line=["a"]) == ["a/a"]
    assert topics("alarms", line=["a", "b"]) == ["alarms", "alarms"]


def test_what_a_level_cannot_hold_is_escaped() -> None:
    values = ["a/b", "+", "#", "50%", "a\x00b", "ä b", "\ufffe", "a\nb"]
    assert topics("t/{v}", v=values) == [
        "t/a%2Fb",
        "t/%2B",
        "t/%23",
        "t/50%25",
        "t/a%00b",
        "t/ä b",
        "t/%EF%BF%BE",
        "t/a%0Ab",
    ]


def test_null_empty_text_and_a_column_that_is_not_there_have_a_level() -> None:
    assert topics("t/{v}/{gone}", v=[None, "", "x"]) == ["t/null/null", "t/null/null", "t/x/null"]


def test_a_value_cannot_reach_the_brokers_own_topics() -> None:
    assert topics("{v}/uptime", v=["$SYS", "a$"]) == ["%24SYS/uptime", "a$/uptime"]
    assert topics("$aws/rules/{v}", v=["$x"]) == ["$aws/rules/$x"]


@given(st.lists(st.text(min_size=1), min_size=1, max_size=20))
def test_every_value_is_one_level_of_its_own(values: list[str]) -> None:
    made = topics("t/{v}/x", v=values)
    assert all(topic_matches_sub("t/+/x", topic) for topic in made)
    assert not any(set(topic) & {"+", "#", "\x00"} for topic in made)
    told_apart = {value for value in values if value != "null"}
    assert len(set(made) - {"t/null/x"}) == len(told_apart)


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("", "must be a topic of 1 to 65535 bytes"),
        ("a" * 65_536, "must be a topic of 1 to 65535 bytes"),
        ("a/{b", "must name columns as"),
        ("a/{}", "must name columns as"),
        ("a/+/c", r"must not have \+ or #"),
        ("a/#", r"must not have \+ or #"),
        ("a\x00b", "must be without control characters"),
    ],
)
def test_what_is_no_topic_is_refused(text: str, reason: str) -> None:
    with pytest.raises(ValueError, match=reason):
        Template(text)
