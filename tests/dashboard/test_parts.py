"""What the state is made of: newest rows, histograms, hours of outbox, masked definitions."""

import logging
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import polars as pl
import pytest

from edge.dashboard.definition import shown
from edge.dashboard.diagram import Diagram
from edge.dashboard.history import HOURS, POINTS, Filling, Pace
from edge.dashboard.hub import Warnings
from edge.newest import MOST_KEYS, SPARK, Newest, Told
from edge.observation import BOUNDS, Histogram, Observation, Timeline, quantile
from edge.outbox.model import Commit, NewEntry, Parcel
from edge.pipeline import load, loads
from edge.secrets import Secrets, secrets_of
from tests.scripted import HandClock, rows


def read(device: Sequence[str], v: Sequence[float | None]) -> pl.DataFrame:
    return rows(device=device, v=v)


def seen(told: Told, since: int | None = None) -> dict[str, tuple[Any, list[Any]]]:
    return {row["key"][0]: (row["values"]["v"], row["spark"]) for row in reversed(told.rows(since))}


def test_the_newest_row_of_a_key_wins_and_its_line_grows() -> None:
    clock = HandClock()
    newest = Newest(clock, ["device"], "ts")
    newest.add(read(["a", "b", "a"], [1.0, 2.0, 3.0]))
    newest.look()
    newest.add(read(["b"], [4.0]))
    told = newest.tell(1)
    assert seen(told) == {"a": (3.0, [3.0]), "b": (4.0, [2.0, 4.0])}
    assert [row["key"] for row in told.rows()] == [("b",), ("a",)]  # heard of last, first


def test_batches_are_looked_at_once_a_second_and_none_of_a_trickle_is_missed() -> None:
    clock = HandClock()
    newest = Newest(clock, ["device"], "ts")
    newest.add(read(["a"], [1.0]))
    clock.advance(0.5)
    newest.add(read(["b", "c"], [2.0, 3.0]))
    clock.advance(0.6)
    newest.add(read(["c"], [4.0]))
    clock.advance(0.1)
    newest.add(read(["c"], [5.0]))
    lines = {key: line for key, (_, line) in seen(newest.tell(1)).items()}
    assert lines == {"a": [1.0], "b": [2.0], "c": [4.0, 5.0]}


def test_a_line_and_the_number_of_keys_are_bounded() -> None:
    newest = Newest(HandClock(), ["device"], "ts")
    for number in range(SPARK + 5):
        newest.add(read(["a"], [float(number)]))
        newest.look()
    assert seen(newest.tell(1))["a"][1] == [float(n) for n in range(5, SPARK + 5)]
    names = [f"d{n}" for n in range(MOST_KEYS)]
    newest.add(read(names, [0.0] * MOST_KEYS))
    told = newest.tell(2)
    assert told.total == MOST_KEYS
    assert "a" not in seen(told)


def test_only_what_is_new_since_a_moment_is_given() -> None:
    newest = Newest(HandClock(), ["device"], "ts")
    newest.add(read(["b"], [0.0]))
    newest.look()
    newest.add(read(["a", "b"], [1.0, 2.0]))
    first = newest.tell(1)
    newest.add(read(["b"], [3.0]))
    assert seen(newest.tell(2), 1) == {"b": (3.0, [3.0])}
    for value in (4.0, 5.0):
        newest.add(read(["b"], [value]))
        newest.look()
    third = newest.tell(3)
    assert seen(third, 2) == {"b": (5.0, [4.0, 5.0])}
    assert seen(third, 1) == {"b": (5.0, [3.0, 4.0, 5.0])}  # who could not take the second
    assert third.rows(3) == []
    assert seen(first) == {"a": (1.0, [1.0]), "b": (2.0, [0.0, 2.0])}  # as it was told


