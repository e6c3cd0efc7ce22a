"""What must arrive, computed from the CSV in plain Python: no polars, nothing of the product.

The numbers are those of `pipelines/machine-temperature.yaml`, written down a second time on
purpose: a table that was computed by the code it checks would prove nothing.
"""

import csv
from collections.abc import Iterable, Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import NamedTuple

LINE = "line-1"
MACHINE = "press-4"
CHANGE = 1.0
HEARTBEAT = timedelta(hours=1)
HIGH = 105.0
LOW = 40.0


class Reading(NamedTuple):
    """One line of the CSV. `time` and `value` are its text, which is also what is published."""

    number: int
    time: str
    value: str

    @property
    def payload(self) -> bytes:
        when = self.time.replace(" ", "T")
        text = f'{{"ts":"{when}Z","reading":{self.number},"temperature":{self.value}}}'
        return text.encode()


class Row(NamedTuple):
    """One row as it must arrive, without its `edge_id`."""

    ts: datetime
    reading: int
    temperature: float
    line: str
    machine: str
    margin: float
    level: str


def readings(path: Path) -> list[Reading]:
    """The series in the order of the file, numbered from 1."""
    with path.open(newline="") as lines:
        table = csv.DictReader(lines)
        return [Reading(n, row["timestamp"], row["value"]) for n, row in enumerate(table, 1)]


def rows(series: Iterable[Reading]) -> Iterator[Row]:
    """What `filter` and `derive` make of the readings; every one of them is plausible."""
    for reading in series:
        value = float(reading.value)
        level = "high" if value >= HIGH else "low" if value < LOW else "normal"
        when = datetime.fromisoformat(reading.time).replace(tzinfo=UTC)
        yield Row(when, reading.number, value, LINE, MACHINE, HIGH - value, level)


def lake(series: Iterable[Reading]) -> list[Row]:
    """What the deadband keeps: a move of more than a degree since the last kept row, or an hour."""
    kept: list[Row] = []
    for row in rows(series):
        if (
            not kept
            or abs(row.temperature - kept[-1].temperature) > CHANGE
            or row.ts - kept[-1].ts >= HEARTBEAT
        ):
            kept.append(row)
    return kept


def alarms(series: Iterable[Reading]) -> list[Row]:
    """What `when` lets through."""
    return [row for row in rows(series) if row.level != "normal"]
