"""A replay hands the same rows over at the pace of their event time."""

import asyncio
from pathlib import Path
from typing import Any

import polars as pl
import pytest

from edge.codec import Record
from edge.errors import DefinitionError
from edge.sources.dataset import DatasetSource
from tests.scripted import HandClock
from tests.sources.cases import bound
from tests.sources.test_dataset import read

RECORD = Record(time="at", fields={"at": "timestamp_s", "n": "int"})


def write(folder: Path, *times: int) -> None:
    lines = [f'{{"at":{time},"n":{n}}}' for n, time in enumerate(times)]
    (folder / "a.ndjson").write_text("\n".join(lines))


def handed_over(
    folder: Path, position: bytes | None = None, **replay: Any
) -> list[tuple[float, list[int]]]:
    """The rows of each batch, and how many seconds after the start they came."""
    clock = HandClock()
    source = bound(DatasetSource(path="a.ndjson", replay=replay), folder, RECORD, clock)

    async def all_of_them() -> list[tuple[float, list[int]]]:
        start = clock.steady()
        return [
            (round(clock.steady() - start, 1), each.frame["n"].to_list())
            async for each in source.arrivals(position)
            if each is not None
        ]

    return asyncio.run(all_of_them())


def test_rows_come_at_a_multiple_of_the_pace_of_their_event_time(tmp_path: Path) -> None:
    write(tmp_path, 1000, 1060, 1060, 1300)
    assert handed_over(tmp_path, speed=60) == [(0, [0]), (1, [1, 2]), (5, [3])]


def test_a_long_gap_is_shortened(tmp_path: Path) -> None:
    write(tmp_path, 1000, 1010, 90_000, 90_010)
    assert handed_over(tmp_path, speed=10, max_gap="1m") == [
        (0, [0]),
        (1, [1]),
        (7, [2]),
        (8, [3]),
    ]


def test_a_row_out_of_order_waits_for_nothing(tmp_path: Path) -> None:
    write(tmp_path, 1000, 500, 1010, 900, 1020)
    assert handed_over(tmp_path, speed=10) == [(0, [0, 1]), (1, [2, 3]), (2, [4])]


def test_after_a_stop_in_the_middle_of_a_block_the_rest_keeps_its_pace(tmp_path: Path) -> None:
    write(tmp_path, 1000, 1010, 1020, 1040)
    options = {"path": "a.ndjson", "replay": {"speed": 10}}
    arrivals = read(bound(DatasetSource(**options), tmp_path, RECORD, HandClock()))
    assert handed_over(tmp_path, arrivals[1].position, speed=10) == [(0, [2]), (2, [3])]
    without = read(bound(DatasetSource(path="a.ndjson"), tmp_path, RECORD), arrivals[1].position)
    assert pl.concat([each.frame for each in without])["n"].to_list() == [2, 3]


def test_rows_bear_the_time_at_which_they_are_handed_over(tmp_path: Path) -> None:
    write(tmp_path, 1000, 1010)
    options = {"path": "a.ndjson", "replay": {"speed": 1}}
    arrivals = read(bound(DatasetSource(**options), tmp_path, RECORD, HandClock()))
    first, second = (each.frame["edge_received"].dt.epoch("s").item() for each in arrivals)
    assert second - first == 10


def test_a_replay_needs_event_time(tmp_path: Path) -> None:
    source = DatasetSource(path="a.ndjson", replay={"speed": 2})
    with pytest.raises(DefinitionError, match=r"source\.dataset\.replay: needs record\.time"):
        bound(source, tmp_path, Record(fields={"n": "int"}))
