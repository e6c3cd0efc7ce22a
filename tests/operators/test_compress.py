"""`compress`: the error bound, what is held back, and how much goes on real data."""

import asyncio
import csv
from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from itertools import pairwise
from pathlib import Path
from typing import Any

import polars as pl
import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError

import edge.keyed
from edge.codec import Record
from edge.component import Stream
from edge.errors import DefinitionError
from edge.operators.compress import Compress
from edge.outbox.inspection import books
from edge.pipeline import Branch, Pipeline
from edge.runner import Runner
from edge.sources import Source
from tests.operators.cases import COLUMNS, STREAM
from tests.operators.test_window import LiveSource, step
from tests.scripted import CRASH, Crashed, FlakySink, HandClock, ScriptedSource
from tests.search import examples

START = datetime(2024, 5, 1, tzinfo=UTC)
NAB = Path(__file__).parents[2] / "pipelines" / "data" / "nab"


def compress(**options: Any) -> Compress:
    operator = Compress.model_validate({"column": "x", "error": 1.0, **options})
    operator.bind(COLUMNS, STREAM)
    return operator


def series(values: Sequence[float | None], every: int = 1, device: str = "a") -> pl.DataFrame:
    rows = [
        {"ts": START + timedelta(seconds=place * every), "device": device, "x": value, "n": place}
        for place, value in enumerate(values)
    ]
    return pl.DataFrame(rows, schema=COLUMNS)


def kept(operator: Compress, *batches: pl.DataFrame) -> list[int]:
    """Places of the rows that came out, the end included."""
    rest = [operator.process(batch) for batch in batches]
    last = operator.flush()
    assert last is not None
    return list(pl.concat([*rest, last])["n"])


def test_a_straight_line_is_its_two_ends() -> None:
    assert kept(compress(), series([float(n) for n in range(100)])) == [0, 99]


def test_a_corner_is_kept() -> None:
    assert kept(compress(error=0.1), series([0.0, 1, 2, 3, 2, 1, 0])) == [0, 3, 6]


def test_no_line_is_longer_than_the_gap() -> None:
    assert kept(compress(max_gap="10s"), series([5.0] * 31)) == [0, 10, 20, 30]


def test_no_line_crosses_what_is_no_number() -> None:
    values = [1.0, 1.0, 1.0, None, None, float("nan"), 1.0, 1.0, float("inf"), 1.0]
    assert kept(compress(), series(values)) == [0, 2, 3, 6, 7, 8, 9]


def test_a_row_that_is_not_later_passes_as_it_is() -> None:
    rows = series([1.0, 1.0, 1.0, 1.0])
    again = rows.filter(pl.col("n") == 1).with_columns(n=pl.lit(7, pl.Int64))
    untimed = again.with_columns(ts=pl.lit(None, COLUMNS["ts"]), n=pl.lit(8, pl.Int64))
    assert kept(compress(), rows.head(3), again, untimed, rows.tail(1)) == [0, 7, 8, 3]


def test_what_is_held_back_is_accounted_for() -> None:
    operator = compress()
    assert operator.process(series([1.0, 1.0, 1.0])).height == 1
    assert operator.account(3, 1) == {"held": 1, "compressed": 1}
    last = operator.flush()
    assert last is not None
    assert last.height == 1
    assert operator.account(0, 1) == {"held": -1, "compressed": 0}


def test_a_clock_that_is_set_back_begins_a_new_line() -> None:
    rows = series([1.0] * 12)
    far = rows.slice(1, 1).with_columns(ts=pl.lit(datetime(2199, 1, 1, tzinfo=UTC)))
    assert kept(compress(), rows.head(1), far, rows.slice(2)) == [0, 2, 1, 3, 11]


SECOND = 1_000_000


def test_the_held_row_of_a_silent_key_passes_and_its_line_goes_on_from_there() -> None:
    operator = compress(idle="30s")
    assert operator.timed
    operator.process(pl.concat([series([0.0, 0.4]), series([5.0, 5.0], device="b")]))
    operator.account(4, 2)
    assert operator.advance(29 * SECOND) is None
    operator.process(series([5.0, 5.0, 5.0], device="b").tail(1))
    state = operator.snapshot(True)
    released = operator.advance(SECOND)
    assert released is not None
    assert released.select("device", "n").rows() == [("a", 1)]
    assert operator.account(0, 1) == {"held": -1, "compressed": 0}
    assert operator.advance(SECOND) is None
    assert kept(operator, series([0.0, 0.4, 2.0, 3.6]).tail(2)) == [2, 3]
    again = compress(idle="30s")
    assert state is not None
    again.restore([state])
    assert again.advance(29 * SECOND) is None
    both = again.advance(SECOND)
    assert both is not None
    assert both.height == 2


def pipeline(folder: Path, source: Source, sink: FlakySink, **options: Any) -> Pipeline:
    return Pipeline(
        name="press",
        source=source,
        record=Record(time="ts", key=("device",)),
        operators=[Compress.model_validate({"column": "x", "error": 1.0, **options})],
        sinks={"lake": Branch(sink=sink)},
        outbox={"path": folder / "outbox"},
    )


