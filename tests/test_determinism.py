"""The same rows give the same results, in the same order, wherever they are cut and it crashes."""

import asyncio
import tempfile
from collections.abc import Sequence
from itertools import pairwise
from pathlib import Path
from typing import Any

import polars as pl
import pytest
from hypothesis import given
from hypothesis import strategies as st

from edge.codec import Record
from edge.outbox.inspection import books
from edge.pipeline import Branch, Named, Pipeline
from edge.pipeline.parts import OPERATOR
from edge.runner import Runner
from edge.sinks import split_id
from tests.operators.cases import CASES, Case
from tests.operators.test_promises import as_frame, rows_of_any_kind
from tests.scripted import CRASH, Crashed, FlakySink, HandClock, ScriptedSource
from tests.search import examples

Row = dict[str, Any]
CHAINS: dict[str, list[dict[str, Any]]] = {
    "thinned": [
        {"filter": "x > -10 OR x IS NULL"},
        {"dedupe": {"columns": ["status"], "count": 1}},
        {"deadband": {"column": "x", "change": 1.0, "heartbeat": "30s"}},
        {"sample": "20s"},
    ],
    "windows of windows": [
        {"derive": {"double": "n * 2"}},
        {"window": {"size": "10s", "aggregate": {"total": "SUM(double)", "rows": "COUNT(*)"}}},
        {"window": {"rows": 2, "aggregate": {"most": "MAX(total)", "first": "FIRST(rows)"}}},
    ],
    "joined and compressed": [
        {"join": {"series": "status = 'bad'", "columns": {"y": "n"}, "tolerance": "1m"}},
        {"compress": {"column": "x", "error": 2.0}},
    ],
}


def steps(chain: Sequence[dict[str, Any]]) -> tuple[Named, ...]:
    """Operators as a definition would make them."""
    made = []
    for step in chain:
        [(name, options)] = step.items()
        made.append(Named(operator=OPERATOR.find(name).model_validate(options)))
    return tuple(made)


def run(
    script: Sequence[Any], common: tuple[Named, ...], own: tuple[Named, ...]
) -> list[list[Row]]:
    """What a sink and one with operators of its own get, with the numbers of their rows."""
    # In memory: no power is cut here, so nothing needs to wait for a disk.
    with tempfile.TemporaryDirectory(dir="/dev/shm") as folder:
        sinks = FlakySink.of("ok", "down", "half"), FlakySink.of("nothing")
        pipeline = Pipeline(
            name="press",
            source=ScriptedSource.of(*script),
            record=Record(time="ts", key=("device",)),
            operators=common,
            sinks={"lake": Branch(sink=sinks[0]), "own": Branch(sink=sinks[1], operators=own)},
            outbox={"path": Path(folder) / "outbox"},
        )
        asyncio.run(_finish(pipeline))
        assert books(Path(folder) / "outbox")["imbalances"] == []
        return [_numbered(sink.rows) for sink in sinks]


async def _finish(pipeline: Pipeline) -> None:
    while True:
        runner = Runner(pipeline, HandClock())
        await runner.open()
        try:
            await asyncio.wait_for(runner.run(asyncio.Event(), once=True), 120)
            return
        except Crashed:
            pass
        finally:
            await runner.close()


def _numbered(rows: list[Row]) -> list[Row]:
    """Rows by their number; the outbox's own id is drawn anew in every run."""
    numbered = [row | {"edge_id": split_id(row["edge_id"]).sequence} for row in rows]
    return sorted(numbered, key=lambda row: row["edge_id"])


def cut(frame: pl.DataFrame, places: Sequence[int], crashes: Sequence[int]) -> list[Any]:
    edges = [0, *sorted(place % (frame.height + 1) for place in places), frame.height]
    script: list[Any] = [frame.slice(start, end - start) for start, end in pairwise(edges)]
    for place in crashes:
        script.insert(place % (len(script) + 1), CRASH)
    return script


places = st.lists(st.integers(0, 40), max_size=5)


@pytest.mark.parametrize("chain", CHAINS)
@examples(8)
@given(rows=rows_of_any_kind, cuts=places, crashes=places)
def test_a_pipeline_gives_the_same_however_it_is_cut_and_wherever_it_crashes(
    chain: str, rows: list[Row], cuts: list[int], crashes: list[int]
) -> None:
    frame, common = as_frame(rows), CHAINS["thinned"][:1]
    whole = run([frame], steps(common), steps(CHAINS[chain]))
    assert run(cut(frame, cuts, crashes), steps(common), steps(CHAINS[chain])) == whole


@pytest.mark.parametrize("case", CASES, ids=str)
@examples(2)
@given(rows=rows_of_any_kind, cuts=places, crashes=places)
def test_every_operator_gives_the_same_in_a_pipeline_that_crashes(
    case: Case, rows: list[Row], cuts: list[int], crashes: list[int]
) -> None:
    frame = as_frame(rows)
    step = [{case.operator: case.options}]
    assert run(cut(frame, cuts, crashes), (), steps(step)) == run([frame], (), steps(step))
