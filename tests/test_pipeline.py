"""A definition is read as written, and what is wrong with it is told in full, at once, by line."""

import json
from datetime import timedelta
from pathlib import Path

import polars as pl
import pytest
from jsonschema import Draft202012Validator
from pydantic import ValidationError

from edge.clock import Clock
from edge.codec import Record
from edge.errors import DefinitionError
from edge.operators.derive import Derive
from edge.operators.filter import Filter
from edge.operators.select import Select
from edge.pipeline import Branch, Named, Pipeline, load, loads
from edge.pipeline.schema import definition_schema
from edge.sinks.console import ConsoleSink
from edge.sinks.sqs import SqsSink
from edge.sources.mqtt import MqttSource

FILE = "pipelines/press.yaml"
GOOD = """\
edge: 1
name: press-line
site: ${EDGE_SITE:-local}
replica: ${EDGE_REPLICA:-0}
source:
  mqtt:
    url: mqtt://localhost:1883
    topics:
      - plant/{line}/{device}/telemetry
    qos: 1
    retained: once
  acknowledge: committed
record:
  format: json
  time: ts
  key: device
  fields:
    ts: timestamp_ms
    temperature: {type: float, path: d.temp}
    status: optional str
operators:
  - filter: status = 'ok' AND temperature IS NOT NULL
    name: hot
  - filter: temperature > 0
  - filter: temperature < 500
  - derive:
      fahrenheit: temperature * 1.8 + 32
sinks:
  lake:
    operators:
      - deadband:
          column: temperature
          change: 0.2
          heartbeat: 5m
    s3:
      bucket: plant-lake
      prefix: readings/
      format: parquet
      partition: [date, line]
    roll: {size: 8MiB, every: 60s}
  alarms:
    when: fahrenheit > 80
    sqs:
      queue: plant-alarms
    priority: high
    order: none
    identity: true
    max_size: 1GiB
    when_full: drop_oldest
    live_share: 0.5
outbox: {path: state, max_size: 2GiB, when_full: drop_oldest}
link: {bandwidth: 2MiB/s, live_share: 0.7}
batch: {rows: 10000, wait: 50ms}
tests:
  - name: hot rows reach the alarms
    given: [{temperature: 90}]
    expect: {alarms: [{temperature: 90}]}
"""


def faults(text: str, environment: dict[str, str] | None = None) -> list[str]:
    """Everything that reading and binding complain about."""
    try:
        loads(text, FILE, environment or {}).bind(Clock())
    except DefinitionError as error:
        return [str(fault) for fault in error.faults]
    return []


def broken(old: str, new: str) -> list[str]:
    assert GOOD.count(old) == 1, f"{old!r} must stand once in the definition"
    return faults(GOOD.replace(old, new))


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
    assert rows.filter(when)["fahrenheit"].to_list() == [81.0]


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


NAMES = "must be 1 to 63 characters of a-z, 0-9 and -, got"
ABOVE_ZERO = "must be a duration above zero such as 30s or 5m, got"
A_SIZE = "must be a size such as 8MiB or 500kB, got"
COLUMNS = "ts, temperature, status, line, device, edge_received"
AT_SITES = "must be 1 to 32 characters of a-z, 0-9 and -, got"

