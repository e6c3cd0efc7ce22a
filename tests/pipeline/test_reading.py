"""What is wrong with a definition is told in full, at once, by line, with its remedy."""

from pathlib import Path

import pytest

from edge.clock import Clock
from edge.errors import DefinitionError
from edge.pipeline import load, loads
from tests.pipeline.press import FILE, GOOD, broken, faults

NAMES = "must be 1 to 63 characters of a-z, 0-9 and -, got"


ABOVE_ZERO = "must be a duration above zero such as 30s or 5m, got"


A_SIZE = "must be a size such as 8MiB or 500kB, got"


COLUMNS = "ts, temperature, status, line, device"


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
    ("      - deadband:", "      - dedband:",
     ":31: sinks.lake.operators.0: no operator is called 'dedband'; did you mean 'deadband'?"),
    ("          column: temperature\n", "",
     ":31: sinks.lake.operators.0.deadband.column: is missing; add `column:`"),
    ("          heartbeat: 5m", "          heartbeat: -5s",
     f":34: sinks.lake.operators.0.deadband.heartbeat: {ABOVE_ZERO} '-5s'"),
    ("          heartbeat: 5m", "          heartbeat: 5",
     f":34: sinks.lake.operators.0.deadband.heartbeat: {ABOVE_ZERO} 5"),
    ("    s3:\n", "    s4:\n",
     ":35: sinks.lake: no sink is called 's4'; known are cloudwatch, console, file, mqtt, s3, sqs"),
    ("      bucket: plant-lake\n", "", ":35: sinks.lake.s3.bucket: is missing; add `bucket:`"),
    ("      bucket: plant-lake", "      bucket: [plant-lake]",
     ":36: sinks.lake.s3.bucket: must be text, got a list"),
    ("      format: parquet", "      format: parkay",
     ":38: sinks.lake.s3.format: must be 'ndjson', 'csv', 'parquet' or 'json', got 'parkay'"),
    ("    roll: {size: 8MiB, every: 60s}", "    roll: {size: 8, every: 60s}",
     ":40: sinks.lake.roll.size: must be a size with its unit such as 8MiB or 500kB, got 8"),
    ("    roll: {size: 8MiB, every: 60s}", "    roll: {size: 0B, every: 60s}",
     ":40: sinks.lake.roll.size: must be above 0, got '0B'"),
    ("    roll: {size: 8MiB, every: 60s}", "    roll: {size: 9999999TiB, every: 60s}",
     ":40: sinks.lake.roll.size: must be at most 4194304TiB, got '9999999TiB'"),
    ("    roll: {size: 8MiB, every: 60s}", "    roll: {size: 8MiB, every: 99999d}",
     ":40: sinks.lake.roll.every: must be at most 36500d, got '99999d'"),
    ("    roll: {size: 8MiB, every: 60s}", "    roll: {size: 8MiB, ever: 60s}",
     ":40: sinks.lake.roll: no option is called 'ever'; did you mean 'every'?"),
    ("    when: fahrenheit > 80", "    when: celsius > 80",
     ":42: sinks.alarms.when: when 'celsius > 80': column 'celsius' is not in the batch, which has "
     f"{COLUMNS}, fahrenheit"),
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
    ("    given: [{temperature: 90}]\n", "",
     ":55: tests.0: has no `given`; add `given:`, or `steps:` instead"),
    ("    expect: {alarms:", "    expct: {alarms:",
     ":57: tests.0: no option is called 'expct'; did you mean 'expect'?"),
    ("    priority: high\n", "      priority: high\n",
     ":45: sinks.alarms.sqs: 'priority' stands beside 'sqs', not below it; move it out"),
    ("      queue: plant-alarms\n", "    queue: plant-alarms\n",
     ":44: sinks.alarms: 'queue' is an option of 'sqs'; indent it below `sqs:`"),
    ("tests:\n", "priority: high\ntests:\n",
     ":54: 'priority' is an option of a sink; indent it below the sink's name"),
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
    (tmp_path / "link.yaml").symlink_to("link.yaml")
    assert told(tmp_path / "link.yaml") == "/link.yaml: is a link to a file that is not there"
    assert told(tmp_path / ("x" * 300)).endswith(": cannot be read: File name too long")


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
        ("x = 1\nraise SystemExit(0)\n", ":2: raises SystemExit(0)"),
        (PYTHON.replace('"press"', '"Press"'), f":2: name: {NAMES} 'Press'"),
    ],
)
def test_a_fault_in_a_python_file_has_its_line(tmp_path: Path, text: str, expected: str) -> None:
    file = tmp_path / "press.py"
    file.write_text(text)
    with pytest.raises(DefinitionError) as caught:
        load(file)
    assert str(caught.value).startswith(f"{file}{expected}")


def test_a_part_of_another_package_is_found_by_its_name(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    about = tmp_path / "plant-1.0.dist-info"
    about.mkdir()
    (about / "METADATA").write_text("Name: plant\nVersion: 1.0\n")
    (about / "entry_points.txt").write_text(
        "[edge.operators]\ncalm = plant_parts:Calm\ngone = plant_parts_gone:Gone\n"
    )
    (tmp_path / "plant_parts.py").write_text(
        "from edge.operators.filter import Filter\nclass Calm(Filter):\n    pass\n"
    )
    monkeypatch.syspath_prepend(tmp_path)
    text = GOOD.replace("  - filter: temperature < 500", "  - calm: temperature < 500")

    bound = loads(text, FILE, {}).bind(Clock())

    assert [stage.name for stage in bound.common] == ["hot", "filter-2", "calm", "derive"]
    assert faults(text.replace("- calm", "- gone")) == [
        f"{FILE}:25: operators.2: operator 'gone' cannot be imported: "
        "No module named 'plant_parts_gone'; install what it needs"
    ]
