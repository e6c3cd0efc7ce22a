"""tap: rows of any stage of a processor that runs, which never waits for who looks."""

import asyncio
import json
import signal
import socket
import stat
import subprocess
import sys
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager, suppress
from pathlib import Path

import polars as pl
import pytest

from edge.pipeline import load
from edge.runner import Runner
from edge.tap import MOST_RATE, SOCKET, Look, Tap, address, stages_of
from tests.cli.conftest import Done, Edge
from tests.processor import Processor, until

DEFINITION = """\
name: press
source:
  dataset: {path: "rows-*.ndjson", follow: true}
record:
  fields: {n: int, device: str}
operators:
  - filter: n > 0
    name: sane
  - derive: {double: n * 2}
sinks:
  lake:
    operators:
      - select: [double]
    file: {path: out}
  hot:
    when: n > 2
    file: {path: hot}
outbox: {path: state}
"""
EXPECTED = {
    "source": [("n", 0), ("n", 1), ("n", 2), ("n", 3)],
    "common/sane": [("n", 1), ("n", 2), ("n", 3)],
    "common/derive": [("double", 2), ("double", 4), ("double", 6)],
    "lake/select": [("double", 2), ("double", 4), ("double", 6)],
    "sink:lake": [("double", 2), ("double", 4), ("double", 6)],
    "hot/when": [("n", 3)],
    "sink:hot": [("n", 3)],
    "rejected": [("payload", '{"n": "x"}')],
}


@pytest.fixture
def press(tmp_path: Path) -> Path:
    (tmp_path / "press.yaml").write_text(DEFINITION)
    return tmp_path / "press.yaml"


class Tapping:
    """`edge tap` in a process of its own."""

    def __init__(self, definition: Path, *words: str) -> None:
        command = [sys.executable, "-m", "edge", "tap", str(definition), *words]
        self.process = subprocess.Popen(
            command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
        )
        assert self.process.stderr
        self.first = self.process.stderr.readline()

    def __enter__(self) -> "Tapping":
        return self

    def __exit__(self, *_: object) -> None:
        self.process.kill()
        self.process.communicate()

    def row(self) -> str:
        """The next one that it shows."""
        assert self.process.stdout
        return self.process.stdout.readline()

    def ends(self) -> tuple[int, str, str]:
        """Exit code, rows and words, once it has ended by itself."""
        out, err = self.process.communicate(timeout=120)
        return self.process.returncode, out, err


def give(folder: Path, name: str = "rows-1") -> None:
    """Four rows and one payload that is none."""
    lines = [json.dumps({"n": n, "device": "a"}) for n in range(4)]
    part = folder / f"{name}.part"
    part.write_text("\n".join([*lines, '{"n": "x"}']) + "\n")
    part.rename(folder / f"{name}.ndjson")


def test_every_stage_shows_the_rows_that_leave_it(press: Path) -> None:
    assert stages_of(load(press)) == list(EXPECTED)

    async def look() -> dict[str, list[tuple[str, object]]]:
        async with tapped(press) as runner, asyncio.TaskGroup() as group:
            looks = {
                stage: group.create_task(seen(press, stage, len(rows)))
                for stage, rows in EXPECTED.items()
            }
            await became(lambda: all(map(runner.tap.wants, EXPECTED)))
            give(press.parent)
        return {
            stage: [(name, row[name]) for row, (name, _) in zip(look.result(), rows, strict=True)]
            for (stage, look), rows in zip(looks.items(), EXPECTED.values(), strict=True)
        }

    assert asyncio.run(look()) == EXPECTED


async def seen(press: Path, stage: str, count: int) -> list[dict[str, object]]:
    """The first rows that a stage shows."""
    rows: list[dict[str, object]] = []
    async with visit(press, {"stage": stage, "rate": 100}) as reader:
        await reader.readline()
        while len(rows) < count:
            line = await reader.readline()
            rows += [] if line.startswith(b"#") else [json.loads(line)]
    return rows


def test_a_table_has_the_names_above_the_rows(press: Path, edge: Edge) -> None:
    words = ("tap", press, "common/derive", "--format", "table", "--limit", "3")

    async def look() -> Done:
        async with tapped(press) as runner:
            looking = asyncio.create_task(asyncio.to_thread(edge, *words))
            await became(lambda: runner.tap.wants("common/derive"))
            give(press.parent)
            return await looking

    done = asyncio.run(look())
    assert [line.split()[0] for line in done.out.splitlines()] == ["n", "1", "2", "3"]
    assert "looking at common/derive; others are source, common/sane" in done.err
    assert "3 rows shown" in done.err


def test_only_the_user_of_the_processor_may_look(press: Path) -> None:
    async def mode() -> int:
        async with tapped(press):
            return (press.parent / "state" / SOCKET).stat().st_mode

    found = asyncio.run(mode())
    assert stat.S_ISSOCK(found)
    assert stat.S_IMODE(found) == 0o600


def test_a_stage_that_is_not_there_is_answered_with_the_nearest(press: Path, edge: Edge) -> None:
    async def look() -> Done:
        async with tapped(press):
            return await asyncio.to_thread(edge, "tap", press, "common/sain")

    done = asyncio.run(look())
    assert done.code == 2
    assert "no stage is called 'common/sain'; there are common/sane" in done.err


def test_where_no_processor_runs_a_tap_says_so(press: Path, edge: Edge) -> None:
    (press.parent / "state").mkdir()
    done = edge("tap", press)
    assert (done.code, done.err) == (
        1,
        f"outbox {press.parent / 'state'}: no processor runs on it; start `edge run`\n",
    )


