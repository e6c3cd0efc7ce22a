"""`window`: what it refuses, and what only shows at the end, in time and beside its rows."""

import asyncio
from collections.abc import AsyncGenerator, Sequence
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import polars as pl
import pytest
from hypothesis import given
from hypothesis import strategies as st
from polars.testing import assert_frame_equal
from pydantic import ValidationError

from edge.codec import Record
from edge.component import Stream
from edge.errors import DefinitionError
from edge.operators import Lost, Operator
from edge.operators.window import Window
from edge.outbox.inspection import books
from edge.pipeline import Branch, Pipeline, loads
from edge.runner import Runner
from edge.sources import Arrival, Source
from edge.windows import few, index
from tests.operators.cases import COLUMNS, STREAM
from tests.operators.test_promises import as_frame, pieces, remembered, rows_of_any_kind
from tests.operators.windows import AGGREGATE, WindowLoop
from tests.scripted import CRASH, Crashed, FlakySink, HandClock, ScriptedSource
from tests.search import examples

START = datetime(2024, 5, 1, tzinfo=UTC)
NOW = datetime(2026, 1, 1, tzinfo=UTC)
SECOND = 1_000_000


ALL_KINDS = [
    {"size": "10s"},
    {"size": "10s", "every": "4s", "allowed_lateness": "3s"},
    {"gap": "7s"},
    {"rows": 3},
]
WAYS = st.lists(st.sampled_from([0, 3, 200]), min_size=8, max_size=8)
"""How many rows are a few, batch by batch."""


def window(**options: Any) -> Window:
    operator = Window.model_validate({"aggregate": {"count": "COUNT(*)"}, **options})
    operator.bind(COLUMNS, STREAM)
    return operator


def readings(*given: tuple[int, str], start: datetime = START) -> pl.DataFrame:
    """Rows of (second, device); `n` is their place."""
    rows = [
        {"ts": start + timedelta(seconds=second), "device": device, "n": place}
        for place, (second, device) in enumerate(given)
    ]
    received = pl.lit(NOW).cast(COLUMNS["edge_received"]).alias("edge_received")
    return pl.DataFrame(rows, schema=COLUMNS).with_columns(received)


def counts(frame: pl.DataFrame | None) -> list[tuple[str, int, int]]:
    """(device, seconds from the start to the window's start, rows) of each result."""
    assert frame is not None
    starts = (frame["ts"] - START).dt.total_seconds()
    return list(zip(frame["device"], starts, frame["count"], strict=True))


@pytest.mark.parametrize(
    ("options", "loop"),
    [
        ({"size": "10s"}, WindowLoop(size=10)),
        (
            {"size": "10s", "every": "4s", "allowed_lateness": "3s"},
            WindowLoop(size=10, every=4, lateness=3),
        ),
        ({"gap": "7s"}, WindowLoop(gap=7)),
        ({"rows": 3}, WindowLoop(rows=3)),
    ],
    ids=["tumbling", "hopping", "session", "rows"],
)
@examples(25)
@given(rows=rows_of_any_kind, cuts=st.lists(st.integers(0, 40), max_size=4).map(sorted))
def test_all_that_is_open_comes_out_at_the_end(
    options: dict[str, str], loop: WindowLoop, rows: list[dict[str, Any]], cuts: list[int]
) -> None:
    operator = window(**options, aggregate=AGGREGATE)
    results = [operator.process(part) for part in pieces(as_frame(rows), cuts)]
    rest, nothing = operator.flush(), operator.flush()
    assert rest is not None
    assert nothing is not None
    assert nothing.height == 0
    expected = [*loop(rows), *loop.flush()]
    assert_frame_equal(pl.concat([*results, rest]), as_frame(expected, rest.schema))


@pytest.mark.parametrize("options", [{"size": "10s"}, {"gap": "10s"}])
def test_a_row_behind_a_closed_window_is_dropped_and_counted(options: dict[str, str]) -> None:
    operator = window(**options)
    operator.process(readings((0, "a"), (25, "a"), (1, "a"), (26, "a")))
    assert operator.account(4, 1) == {"late": 1, "folded": 3, "created": 1}
    beside = operator.beside()
    assert beside is not None
    assert beside.losses == [Lost("late", 1, "came after its window was closed")]
    assert operator.beside() is None


