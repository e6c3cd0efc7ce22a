"""Whatever happens between source and outbox, every row is committed once or set aside."""

import asyncio
import json
import threading
from collections.abc import Callable, Sequence
from datetime import UTC, datetime, timedelta
from functools import partial
from pathlib import Path
from typing import Any

import polars as pl
import pytest
from pydantic import PrivateAttr

from edge.codec import Record
from edge.component import Stream
from edge.errors import TooManyFailures
from edge.expression import TIMESTAMP
from edge.operators import Operator
from edge.operators.deadband import Deadband
from edge.operators.derive import Derive
from edge.operators.filter import Filter
from edge.operators.python import Python
from edge.operators.window import Window
from edge.outbox import Outbox
from edge.outbox.inspection import books, rejects, status
from edge.outbox.model import Limits, Reject
from edge.pipeline import Branch, Pipeline
from edge.runner import Runner
from edge.sources import Arrival, Source
from edge.sources.dataset import DatasetSource
from tests.scripted import CRASH, Crashed, FlakySink, HandClock, ScriptedSource, rows


def pipeline(folder: Path, source: Source, sink: FlakySink, **options: Any) -> Pipeline:
    return Pipeline(
        name="press",
        site="osaka",
        source=source,
        sinks={
            "lake": Branch(sink=sink, roll=options.pop("roll", {})),
            **options.pop("sinks", {}),
        },
        outbox={"path": folder / "outbox"},
        **options,
    )


async def finish(definition: Pipeline) -> Runner:
    """Run to the end, starting again after every scripted crash."""
    while True:
        runner = Runner(definition, HandClock())
        await runner.open()
        try:
            await asyncio.wait_for(runner.run(asyncio.Event(), once=True), 120)
            return runner
        except Crashed:
            pass
        finally:
            await runner.close()


def values(sink: FlakySink) -> list[int]:
    return [row["v"] for row in sink.rows]


def test_a_row_goes_through_operators_to_its_sink(tmp_path: Path) -> None:
    source = ScriptedSource.of(rows(v=[1, 2, 3]), rows(v=[4, 5]))
    sink, alarms = FlakySink.of(), FlakySink.of()
    definition = pipeline(
        tmp_path,
        source,
        sink,
        operators=[Filter(where="v > 1")],
        sinks={"alarms": Branch(sink=alarms, when="v > 4")},
    )
    asyncio.run(finish(definition))
    assert values(sink) == [2, 3, 4, 5]
    assert values(alarms) == [5]
    assert source.acknowledged == [0, 1]


def test_every_sink_gets_its_own_rows(tmp_path: Path) -> None:
    # Frames that come and go lie at the same addresses: what is known of one by its id is wrong.
    source = ScriptedSource.of(*(rows(v=list(range(2, 4 + number))) for number in range(40)))
    sinks = {f"s{number}": FlakySink.of() for number in range(2, 9)}
    branches = {
        f"s{number}": Branch(
            sink=sinks[f"s{number}"],
            operators=(Filter(where="v > 0"), Derive(columns={"w": f"v * {number}"})),
            when=f"w > {10 * number}",
        )
        for number in range(2, 9)
    }
    asyncio.run(finish(pipeline(tmp_path, source, FlakySink.of(), sinks=branches)))
    for number in range(2, 9):
        got = [(row["v"], row["w"]) for row in sinks[f"s{number}"].rows]
        expected = [(v, v * number) for last in range(4, 44) for v in range(11, last)]
        assert sorted(got) == sorted(expected)


@pytest.mark.parametrize("size", ["1B", "8MiB"], ids=["rolled ahead", "as entries"])
def test_a_crash_anywhere_changes_nothing(tmp_path: Path, size: str) -> None:
    batches = [rows(v=[number, number + 1]) for number in range(0, 10, 2)]
    script = [
        CRASH,
        batches[0],
        batches[1],
        CRASH,
        batches[2],
        CRASH,
        batches[3],
        batches[4],
        CRASH,
    ]
    sink = FlakySink.of("ok", "down", "half", "ok")
    definition = pipeline(tmp_path, ScriptedSource.of(*script), sink, roll={"size": size})
    asyncio.run(finish(definition))
    assert sorted(values(sink)) == list(range(10))