def test_a_real_tap_of_a_real_processor(press: Path, edge: Edge) -> None:
    processor = Processor(press)
    with processor.running():
        until(lambda: (press.parent / "state" / SOCKET).exists())
    assert edge("tap", press).code == 1  # the socket that a killed one left is no processor
    with processor.running() as process:
        until(lambda: edge("tap", press, "--for", "1ms").code == 0)
        with Tapping(press, "sink:hot") as tap:
            give(press.parent)
            row = json.loads(tap.row())
            process.send_signal(signal.SIGTERM)
            assert process.wait(60) == 0
            code, _, err = tap.ends()
    assert (row["n"], row["double"]) == (3, 6)
    assert code == 1
    assert "its processor has stopped" in err
    assert not (press.parent / "state" / SOCKET).exists()


def test_who_leaves_however_leaves_nothing_behind(press: Path) -> None:
    async def leave(runner: Runner, number: signal.Signals, code: int) -> None:
        with await asyncio.to_thread(Tapping, press) as tap:
            await became(lambda: runner.tap.wants("source"))
            tap.process.send_signal(number)
            assert (await asyncio.to_thread(tap.ends))[0] == code
        await became(lambda: not runner.tap._looks and not runner.tap._writers)

    async def look_and_leave() -> None:
        async with tapped(press) as runner, asyncio.TaskGroup() as group:
            for number, code in ((signal.SIGINT, 0), (signal.SIGKILL, -signal.SIGKILL)):
                group.create_task(leave(runner, number, code))

    asyncio.run(look_and_leave())


@asynccontextmanager
async def tapped(press: Path) -> AsyncIterator[Runner]:
    """A processor in this process that can be looked at."""
    runner, stop = Runner(load(press)), asyncio.Event()
    await runner.open()
    async with runner.tap:
        running = asyncio.create_task(runner.run(stop))
        yield runner
        stop.set()
        await running
    await runner.close()


@asynccontextmanager
async def visit(press: Path, wish: object) -> AsyncIterator[asyncio.StreamReader]:
    """A connection on which one thing was said."""
    made = socket.socket(socket.AF_UNIX)
    with address(press.parent / "state") as name:
        made.connect(name)
    reader, writer = await asyncio.open_connection(sock=made)
    writer.write(wish if isinstance(wish, bytes) else json.dumps(wish).encode() + b"\n")
    try:
        yield reader
    finally:
        writer.close()
        with suppress(OSError):
            await writer.wait_closed()


async def became(so: Callable[[], object]) -> None:
    async with asyncio.timeout(120):
        while not so():  # noqa: ASYNC110  # what is waited for has no event
            await asyncio.sleep(0.01)


def test_rows_do_not_wait_for_who_does_not_read(press: Path) -> None:
    async def look_away() -> tuple[int, int]:
        wish = {"stage": "source", "rate": MOST_RATE}
        async with tapped(press) as runner, visit(press, wish) as reader:
            await reader.readline()
            reader._transport.pause_reading()  # type: ignore[attr-defined]
            (look,) = runner.tap._looks["source"]
            look._rate = float("inf")
            frame = pl.DataFrame({"text": ["x" * 2000] * 100})
            for _ in range(300):
                runner.tap.see("source", frame)
                await asyncio.sleep(0)
            (served,) = runner.tap._writers
            held = sum(round(each.estimated_size()) for each in look._samples)
            return look._seen, held + served.transport.get_write_buffer_size()

    seen, held = asyncio.run(look_away())
    assert seen == 30_000  # of 2 kB each
    assert held < 8 * 2**20


RUBBISH = [b"hello\n", b"[1]\n", b'{"stage": "source"}\n', b"x" * 2**17, b'{"stage": 1}']


def test_a_visitor_that_says_rubbish_is_left_alone(press: Path) -> None:
    async def visit_all() -> None:
        async with tapped(press) as runner:
            for said in RUBBISH:
                async with visit(press, said):
                    pass
            await became(lambda: not runner.tap._writers)
            looking = asyncio.create_task(seen(press, "sink:hot", 1))
            await became(lambda: runner.tap.wants("sink:hot"))
            give(press.parent)
            assert [row["n"] for row in await looking] == [3]

    asyncio.run(visit_all())


def test_a_look_takes_no_more_than_its_rate_and_tells_how_many_came_by() -> None:
    woken: list[int] = []
    look = Look(5, lambda: woken.append(1))
    look.offer(pl.DataFrame({"n": range(10_000)}))
    head, *rows = look.take().splitlines()
    assert head == b"#10000"
    assert len(rows) == 5
    numbers = [json.loads(row)["n"] for row in rows]
    assert numbers == sorted(numbers)
    assert numbers[-1] - numbers[0] == 8000  # spread over the batch
    assert woken == [1]


def test_large_rows_are_left_out_rather_than_copied() -> None:
    look = Look(MOST_RATE, lambda: None)
    look.offer(pl.DataFrame({"text": ["x" * 2**19] * 8}))
    look.offer(pl.DataFrame({"text": ["x" * 2**22]}))
    head, *rows = look.take().splitlines()
    assert head == b"#9"
    assert len(rows) == 2  # a mebibyte


def test_a_folder_that_takes_no_socket_is_told_and_the_processor_runs(
    press: Path, caplog: pytest.LogCaptureFixture
) -> None:
    async def enter() -> None:
        (press.parent / "state").mkdir()
        (press.parent / "state" / SOCKET).mkdir()
        async with Tap(load(press)):
            pass

    asyncio.run(enter())
    assert "no socket can be made, `edge tap` cannot look" in caplog.text
