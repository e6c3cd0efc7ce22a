"""check, explain and schema: every fault with its line, and what a pipeline will do."""

import json
from pathlib import Path

from tests.cli.conftest import DEFINITION, Edge


def test_a_good_definition_is_called_good(edge: Edge, press: Path) -> None:
    done = edge("check", press)

    assert done.code == 0
    assert done.out == ""
    assert done.err == f"{press}: good, 4 columns, sinks lake, hot\n"


def test_check_tells_every_fault_of_every_file_and_exits_with_2(edge: Edge, press: Path) -> None:
    other = press.with_name("other.yaml")
    other.write_text(DEFINITION.replace("name: press", "name: Press"))
    press.write_text(DEFINITION.replace("select:", "selct:").replace("file: {path: out}", ""))

    done = edge("check", press, other, press.with_name("pres.yaml"))

    assert done.code == 2
    assert done.err.splitlines() == [
        f"{press}:18: sinks.lake: must be a mapping that names one sink such as file, console, s3, "
        "sqs, got nothing",
        f"{press}:23: sinks.hot.operators.0: no operator is called 'selct'; did you mean 'select'?",
        f"{other}:2: name: must be 1 to 63 characters of a-z, 0-9 and -, got 'Press'",
        f"{press.with_name('pres.yaml')}: there is no such file; did you mean '{press}'?",
    ]


def test_check_looks_at_every_definition_of_a_folder(edge: Edge, press: Path) -> None:
    broken = press.with_name("broken.yaml")
    broken.write_text(DEFINITION.replace("name: press", "name: Press"))
    press.with_name("press.test.yaml").write_text("not a definition")

    done = edge("check", press.parent)

    assert done.code == 2
    assert [line.partition(": ")[0] for line in done.err.splitlines()] == [
        f"{broken}:2",
        f"{press}",
    ]


def test_check_gives_faults_as_json(edge: Edge, press: Path) -> None:
    press.write_text(DEFINITION.replace("temperature > 80", "temperatur > 80"))

    done = edge("check", "--json", press)

    assert done.code == 2
    assert done.err == ""
    (fault,) = json.loads(done.out)
    assert (fault["file"], fault["line"], fault["path"]) == (str(press), 21, "sinks.hot.when")


def test_explain_shows_columns_after_every_operator_and_at_every_sink(
    edge: Edge, press: Path
) -> None:
    done = edge("explain", press)

    assert done.code == 0
    assert done.out.splitlines()[1:] == [
        "  source dataset: ts timestamp, device str, temperature float, edge_received timestamp",
        "  sane: the same columns",
        "  derive: + fahrenheit float",
        "  sink lake: file, parcels of 8MiB or 1m, order none, normal",
        "    receives edge_id str, ts timestamp, device str, temperature float, fahrenheit float",
        "  sink hot: file, parcels of 8MiB or 1m, order none, normal",
        "    select: - device, - edge_received, - fahrenheit",
        "    when temperature > 80",
        "    receives edge_id str, ts timestamp, temperature float",
    ]


def test_explain_gives_json(edge: Edge, press: Path) -> None:
    found = json.loads(edge("explain", "--json", press).out)

    assert found["operators"][1]["columns"]["fahrenheit"] == "float"
    assert found["sinks"]["hot"]["when"] == "temperature > 80"
    assert found["outbox"] == str(press.parent / "state" / "press")


def test_what_explain_infers_can_be_pasted(edge: Edge, press: Path) -> None:
    without = DEFINITION[: DEFINITION.index("  fields:")] + DEFINITION[DEFINITION.index("oper") :]
    press.write_text(without)
    readings = press.with_name("readings.ndjson")
    readings.write_text(readings.read_text().replace('"hot"', "30"))
    explained = edge("explain", press)

    inferred = edge("explain", "--infer", press)

    assert "temperature" in explained.out
    fields = inferred.out.removeprefix("record:\n")
    press.write_text(without.replace("  key: device\n", f"  key: device\n{fields}"))
    assert edge("check", press).code == 0
    assert "ts: timestamp_ms" in fields


def test_explain_asks_for_fields_where_only_a_broker_knows_them(edge: Edge, press: Path) -> None:
    press.write_text(
        "name: a\nsource: {mqtt: {url: mqtt://localhost, topics: [a]}}\nsinks: {o: {console: }}\n"
    )
    done = edge("explain", press)

    assert done.code == 2
    assert "declare record.fields" in done.err
    assert not (press.parent / "state").exists()


def test_schema_is_json_that_names_every_part(edge: Edge) -> None:
    schema = json.loads(edge("schema").out)

    assert "mqtt" in schema["properties"]["source"]["properties"]
    assert "s3" in schema["$defs"]["Branch"]["properties"]
