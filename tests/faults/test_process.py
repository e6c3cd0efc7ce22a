"""The process: told to stop, short of memory, given functions that misbehave, clocks that jump."""

import asyncio
import fcntl
import json
import logging
import signal
import sqlite3
import subprocess
import sys
import termios
import time
from pathlib import Path
from typing import Any

import polars as pl
import pytest

from edge.codec import Record
from edge.codec.objects import ObjectReader
from edge.codec.rows import Raw
from edge.errors import DefinitionError
from edge.keyed import SWEEP_ROWS
from edge.operators.deadband import Deadband
from edge.operators.dedupe import Dedupe
from edge.operators.filter import Filter
from edge.operators.lookup import Lookup
from edge.operators.python import Python
from edge.outbox import inspection
from edge.pipeline import Branch, Pipeline
from edge.runner import Runner
from edge.sinks import Encoded
from tests.cloud import Cloud
from tests.processor import Processor, until
from tests.proxy import Proxy
from tests.scripted import FlakySink, HandClock, ScriptedSource, rows

GRACE = 10.0
"""Seconds that Docker gives a container between SIGTERM and SIGKILL."""

DEFINITION = """
name: press
source: {{dataset: {{path: readings.ndjson}}}}
record: {{fields: {{n: int}}}}
operators:
  - python: {{function: steps.py:step{options}}}
sinks:
  out:
    {sink}
batch: {{rows: 1000}}
outbox: {{path: outbox}}
"""
FILES = "file: {path: out}"


def furnish(folder: Path, step: str, number: int, options: str = "", sink: str = FILES) -> Path:
    """A definition over `number` readings, whose only operator is the function `step`."""
    lines = "".join(json.dumps({"n": n}) + "\n" for n in range(number))
    (folder / "readings.ndjson").write_text(lines)
    (folder / "steps.py").write_text(step)
    definition = folder / "press.yaml"
    definition.write_text(DEFINITION.format(options=options, sink=sink))
    return definition


def arrived(folder: Path) -> list[int]:
    files = sorted((folder / "out").rglob("*.ndjson"))
    return sorted(n for file in files for n in pl.read_ndjson(file)["n"].to_list())