def test_rows_that_fill_a_parcel_are_never_an_entry(tmp_path: Path) -> None:
    source = ScriptedSource.of(rows(v=[1, 2, 3]), rows(v=[4]))

    async def go() -> list[list[tuple[int, int]]]:
        runner = Runner(pipeline(tmp_path, source, FlakySink.of(), roll={"size": "64B"}))
        await runner.open()
        while await runner.step():
            pass
        parcels = await runner.outbox.call("take_parcels", "lake", 10)
        entries = await runner.outbox.call("take_entries", "lake", 100)
        await runner.close()
        return [[(each.first, each.rows) for each in some] for some in (parcels, entries)]

    assert asyncio.run(go()) == [[(1, 3)], [(4, 1)]]


def test_rows_that_fail_are_set_aside_and_their_neighbours_go_on(tmp_path: Path) -> None:
    def divide(frame: pl.DataFrame) -> pl.DataFrame:
        if 7 in frame["v"]:
            raise ZeroDivisionError("seven")
        return frame

    source = ScriptedSource.of(rows(v=list(range(20))), rows(v=[20]))
    sink = FlakySink.of()
    runner = asyncio.run(
        finish(pipeline(tmp_path, source, sink, operators=[Python(function=divide)]))
    )
    assert values(sink) == [value for value in range(21) if value != 7]
    assert ledger_of(tmp_path)["pipeline"]["failed"] == 1
    assert status(tmp_path / "outbox", 0)["imbalances"] == []
    assert runner.pipeline.name == "press"


def test_a_definition_that_fails_on_everything_ends_the_process(tmp_path: Path) -> None:
    def broken(frame: pl.DataFrame) -> pl.DataFrame:
        raise KeyError("nothing fits")

    source = ScriptedSource.of(rows(v=list(range(1100))))
    definition = pipeline(tmp_path, source, FlakySink.of(), operators=[Python(function=broken)])
    with pytest.raises(TooManyFailures, match="more than 1000 rows failed in a minute"):
        asyncio.run(finish(definition))
    assert source.acknowledged == []


class Hesitant(ScriptedSource):
    """Fails once in the middle, and then once more when it is told to go back."""

    _faults: list[str] = PrivateAttr(default_factory=lambda: ["arrival", "restore"])

    def restore(self, states: Sequence[bytes]) -> None:
        if self._faults == ["restore"]:
            self._faults.clear()
            raise OSError("not now")

    def snapshot(self, whole: bool) -> bytes | None:
        if self._faults[:1] == ["arrival"]:
            self._faults.pop(0)
            raise OSError("not now")
        return None


def test_a_source_that_fails_when_it_goes_back_is_asked_again(tmp_path: Path) -> None:
    sink = FlakySink.of()
    source = Hesitant.of(rows(v=[1]), rows(v=[2]))
    asyncio.run(finish(pipeline(tmp_path, source, sink)))
    assert values(sink) == [1, 2]


class Remembering(ScriptedSource):
    """Remembers its name, and knows no other."""

    def restore(self, states: Sequence[bytes]) -> None:
        if any(state != type(self).__name__.encode() for state in states):
            raise ValueError(f"what is {states}?")

    def snapshot(self, whole: bool) -> bytes | None:
        return type(self).__name__.encode()


class Other(Remembering):
    """Another kind."""


def test_a_source_of_another_kind_starts_with_nothing_remembered(tmp_path: Path) -> None:
    sink = FlakySink.of()
    batches = [rows(v=[1]), rows(v=[2]), rows(v=[3])]
    asyncio.run(finish(pipeline(tmp_path, Remembering.of(*batches[:1]), sink)))
    asyncio.run(finish(pipeline(tmp_path, Other.of(*batches[:2]), sink)))
    asyncio.run(finish(pipeline(tmp_path, Other.of(*batches), sink)))
    assert values(sink) == [1, 2, 3]