ONE_FAULT = [
    ("edge: 1", "edge: 2", ":1: edge: must be 1, got 2"),
    ("name: press-line", "name: Press Line", f":2: name: {NAMES} 'Press Line'"),
    ("name: press-line\n", "", ":1: name: is missing; add `name:`"),
    ("name: press-line", "name: 12", ":2: name: must be text, got 12; quote it"),
    ("name: press-line", "name:", ":2: name: must be text, got nothing"),
    ("name: press-line", "nam: press-line", ":2: no option is called 'nam'; did you mean 'name'?"),
    ("site: ${EDGE_SITE:-local}", "site: Osaka", f":3: site: {AT_SITES} 'Osaka'"),
    ("site: ${EDGE_SITE:-local}", "site: ${SITE}",
     ":3: site: the environment has no SITE; set it, or give a default with ${SITE:-...}"),
    ("site: ${EDGE_SITE:-local}", "site: ${SITE",
     ":3: site: must be ${NAME} or ${NAME:-default}; write $${ for a plain ${"),
    ("replica: ${EDGE_REPLICA:-0}", "replica: a b", f":4: replica: {AT_SITES} 'a b'"),
    ("replica: ${EDGE_REPLICA:-0}", "replica: [1]", ":4: replica: must be text, got a list"),
    ("  mqtt:\n", "  mqt:\n", ":6: source: no source is called 'mqt'; did you mean 'mqtt'?"),
    ("    topics:\n      - plant/{line}/{device}/telemetry\n", "",
     ":6: source.mqtt.topics: is missing; add `topics:`"),
    ("    retained: once", "    retained: sometimes",
     ":11: source.mqtt.retained: must be 'skip', 'once' or 'keep', got 'sometimes'"),
    ("    retained: once", "    retaind: once",
     ":11: source.mqtt: no option is called 'retaind'; did you mean 'retained'?"),
    ("  acknowledge: committed", "  acknowledge: soon",
     ":12: source.acknowledge: must be 'committed' or 'delivered', got 'soon'"),
    ("  acknowledge: committed", "  dataset: {path: x.csv}",
     ":5: source: must name one source, got mqtt and dataset; split them"),
    ("  format: json", "  format: xml",
     ":14: record.format: must be 'json', 'csv', 'value' or 'raw', got 'xml'"),
    ("  time: ts", "  time: [ts]", ":15: record.time: must be text, got a list"),
    ("  key: device", "  keys: device",
     ":16: record: no option is called 'keys'; did you mean 'key'?"),
    ("    name: hot", "    nam: hot",
     ":23: operators.0: no option is called 'nam'; did you mean 'name'?"),
    ("    name: hot", "    name: filter-2",
     ":21: operators: two operators are called 'filter-2'; give one another name"),
    ("    name: hot", "    name: Hot", f":23: operators.0.name: {NAMES} 'Hot'"),
    ("  - filter: temperature > 0", "  - filtr: temperature > 0",
     ":24: operators.1: no operator is called 'filtr'; did you mean 'filter'?"),
    ("  - filter: temperature > 0", "  - filter: 5",
     ":24: operators.1.filter: must be text, got 5; quote it"),
    ("  - filter: temperature > 0", "  - filter",
     ":24: operators.1: must be a mapping that names one operator such as filter, derive, "
     "select, drop, got 'filter'"),
    ("  - filter: temperature > 0", "  - filter: temperatur > 0",
     ":24: operators.1.filter: filter 'temperatur > 0': column 'temperatur' is not in the batch, "
     f"which has {COLUMNS}; did you mean 'temperature'?"),
    ("      fahrenheit: temperature * 1.8 + 32", "      fahrenheit:",
     ":27: operators.3.derive.fahrenheit: must be an expression, got nothing; "
     "if one was cut here, quote it, it has a comma"),
    ("  - derive:\n      fahrenheit: temperature * 1.8 + 32",
     "  - derive: {fahrenheit: temperature, rounded: ROUND(temperature, 1)}",
     ":26: operators.3.derive.1): must be an expression, got nothing; "
     "'ROUND(temperature, 1)' before it: quote it, it has a comma"),
    ("  - derive:\n      fahrenheit: temperature * 1.8 + 32",
     "  - derive:\n      dew_point: humidity * 2",
     ":26: operators.3.derive: derive 'dew_point': column 'humidity' is not in the batch, "
     f"which has {COLUMNS}"),
    ("          column: temperature\n", "",
     ":31: sinks.lake.operators.0.deadband.column: is missing; add `column:`"),
    ("          heartbeat: 5m", "          heartbeat: -5s",
     f":34: sinks.lake.operators.0.deadband.heartbeat: {ABOVE_ZERO} '-5s'"),
    ("          heartbeat: 5m", "          heartbeat: 5",
     f":34: sinks.lake.operators.0.deadband.heartbeat: {ABOVE_ZERO} 5"),
    ("    s3:\n", "    s4:\n",
     ":35: sinks.lake: no sink is called 's4'; known are console, file, s3, sqs"),
    ("      bucket: plant-lake\n", "", ":35: sinks.lake.s3.bucket: is missing; add `bucket:`"),
    ("      bucket: plant-lake", "      bucket: [plant-lake]",
     ":36: sinks.lake.s3.bucket: must be text, got a list"),
    ("      format: parquet", "      format: parkay",
     ":38: sinks.lake.s3.format: must be 'ndjson', 'csv', 'parquet' or 'json', got 'parkay'"),
    ("    roll: {size: 8MiB, every: 60s}", "    roll: {size: 8, every: 60s}",
     ":40: sinks.lake.roll.size: must be a size with its unit such as 8MiB or 500kB, got 8"),
    ("    roll: {size: 8MiB, every: 60s}", "    roll: {size: 0B, every: 60s}",
     ":40: sinks.lake.roll.size: must be above 0, got '0B'"),
    ("    roll: {size: 8MiB, every: 60s}", "    roll: {size: 8MiB, ever: 60s}",
     ":40: sinks.lake.roll: no option is called 'ever'; did you mean 'every'?"),
    ("    when: fahrenheit > 80", "    when: celsius > 80",
     f":42: sinks.alarms.when: when: column 'celsius' is not in the batch, which has {COLUMNS}, "
     "fahrenheit"),
    ("    when: fahrenheit > 80", "    wen: fahrenheit > 80",
     ":42: sinks.alarms: no option is called 'wen'; did you mean 'when'?"),
    ("      queue: plant-alarms", "      que: plant-alarms",
     ":44: sinks.alarms.sqs: no option is called 'que'; did you mean 'queue'?"),
    ("      queue: plant-alarms", "      queue: plant alarms",
     ":44: sinks.alarms.sqs.queue: must be the name, URL or ARN of a queue, got 'plant alarms'"),
    ("    priority: high", "    priority: highest",
     ":45: sinks.alarms.priority: must be 'high', 'normal' or 'low', got 'highest'"),
    ("    order: none", "    order: random",
     ":46: sinks.alarms.order: must be 'none', 'key' or 'all', got 'random'"),
    ("    identity: true", "    identity: maybe",
     ":47: sinks.alarms.identity: must be true or false, got 'maybe'"),
    ("    max_size: 1GiB", "    max_size: many",
     f":48: sinks.alarms.max_size: {A_SIZE} 'many'"),
    ("    max_size: 1GiB", "    max_size: 3GiB",
     ":48: sinks.alarms.max_size: must be at most '2GiB' as the outbox is, got '3GiB'"),
    ("    when_full: drop_oldest\n    live", "    when_full: drop\n    live",
     ":49: sinks.alarms.when_full: must be 'block', 'drop_oldest' or 'drop_newest', got 'drop'"),
    ("    live_share: 0.5", "    live_share: 1.5",
     ":50: sinks.alarms.live_share: must be at most 1, got 1.5"),
    ("outbox: {path: state, max_size: 2GiB", "outbox: {path: 3, max_size: 2GiB",
     ":51: outbox.path: must be a path, got 3"),
    ("outbox: {path: state, max_size: 2GiB", "outbox: {path: state, max_size: 1MiB",
     ":51: outbox.max_size: must be at least 32MiB, got '1MiB'"),
    ("link: {bandwidth: 2MiB/s", "link: {bandwidth: 2MiB",
     ":52: link.bandwidth: must be a rate such as 2MiB/s, got '2MiB'"),
    ("link: {bandwidth: 2MiB/s", "link: {bandwidth: 0B/s",
     ":52: link.bandwidth: must be above 0, got '0B/s'"),
    ("live_share: 0.7}", "live_share: most}",
     ":52: link.live_share: must be a number, got 'most'"),
    ("batch: {rows: 10000", "batch: {rows: 0", ":53: batch.rows: must be at least 1, got 0"),
    ("batch: {rows: 10000", "batch: {rows: 1.5",
     ":53: batch.rows: must be a whole number, got 1.5"),
    ("wait: 50ms}", "wait: soon}", f":53: batch.wait: {ABOVE_ZERO} 'soon'"),
    ("    given: [{temperature: 90}]\n", "", ":55: tests.0.given: is missing; add `given:`"),
    ("    expect: {alarms:", "    expct: {alarms:",
     ":57: tests.0: no option is called 'expct'; did you mean 'expect'?"),
    ("tests:\n", "rejected: lost\ntests:\n",
     ":54: rejected: must be a sink, got 'lost'; has lake, alarms"),
    ("tests:\n", "batch: {rows: 1}\ntests:\n", ":54: 'batch' is there twice, first in line 53"),
    ("tests:\n", "acknowledge: committed\ntests:\n",
     ":54: acknowledge: is an option of the source; write it below `source:`"),
    ("batch: {rows: 10000", "batch: {rows: ${ROWS}",
     ":53: is not YAML: within { } and [ ] a text with { needs quotes"),
]  # fmt: skip


