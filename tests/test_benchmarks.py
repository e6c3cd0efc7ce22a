"""The benchmarks measure what they say: the load is real, and so is the arithmetic of the table."""

import json
import re
from collections.abc import Callable
from pathlib import Path

import pytest

from benchmarks.__main__ import BENCHMARKS
from benchmarks.backlog import backlog
from benchmarks.broker import FLOOD, Broker
from benchmarks.consumers import Consumer, Task, hand_written, mosquitto_sub, null
from benchmarks.definitions import Definition
from benchmarks.drain import drain
from benchmarks.flood import watch
from benchmarks.outage import offline
from benchmarks.plan import Plan
from benchmarks.processes import Failed
from benchmarks.publisher import flooding, packets
from benchmarks.readings import PAYLOAD, ROW, payloads, rows, spoil
from benchmarks.simulated import readings
from benchmarks.subscribers import PUBLISH
from benchmarks.table import Bar, Row, render, write_json
from edge.clock import Clock
from edge.pipeline import load

MESSAGES = 20_000


@pytest.mark.parametrize("qos", [0, 1])
def test_a_real_subscriber_gets_every_reading_as_it_was_made(tmp_path: Path, qos: int) -> None:
    with Broker(FLOOD, tmp_path) as broker:
        running = mosquitto_sub(Task(broker, tmp_path, qos, MESSAGES))
        with running.process as process:
            broker.wait_subscribed(process)
            with flooding(broker, packets(MESSAGES, qos)):
                watch(running, MESSAGES)
    assert (tmp_path / "messages").read_bytes().splitlines() == list(payloads(MESSAGES))


@pytest.mark.parametrize("consumer", [null, hand_written])
def test_a_baseline_counts_every_message(tmp_path: Path, consumer: Consumer) -> None:
    with Broker(FLOOD, tmp_path) as broker:
        running = consumer(Task(broker, tmp_path, 0, MESSAGES))
        with running.process as process:
            broker.wait_subscribed(process)
            with flooding(broker, packets(MESSAGES, 0)):
                assert watch(running, MESSAGES) > 0
            assert running.seen() == MESSAGES
            assert running.results is None or running.results() == MESSAGES * 99 // 100
            assert process.cpu() > 0
            assert process.peak() >= process.rss() > 0


def test_a_consumer_that_ends_early_is_told_with_its_own_words(tmp_path: Path) -> None:
    (tmp_path / "readings.sqlite").mkdir()
    with Broker(FLOOD, tmp_path) as broker:
        running = hand_written(Task(broker, tmp_path, 0, 1000))
        with running.process as process, pytest.raises(Failed, match="unable to open database"):
            broker.wait_subscribed(process)


def test_every_reading_has_the_length_the_rows_are_named_after() -> None:
    assert {len(payload) for payload in payloads(1000)} == {PAYLOAD}
    assert {len(row) for row in rows(1000)} == {ROW}
    assert packets(10, 0).size == PUBLISH
    assert packets(10, 1).data + packets(5, 1, first=10).data == packets(15, 1).data
    assert all(json.loads(line) for line in [*payloads(1000), *rows(1000)])


def test_a_spoilt_reading_is_as_long_and_no_reading() -> None:
    good = next(payloads(1))
    for number in range(3):
        bad = spoil(number, good.replace(b'"no"', b'"ok"'))
        assert len(bad) == PAYLOAD
        with pytest.raises((ValueError, AssertionError)):
            assert isinstance(json.loads(bad)["temperature"], float)


def test_the_table_shows_value_ratio_bar_and_verdict(tmp_path: Path) -> None:
    found = [
        Row(
            "a",
            "rate",
            "msg/s",
            [90, 80, 100],
            "null",
            [100, 100, 100],
            Bar("at least", 0.85, "ratio"),
        ),
        Row("b", "CPU", "µs", [4.0], bar=Bar("at most", 3.5), broker="no limits"),
        Row("c", "rate", "msg/s", problem="edge: did not subscribe"),
    ]
    lines = render(found, {"kind": "x86_64"}).splitlines()
    assert [re.sub(" +", " ", line) for line in lines[4:7]] == [
        "| a | | rate | 90 msg/s | null 100 | 0.90 | ratio ≥ 0.85 | pass |",
        "| b | no limits | CPU | 4 µs | | | ≤ 3.5 µs | miss |",
        "| c | | rate | | | | | failed |",
    ]
    assert lines[-1] == "c: edge: did not subscribe"
    write_json(tmp_path / "table.json", found, {"kind": "x86_64"})
    written = json.loads((tmp_path / "table.json").read_text())
    assert [row["verdict"] for row in written["rows"]] == ["pass", "miss", "failed"]
    assert written["rows"][0]["values"] == [90, 80, 100]


def test_a_ratio_of_many_rounds_is_shown_with_its_quartiles() -> None:
    values = [1.01, 0.99, 1.0, 1.04, 1.02, 1.015, 1.005, 0.98, 1.03, 1.01, 1.0]
    row = Row("a", "CPU", "µs", values, "off", [1.0] * 11, Bar("at most", 1.02, "ratio"))
    assert "| 1.010 (1.000-1.020) |" in render([row], {"kind": "x86_64"})
    assert row.verdict == "pass"


def test_readings_of_simulated_time_are_those_that_mqtt_brings(tmp_path: Path) -> None:
    bound = load(Definition("bench", 1, 1).write(tmp_path)).bind(Clock())
    assert readings(0, 0).schema == bound.source_columns
    given = [json.loads(payload) for payload in payloads(1000)]
    made = readings(0, 1000)
    for name, value in given[-1].items():
        column = made[name].to_list()
        if name in ("seq", "status"):
            assert column == [one[name] for one in given]
        elif name != "ts":
            assert min(column) != max(column)
            assert sum(column) / 1000 == pytest.approx(value, rel=0.3)


@pytest.mark.parametrize("benchmark", [offline, drain, backlog])
def test_an_outage_is_measured_in_small_as_in_large(
    tmp_path: Path, benchmark: Callable[[Plan], list[Row]]
) -> None:
    found = benchmark(Plan(20_000, 1, 0.0, tmp_path, hours=0.01, backlog=4 * 2**20))
    assert [row.problem for row in found] == [""] * len(found)
    assert all(row.value for row in found)


def test_every_benchmark_is_explained_in_the_readme() -> None:
    text = (Path(__file__).parent.parent / "benchmarks" / "README.md").read_text()
    assert [name for name in BENCHMARKS if f"`{name}`" not in text] == []