@pytest.mark.parametrize(("place", "held"), [(1, 1), (2, 2), (3, 2)])
def test_a_crash_anywhere_gives_the_same_rows_and_the_ledger_knows_what_is_held(
    tmp_path: Path, place: int, held: int
) -> None:
    sink = FlakySink.of()
    rows = [series([0.0, 1, 2]), series([5.0] * 3, device="b"), series([0.0, 1, 2, 3, 9]).tail(2)]

    async def run(*script: Any) -> None:
        runner = Runner(pipeline(tmp_path, ScriptedSource.of(*script), sink), HandClock())
        await runner.open()
        try:
            await asyncio.wait_for(runner.run(asyncio.Event(), once=True), 120)
        finally:
            await runner.close()

    with pytest.raises(Crashed):
        asyncio.run(run(*rows[:place], CRASH))
    before = books(tmp_path / "outbox")
    assert before["imbalances"] == []
    assert before["ledger"]["common/compress"]["held"] == held
    asyncio.run(run(*rows[:place], pl.DataFrame(schema=COLUMNS), *rows[place:]))
    found = sorted((row["device"], row["n"]) for row in sink.rows)
    assert found == [("a", 0), ("a", 3), ("a", 4), ("b", 0), ("b", 2)]
    after = books(tmp_path / "outbox")
    assert after["imbalances"] == []
    assert after["ledger"]["common/compress"] == {"in": 8, "out": 5, "compressed": 3, "held": 0}


def test_a_device_that_falls_silent_shows_its_last_row(tmp_path: Path) -> None:
    async def live() -> None:
        clock, source = HandClock(), LiveSource.of(series([5.0] * 3))
        runner = Runner(pipeline(tmp_path, source, FlakySink.of(), idle="30s"), clock)
        await runner.open()
        await step(runner, clock, 20)
        assert runner.outbox.depth("lake").rows == 1
        await step(runner, clock, 20)
        assert runner.outbox.depth("lake").rows == 2
        await runner.close()

    asyncio.run(live())
    counters = books(tmp_path / "outbox")["ledger"]["common/compress"]
    assert counters == {"in": 3, "out": 2, "compressed": 1, "held": 0}


def test_without_idle_nobody_is_told_the_time() -> None:
    assert not compress().timed


def test_a_forgotten_key_is_silent_no_more(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(edge.keyed, "SWEEP_ROWS", 4)
    operator = compress(idle="1s", max_keys=1)
    frame = pl.concat([series([1.0, 1.0], device="a"), series([1.0] * 3, device="b").tail(2)])
    assert operator.process(frame).select("device", "n").rows() == [("a", 0), ("b", 1), ("a", 1)]
    rest = operator.advance(SECOND)
    assert rest is not None
    assert rest.select("device", "n").rows() == [("b", 2)]


def test_numbers_too_far_apart_for_a_slope_are_kept() -> None:
    values = [-1e308, 1e308, -1e308, 1e308, 1e308]
    assert kept(compress(), series(values)) == [0, 1, 2, 3, 4]


numbers = st.floats(-50, 50) | st.integers(-3, 3).map(float) | st.sampled_from([1e300, 1e17, 1e-9])


@examples(300)
@given(
    steps=st.lists(st.tuples(st.integers(1, 5), numbers), min_size=2, max_size=60),
    error=st.sampled_from([0.5, 1.0, 7.0]),
    cut=st.integers(0, 60),
    ends=st.booleans(),
)
def test_no_dropped_row_is_further_from_its_line_than_the_error(
    steps: list[tuple[int, float]], error: float, cut: int, ends: bool
) -> None:
    second, rows = 0, []
    for place, (wait, value) in enumerate(steps):
        second += wait
        rows.append(
            {"ts": START + timedelta(seconds=second), "device": "a", "x": value, "n": place}
        )
    frame = pl.DataFrame(rows, schema=COLUMNS)
    operator = compress(error=error)
    parts = [part for part in (frame.head(cut), frame.slice(cut)) if part.height]
    stays = kept(operator, *parts) if not ends else [n for p in parts for n in kept(operator, p)]
    assert stays == sorted(set(stays))
    assert (stays[0], stays[-1]) == (0, len(rows) - 1)
    for low, high in pairwise(stays):
        first, last = rows[low], rows[high]
        for row in rows[low + 1 : high]:
            share = (row["ts"] - first["ts"]) / (last["ts"] - first["ts"])
            line = first["x"] + share * (last["x"] - first["x"])
            rounding = 1e-12 * max(abs(first["x"]), abs(last["x"]), abs(row["x"]))
            assert abs(row["x"] - line) <= error * (1 + 1e-12) + rounding


def test_real_readings_shrink_to_less_than_half() -> None:
    """The machine temperature of the Numenta Anomaly Benchmark, a row every five minutes."""
    with (NAB / "machine_temperature_system_failure.csv").open() as lines:
        rows = [
            {"ts": datetime.fromisoformat(row["timestamp"] + "Z"), "x": float(row["value"])}
            for row in csv.DictReader(lines)
        ]
    frame = pl.DataFrame(rows, schema={"ts": COLUMNS["ts"], "x": pl.Float64()})
    operator = Compress(column="x", error=1.0)
    operator.bind(frame.schema, Stream(time="ts"))
    assert operator.process(frame).height == 9_733
    assert frame.height == 22_695


@pytest.mark.parametrize("error", [0, -1, float("inf"), "2%"])
def test_an_error_that_is_none_is_refused(error: Any) -> None:
    with pytest.raises(ValidationError):
        compress(error=error)


def test_text_cannot_be_compressed() -> None:
    with pytest.raises(DefinitionError, match="must be a number, got str; for text, use dedupe"):
        compress(column="status")