def test_nulls_rows_without_keys_and_changing_columns_are_shown_too() -> None:
    newest = Newest(HandClock(), ["device"], "ts")
    newest.add(read(["a", None], [None, 1.0]))  # type: ignore[list-item]
    newest.look()
    newest.add(read(["a", None], [2.0, None]))  # type: ignore[list-item]
    newest.add(rows(device=["a"], other=["x"]))
    lines = {row["key"][0]: row["spark"] for row in newest.tell(1).rows()}
    assert lines == {"a": [None, None], None: [1.0, None]}
    nameless = Newest(HandClock(), [], "ts")
    for value in (1, 2):
        nameless.add(rows(n=[0, value]))
        nameless.look()
    (row,) = nameless.tell(1).rows()
    assert (row["key"], row["values"], row["spark"]) == ((), {"n": 2}, [1.0, 2.0])


def test_a_batch_without_rows_or_numbers_is_no_trouble() -> None:
    newest = Newest(HandClock(), ["device"], "ts")
    newest.add(read([], []).cast({"device": pl.String, "v": pl.Float64}))
    newest.add(rows(device=["a"], word=["x"]))
    (row,) = newest.tell(1).rows()
    assert (row["values"], row["spark"]) == ({"word": "x"}, [None])


def test_a_quantile_lies_in_the_bucket_of_its_row() -> None:
    histogram = Histogram()
    assert quantile(histogram.counts, 0.5) is None
    histogram.add(0.003, 98)
    histogram.add(7.0, 2)
    histogram.add(-5.0)  # a clock was set
    assert 0.0025 < (quantile(histogram.counts, 0.5) or 0) <= 0.005
    assert 5.0 < (quantile(histogram.counts, 0.99) or 0) <= 10.0
    histogram.add(1e9, 1000)
    assert quantile(histogram.counts, 0.99) == BOUNDS[-1]


def test_every_row_counts_in_the_latency_though_few_are_looked_at() -> None:
    clock = HandClock()
    observation = Observation(clock, ["device"], "ts", ["lake"])
    clock.advance(2.0)  # after the arrival that `rows` has
    for height in (1, 31, 33, 1000, 10_001):
        observation.arrived(read(["a"] * height, [1.0] * height))
    assert sum(observation.durable.counts) == 11_066
    assert observation.durable.counts[BOUNDS.index(2.5)] == 11_066


def test_what_was_committed_and_sent_is_counted() -> None:
    clock = HandClock()
    observation = Observation(clock, [], "ts", ["lake"])
    entries = [NewEntry("lake", 3, 10, b""), NewEntry("lake", 4, 10, b"")]
    observation.committed(Commit(entries, counts={("source", "read"): 9}), 0.004)
    clock.advance(40)
    observation.sent("lake", [Parcel("k", 1, 7, 7, b"", time=clock.now() - 40_000_000)])
    assert observation.counts == {
        ("source", "read"): 9,
        ("sink:lake", "appended"): 7,
        ("sink:lake", "delivered"): 7,
    }
    assert observation.delivered["lake"].counts[BOUNDS.index(60.0)] == 7


def test_a_rate_is_that_of_the_last_seconds() -> None:
    clock = HandClock()
    observation = Observation(clock, [], "ts", ["lake"])
    pace = Pace(clock, observation)
    for second in range(20):
        pace.look()
        observation.counts["source", "read"] += 1000 if second >= 15 else 10
        clock.advance(1)
    assert pace.rates()["source", "read"] == pytest.approx(1000, rel=0.2)
    for _ in range(10):
        pace.look()
        clock.advance(1)
    assert pace.rates()["source", "read"] == 0


def test_latencies_are_those_of_the_last_minutes() -> None:
    clock = HandClock()
    observation = Observation(clock, [], "ts", ["lake"])
    pace = Pace(clock, observation)
    observation.durable.add(9.0, 500)
    for _ in range(400):
        pace.look()
        clock.advance(1)
    observation.durable.add(0.1, 5)
    assert sum(pace.latencies()["durable"]) == 5


