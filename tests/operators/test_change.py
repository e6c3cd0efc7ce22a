"""The options of an operator change while it holds something back: that still comes out."""

import asyncio
from pathlib import Path
from typing import Any

import polars as pl
import pytest

from edge.component import Stream
from edge.operators import Operator
from edge.operators.compress import Compress
from edge.operators.dedupe import Dedupe
from edge.operators.join import Join
from edge.outbox.inspection import books
from edge.pipeline import Pipeline
from edge.pipeline.model import Named
from edge.runner import Runner
from tests.operators.test_window import BATCHES, finish, pipeline, readings, window
from tests.scripted import CRASH, Crashed, FlakySink, HandClock, ScriptedSource


async def start_and_crash(definition: Pipeline) -> None:
    runner = Runner(definition, HandClock())
    await runner.open()
    with pytest.raises(Crashed):
        await runner.run(asyncio.Event(), once=True)
    await runner.close()


def change(
    folder: Path,
    first: dict[str, Any],
    later: dict[str, Any],
    *after: Named,
    **types: pl.DataType,
) -> list[dict[str, Any]]:
    """One batch with some options, a crash, the rest with others or other types: what arrives."""
    sink = FlakySink.of()
    source = ScriptedSource.of(BATCHES[0], CRASH)
    asyncio.run(start_and_crash(pipeline(folder, source, {"lake": sink}, **first)))
    rest = [batch.cast(types) for batch in BATCHES]  # type: ignore[arg-type]
    source = ScriptedSource.of(rest[0], CRASH, *rest[1:])
    definition = pipeline(folder, source, {"lake": sink}, **later)
    definition = definition.model_copy(update={"operators": (*definition.operators, *after)})
    asyncio.run(finish(definition))
    return sink.rows


def test_what_was_open_comes_out_when_options_change(tmp_path: Path) -> None:
    rows = change(tmp_path, {"size": "10s"}, {"size": "30s", "early": "1h"})
    found = {(row["device"], row["ts"][11:19], row["count"], row["edge_early"]) for row in rows}
    assert found == {
        ("a", "00:00:00", 1, True),
        ("b", "00:00:00", 1, True),
        ("a", "00:00:00", 2, False),
        ("b", "00:00:00", 2, False),
        ("a", "00:00:30", 1, False),
    }
    assert len(rows) == len(found)
    ledger = books(tmp_path / "outbox")
    assert ledger["imbalances"] == []
    [loss] = ledger["losses"]
    assert (loss["part"], loss["kind"]) == ("common/window", "reset")
    assert loss["reason"] == "its options changed, 2 rows are made of what it remembered"


@pytest.mark.parametrize(
    ("first", "later", "peaks"),
    [
        ("MAX(n)", "MAX(CAST(n AS DOUBLE))", {0.0, 1.0}),
        ("MAX(n)", "MAX(status)", {"0", "1"}),
        ("MAX(device)", "MAX(n)", {None}),
    ],
)
def test_what_was_open_comes_out_in_the_columns_of_today(
    tmp_path: Path, first: str, later: str, peaks: set[object]
) -> None:
    rows = change(
        tmp_path,
        {"rows": 9, "aggregate": {"peak": first, "gone": "COUNT(*)"}},
        {"rows": 9, "aggregate": {"count": "COUNT(*)", "peak": later}},
    )
    assert {row["peak"] for row in rows if row["count"] is None} == peaks


def test_a_column_of_another_type_fails_no_row(tmp_path: Path) -> None:
    rows = change(
        tmp_path,
        {"rows": 9, "aggregate": {"count": "COUNT(*)", "peak": "MAX(n)"}},
        {"rows": 9, "aggregate": {"count": "COUNT(*)", "peak": "MAX(n)"}},
        n=pl.Float64(),
    )
    assert sum(row["count"] for row in rows) == 7
    assert "failed" not in books(tmp_path / "outbox")["ledger"].get("pipeline", {})


class NeverEarly(Operator):
    """Raises for results that are marked as early."""

    def bind(self, columns: pl.Schema, stream: Stream) -> pl.Schema:
        return columns

    def process(self, frame: pl.DataFrame) -> pl.DataFrame:
        if frame["edge_early"].any():
            raise ValueError("early")
        return frame


def test_what_was_open_and_fails_afterwards_is_set_aside(tmp_path: Path) -> None:
    later = {"size": "30s", "early": "1h"}
    rows = change(tmp_path, {"size": "10s"}, later, Named(operator=NeverEarly()))
    assert [row["count"] for row in rows] == [2, 2, 1]
    ledger = books(tmp_path / "outbox")
    assert ledger["ledger"]["pipeline"] == {"failed": 2}
    assert ledger["imbalances"] == []


def single(folder: Path, operator: Operator, sink: FlakySink, *script: Any) -> Pipeline:
    made = pipeline(folder, ScriptedSource.of(*script), {"lake": sink}, size="10s")
    return made.model_copy(update={"operators": (Named(operator=operator, name="step"),)})


def test_memory_of_something_else_is_forgotten_and_told(tmp_path: Path) -> None:
    sink = FlakySink.of()
    dedupe = single(tmp_path, Dedupe(within="1h"), sink, BATCHES[0], CRASH)
    asyncio.run(start_and_crash(dedupe))
    asyncio.run(finish(single(tmp_path, window(size="10s"), sink, *BATCHES)))
    losses = books(tmp_path / "outbox")["losses"]
    [loss] = [each for each in losses if each["kind"] == "reset"]
    assert loss["part"] == "common/step"
    assert loss["reason"] == "its options changed, what it remembered is forgotten"


@pytest.mark.parametrize(
    ("error", "columns"), [(0.7, {}), (0.5, {"more": pl.lit(1)}), (0.5, {"x": pl.lit("text")})]
)
def test_what_compress_held_back_comes_out(
    tmp_path: Path, error: float, columns: dict[str, pl.Expr]
) -> None:
    sink, rows = FlakySink.of(), readings(*((second, "a") for second in range(6)))
    first = single(tmp_path, Compress(column="n", error=0.5), sink, rows.head(4), CRASH)
    asyncio.run(start_and_crash(first))
    later = Compress(column="n", error=error)
    changed = rows.with_columns(**columns)
    asyncio.run(finish(single(tmp_path, later, sink, changed.head(4), changed.tail(2))))
    assert sorted(row["n"] for row in sink.rows) == [0, 3, 4, 5]
    ledger = books(tmp_path / "outbox")
    assert ledger["imbalances"] == []
    assert ledger["ledger"]["common/step"] == {"in": 6, "out": 4, "compressed": 2, "held": 0}


def test_what_join_remembers_of_another_type_is_forgotten(tmp_path: Path) -> None:
    sink, rows = FlakySink.of(), readings((0, "a"), (1, "b"), (2, "c"))
    join = Join(series="device = 'a'", by=[], columns={"other": "n"}, tolerance="5m")
    asyncio.run(start_and_crash(single(tmp_path, join, sink, rows.head(2), CRASH)))
    join, text = join.model_copy(), rows.cast({"n": pl.String()})
    asyncio.run(finish(single(tmp_path, join, sink, text.head(2), text.tail(1))))
    assert [row["other"] for row in sink.rows] == [0, None]
    [loss] = books(tmp_path / "outbox")["losses"]
    assert loss["kind"] == "reset"
