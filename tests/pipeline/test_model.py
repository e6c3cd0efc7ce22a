"""A definition says the same in YAML and in Python."""

from datetime import timedelta
from pathlib import Path

import pytest
from pydantic import ValidationError

from edge.clock import Clock
from edge.codec import Record
from edge.operators.derive import Derive
from edge.operators.filter import Filter
from edge.pipeline import Branch, Named, Pipeline, loads
from edge.sinks.console import ConsoleSink
from edge.sinks.sqs import SqsSink
from edge.sources.mqtt import MqttSource
from tests.pipeline.press import FILE, GOOD


def test_a_definition_is_read_as_written() -> None:
    pipeline = loads(GOOD, FILE, {"EDGE_SITE": "osaka"})

    assert pipeline.identity() == "edge-osaka-press-line-0"
    assert pipeline.outbox_folder() == Path("pipelines/state")
    assert pipeline.link.bandwidth == 2 * 2**20
    assert pipeline.batch.wait == timedelta(milliseconds=50)
    assert pipeline.sinks["lake"].rolling() == (8 * 2**20, timedelta(minutes=1))
    assert pipeline.sinks["alarms"].limits() == ("high", 2**30, "drop_oldest")
    assert pipeline.sinks["alarms"].order == "none"
    assert isinstance(pipeline.operators[0].operator, Filter)
    assert pipeline.folder == Path("pipelines")


def test_a_fifo_queue_keeps_the_order_of_the_key() -> None:
    assert Branch(sink=SqsSink(queue="alarms.fifo")).order == "key"
    assert Branch(sink=SqsSink(queue="alarms")).order == "none"


def test_python_says_the_same_as_yaml() -> None:
    pipeline = Pipeline(
        name="press",
        source=MqttSource(url="mqtt://localhost", topics=("a/{device}",)),
        record=Record(fields={"t": "float"}, key="device"),
        operators=[Filter(where="t > 1"), Named(operator=Derive(columns={"u": "t * 2"}), name="d")],
        sinks={"out": ConsoleSink(), "some": Branch(sink=ConsoleSink(), when="u > 4")},
        link={"bandwidth": "1MiB/s"},
    )
    bound = pipeline.bind(Clock())

    assert [stage.name for stage in bound.common] == ["filter", "d"]
    assert set(bound.branches) == {"out", "some"}
    with pytest.raises(ValidationError):
        Pipeline(name="No Name", source=MqttSource(url="mqtt://a", topics=("a",)), sinks={})


def test_the_outbox_lies_in_the_state_folder(monkeypatch: pytest.MonkeyPatch) -> None:
    pipeline = loads(GOOD.replace("path: state, ", ""), FILE, {})
    monkeypatch.delenv("EDGE_STATE_DIR", raising=False)
    assert pipeline.outbox_folder() == Path("var/press-line")
    monkeypatch.setenv("EDGE_STATE_DIR", "/state")
    assert pipeline.outbox_folder() == Path("/state/press-line")