@pytest.mark.parametrize(("old", "new", "expected"), ONE_FAULT)
def test_one_mistake_is_one_line_with_place_and_remedy(old: str, new: str, expected: str) -> None:
    assert broken(old, new) == [FILE + expected]


def test_the_good_definition_has_no_fault() -> None:
    assert faults(GOOD) == []


def test_all_faults_of_a_file_are_told_at_once_in_its_order() -> None:
    text = GOOD.replace("qos: 1", "qos: 3").replace("change: 0.2", "chang: 0.2")
    found = faults(text.replace("bucket: plant-lake", "").replace("rows: 10000", "rows: -1"))

    assert [fault.split(": ")[1] for fault in found] == [
        "source.mqtt.qos", "sinks.lake.operators.0.deadband", "sinks.lake.s3.bucket", "batch.rows",
    ]  # fmt: skip


def test_faults_of_all_branches_are_told_at_once_when_binding() -> None:
    text = GOOD.replace("when: fahrenheit", "when: celsius").replace("column: temp", "column: hum")
    found = faults(text)

    assert [fault.split(": ")[1] for fault in found] == [
        "sinks.lake.operators.0.deadband", "sinks.alarms.when",
    ]  # fmt: skip


NOT_A_DEFINITION = [
    ("", ": is empty; start with `edge: 1` and a `name:`"),
    ("# nothing\n", ": is empty; start with `edge: 1` and a `name:`"),
    ("- a\n", ":1: must be a mapping that starts with `edge: 1`, got a list"),
    ("press", ":1: must be a mapping that starts with `edge: 1`, got 'press'"),
    (
        "a: 1\n---\nb: 2\n",
        ":2: is not YAML: must hold one definition, got a second one after '---'",
    ),
    (
        "a: b: c\n",
        ":1: is not YAML: a second ': ' in one line; quote the text, or start a new line",
    ),
    ("a:\n\t- b\n", ":2: is not YAML: a tab cannot indent; use spaces"),
    ("a: *b\n", ":1: is not YAML: found undefined alias 'b'"),
    ("a: \0\n", ": has a character that YAML forbids, got '\\x00'"),
    ("[" * 5000, ": is nested too deeply"),
    ("x" * (2**20 + 1), ": must be at most 1 MiB, got 1048577 characters"),
]


