"""A batch whose results no single commit can take goes through in parts, whatever happens."""

import asyncio
import json
import os
import random
import sqlite3
import time
from base64 import b64encode
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager, closing
from datetime import timedelta
from pathlib import Path
from typing import Any

import polars as pl
import pytest

from edge.component import Stream
from edge.operators import Operator
from edge.operators.derive import Derive
from edge.operators.window import Window
from edge.outbox.inspection import books, status
from edge.outbox.model import Reject
from edge.pipeline import Branch, Pipeline
from edge.runner import Runner
from edge.sources.dataset import DatasetSource
from tests.processor import Processor, until
from tests.scripted import FlakySink, HandClock, ScriptedSource, rows

MIB = 2**20
ROWS = 600


def noise(size: int) -> str:
    """Text that takes `size` bytes however it is packed."""
    return b64encode(os.urandom(size)).decode()


class Swell(Operator):
    """Puts text into rows, which makes much more of them than came."""

    function: Callable[[int], str] = lambda _: noise(12_500)

    def bind(self, columns: pl.Schema, stream: Stream) -> pl.Schema:
        return pl.Schema({**columns, "text": pl.String()})

    def process(self, frame: pl.DataFrame) -> pl.DataFrame:
        text = [self.function(v) for v in frame["v"]]
        return frame.with_columns(pl.Series("text", text, dtype=pl.String))


def pipeline(
    folder: Path, *batches: Any, sink: FlakySink | None = None, **options: Any
) -> Pipeline:
    outbox = {"path": folder / "outbox", "max_size": "32MiB", **options.pop("outbox", {})}
    lake = Branch(sink=sink or FlakySink.of(), **options.pop("lake", {}))
    return Pipeline(
        name="press",
        site="osaka",
        source=options.pop("source", None) or ScriptedSource.of(*batches),
        operators=options.pop("operators", [Swell()]),
        sinks={"lake": lake, **options.pop("sinks", {})},
        outbox=outbox,
        **options,
    )


@asynccontextmanager
async def opened(definition: Pipeline) -> AsyncIterator[Runner]:
    runner = Runner(definition, HandClock())
    await runner.open()
    try:
        yield runner
    finally:
        await runner.close()


async def finish(definition: Pipeline) -> None:
    async with opened(definition) as runner:
        await asyncio.wait_for(runner.run(asyncio.Event(), once=True), 300)


async def read_all(definition: Pipeline) -> int:
    """Without a link; gives the steps it took."""
    async with opened(definition) as runner:
        steps = 1
        while await runner.step():
            steps += 1
        return steps


async def deliver(runner: Runner) -> None:
    """All that waits for a link."""
    for name, link in runner.links.items():
        while runner.outbox.depth(name).rows:
            await link.step()


def numbers(sink: FlakySink, column: str = "v") -> list[int]:
    return sorted(row[column] for row in sink.rows)


def in_balance(folder: Path) -> dict[str, dict[str, int]]:
    now = status(folder / "outbox", 0)
    assert now["imbalances"] == []
    assert now["outbox"]["bytes"] <= 32 * MIB
    ledger: dict[str, dict[str, int]] = now["ledger"]
    return ledger