def test_a_window_waits_for_late_rows_as_long_as_it_is_told() -> None:
    operator = window(size="10s", allowed_lateness="20s")
    assert counts(operator.process(readings((0, "a"), (29, "a"), (1, "a")))) == []
    assert counts(operator.process(readings((30, "a"), (2, "a")))) == [("a", 0, 2)]


def test_a_row_far_ahead_of_the_clock_moves_nothing() -> None:
    operator = window(size="10s", max_ahead="1h")
    ahead = readings((7200, "a"), start=NOW)
    operator.process(readings((0, "a")))
    assert operator.process(ahead).height == 0
    assert operator.account(1, 0) == {"folded": 1, "future": 1, "created": 0}
    assert counts(operator.process(readings((9, "a"), (10, "a")))) == [("a", 0, 2)]


def test_a_clock_that_is_not_set_judges_nobody() -> None:
    operator = window(size="10s")
    lost = pl.lit(datetime(1970, 1, 1, tzinfo=UTC)).cast(COLUMNS["edge_received"])
    rows = readings((0, "a"), (10, "a")).with_columns(lost.alias("edge_received"))
    assert counts(operator.process(rows)) == [("a", 0, 1)]


def test_windows_of_a_silent_key_close_and_stay_closed() -> None:
    operator = window(size="10s", idle="30s")
    operator.process(readings((0, "a"), (0, "b")))
    assert counts(operator.advance(29 * SECOND)) == []
    operator.process(readings((1, "b")))
    assert counts(operator.advance(2 * SECOND)) == [("a", 0, 1)]
    operator.process(readings((5, "a"), (2, "b")))
    assert counts(operator.flush()) == [("b", 0, 3)]
    assert operator.account(0, 1)["late"] == 1


def test_a_session_that_was_closed_by_silence_is_not_joined_again() -> None:
    operator = window(gap="10s", idle="30s")
    operator.process(readings((0, "a"), (5, "a")))
    assert counts(operator.advance(31 * SECOND)) == [("a", 0, 2)]
    operator.process(readings((9, "a"), (4, "a"), (12, "a")))
    assert counts(operator.flush()) == [("a", 9, 2)]


def test_early_results_are_marked_and_come_only_for_what_is_new() -> None:
    operator = window(size="1m", early="10s")
    operator.process(readings((0, "a"), (1, "b")))
    first = operator.advance(10 * SECOND)
    assert counts(first) == [("a", 0, 1), ("b", 0, 1)]
    assert first is not None
    assert first["edge_early"].to_list() == [True, True]
    operator.process(readings((2, "b")))
    assert counts(operator.advance(9 * SECOND)) == []
    assert counts(operator.advance(SECOND)) == [("b", 0, 2)]
    last = operator.flush()
    assert counts(last) == [("a", 0, 1), ("b", 0, 2)]
    assert last is not None
    assert last["edge_early"].to_list() == [False, False]


def test_more_values_than_may_be_kept_give_null() -> None:
    operator = window(
        size="10s",
        max_rows=3,
        aggregate={"middle": "MEDIAN(n)", "kinds": "COUNT(DISTINCT n)", "count": "COUNT(*)"},
    )
    for _ in range(2):
        operator.process(readings((0, "a"), (1, "a"), (0, "b"), (0, "c")))
    operator.process(readings((2, "c")))
    results = operator.flush()
    assert results is not None
    assert results.select("middle", "kinds", "count").rows() == [
        (None, 2, 4),
        (2.0, 1, 2),
        (3.0, 2, 3),
    ]


def test_an_expression_of_one_row_can_be_aggregated() -> None:
    operator = window(size="10s", aggregate={"most": "MAX(CASE WHEN n > 1 THEN n * 2 ELSE 0 END)"})
    operator.process(readings((0, "a"), (1, "a"), (2, "a")))
    results = operator.flush()
    assert results is not None
    assert results["most"].to_list() == [4]


def test_a_hundred_thousand_open_windows_write_little() -> None:
    """10,000 of them touched a second, in 20 commits: less than 5 MB a second."""
    operator = window(
        size="1d", aggregate={"peak": "MAX(n)", "mean": "AVG(n)", "count": "COUNT(*)"}
    )
    operator.process(readings(*((0, f"device-{number}") for number in range(100_000))))
    whole = operator.snapshot(True)
    assert whole is not None
    assert len(whole) < 6 * 10**6
    written = 0
    for part in range(20):
        touched = range(part * 500, part * 500 + 500)
        operator.process(readings(*((1, f"device-{number * 7}") for number in touched)))
        change = operator.snapshot(False)
        assert change is not None
        written += len(change)
    assert written < 10**6


