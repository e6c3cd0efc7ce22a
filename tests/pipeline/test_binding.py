"""Every part knows its columns before a row arrives, or when the first one tells them."""

import polars as pl
import pytest

from edge.clock import Clock
from edge.codec import Record
from edge.errors import DefinitionError
from edge.operators.filter import Filter
from edge.operators.select import Select
from edge.pipeline import Pipeline, loads
from edge.sinks.console import ConsoleSink
from edge.sources.mqtt import MqttSource
from tests.pipeline.press import FILE, GOOD, faults


def test_every_stage_knows_its_columns() -> None:
    bound = loads(GOOD, FILE, {}).bind(Clock())

    assert [stage.name for stage in bound.common] == ["hot", "filter-2", "filter-3", "derive"]
    assert bound.source_columns is not None
    assert bound.source_columns["ts"] == pl.Datetime("us", "UTC")
    lake = bound.branches["lake"]
    assert [stage.name for stage in lake.operators] == ["deadband"]
    assert set(lake.columns) == {"ts", "temperature", "status", "line", "device", "fahrenheit"}
    assert lake.drop == ("edge_received",)
    when = bound.branches["alarms"].when
    assert when is not None
    rows = pl.DataFrame({"fahrenheit": [79.0, 81.0, None]})
    assert when.keep(rows)["fahrenheit"].to_list() == [81.0]


def test_the_shape_of_memory_changes_with_options_and_key_only() -> None:
    def shape(text: str) -> str:
        bound = loads(text, FILE, {}).bind(Clock())
        return bound.branches["lake"].operators[0].shape

    assert shape(GOOD) == shape(GOOD.replace("mqtt://localhost", "mqtt://broker"))
    assert shape(GOOD) != shape(GOOD.replace("change: 0.2", "change: 0.3"))
    assert shape(GOOD) != shape(GOOD.replace("key: device", "key: [line, device]"))


def test_arrival_time_reaches_a_sink_that_selects_it_or_has_no_other_time() -> None:
    selected = loads(
        GOOD.replace(
            "    when: fahr",
            "    operators: [{select: [edge_received, fahrenheit]}]\n    when: fahr",
        ),
        FILE,
        {},
    ).bind(Clock())
    timeless = loads(GOOD.replace("  time: ts\n", ""), FILE, {}).bind(Clock())

    assert "edge_received" in selected.branches["alarms"].columns
    assert "edge_received" not in selected.branches["lake"].columns
    assert "edge_received" in timeless.branches["lake"].columns


def test_the_sink_for_rejected_payloads_gets_reason_topic_and_payload() -> None:
    text = GOOD.replace("sinks:\n", "sinks:\n  problems: {console: {}}\n") + "rejected: problems\n"
    bound = loads(text, FILE, {}).bind(Clock())

    assert list(bound.branches["problems"].columns) == [
        "edge_received",
        "reason",
        "topic",
        "payload",
    ]


def test_columns_that_only_data_tells_are_bound_later() -> None:
    text = GOOD[: GOOD.index("  fields:")] + GOOD[GOOD.index("operators:") :]
    bound = loads(text, FILE, {}).bind(Clock())

    assert bound.source_columns is None
    assert not bound.branches
    first = pl.Schema(
        {
            "ts": pl.Datetime("us", "UTC"),
            "temperature": pl.Float64(),
            "status": pl.String(),
            "line": pl.String(),
            "device": pl.String(),
        }
    )
    bound.bind_columns(first)
    assert set(bound.branches) == {"lake", "alarms"}
    again = loads(text, FILE, {}).bind(Clock())
    with pytest.raises(DefinitionError, match=r"column 'device' is not in the batch"):
        again.bind_columns(pl.Schema({"ts": first["ts"]}))


def test_selecting_everything_away_is_told_before_a_row_arrives() -> None:
    with pytest.raises(DefinitionError, match="column 'temperature' is not in the batch"):
        Pipeline(
            name="press",
            source=MqttSource(url="mqtt://localhost", topics=("a",)),
            record=Record(fields={"temperature": "float", "status": "str"}),
            operators=[Select(columns=["status"]), Filter(where="temperature > 1")],
            sinks={"out": ConsoleSink()},
        ).bind(Clock())


def test_faults_of_all_branches_are_told_at_once_when_binding() -> None:
    text = GOOD.replace("when: fahrenheit", "when: celsius").replace("column: temp", "column: hum")
    found = faults(text)

    assert [fault.split(": ")[1] for fault in found] == [
        "sinks.lake.operators.0.deadband", "sinks.alarms.when",
    ]  # fmt: skip