def test_hours_of_the_outbox_fit_into_few_points() -> None:
    filling = Filling()
    for second in range(8 * 3600):
        if filling.due(float(second)):
            filling.add(float(second), second, 0)
    times = [point[0] for point in filling.points]
    assert len(times) <= POINTS
    assert times == sorted(times)
    assert times[-1] > 8 * 3600 - 120
    assert (HOURS - 1) * 3600 < times[-1] - times[0] <= HOURS * 3600
    last, many = times[-1], len(times)
    assert not filling.due(last - 30)  # set right by a little, a clock costs no history
    assert len(filling.points) == many
    assert filling.due(100.0)  # set back by much, it begins anew
    filling.add(100.0, 1, 0)
    assert len(filling.points) == 1


def test_the_times_of_a_link_are_its_changes() -> None:
    clock = HandClock()
    timeline = Timeline(clock)
    for state, why in (("up", None), ("up", None), ("down", "a"), ("down", "a"), ("down", "b")):
        timeline.note(state, why)
        clock.advance(1)
    timeline.failed(3.0)
    assert [each[1:] for each in timeline.changes] == [("up", None), ("down", "a"), ("down", "b")]
    assert (timeline.retries, timeline.next_try) == (1, clock.now() + 3_000_000)
    timeline.delivered()
    assert (timeline.last_delivery, timeline.next_try) == (clock.now(), None)


def test_a_line_of_the_log_that_comes_again_is_counted() -> None:
    warnings = Warnings()
    logger = logging.getLogger("edge.test_parts")
    logger.addHandler(warnings)
    for number in (1, 2, 1):
        logger.warning("disk %d is slow", number)
    logger.info("never mind")
    logger.removeHandler(warnings)
    assert [(line["message"], line["times"]) for line in warnings.lines] == [
        ("disk 2 is slow", 1),
        ("disk 1 is slow", 2),
    ]


SIDES = """
name: sides
source: {dataset: {path: x.csv}}
record: {time: ts, key: device, fields: {ts: timestamp, device: str, temp: float}}
operators:
  - window: {size: 1m, late: behind, aggregate: {peak: MAX(temp)}}
  - filter: peak > 1
sinks:
  lake: {console: {}}
  behind: {operators: [{filter: temp > 0}], console: {}}
  problems: {console: {}}
rejected: problems
"""


def test_sinks_that_get_other_rows_hang_where_these_come_from() -> None:
    assert Diagram(loads(SIDES, "x.yaml", {})).arrows == [
        ("source", "common/window"),
        ("common/window", "common/filter"),
        ("common/filter", "sink:lake"),
        ("common/window", "behind/filter"),
        ("behind/filter", "sink:behind"),
        ("source", "sink:problems"),
    ]


@pytest.mark.parametrize(
    "written",
    [
        "password: ${PASS:-hunter2hunter2}",
        "password: hunter2hunter2",
        'password: "hunter2hunter2"  # of the broker',
        "password: ${PASS}",
    ],
)
def test_a_secret_of_a_definition_is_masked(tmp_path: Path, written: str) -> None:
    file = tmp_path / "press.yaml"
    file.write_text(f"""\
name: press # hunter2hunter2 is said here too
source:
  mqtt:
    url: mqtt://localhost:1883
    topics: [a]
    username: edge
    {written}
    client_id: seen
sinks: {{screen: {{console: {{}}}}}}
""")
    pipeline = load(file, {"PASS": "hunter2hunter2"})
    text = shown(pipeline, secrets_of([pipeline], {}))
    assert text is not None
    assert "hunter2" not in text
    assert "    password: ***" in text
    assert "\n    client_id: seen\n" in text


def test_a_definition_without_a_file_is_not_shown(tmp_path: Path) -> None:
    file = tmp_path / "press.yaml"
    file.write_text(
        "name: a\nsource: {mqtt: {url: mqtt://h, topics: [a]}}\nsinks: {s: {console: {}}}"
    )
    pipeline = load(file)
    assert shown(pipeline, Secrets()) == file.read_text()
    file.unlink()
    assert shown(pipeline, Secrets()) is None
    assert shown(pipeline.model_copy(update={"file": None}), Secrets()) is None