def test_of_values_that_are_kept_only_new_ones_are_written() -> None:
    operator = window(size="1d", aggregate={"middle": "MEDIAN(n)", "kinds": "COUNT(DISTINCT n)"})
    operator.process(readings(*((0, "a") for _ in range(9000))))
    states = [operator.snapshot(True)]
    for _ in range(20):
        operator.process(readings(*((1, "a") for _ in range(20))))
        states.append(operator.snapshot(False))
    assert sum(len(state or b"") for state in states[1:]) < len(states[0] or b"")
    rebuilt = window(size="1d", aggregate={"middle": "MEDIAN(n)", "kinds": "COUNT(DISTINCT n)"})
    rebuilt.restore([state for state in states if state is not None])
    assert remembered(rebuilt) == remembered(operator)


@pytest.mark.parametrize("options", [{"size": "10s"}, {"gap": "10s"}, {"rows": 5}])
def test_a_batch_takes_no_longer_than_the_one_before(options: dict[str, Any]) -> None:
    operator = window(**options)
    for second in range(100):
        operator.process(readings((second, "a"), (second, "b")))
    windows = operator._windows
    assert max(windows.open.n_chunks(), windows.keys.n_chunks()) < 20


# -- a few rows, and many


@pytest.mark.parametrize("options", ALL_KINDS, ids=str)
@examples(25)
@given(rows=rows_of_any_kind, cuts=st.lists(st.integers(0, 40), max_size=6).map(sorted), ways=WAYS)
def test_a_few_rows_and_many_are_folded_alike(
    options: dict[str, str], rows: list[dict[str, Any]], cuts: list[int], ways: list[int]
) -> None:
    operators = [window(**options, aggregate=AGGREGATE) for _ in range(2)]
    for part, most in zip(pieces(as_frame(rows), cuts), ways, strict=False):
        results = []
        for operator, limit in zip(operators, (0, most), strict=True):
            with pytest.MonkeyPatch.context() as patch:
                patch.setattr(few, "MOST", limit)
                results.append((operator.process(part), operator.account(0, 0), operator.beside()))
        assert_frame_equal(results[0][0], results[1][0])
        assert results[0][1:] == results[1][1:]
        same_memory(*operators)


def same_memory(one: Window, two: Window) -> None:
    """Floats as near as sums of them are."""
    frames = []
    for operator in (one, two):
        state = operator.snapshot(True)
        again = operator.model_copy()
        again.restore([state] if state else [])
        frames.append((again._windows.keys, again._windows.open))
    for left, right in zip(*frames, strict=True):
        assert_frame_equal(left, right, check_row_order=False)


@pytest.mark.parametrize("most", [0, 200])
def test_a_sum_of_integers_beyond_64_bits_goes_round(
    most: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(few, "MOST", most)
    operator = window(size="10s", aggregate={"total": "SUM(n)"})
    rows = readings((0, "a"), (1, "a"), (2, "a"))
    for _ in range(2):
        operator.process(rows.with_columns(n=pl.lit(2**62)))
    results = operator.flush()
    assert results is not None
    assert results["total"].to_list() == [-(2**63)]


@pytest.mark.parametrize("by", ["x", "edge_received"])
def test_values_and_keys_of_every_type_are_folded(by: str) -> None:
    operator = window(size="10s", by=[by], aggregate={"last": "MAX(ts)", "count": "COUNT(*)"})
    operator.process(readings((0, "a")))
    operator.process(readings((1, "a")))
    results = operator.flush()
    assert results is not None
    assert results["last"].max() == START + timedelta(seconds=1)
    assert results["count"].sum() == 2


def test_a_few_rows_touch_nothing_of_a_hundred_thousand_open_windows() -> None:
    operator = window(size="1d")
    operator.process(readings(*((0, f"device-{number}") for number in range(100_000))))
    operator.snapshot(True)
    windows = operator._windows
    for number in range(index.PATIENCE + 1):
        operator.process(readings((1, f"device-{number}")))
        operator.snapshot(False)
    frames = windows.keys, windows.open
    for number in range(50_000, 50_100):
        operator.process(readings((2, f"device-{number}"), (2, f"device-{number + 1}")))
        assert operator.snapshot(False) is not None
    assert windows.keys is frames[0]
    assert windows.open is frames[1]
    results = operator.flush()
    assert results is not None
    assert results["count"].sum() == 100_000 + index.PATIENCE + 1 + 200


# -- what is refused


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({}, "must have exactly one of size, gap and rows, got none of them"),
        ({"size": "1m", "gap": "1m"}, "exactly one of size, gap and rows, got size and gap"),
        ({"gap": "1m", "every": "1m"}, "every: goes with a size that is not shorter"),
        ({"size": "1m", "every": "2m"}, "every: goes with a size that is not shorter"),
        ({"size": "1d", "every": "1s"}, "every: a row must be in at most 1500 windows, got 86400"),
        ({"rows": 5, "allowed_lateness": "1m"}, "only windows of a size wait for late rows"),
        ({"size": "-5s"}, "must be a duration above zero such as 30s or 5m, got '-5s'"),
        ({"rows": 0}, "greater than or equal to 1"),
    ],
)
def test_options_that_do_not_go_together_are_refused(options: dict[str, Any], said: str) -> None:
    with pytest.raises(ValidationError) as error:
        window(**options)
    assert said in str(error.value)


