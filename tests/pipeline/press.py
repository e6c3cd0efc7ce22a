"""A definition that uses nearly every option, and what reading a variant of it complains about."""

from edge.clock import Clock
from edge.errors import DefinitionError
from edge.pipeline import loads

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