class Stubborn(ScriptedSource):
    """Cannot be closed, or not even begin."""

    begins: bool = True

    def restore(self, states: Sequence[bytes]) -> None:
        if not self.begins:
            raise OSError("cannot begin")

    async def close(self) -> None:
        raise OSError("cannot be closed")


@pytest.mark.parametrize("begins", [True, False])
def test_a_part_that_fails_at_the_end_does_not_keep_the_outbox(
    tmp_path: Path, begins: bool
) -> None:
    source = Stubborn(begins=begins)
    source._script.append(rows(v=[1]))
    with pytest.raises(OSError, match="cannot be"):
        asyncio.run(finish(pipeline(tmp_path, source, FlakySink.of())))
    limits, clock = Limits(), HandClock()
    after = Outbox(tmp_path / "outbox", limits=limits, sinks={}, clock=clock)
    after.open(wait=0)
    after.close()


def test_memory_that_does_not_fit_its_options_any_more_is_forgotten_and_told(
    tmp_path: Path,
) -> None:
    sink = FlakySink.of()
    script = [rows(v=[1.0, 2.0]), rows(v=[1.2, 1.2])]
    for change, batches in ((5.0, script[:1]), (0.5, script)):
        deadband = Deadband(column="v", change=change)
        definition = pipeline(tmp_path, ScriptedSource.of(*batches), sink, operators=[deadband])
        asyncio.run(finish(definition))
    assert values(sink) == [1.0, 1.2], (
        "the first row of the second run passes: nothing is remembered"
    )
    (line,) = books(tmp_path / "outbox")["losses"]
    assert (line["part"], line["kind"], line["rows"]) == ("common/deadband", "reset", 0)