@pytest.mark.parametrize(
    ("aggregate", "said"),
    [
        ("MAX(x) - MIN(x)", "must be one call such as AVG(temperature), got 'MAX(x) - MIN(x)'"),
        ("x", "must be one call such as AVG(temperature), got 'x'"),
        ("MAXX(x)", "no aggregate is called MAXX; did you mean MAX?"),
        ("TOTAL(x)", "no aggregate is called TOTAL; known are COUNT"),
        ("AVG(status)", "AVG takes numbers, got str"),
        ("MAX(y)", "column 'y' is not in the batch"),
        ("QUANTILE(x)", "QUANTILE takes a value and a share between 0 and 1"),
        ("QUANTILE(x, 95)", "QUANTILE takes a value and a share between 0 and 1"),
        ("SUM(AVG(x))", "window 'a'"),
    ],
)
def test_an_aggregate_that_is_none_is_told_what_to_do(aggregate: str, said: str) -> None:
    with pytest.raises(DefinitionError) as error:
        window(size="10s", aggregate={"a": aggregate})
    assert said in str(error.value)


def test_a_result_has_every_column_once() -> None:
    with pytest.raises(DefinitionError, match="the result has two columns 'device'; rename one"):
        window(size="10s", aggregate={"device": "COUNT(*)"})
    with pytest.raises(DefinitionError, match="reserved"):
        window(size="10s", aggregate={"edge_n": "COUNT(*)"})


DEFINITION = """
edge: 1
name: late
source:
  dataset: {path: x.ndjson}
record:
  time: ts
  key: device
  fields: {ts: timestamp, device: str}
operators:
  - window:
      size: 10s
      late: behind
      aggregate: {count: COUNT(*)}
sinks:
  lake:
    console: {}
  behnd:
    console: {}
"""


def test_a_sink_for_late_rows_must_be_there() -> None:
    with pytest.raises(DefinitionError) as error:
        loads(DEFINITION, "late.yaml").bind(HandClock())
    assert "operators.0.window: no sink for it is called 'behind'; did you mean 'behnd'?" in str(
        error.value
    )


def test_a_sink_for_late_rows_has_none_of_its_own() -> None:
    window = "operators: [{window: {size: 1m, late: behind, aggregate: {count: COUNT(*)}}}]"
    text = DEFINITION.replace("  behnd:\n", f"  behind:\n    {window}\n")
    with pytest.raises(DefinitionError) as error:
        loads(text, "late.yaml").bind(HandClock())
    assert "sinks.behind.operators.0.window: must not send rows on" in str(error.value)


# -- in a pipeline


def pipeline(
    folder: Path, source: Source, sinks: dict[str, FlakySink], *before: Operator, **options: Any
) -> Pipeline:
    return Pipeline(
        name="press",
        source=source,
        record=Record(time="ts", key=("device",)),
        operators=[
            *before,
            Window.model_validate({"aggregate": {"count": "COUNT(*)"}, **options}),
        ],
        sinks={name: Branch(sink=sink) for name, sink in sinks.items()},
        outbox={"path": folder / "outbox"},
    )


async def finish(definition: Pipeline) -> None:
    while True:
        runner = Runner(definition, HandClock())
        await runner.open()
        try:
            await asyncio.wait_for(runner.run(asyncio.Event(), once=True), 120)
            return
        except Crashed:
            pass
        finally:
            await runner.close()