def test_with_block_everything_goes_through_in_parts(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    sink = FlakySink.of("down", "down", "half")
    batches = [rows(v=list(range(ROWS))), rows(v=list(range(ROWS, 2 * ROWS))), rows(v=[-1])]
    definition = pipeline(tmp_path, *batches, sink=sink)
    asyncio.run(finish(definition))
    assert numbers(sink) == list(range(-1, 2 * ROWS))
    assert definition.source.acknowledged == [0, 1, 2]  # type: ignore[attr-defined]
    ledger = in_balance(tmp_path)
    assert ledger["source"] == {"read": 2 * ROWS + 1, "taken": 2 * ROWS + 1}
    assert ledger["sink:lake"]["delivered"] == 2 * ROWS + 1
    assert caplog.text.count("go in parts; raise outbox.max_size") == 1


def test_the_source_is_told_after_the_last_part(tmp_path: Path) -> None:
    async def go() -> None:
        source = ScriptedSource.of(rows(v=list(range(ROWS))), rows(v=[-1]))
        async with opened(pipeline(tmp_path, source=source)) as runner:
            while runner._waiting.rows is None:
                assert await runner.step()
            while runner._waiting.rows is not None:
                assert source.acknowledged == []
                await deliver(runner)
                await runner.step()
            assert source.acknowledged == [0]

    asyncio.run(go())


def windowed(folder: Path, sinks: dict[str, FlakySink], script: list[Any]) -> Pipeline:
    fold = Window(size=timedelta(seconds=7), by=(), aggregate={"n": "COUNT(*)", "total": "SUM(v)"})
    return pipeline(
        folder,
        *script,
        sink=sinks["lake"],
        record={"time": "ts"},
        rejected="problems",
        sinks={
            "folds": Branch(sink=sinks["folds"], operators=(Derive(columns={"text": "0"}), fold)),
            "problems": Branch(sink=sinks["problems"]),
        },
    )


def test_stopped_between_any_two_commits_it_gives_what_it_would_have_given(tmp_path: Path) -> None:
    first = rows(v=list(range(ROWS))).with_columns(
        ts=pl.from_epoch("v").dt.replace_time_zone("UTC")
    )
    more = first.tail(100).with_columns(v=pl.col("v") + 100, ts=pl.col("ts") + timedelta(100))
    script: list[Any] = [first.head(10), Reject("bad", b"x"), first.slice(10), more]
    got = {}
    for name in ("once", "cut"):
        sinks = {each: FlakySink.of() for each in ("lake", "folds", "problems")}
        definition = windowed(tmp_path / name, sinks, script)
        if name == "cut":
            asyncio.run(cut_everywhere(definition))
        asyncio.run(finish(definition))
        folds = sorted((row["n"], row["total"]) for row in sinks["folds"].rows)
        got[name] = numbers(sinks["lake"]), folds, len(sinks["problems"].rows)
        ledger = in_balance(tmp_path / name)
        assert ledger["source"] == {"read": ROWS + 101, "rejected": 1, "taken": ROWS + 100}
        got[name] += (ledger["folds/window"], ledger["sink:lake"])
    assert got["cut"] == got["once"]
    assert got["once"][0] == sorted([*range(ROWS), *(v + 100 for v in range(ROWS - 100, ROWS))])


async def cut_everywhere(definition: Pipeline) -> None:
    """A new life for every step: nothing is left of the one before but the outbox."""
    more = True
    while more:
        async with opened(definition) as runner:
            for _ in range(2):  # the scripted source says first that it has nothing yet
                more = await runner.step()
            await deliver(runner)


def test_drop_newest_drops_only_what_does_not_fit(tmp_path: Path) -> None:
    batches = [rows(v=list(range(ROWS))), rows(v=list(range(ROWS)))]
    definition = pipeline(tmp_path, *batches, outbox={"when_full": "drop_newest"})
    asyncio.run(read_all(definition))
    lake = in_balance(tmp_path)["sink:lake"]
    assert lake["appended"] == 2 * ROWS == lake["buffered"] + lake["dropped"]
    assert lake["buffered"] > ROWS


def test_drop_oldest_keeps_the_newest_and_never_waits(tmp_path: Path) -> None:
    sink = FlakySink.of()
    batches = [rows(v=list(range(ROWS))), rows(v=list(range(ROWS, 3 * ROWS)))]
    definition = pipeline(tmp_path, *batches, sink=sink, outbox={"when_full": "drop_oldest"})
    asyncio.run(read_all(definition))
    lake = in_balance(tmp_path)["sink:lake"]
    assert lake["appended"] == 3 * ROWS == lake["buffered"] + lake["dropped"]
    asyncio.run(finish(definition))
    kept = numbers(sink)
    assert len(kept) > ROWS // 2
    assert kept == list(range(3 * ROWS - len(kept), 3 * ROWS))


@pytest.mark.parametrize("when_full", ["block", "drop_oldest", "drop_newest"])
def test_a_batch_larger_than_the_share_of_its_sink_goes_through_in_parts(
    tmp_path: Path, when_full: str
) -> None:
    sink = FlakySink.of()
    lake = {"max_size": "1MiB", "when_full": when_full}
    definition = pipeline(tmp_path, rows(v=list(range(200))), sink=sink, lake=lake)
    if when_full == "block":
        asyncio.run(finish(definition))
        assert numbers(sink) == list(range(200))
        return
    asyncio.run(read_all(definition))
    ledger = in_balance(tmp_path)["sink:lake"]
    assert ledger["appended"] == 200 == ledger["buffered"] + ledger["dropped"]
    assert ledger["buffered"] > 50


@pytest.mark.parametrize("when_full", ["block", "drop_oldest"])
def test_a_row_that_no_commit_can_take_is_counted_and_holds_up_nothing(
    tmp_path: Path, when_full: str
) -> None:
    sink, small = FlakySink.of("down"), FlakySink.of()
    definition = pipeline(
        tmp_path,
        rows(v=list(range(20))),
        rows(v=[20]),
        sink=sink,
        operators=[],
        lake={"operators": (Swell(function=lambda v: noise(8 * MIB) if v == 7 else ""),)},
        sinks={"small": Branch(sink=small)},
        outbox={"when_full": when_full},
    )
    asyncio.run(finish(definition))
    assert numbers(sink) == [v for v in range(21) if v != 7]
    assert numbers(small) == list(range(21))
    assert in_balance(tmp_path)["sink:lake"]["dropped"] == 1
    [loss] = books(tmp_path / "outbox")["losses"]
    assert (loss["kind"], loss["rows"]) == ("dropped", 1)
    assert "an empty outbox is too small for it; raise outbox.max_size" in loss["reason"]


@pytest.mark.parametrize("when_full", ["block", "drop_newest"])
def test_a_row_too_large_for_any_commit_takes_no_other_of_its_batch_along(
    tmp_path: Path, when_full: str
) -> None:
    sink = FlakySink.of()
    text = [noise(8 * MIB if v == 7 else 50_000) for v in range(20)]
    batches = [rows(v=list(range(20)), text=text), rows(v=[20], text=["x"])]
    outbox = {"when_full": when_full}
    asyncio.run(finish(pipeline(tmp_path, *batches, sink=sink, operators=[], outbox=outbox)))
    assert numbers(sink) == [v for v in range(21) if v != 7]
    assert in_balance(tmp_path)["sink:lake"]["dropped"] == 1


def test_a_row_whose_parcel_never_fits_is_refused_and_holds_up_nothing(tmp_path: Path) -> None:
    sink = FlakySink.of()
    batches = [rows(v=list(range(20))), rows(v=[20])]
    definition = pipeline(
        tmp_path,
        *batches,
        sink=sink,
        operators=[Swell(function=lambda v: "a" * 20 * MIB if v == 7 else "")],
    )
    asyncio.run(finish(definition))
    assert numbers(sink) == [v for v in range(21) if v != 7]
    assert in_balance(tmp_path)["sink:lake"]["refused"] == 1
    [loss] = books(tmp_path / "outbox")["losses"]
    assert loss["reason"].startswith("too large: 20.8 MiB of parcels do not fit")


def test_rows_that_wait_get_the_columns_of_a_definition_that_changed(tmp_path: Path) -> None:
    async def begin() -> None:
        async with opened(pipeline(tmp_path, given)) as runner:
            while runner._waiting.rows is None:
                assert await runner.step()

    given = rows(v=list(range(ROWS)), old=["x"] * ROWS)
    asyncio.run(begin())
    sink = FlakySink.of()
    after = rows(v=[1.5], new=["y"])
    definition = pipeline(tmp_path, given, after, sink=sink, operators=[])
    definition.source._script[0] = after.clear()  # type: ignore[attr-defined]
    asyncio.run(finish(definition))
    assert numbers(sink) == sorted([*map(float, range(ROWS)), 1.5])
    assert {row.get("new") for row in sink.rows} == {None, "y"}


def test_rows_that_wait_in_damaged_memory_are_counted_once(tmp_path: Path) -> None:
    async def go() -> None:
        async with opened(pipeline(tmp_path, rows(v=list(range(ROWS))), rows(v=[-1]))) as runner:
            while runner._waiting.rows is None:
                assert await runner.step()
            db = runner.outbox._file.db
            await runner.outbox._thread.call(
                lambda: db.execute("UPDATE memory SET body = x'00' WHERE name = 'waiting'")
            )

    asyncio.run(go())
    sink = FlakySink.of()
    asyncio.run(finish(pipeline(tmp_path, rows(v=[0]), rows(v=[-1]), sink=sink)))
    assert numbers(sink) == [-1]
    [loss] = books(tmp_path / "outbox")["losses"]
    assert (loss["part"], loss["kind"], loss["rows"]) == ("waiting", "damaged", ROWS)


def test_wide_rows_of_parquet_are_taken_in_pieces_that_can_wait(tmp_path: Path) -> None:
    frame = pl.DataFrame({"v": range(3_000), "wide": [noise(2_000) for _ in range(3_000)]})
    frame.write_parquet(tmp_path / "wide.parquet")
    sink = FlakySink.of()
    source = DatasetSource(path=str(tmp_path / "wide.parquet"))
    asyncio.run(finish(pipeline(tmp_path, source=source, sink=sink, operators=[])))
    assert numbers(sink) == list(range(3_000))
    assert in_balance(tmp_path)["source"] == {"read": 3_000, "taken": 3_000}


KILLED = """
name: killed
source: {dataset: {path: rows.ndjson}}
record: {fields: {v: int}}
operators:
  - python: {function: swell.py:swell, columns: {v: int, text: str}}
sinks:
  lake:
    file: {path: lake, format: ndjson}
    roll: {size: 1MiB, every: 100ms}
outbox: {path: outbox, max_size: 32MiB}
"""
SWELL = """
import os, time
from base64 import b64encode
import polars as pl

def swell(frame):
    time.sleep(0.05)
    text = [b64encode(os.urandom(12_500)).decode() for _ in range(frame.height)]
    return frame.with_columns(pl.Series("text", text, dtype=pl.String))
"""


def some_wait(folder: Path) -> bool:
    """Whether rows wait to be worked off, seen from outside."""
    with closing(sqlite3.connect(f"file:{folder}/outbox/outbox.sqlite?mode=ro", uri=True)) as db:
        try:
            query = "SELECT count(*) FROM memory WHERE name = 'waiting' AND length(body) > 0"
            return bool(db.execute(query).fetchone()[0])
        except sqlite3.OperationalError:
            return False  # not yet created


def kill_while_rows_wait(folder: Path, kills: int, chance: random.Random) -> None:
    """A life after the other, ended by SIGKILL some time after rows were seen to wait."""
    (folder / "killed.yaml").write_text(KILLED)
    (folder / "swell.py").write_text(SWELL)
    given = "".join(f'{{"v": {v}}}\n' for v in range(2 * ROWS))
    (folder / "rows.ndjson").write_text(given)
    processor = Processor(folder / "killed.yaml", "--once")
    for _ in range(kills):
        with processor.running() as process:
            until(lambda: process.poll() is not None or some_wait(folder))
            time.sleep(chance.uniform(0.0, 0.4))  # any moment will do
    with processor.running() as process:
        assert process.wait(120) == 0, processor.tail()


def test_killed_while_rows_wait_nothing_is_lost_or_doubled(tmp_path: Path) -> None:
    kill_while_rows_wait(tmp_path, 3, random.Random(7))
    files = (tmp_path / "lake").rglob("*.ndjson")
    lines = [line for file in files for line in file.read_text().splitlines()]
    assert sorted(json.loads(line)["v"] for line in lines) == list(range(2 * ROWS))
    in_balance(tmp_path)