def status(folder: Path) -> dict[str, Any]:
    return inspection.status(folder / "outbox", time.time_ns() // 1000)


def stop(process: "subprocess.Popen[bytes]") -> float:
    """Ask a processor to leave; the seconds it took, and it left in order."""
    begin = time.monotonic()
    process.send_signal(signal.SIGTERM)
    assert process.wait(60) == 0
    return time.monotonic() - begin


# -- SIGTERM


PASS = "def step(frame):\n    return frame\n"


@pytest.mark.parametrize("mode", ["black_hole", "refuse"])
def test_told_to_stop_while_it_drains_it_leaves_within_the_grace(
    mode: Any, tmp_path: Path, cloud: Cloud
) -> None:
    cloud.make_bucket("lake")
    with Proxy(("127.0.0.1", cloud.port)) as proxy:
        sink = f"s3: {{bucket: lake, compression: none, endpoint_url: {proxy.url}}}"
        sink += "\n    roll: {size: 16KiB, every: 1ms}"
        definition = furnish(tmp_path, PASS, 20_000, sink=sink)
        processor = Processor(definition, "--once")
        proxy.set(mode)
        with processor.running() as process:
            until(lambda: process.poll() or proxy.taken or "down" in processor.said())
            assert process.poll() is None, processor.tail()
            assert stop(process) < GRACE
        held = status(tmp_path)
        assert held["sinks"]["out"]["buffered_rows"] + held["sinks"]["out"]["delivered_rows"] > 0
        assert held["imbalances"] == []
        proxy.set("up")
        with processor.running() as process:
            assert process.wait(60) == 0, processor.tail()
    found = pl.concat(map(pl.read_ndjson, cloud.objects("lake").values()))
    assert found["n"].sort().to_list() == list(range(20_000))
    assert "pipeline 'press': stopped" in processor.said()


def test_a_reader_that_has_stopped_reading_does_not_keep_it_from_leaving(tmp_path: Path) -> None:
    """A write to a full pipe never ends, nor does its thread."""
    definition = furnish(
        tmp_path, PASS, 20_000, sink="console:\n    roll: {size: 1KiB, every: 1ms}"
    )
    command = [sys.executable, "-m", "edge", "run", definition.name]
    process = subprocess.Popen(command, cwd=tmp_path, stdout=subprocess.PIPE)
    assert process.stdout is not None
    pipe = process.stdout.fileno()
    try:
        room = fcntl.fcntl(pipe, fcntl.F_GETPIPE_SZ)
        until(lambda: _unread(pipe) > room // 2 or process.poll() is not None)
        stop(process)
    finally:
        process.kill()
        process.communicate()
    held = status(tmp_path)
    assert held["sinks"]["out"]["buffered_rows"] > 0
    assert held["imbalances"] == []


def _unread(pipe: int) -> int:
    """Bytes that wait in a pipe."""
    answer = fcntl.ioctl(pipe, termios.FIONREAD, bytes(4))
    return int.from_bytes(answer, sys.byteorder)


# -- functions of the user


HANGS = """
import threading

def step(frame):
    open("called", "w").close()
    if 3 in frame["n"]:
        while True:
            pass
    if 2 in frame["n"]:
        threading.Event().wait()
    return frame
"""


def test_a_function_that_hangs_costs_the_rows_it_hangs_on(tmp_path: Path) -> None:
    definition = furnish(tmp_path, HANGS, 8, ", timeout: 1s")
    processor = Processor(definition, "--once")
    with processor.running() as process:
        assert process.wait(60) == 0, processor.tail()

    assert arrived(tmp_path) == [0, 1, 4, 5, 6, 7]
    now = status(tmp_path)
    assert (now["rows_failed"], now["imbalances"]) == (2, [])
    (loss,) = inspection.books(tmp_path / "outbox")["losses"]
    reason = "python 'steps.py:step': took longer than 1s; correct the function or raise its"
    assert (loss["kind"], loss["rows"], loss["reason"]) == ("failed", 2, f"{reason} timeout")
    assert f"2 rows failed and are set aside, the first: {reason}" in processor.said()


def test_while_a_function_hangs_the_process_still_leaves_and_loses_nothing(tmp_path: Path) -> None:
    definition = furnish(tmp_path, HANGS, 20)
    processor = Processor(definition, "--once")
    with processor.running() as process:
        until((tmp_path / "called").exists)
        assert stop(process) < GRACE
    (tmp_path / "steps.py").write_text(PASS)
    with processor.running() as process:
        assert process.wait(60) == 0, processor.tail()
    assert arrived(tmp_path) == list(range(20))
    assert "work under way is left, it is done again" in processor.said()


def test_calls_that_cannot_be_ended_end_the_process_before_it_is_full_of_them(
    tmp_path: Path,
) -> None:
    step = "import threading\n\ndef step(frame):\n    threading.Event().wait()\n"
    definition = furnish(tmp_path, step, 200, ", timeout: 10ms")
    processor = Processor(definition, "--once")
    with processor.running() as process:
        assert process.wait(60) == 1
    assert "64 calls hang and cannot be ended; correct the function" in processor.said()
    assert status(tmp_path)["imbalances"] == []


NONSENSE = {
    "raises": ("lambda frame: frame.columns[9]", {}, "IndexError: list index out of range"),
    "nothing": ("lambda frame: None", {}, "must return a polars.DataFrame, got NoneType"),
    "other columns": (
        "lambda frame: frame.rename({'n': 'm'})",
        {},
        "returned other columns than declared: 'n' is missing, 'm' is new",
    ),
    "other types": (
        "lambda frame: frame.cast({'n': str})",
        {},
        "column 'n' must be Int64, got String; cast it",
    ),
    "a number for a row": (
        "lambda row: 7",
        {"rows": True},
        "must return a dict, None or a list of dicts, got int",
    ),
    "a list in a list": (
        "lambda row: [[row]]",
        {"rows": True},
        "must return a dict, None or a list of dicts, got list",
    ),
    "a text for a number": ("lambda row: {'n': 'x'}", {"rows": True}, "a row of wrong types"),
}


@pytest.mark.parametrize("name", NONSENSE)
def test_what_a_function_returns_wrongly_is_set_aside_and_said(
    name: str, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    code, options, reason = NONSENSE[name]
    wrong = eval(code)

    def step(given: Any) -> Any:
        bad = given["n"] == 3 if isinstance(given, dict) else 3 in given["n"]
        return wrong(given) if bad else given

    sink = FlakySink.of()
    pipeline = Pipeline(
        name="press",
        source=ScriptedSource.of(rows(n=list(range(9)))),
        operators=[Python(function=step, **options)],
        sinks={"out": Branch(sink=sink)},
        outbox={"path": tmp_path / "outbox"},
    )
    with caplog.at_level(logging.WARNING):
        now = asyncio.run(run_once(pipeline, HandClock()))
    assert sorted(row["n"] for row in sink.rows) == [0, 1, 2, 4, 5, 6, 7, 8]
    assert (now["rows_failed"], now["imbalances"]) == (1, [])
    (item,) = inspection.rejects(tmp_path / "outbox")
    assert reason in item["reason"]
    assert json.loads(item["payload"])["n"] == 3
    said = [record.getMessage() for record in caplog.records]
    assert [line for line in said if "1 row failed and is set aside, the first: " in line]


async def run_once(pipeline: Pipeline, clock: HandClock) -> dict[str, Any]:
    """Run a pipeline to its end; how it stands then."""
    runner = Runner(pipeline, clock)
    await runner.open()
    try:
        await asyncio.wait_for(runner.run(asyncio.Event(), once=True), 120)
        now: dict[str, Any] = await runner.outbox.call("status")
    finally:
        await runner.close()
    return now


# -- memory


GREEDY = """
import resource

taken = int(open("/proc/self/statm").read().split()[0]) * resource.getpagesize()
resource.setrlimit(resource.RLIMIT_AS, (taken + 2**30,) * 2)

def step(frame):
    each = 64 if 13 in frame["n"] else 1
    bytearray(len(frame) * each * 2**25)
    return frame
"""


def test_rows_for_which_memory_lacks_are_tried_in_smaller_batches(tmp_path: Path) -> None:
    definition = furnish(tmp_path, GREEDY, 100)
    processor = Processor(definition, "--once")
    with processor.running() as process:
        assert process.wait(60) == 0, processor.tail()
    assert arrived(tmp_path) == [n for n in range(100) if n != 13]
    now = status(tmp_path)
    assert (now["rows_failed"], now["imbalances"]) == (1, [])
    assert "1 row failed and is set aside, the first: python 'steps.py:step': MemoryError" in (
        processor.said()
    )


def test_payloads_that_do_not_fit_into_memory_together_are_decoded_apart(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    payloads = [b'{"n": %d}' % n for n in range(20)]
    payloads[9] = b"no reading"
    decoder = Record(fields={"n": "int"}).decoder()
    whole = decoder.decode(payloads)
    read = ObjectReader.read

    def short_of_memory(reader: ObjectReader, some: Any) -> Raw:
        if len(some) > 3 or payloads[14] in some:
            raise MemoryError
        return read(reader, some)

    monkeypatch.setattr("edge.codec.few.MOST", 0)
    monkeypatch.setattr(ObjectReader, "read", short_of_memory)
    decoded = decoder.decode(payloads)
    kept = whole.frame["n"] != 14
    assert decoded.frame.equals(whole.frame.filter(kept))
    assert whole.origin is not None
    assert decoded.origin is not None
    assert decoded.origin.equals(whole.origin.filter(kept))
    assert decoded.rejects == [
        *whole.rejects,
        (14, "payload is too large for this machine's memory, got 9 B"),
    ]


class Greedy(FlakySink):
    """Needs more memory than there is for more than 4 rows."""

    def encode(self, frame: pl.DataFrame) -> Encoded:
        """As a machine that is short of memory."""
        if frame.height > 4:
            raise MemoryError
        return super().encode(frame)


def test_entries_that_do_not_fit_into_memory_together_are_rolled_apart(tmp_path: Path) -> None:
    batches = [rows(n=[2 * number, 2 * number + 1]) for number in range(20)]
    sink = Greedy()
    pipeline = Pipeline(
        name="press",
        source=ScriptedSource.of(*batches),
        sinks={"out": Branch(sink=sink, roll={"size": "8MiB", "every": "1ms"})},
        outbox={"path": tmp_path / "outbox"},
    )
    now = asyncio.run(run_once(pipeline, HandClock()))
    assert sorted(row["n"] for row in sink.rows) == list(range(40))
    assert now["imbalances"] == []


# -- a second owner


def test_the_next_owner_waits_and_goes_on_where_the_first_one_was_killed(tmp_path: Path) -> None:
    slow = "import time\n\ndef step(frame):\n    time.sleep(0.02)\n    return frame\n"
    definition = furnish(tmp_path, slow, 100_000)
    first, second = Processor(definition, "--once"), Processor(definition, "--once")
    waiting = b"another process owns it; waiting for it to leave"
    with first.running() as one, second.running(waiting) as two:
        assert "press.yaml" not in first.tail()
        one.kill()
        assert two.wait(60) == 0, second.tail()
    assert arrived(tmp_path) == list(range(100_000))
    assert status(tmp_path)["imbalances"] == []


# -- time


class JumpingClock(HandClock):
    """Its wall clock can be set, as NTP and people do."""

    def jump(self, seconds: float) -> None:
        """Set the wall clock; the steady one goes on."""
        self._now += round(seconds * 1e6)


DAY = 86_400


@pytest.mark.parametrize("jumps", [(DAY, -DAY), (-DAY, DAY), (-2 * DAY, DAY / 2)])
def test_a_clock_that_jumps_holds_nothing_up(jumps: tuple[float, ...], tmp_path: Path) -> None:
    batches = [rows(n=[number]) for number in range(12)]
    sink, clock = FlakySink.of("ok", "down", "ok"), JumpingClock()
    pipeline = Pipeline(
        name="press",
        source=ScriptedSource.of(*batches),
        sinks={"out": Branch(sink=sink, roll={"size": "8MiB", "every": "10s"})},
        outbox={"path": tmp_path / "outbox"},
    )

    async def steps() -> None:
        runner = Runner(pipeline, clock)
        await runner.open()
        link = runner.links["out"]
        try:
            await runner.step()
            for number in range(len(batches)):
                await runner.step()
                if number in (4, 8):
                    clock.jump(jumps[number // 8])
                now = await runner.outbox.call("status")
                oldest = now["sinks"]["out"]["oldest_seconds"]
                assert oldest is None or 0 <= oldest <= DAY + 60
                assert now["imbalances"] == []
                for _ in range(100):  # a minute and a half: no roll or pause lasts longer
                    if runner.outbox.depth("out").rows == 0:
                        break
                    clock.advance(min(await link.step() + 0.001, 1.0))
                assert runner.outbox.depth("out").rows == 0
        finally:
            await runner.close()

    asyncio.run(steps())
    assert [row["n"] for row in sink.rows] == list(range(12))


# -- new keys


@pytest.mark.parametrize(
    "operator",
    [
        Deadband(column="v", change=1.0, max_keys=1000),
        Dedupe(columns=["v"], within="1h", by=["k"], max_rows=1000),
    ],
    ids=lambda operator: type(operator).__name__.lower(),
)
def test_a_flood_of_new_keys_does_not_fill_memory_or_disk(operator: Any, tmp_path: Path) -> None:
    def batch(number: int) -> pl.DataFrame:
        keys = range(number * 10_000, (number + 1) * 10_000)
        return rows(k=[f"device-{n}" for n in keys], v=[1.0] * 10_000)

    sink = FlakySink.of()
    pipeline = Pipeline(
        name="press",
        source=ScriptedSource.of(*map(batch, range(20))),
        record={"key": "k"},
        operators=[operator],
        sinks={"out": Branch(sink=sink)},
        outbox={"path": tmp_path / "outbox"},
    )
    now = asyncio.run(run_once(pipeline, HandClock()))
    assert now["sinks"]["out"]["delivered_rows"] == 200_000
    assert now["imbalances"] == []
    kept = operator.snapshot(True)
    operator.restore([kept])
    assert len(keys_of(operator)) <= 1000 + SWEEP_ROWS
    with sqlite3.connect(tmp_path / "outbox" / "outbox.sqlite") as db:
        (remembered,) = db.execute("SELECT sum(length(body)) FROM memory").fetchone()
    db.close()
    assert remembered < 4 * 2**20


def keys_of(operator: Any) -> Any:
    memory = operator._kept.memory if isinstance(operator, Dedupe) else operator._watch.memory
    return memory.entries


NAMED = """
name: press
source: {{dataset: {{path: "in/*.ndjson", follow: true}}}}
record: {{fields: {{n: int}}}}
operators:
  - lookup: {{file: share/names.csv, by: n, columns: name, types: {{name: str}}}}
sinks:
  out:
    file: {{path: out, format: ndjson}}
    roll: {{size: 1MiB, every: {every}}}
outbox: {{path: outbox}}
"""


def test_a_file_of_a_lookup_that_comes_after_the_start_is_waited_for(tmp_path: Path) -> None:
    definition, names = tmp_path / "press.yaml", tmp_path / "share" / "names.csv"
    away = tmp_path / "away"
    names.parent.mkdir()
    names.write_text("n,name\n" + "".join(f"{n},n{n}\n" for n in range(6)))
    (tmp_path / "in").mkdir()
    processor = Processor(definition, EDGE_HEALTH_FILE=str(tmp_path / "progress"))

    def has(first: int, more: int) -> None:
        lines = "".join(json.dumps({"n": n}) + "\n" for n in range(first, first + more))
        (tmp_path / "in" / f"{first}.ndjson").write_text(lines)

    def delivered() -> list[tuple[int, str]]:
        files = (tmp_path / "out").rglob("*.ndjson")
        rows = [json.loads(line) for file in files for line in file.read_text().splitlines()]
        return sorted((row["n"], row["name"]) for row in rows)

    def expected(number: int) -> list[tuple[int, str]]:
        return [(n, f"n{n}") for n in range(number)]

    definition.write_text(NAMED.format(every="1h"))
    has(0, 3)
    with processor.running():
        until(lambda: status(tmp_path)["rows_read"] == 3)

    names.parent.rename(away)
    definition.write_text(NAMED.format(every="1s"))
    has(3, 3)
    (tmp_path / "progress").unlink(missing_ok=True)
    with processor.running():
        until(
            lambda: "names.csv': cannot be read" in status(tmp_path)["source"].get("waits_for", "")
        )
        until(lambda: delivered() == expected(3))
        until((tmp_path / "progress").exists)
        assert status(tmp_path)["rows_read"] == 3
        assert "press.yaml:6: operators.0.lookup: lookup 'share/names.csv'" in processor.said()
        away.rename(names.parent)
        until(lambda: delivered() == expected(6))
        until(lambda: "waits_for" not in status(tmp_path)["source"])
    assert status(tmp_path)["imbalances"] == []


def named(folder: Path, where: str) -> Pipeline:
    return Pipeline(
        name="press",
        source=ScriptedSource.of(rows(v=[1])),
        operators=[Lookup(file="names.csv", by="v", columns="name"), Filter(where=where)],
        sinks={"out": FlakySink.of()},
        folder=folder,
        outbox={"path": folder / "outbox"},
    )


async def run(runner: Runner, stop: asyncio.Event) -> None:
    await runner.open()
    try:
        await runner.run(stop)
    finally:
        await runner.close()


def test_told_to_stop_while_it_waits_for_a_file_it_leaves_at_once(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    async def wait_and_stop() -> None:
        runner, stop = Runner(named(tmp_path, "v > 0"), patient=True), asyncio.Event()
        running = asyncio.create_task(run(runner, stop))
        assert "cannot be read" in (runner.processing.waits_for or "")
        await asyncio.to_thread(until, lambda: runner.running)
        assert runner.silence() == 0
        stop.set()
        await running

    asyncio.run(wait_and_stop())
    assert "is left" not in caplog.text
    assert status(tmp_path)["rows_read"] == 0


def test_a_fault_of_the_definition_behind_a_missing_file_is_told_when_that_is_there(
    tmp_path: Path,
) -> None:
    definition = named(tmp_path, "nam = 'a'")
    with pytest.raises(DefinitionError, match="cannot be read"):
        Runner(definition, HandClock())
    runner = Runner(definition, HandClock(), patient=True)
    (tmp_path / "names.csv").write_text("v,name\n1,a\n")
    with pytest.raises(DefinitionError, match="column 'nam' is not in the batch"):
        asyncio.run(run(runner, asyncio.Event()))
    assert status(tmp_path)["rows_read"] == 0
