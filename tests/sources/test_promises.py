"""The promises every source keeps; being in the table of cases is what enrols one."""

import asyncio
import time
from pathlib import Path

import pytest

import edge.dataset.rows
import edge.lines
from edge.outbox.model import Reject
from edge.sources import Arrival, Source
from tests.sources.cases import CASES, ROWS, Case

every_case = pytest.mark.parametrize("case", CASES, ids=lambda case: f"{case.source}-{case.title}")


@pytest.fixture(autouse=True)
def _small_blocks(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(edge.lines, "BLOCK", 1000)
    monkeypatch.setattr(edge.dataset.rows, "PARQUET_ROWS", 60)


IDLE = 40  # Nones in a row after which a source that never ends has no more


async def _read(
    source: Source, position: bytes | None, most: int = 10**6, kept: list[bytes] | None = None
) -> list[Arrival]:
    """Arrivals until there are no more or `most` of them came, as the runner takes them.

    kept: gets what is to be remembered of each arrival.
    """
    found: list[Arrival] = []
    arrivals, idle = source.arrivals(position), 0
    try:
        async for arrival in arrivals:
            idle = idle + 1 if arrival is None else 0
            if arrival is not None:
                found.append(arrival)
                if kept is not None:
                    kept.append(source.snapshot(False) or b"")
            if len(found) == most or (idle > IDLE and not source.finite):
                break
    finally:
        await arrivals.aclose()
        await source.close()
    return found


def read(
    source: Source,
    position: bytes | None = None,
    most: int = 10**6,
    kept: list[bytes] | None = None,
) -> list[Arrival]:
    return asyncio.run(_read(source, position, most, kept))


def restored(case: Case, folder: Path, kept: list[bytes]) -> Source:
    """A source as after a start, which remembers what was committed."""
    source = case.build(folder)
    source.restore([state for state in kept if state])
    return source


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
    kept: list[bytes] = []
    arrivals = read(case.build(tmp_path), kept=kept)
    assert len(arrivals) > 4
    # Of very many every so manyth, and the last.
    some = {*range(0, len(arrivals), 1 + len(arrivals) // 40), len(arrivals) - 1}
    for index in sorted(some):
        rest = read(restored(case, tmp_path, kept[: index + 1]), arrivals[index].position)
        assert numbers(rest) == numbers(arrivals[index + 1 :])
        assert rejects(rest) == rejects(arrivals[index + 1 :])


@every_case
def test_repeats_what_was_not_committed(case: Case, tmp_path: Path) -> None:
    case.prepare(tmp_path)
    kept: list[bytes] = []
    first, second = read(case.build(tmp_path), most=2, kept=kept)
    again = numbers(read(restored(case, tmp_path, kept[:1]), first.position))
    assert again[: second.frame.height] == numbers([second])


@every_case
def test_yields_at_least_once_a_second(case: Case, tmp_path: Path) -> None:
    case.prepare(tmp_path)

    async def longest() -> float:
        source, pauses, last, idle = case.build(tmp_path), [0.0], time.monotonic(), 0
        async for arrival in source.arrivals(None):
            pauses.append(time.monotonic() - last)
            last = time.monotonic()
            idle = idle + 1 if arrival is None else 0
            if idle > IDLE and not source.finite:
                break
        await source.close()
        return max(pauses)

    # A busy machine may hold it up now and then, but not each time.
    assert any(asyncio.run(longest()) < 1 for _ in range(3))


@every_case
def test_what_was_read_is_taken_or_rejected(case: Case, tmp_path: Path) -> None:
    case.prepare(tmp_path)
    for arrival in read(case.build(tmp_path)):
        left = len(arrival.rejects) + arrival.redelivered + arrival.retained
        assert arrival.read == arrival.frame.height + left
        assert arrival.frame.columns[-1] == "edge_received"