@pytest.mark.parametrize(("text", "expected"), NOT_A_DEFINITION)
def test_what_is_no_definition_is_told_in_one_line(text: str, expected: str) -> None:
    assert faults(text) == [FILE + expected]


def test_aliases_cannot_unfold_without_end() -> None:
    bomb = "a0: &a0 [x, x]\n"
    bomb += "".join(f"a{n}: &a{n} [*a{n - 1}, *a{n - 1}]\n" for n in range(1, 40))
    assert faults(bomb) == [f"{FILE}: aliases unfold to more than 50000 values"]
    assert f"{FILE}:1: a.0: is an alias of what it lies in; write it out" in faults("a: &a [*a]\n")


def test_scalars_are_those_of_yaml_1_2() -> None:
    row = "{a: on, b: 1:30, c: 2024-01-01, d: 0777, e: True, f: 1e3, g: ~, h: .5, i: 0x1F, j: '1'}"
    text = GOOD.replace("given: [{temperature: 90}]", f"given: [{row}]")
    (given,) = loads(text, FILE, {}).tests[0].given

    assert given == {
        "a": "on", "b": "1:30", "c": "2024-01-01", "d": 777, "e": True, "f": 1000.0, "g": None,
        "h": 0.5, "i": 31, "j": "1",
    }  # fmt: skip


def test_variables_are_replaced_in_values_only_and_never_change_the_structure() -> None:
    text = GOOD.replace("url: mqtt://localhost:1883", "url: mqtt://${HOST}:${PORT:-1883}")
    text = text.replace("prefix: readings/", "prefix: $${HOST}/")
    text = text.replace("rows: 10000", "rows: '${ROWS}'").replace("true", "${ID}")
    text = text.replace("queue: plant-alarms", "queue: ${QUEUE:-alarms}")
    pipeline = loads(text, FILE, {"HOST": "broker", "ROWS": "7", "ID": "false", "QUEUE": ""})

    assert str(pipeline.source.url) == "mqtt://broker:1883"  # type: ignore[attr-defined]
    assert pipeline.sinks["lake"].sink.prefix == "${HOST}/"  # type: ignore[attr-defined]
    assert pipeline.batch.rows == 7
    assert pipeline.sinks["alarms"].identity is False
    assert pipeline.sinks["alarms"].sink.queue == "alarms"  # type: ignore[attr-defined]

    injected = faults(text, {"HOST": "a", "ROWS": "7\nsite: b", "ID": "no", "QUEUE": "q"})
    assert injected == [f"{FILE}:53: batch.rows: must be a whole number, got '7\\nsite: b'"]


