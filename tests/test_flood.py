"""A flood of MQTT messages, through a processor that is killed: every reading once, as it was."""

import signal
from pathlib import Path

import orjson
import pytest

from benchmarks.broker import FLOOD, Broker
from benchmarks.publisher import flood, packets
from benchmarks.readings import DEVICES, FIELDS, OPERATORS, passes, payloads, topic
from edge.outbox.inspection import books
from tests.processor import Processor, until

_READINGS = 120_000


def test_every_reading_of_a_flood_arrives_once_as_it_was(tmp_path: Path) -> None:
    results, outbox = tmp_path / "results", tmp_path / "outbox"
    with Broker(FLOOD, tmp_path) as broker:
        definition = tmp_path / "press.yaml"
        definition.write_text(f"""\
edge: 1
name: press
source:
  mqtt:
    url: mqtt://127.0.0.1:{broker.port}
    topics: plant/{{line}}/{{device}}/values
record:
  time: ts
  key: device
  fields:
{FIELDS}
{OPERATORS}
sinks:
  lake: {{file: {{path: {results}}}, roll: {{size: 2MiB, every: 1s}}}}
outbox: {{path: {outbox}}}
""")
        processor = Processor(definition)
        with processor.running() as process:
            until(lambda: b"plant/" in broker.process.errors.read_bytes())
            flood(broker, packets(_READINGS, qos=1))
            until(lambda: len(_lines(results)) > _READINGS // 4)
            process.kill()
        with processor.running() as process:
            expected = {
                reading["seq"]: reading
                for number, body in enumerate(payloads(_READINGS))
                if passes(number) and (reading := orjson.loads(body))["temperature"] > 15
            }
            until(lambda: books(outbox)["ledger"]["sink:lake"].get("delivered", 0) >= len(expected))
            process.send_signal(signal.SIGTERM)
            assert process.wait(60) == 0
    ledger = books(outbox)["ledger"]
    assert ledger["source"]["taken"] == _READINGS
    assert ledger["sink:lake"]["appended"] == len(expected)
    found = [orjson.loads(line) for line in _lines(results)]
    assert len(found) == len(expected)
    assert len({row["edge_id"] for row in found}) == len(found)
    for row in found:
        reading = expected.pop(row["seq"])
        number = row["seq"] - 1_000_000
        assert f"plant/{row['line']}/{row['device']}/values".encode() == topic(number % DEVICES)
        for name in ("status", "temperature", "humidity", "pressure", "load"):
            assert row[name] == reading[name]
        assert row["fahrenheit"] == pytest.approx(reading["temperature"] * 1.8 + 32, abs=0.0051)


def _lines(results: Path) -> list[bytes]:
    """What was written, in no order."""
    return [line for path in results.rglob("*.ndjson") for line in path.read_bytes().splitlines()]