def found(sink: FlakySink) -> list[tuple[str, str, int]]:
    return [(row["device"], row["ts"][11:19], row["count"]) for row in sink.rows]


BATCHES = [
    readings((0, "a"), (1, "b")),
    readings((12, "a"), (3, "a")),
    readings((13, "b"), (2, "b")),
    readings((31, "a")),
]
RESULTS = [
    ("a", "00:00:00", 1),
    ("b", "00:00:00", 1),
    ("a", "00:00:10", 1),
    ("b", "00:00:10", 1),
    ("a", "00:00:30", 1),
]


@pytest.mark.parametrize("place", range(5))
def test_a_crash_anywhere_gives_the_same_windows(tmp_path: Path, place: int) -> None:
    script: Sequence[Any] = [*BATCHES[:place], CRASH, *BATCHES[place:]]
    sink = FlakySink.of()
    source = ScriptedSource.of(*script)
    asyncio.run(finish(pipeline(tmp_path, source, {"lake": sink}, size="10s")))
    assert found(sink) == RESULTS
    ledger = books(tmp_path / "outbox")
    assert ledger["imbalances"] == []
    counters = {
        "in": 7,
        "folded": 5,
        "late": 2,
        "created": 5,
        "out": 5,
    }
    assert ledger["ledger"]["common/window"] == counters
    [loss] = ledger["losses"]
    assert (loss["part"], loss["kind"], loss["rows"]) == ("common/window", "late", 2)


def test_late_rows_go_to_the_sink_that_asks_for_them(tmp_path: Path) -> None:
    sink, late = FlakySink.of(), FlakySink.of()
    sinks = {"lake": sink, "behind": late}
    source = ScriptedSource.of(*BATCHES)
    asyncio.run(finish(pipeline(tmp_path, source, sinks, size="10s", late="behind")))
    assert found(sink) == RESULTS
    assert [(row["device"], row["n"]) for row in late.rows] == [("a", 1), ("b", 1)]
    ledger = books(tmp_path / "outbox")
    assert (ledger["imbalances"], ledger["losses"]) == ([], [])


class Thorny(Operator):
    """Raises for a batch with a row whose `n` is 3."""

    def bind(self, columns: pl.Schema, stream: Stream) -> pl.Schema:
        return columns

    def process(self, frame: pl.DataFrame) -> pl.DataFrame:
        if 3 in frame["n"]:
            raise ValueError("three")
        return frame


def test_late_rows_are_listed_also_when_a_neighbour_fails(tmp_path: Path) -> None:
    source = ScriptedSource.of(readings((0, "a"), (25, "a"), (1, "a"), (26, "a")))
    asyncio.run(finish(pipeline(tmp_path, source, {"lake": FlakySink.of()}, Thorny(), size="10s")))
    ledger = books(tmp_path / "outbox")
    assert {loss["kind"]: loss["rows"] for loss in ledger["losses"]} == {"failed": 1, "late": 1}


class LiveSource(ScriptedSource):
    """Never ends: after its script nothing comes, for as long as anybody asks."""

    @property
    def finite(self) -> bool:
        return False

    async def arrivals(self, position: bytes | None) -> AsyncGenerator[Arrival | None, None]:
        async for arrival in super().arrivals(position):
            yield arrival
        while True:
            yield None


async def step(runner: Runner, clock: HandClock, seconds: int, at_once: float = 1) -> None:
    for _ in range(round(seconds / at_once)):
        clock.advance(at_once)
        await runner.step()


def test_a_device_that_falls_silent_gets_its_result(tmp_path: Path) -> None:
    async def live() -> None:
        clock = HandClock()
        source = LiveSource.of(readings((0, "a"), (1, "a")))
        definition = pipeline(tmp_path, source, {"lake": FlakySink.of()}, size="10s", idle="30s")
        runner = Runner(definition, clock)
        await runner.open()
        await step(runner, clock, 20)
        clock.advance(3600)  # nobody asked the source for an hour: no device was silent
        clock._now -= 86_400 * SECOND  # and the wall clock went back a day
        await step(runner, clock, 8)
        assert runner.outbox.depth("lake").rows == 0
        await step(runner, clock, 10)
        assert runner.outbox.depth("lake").rows == 1
        await runner.close()

    asyncio.run(live())
    counters = books(tmp_path / "outbox")["ledger"]["common/window"]
    assert counters == {"in": 2, "folded": 2, "created": 1, "out": 1}
