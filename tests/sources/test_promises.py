"""The promises every source keeps; being in the table of cases is what enrols one."""

from pathlib import Path

import pytest

import edge.dataset.rows
import edge.lines
from edge.outbox.model import Reject
from edge.promises.source import (
    accounts_for_what_it_read,
    read,
    repeats_what_was_not_committed,
    resumes_from_each_position,
    yields_at_least_once_a_second,
)
from edge.sources import Arrival
from tests.sources.cases import CASES, ROWS, Case

every_case = pytest.mark.parametrize("case", CASES, ids=lambda case: f"{case.source}-{case.title}")


@pytest.fixture(autouse=True)
def _small_blocks(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(edge.lines, "BLOCK", 1000)
    monkeypatch.setattr(edge.dataset.rows, "PARQUET_ROWS", 60)


def numbers(arrivals: list[Arrival]) -> list[int]:
    return [n for arrival in arrivals for n in arrival.frame["n"].to_list()]


def rejects(arrivals: list[Arrival]) -> list[Reject]:
    return [reject for arrival in arrivals for reject in arrival.rejects]


@every_case
def test_every_row_comes_once_and_in_order(case: Case, tmp_path: Path) -> None:
    case.prepare(tmp_path)
    arrivals = read(case.build(tmp_path))
    assert numbers(arrivals) == list(range(ROWS))
    assert len(rejects(arrivals)) == ROWS // 10


@every_case
def test_resumes_from_each_position_it_ever_gave(case: Case, tmp_path: Path) -> None:
    case.prepare(tmp_path)
    resumes_from_each_position(lambda: case.build(tmp_path))


@every_case
def test_repeats_what_was_not_committed(case: Case, tmp_path: Path) -> None:
    case.prepare(tmp_path)
    repeats_what_was_not_committed(lambda: case.build(tmp_path))


@every_case
def test_yields_at_least_once_a_second(case: Case, tmp_path: Path) -> None:
    case.prepare(tmp_path)
    yields_at_least_once_a_second(lambda: case.build(tmp_path))


@every_case
def test_what_was_read_is_taken_or_rejected(case: Case, tmp_path: Path) -> None:
    case.prepare(tmp_path)
    accounts_for_what_it_read(lambda: case.build(tmp_path))