def test_a_secret_is_never_printed() -> None:
    text = GOOD.replace("    qos: 1", "    username: u\n    password: [hunter2]")
    found = faults(text)

    assert found == [f"{FILE}:11: source.mqtt.password: must be text, got a secret"]
    good = GOOD.replace("    qos: 1", "    username: u\n    password: ${PASSWORD}")
    assert "hunter2" not in repr(loads(good, FILE, {"PASSWORD": "hunter2"}))


def test_a_file_that_cannot_be_read_is_told(tmp_path: Path) -> None:
    def told(path: Path) -> str:
        with pytest.raises(DefinitionError) as caught:
            load(path)
        return str(caught.value).replace(str(tmp_path), "")

    (tmp_path / "press.yaml").write_bytes(b"name: \xff\xfe")
    assert (
        told(tmp_path / "pres.yaml")
        == "/pres.yaml: there is no such file; did you mean '/press.yaml'?"
    )
    assert (
        told(tmp_path / "press.yaml")
        == "/press.yaml: must be UTF-8, got other bytes at 6; save it as UTF-8"
    )
    assert told(tmp_path) == ": must be a file, got a folder"


PYTHON = """\
from edge import ConsoleSink, MqttSource, Pipeline, Record
pipeline = Pipeline(
    name="press",
    source=MqttSource(url="mqtt://localhost", topics=["a"]),
    record=Record(fields={"t": "float"}),
    sinks={"out": ConsoleSink()},
)
"""


def test_a_python_file_is_a_definition_too(tmp_path: Path) -> None:
    file = tmp_path / "press.py"
    file.write_text(PYTHON)

    pipeline = load(file)

    assert pipeline.name == "press"
    assert pipeline.folder == tmp_path
    assert set(pipeline.bind(Clock()).branches) == {"out"}


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("x = 1\n", ": pipeline: must define `pipeline = Pipeline(...)`, got nothing"),
        ("x = 1\n1 / 0\n", ":2: raises ZeroDivisionError('division by zero')"),
        ("x = 1\nx = = 2\n", ":2: raises SyntaxError"),
        (PYTHON.replace('"press"', '"Press"'), f":2: name: {NAMES} 'Press'"),
    ],
)
def test_a_fault_in_a_python_file_has_its_line(tmp_path: Path, text: str, expected: str) -> None:
    file = tmp_path / "press.py"
    file.write_text(text)
    with pytest.raises(DefinitionError) as caught:
        load(file)
    assert str(caught.value).startswith(f"{file}{expected}")


def test_the_schema_takes_what_the_loader_takes() -> None:
    from edge.pipeline.document import parse

    schema = definition_schema()
    Draft202012Validator.check_schema(schema)
    validator = Draft202012Validator(schema)
    for text in (GOOD, *(file.read_text() for file in Path("pipelines").glob("*.yaml"))):
        document, _ = parse(FILE, text, {})
        values = json.loads(json.dumps(document.values))
        assert [error.message for error in validator.iter_errors(values)] == []


@pytest.mark.parametrize(
    ("old", "new"),
    [
        ("edge: 1", "edge: 2"),
        ("  mqtt:\n", "  mqt:\n"),
        ("    retained: once", "    retained: sometimes"),
        ("  - filter: temperature > 0", "  - filtr: temperature > 0"),
        ("    roll: {size: 8MiB, every: 60s}", "    roll: {size: 8}"),
        ("    wait: 50ms", "    wait: 50"),
    ],
)
def test_the_schema_refuses_what_the_loader_refuses(old: str, new: str) -> None:
    from edge.pipeline.document import parse

    document, _ = parse(FILE, GOOD.replace(old.strip(), new.strip()), {})
    assert not Draft202012Validator(definition_schema()).is_valid(document.values)


def test_selecting_everything_away_is_told_before_a_row_arrives() -> None:
    with pytest.raises(DefinitionError, match="column 'temperature' is not in the batch"):
        Pipeline(
            name="press",
            source=MqttSource(url="mqtt://localhost", topics=("a",)),
            record=Record(fields={"temperature": "float", "status": "str"}),
            operators=[Select(columns=["status"]), Filter(where="temperature > 1")],
            sinks={"out": ConsoleSink()},
        ).bind(Clock())