def test_memory_of_an_operator_that_is_gone_is_told(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    def run(*operators: Operator) -> None:
        source = ScriptedSource.of(rows(v=[1, 5]))
        asyncio.run(finish(pipeline(tmp_path, source, FlakySink.of(), operators=operators)))

    run(Deadband(column="v", change=1.0))
    run(Deadband(column="v", change=1.0))
    assert "not in the definition any more" not in caplog.text
    run(Filter(where="v > 0"))
    assert "common/deadband: is not in the definition any more" in caplog.text


def test_rejected_payloads_reach_the_sink_that_asks_for_them_and_the_log(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    reject = Reject("not JSON", b"\xffoops", "plant/a")
    source = ScriptedSource.of(rows(v=[1]), reject, rows(v=[2]))
    sink, problems = FlakySink.of(), FlakySink.of()
    definition = pipeline(
        tmp_path, source, sink, rejected="problems", sinks={"problems": Branch(sink=problems)}
    )
    asyncio.run(finish(definition))
    assert values(sink) == [1, 2]
    [row] = problems.rows
    assert (row["reason"], row["topic"], row["payload"]) == ("not JSON", "plant/a", "\\xffoops")
    assert "'press': 1 payload rejected, the first from plant/a: not JSON" in caplog.text
    assert "oops" not in caplog.text
    assert ledger_of(tmp_path)["source"] == {"read": 3, "rejected": 1, "taken": 2}


def test_rejected_payloads_before_the_first_row_decide_no_columns(tmp_path: Path) -> None:
    (tmp_path / "a.ndjson").write_text("not JSON\n")
    (tmp_path / "b.ndjson").write_text('{"v": 1}\nneither\n{"v": 2}\n')
    sink, problems = FlakySink.of(), FlakySink.of()
    definition = pipeline(
        tmp_path,
        DatasetSource(path=str(tmp_path / "*.ndjson")),
        sink,
        operators=[Filter(where="v > 1")],
        rejected="problems",
        sinks={"problems": Branch(sink=problems, operators=(Derive(columns={"from": "topic"}),))},
    )
    asyncio.run(finish(definition))
    assert values(sink) == [2]
    assert [row["payload"] for row in problems.rows] == ["not JSON", "neither"]
    assert [Path(row["from"]).name for row in problems.rows] == ["a.ndjson:1", "b.ndjson:2"]


def test_acknowledge_delivered_waits_for_every_sink(tmp_path: Path) -> None:
    async def go() -> None:
        runner = Runner(definition, HandClock())
        await runner.open()
        while await runner.step():
            pass
        await runner._acknowledge_settled()
        assert source.acknowledged == []
        await runner.links["lake"].step()
        await runner._acknowledge_settled()
        assert source.acknowledged == []
        runner.links["alarms"]._try_at = 0.0
        await runner.links["alarms"].step()
        await runner.links["alarms"].step()
        await runner._acknowledge_settled()
        assert source.acknowledged == [0]
        await runner.close()

    source = ScriptedSource.of(rows(v=[1, 2]))
    sinks = {"alarms": Branch(sink=FlakySink.of())}
    definition = pipeline(tmp_path, source, FlakySink.of(), sinks=sinks, acknowledge="delivered")
    asyncio.run(go())


def test_nothing_is_kept_for_a_source_that_wants_no_acknowledgement(tmp_path: Path) -> None:
    async def go() -> None:
        runner = Runner(definition, HandClock())
        await runner.open()
        while await runner.step():
            assert not runner._owed
        await runner.close()

    (tmp_path / "a.ndjson").write_text('{"v": 1}\n')
    source = DatasetSource(path=str(tmp_path / "a.ndjson"))
    definition = pipeline(tmp_path, source, FlakySink.of(), acknowledge="delivered")
    asyncio.run(go())


class Withhold(Operator):
    """Holds all rows back until the end."""

    _held: list[int] = PrivateAttr(default_factory=list)

    def bind(self, columns: pl.Schema, stream: Stream) -> pl.Schema:
        return columns

    def process(self, frame: pl.DataFrame) -> pl.DataFrame:
        self._held += frame["v"].to_list()
        return frame.clear()

    def account(self, before: int, after: int) -> dict[str, int]:
        return {"held": before}

    def snapshot(self, whole: bool) -> bytes | None:
        return json.dumps(self._held).encode()

    def restore(self, states: Sequence[bytes]) -> None:
        self._held = json.loads(states[-1]) if states else []

    def flush(self) -> pl.DataFrame | None:
        held, self._held = self._held, []
        return rows(v=held) if held else None


def test_what_operators_hold_comes_out_also_after_a_crash_at_the_end(tmp_path: Path) -> None:
    sink = FlakySink.of()
    source = ScriptedSource.of(rows(v=[1]), rows(v=[2, 3]), CRASH)
    asyncio.run(finish(pipeline(tmp_path, source, sink, operators=[Withhold()])))
    asyncio.run(finish(pipeline(tmp_path, source, sink, operators=[Withhold()])))
    assert values(sink) == [1, 2, 3]


def test_once_acknowledges_what_was_delivered_before_it_ends(tmp_path: Path) -> None:
    source = ScriptedSource.of(*(rows(v=[number]) for number in range(5)))
    definition = pipeline(tmp_path, source, FlakySink.of("down"), acknowledge="delivered")
    asyncio.run(finish(definition))
    assert source.acknowledged == list(range(5))


def test_once_does_not_end_while_a_transaction_moves_the_last_rows(tmp_path: Path) -> None:
    async def go() -> None:
        runner = Runner(definition, HandClock())
        await runner.open()
        while await runner.step():
            pass
        outbox = runner.outbox
        rolling = asyncio.create_task(
            outbox._thread.call(partial(outbox._file.write, move_rows(outbox)))
        )
        await asyncio.to_thread(moving.wait)
        stopping = asyncio.create_task(asyncio.Event().wait())
        draining = asyncio.create_task(runner._drain(stopping))
        for _ in range(10):
            await asyncio.sleep(0)
        assert not draining.done()
        moved.set()
        await rolling
        await runner.links["lake"].step()
        await draining
        stopping.cancel()
        await runner.close()

    def move_rows(outbox: Outbox) -> Callable[[object], None]:
        def work(_: object) -> None:
            buffer = outbox._file.buffers["lake"]
            buffer.entry_rows -= 2
            moving.set()
            moved.wait(10)
            buffer.entry_rows += 2

        return work

    moving, moved = threading.Event(), threading.Event()
    sink = FlakySink.of()
    definition = pipeline(tmp_path, ScriptedSource.of(rows(v=[1, 2])), sink)
    asyncio.run(go())
    assert values(sink) == [1, 2]


def ledger_of(folder: Path) -> dict[str, Any]:
    ledger: dict[str, Any] = status(folder / "outbox", 0)["ledger"]
    return ledger


class Endless(ScriptedSource):
    """Never comes to an end of itself."""

    @property
    def finite(self) -> bool:
        return False


@pytest.mark.parametrize("script", [[], [rows(v=[1])]])
@pytest.mark.parametrize("ends", [True, False])
def test_operators_on_rejected_payloads_get_time_and_the_end(
    tmp_path: Path, script: list[Any], ends: bool
) -> None:
    async def go() -> None:
        clock = HandClock()
        runner = Runner(definition, clock)
        await runner.open()
        while await runner.step():
            pass
        for _ in range(5):
            clock.advance(1.0)
            await runner._tell_time()
        while runner.outbox.depth("problems").rows:
            await runner.links["problems"].step()
        await runner.close()

    class Undeclared(ScriptedSource if ends else Endless):  # type: ignore[misc]
        def bind(self, *given: Any) -> pl.Schema | None:
            return super().bind(*given) if script else None

        def _arrival(self, index: int, item: Any) -> Any:
            if script or isinstance(item, pl.DataFrame):
                return super()._arrival(index, item)
            return Arrival(pl.DataFrame(), b"1", read=1, rejects=[item])

    source = Undeclared.of(*script, Reject("bad", b"x"))
    problems = FlakySink.of()
    count = Window(
        size=timedelta(hours=1), by=(), idle=timedelta(seconds=3), aggregate={"n": "COUNT(*)"}
    )
    definition = pipeline(
        tmp_path,
        source,
        FlakySink.of(),
        rejected="problems",
        sinks={"problems": Branch(sink=problems, operators=(count,))},
    )
    asyncio.run(go())
    assert [row["n"] for row in problems.rows] == [1]
    assert status(tmp_path / "outbox", 0)["imbalances"] == []


def test_a_row_from_the_future_is_kept_to_be_looked_at_and_listed_once(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    now = datetime(2030, 1, 1, tzinfo=UTC)
    frame = rows(ts=[now, now + timedelta(days=2)], v=[1, 2]).with_columns(edge_received=now)
    source = ScriptedSource.of(frame.cast({"edge_received": TIMESTAMP, "ts": TIMESTAMP}))
    sink = FlakySink.of()
    count = Window(size=timedelta(hours=1), by=(), aggregate={"n": "COUNT(*)"})
    record = Record(time="ts", fields={"ts": "timestamp", "v": "int"})
    asyncio.run(finish(pipeline(tmp_path, source, sink, operators=[count], record=record)))

    assert [row["n"] for row in sink.rows] == [1]
    [kept] = rejects(tmp_path / "outbox")
    assert json.loads(kept["payload"])["v"] == 2
    assert kept["reason"] == "common/window: lies further ahead than max_ahead"
    found = books(tmp_path / "outbox")
    assert [(loss["part"], loss["kind"], loss["rows"]) for loss in found["losses"]] == [
        ("common/window", "future", 1)
    ]
    assert found["imbalances"] == []
    assert "1 payload rejected, the first: common/window: lies further ahead" in caplog.text
