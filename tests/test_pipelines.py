"""Every definition in pipelines/ loads, and runs on the data beside it."""

import csv
import json
import os
import shutil
import statistics
import subprocess
import sys
from datetime import datetime
from itertools import pairwise
from pathlib import Path

import pytest

from edge.outbox.inspection import books
from edge.pipeline import load

FOLDER = Path(__file__).parents[1] / "pipelines"
DEFINITIONS = sorted(FOLDER.glob("*.yaml"))
RUN_BY = {
    "hourly-temperature": "test_pipelines.py",
    "machine-temperature": "test_demo.py",
    "room-trend": "test_pipelines.py",
    "share-aggregator": "test_share.py",
    "share-collector": "test_share.py",
    "vibration": "test_demo.py",
    "taxi-demand": "test_pipelines.py",
}


@pytest.mark.parametrize("file", DEFINITIONS, ids=lambda file: str(file.stem))
def test_it_loads_with_nothing_set_in_the_environment(file: Path) -> None:
    assert load(file, {}).name == file.stem


def test_each_is_run_by_a_test() -> None:
    assert {file.stem for file in DEFINITIONS} == set(RUN_BY)


@pytest.fixture
def pipelines(tmp_path: Path) -> Path:
    """A copy of the folder, because definitions write beside it."""
    return shutil.copytree(FOLDER, tmp_path / "pipelines")


def run(definition: Path) -> None:
    done = subprocess.run(
        [sys.executable, "-m", "edge", "run", "--once", str(definition)],
        env=os.environ | {"EDGE_STATE_DIR": str(definition.parents[1] / "var")},
        capture_output=True,
        text=True,
        timeout=120,
    )
    assert done.returncode == 0, done.stderr


def counts() -> list[tuple[datetime, int]]:
    with (FOLDER / "data" / "nab" / "nyc_taxi.csv").open() as lines:
        return [
            (datetime.fromisoformat(row["timestamp"] + "Z"), int(row["value"]))
            for row in csv.DictReader(lines)
        ]


def test_taxi_demand_puts_every_row_in_the_file_of_its_day(pipelines: Path) -> None:
    run(pipelines / "taxi-demand.yaml")
    days = pipelines.parent / "out" / "local" / "taxi-demand" / "days"
    found = [
        (datetime.fromisoformat(row["timestamp"]), row["passengers"], file.parent.name)
        for file in days.glob("date=*/*.ndjson")
        for row in map(json.loads, file.read_text().splitlines())
    ]
    assert sorted(found) == [(when, n, f"date={when:%Y-%m-%d}") for when, n in counts()]


def test_taxi_demand_copies_the_rush_and_nothing_else(pipelines: Path) -> None:
    run(pipelines / "taxi-demand.yaml")
    (file,) = (pipelines.parent / "out" / "local" / "taxi-demand" / "rush").glob("*.csv")
    with file.open() as lines:
        found = [
            (datetime.fromisoformat(row["timestamp"]), int(row["passengers"]))
            for row in csv.DictReader(lines)
        ]
    assert found == [(when, n) for when, n in counts() if n >= 25_000]


def test_a_second_run_finds_nothing_new(pipelines: Path) -> None:
    run(pipelines / "taxi-demand.yaml")
    first = sorted((pipelines.parent / "out").rglob("*.*"))
    run(pipelines / "taxi-demand.yaml")
    assert sorted((pipelines.parent / "out").rglob("*.*")) == first


def temperatures() -> dict[datetime, list[float]]:
    """The readings of each hour."""
    hours: dict[datetime, list[float]] = {}
    with (FOLDER / "data" / "nab" / "machine_temperature_system_failure.csv").open() as lines:
        for row in csv.DictReader(lines):
            moment = datetime.fromisoformat(row["timestamp"] + "Z")
            hours.setdefault(moment.replace(minute=0), []).append(float(row["value"]))
    return hours


def test_hourly_temperature_has_a_row_for_every_hour(pipelines: Path) -> None:
    run(pipelines / "hourly-temperature.yaml")
    folder = pipelines.parent / "out" / "local" / "hourly-temperature"
    (file,) = (folder / "hours").glob("*.csv")
    with file.open() as lines:
        found = list(csv.DictReader(lines))
    expected = temperatures()
    assert [datetime.fromisoformat(row["timestamp"]) for row in found] == list(expected)
    for row, values in zip(found, expected.values(), strict=True):
        assert int(row["readings"]) == len(values)
        assert (float(row["low"]), float(row["high"])) == (min(values), max(values))
        assert float(row["mean"]) == pytest.approx(statistics.fmean(values), rel=1e-9)
    means = [statistics.fmean(values) for values in expected.values()]
    falls = [means[place] - means[place + 2] for place in range(0, len(means) - 2, 3)]
    (file,) = (folder / "falling").glob("*.ndjson")
    falling = [json.loads(line)["fall"] for line in file.read_text().splitlines()]
    assert falling == pytest.approx([fall for fall in falls if fall > 15], rel=1e-9)
    assert not (folder / "late").exists()


def room() -> dict[str, float]:
    file = FOLDER / "data" / "nab" / "ambient_temperature_system_failure.csv"
    with file.open() as lines:
        return {f"{row['timestamp']}Z": float(row["value"]) for row in csv.DictReader(lines)}


def test_room_trend_tells_every_reading_within_two_degrees(pipelines: Path) -> None:
    run(pipelines / "room-trend.yaml")
    [file] = (pipelines.parent / "out" / "local" / "room-trend" / "trend").glob("*.ndjson")
    rows = [json.loads(line) for line in file.read_text().splitlines()]
    kept = {datetime.fromisoformat(row["timestamp"]): row["value"] for row in rows}
    readings = {datetime.fromisoformat(when): value for when, value in room().items()}
    assert list(kept) == sorted(kept)
    assert (len(kept), len(readings)) == (581, 7_267)
    for (start, first), (end, last) in pairwise(kept.items()):
        for when in (when for when in readings if start <= when <= end):
            line = first + (last - first) * ((when - start) / (end - start))
            assert abs(readings[when] - line) <= 2.0 + 1e-9
    assert {min(kept), max(kept)} == {min(readings), max(readings)}
    ledger = books(pipelines.parent / "var" / "room-trend")
    assert ledger["imbalances"] == []
    assert ledger["ledger"]["trend/compress"] == {
        "in": 7_267, "out": 581, "compressed": 6_686, "held": 0
    }  # fmt: skip


def test_room_trend_shows_the_first_reading_of_each_day(pipelines: Path) -> None:
    run(pipelines / "room-trend.yaml")
    [file] = (pipelines.parent / "out" / "local" / "room-trend" / "glance").glob("*.csv")
    with file.open() as lines:
        found = [row["timestamp"][:19].replace("T", " ") for row in csv.DictReader(lines)]
    days: dict[str, str] = {}
    for when in room():
        days.setdefault(when[:10], when[:19])
    assert found == list(days.values())
