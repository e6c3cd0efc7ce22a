"""Files on a share that fails, hangs or is away: the source waits, says so, and loses nothing."""

import asyncio
import gzip
import signal
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import polars as pl
import pytest

import edge.sources.dataset
from edge.clock import Clock
from edge.codec import Record
from edge.sources.dataset import DatasetSource
from tests.faults.share import Share, shared
from tests.faults.test_process import GRACE, arrived, status
from tests.processor import Processor, until
from tests.sources.cases import bound
from tests.sources.following import Following, lines


@pytest.fixture
def share(tmp_path: Path) -> Iterator[Share]:
    with shared(tmp_path) as found:
        yield found


@pytest.fixture
def following(share: Share, tmp_path: Path) -> Iterator[Following]:
    found = Following(tmp_path, path="seen")
    yield found
    found.close()


FAULTS = [
    ("getattr", "ESTALE", "/"),
    ("readdir", "EIO", "/"),
    ("readdir", "EACCES", "/line"),
    ("getattr", "EIO", "/line/a.ndjson"),
    ("open", "EACCES", "/line/a.ndjson"),
    ("read", "ESTALE", "/line/a.ndjson"),
    ("read", "EIO", "/"),
]


@pytest.mark.parametrize("fault", FAULTS, ids=" ".join)
def test_what_cannot_be_read_is_said_and_read_later(
    fault: tuple[str, str, str], following: Following, share: Share
) -> None:
    (share.written / "line").mkdir()
    file = share.written / "line" / "a.ndjson"
    file.write_bytes(lines(1))
    assert following.read(3) == [1]
    share.fail(*fault)
    following.read(3)
    share.heal()
    assert following.read(3) == []
    assert following.status["problem"] is None
    with file.open("ab") as opened:
        opened.write(lines(2))
    (share.written / "b.ndjson").write_bytes(lines(3))
    share.fail(*fault)
    others = [] if fault[2] == "/" else [3]
    assert following.read(30) == others
    assert following.status["problem"].startswith("seen")
    share.heal()
    assert sorted([*others, *following.read(70)]) == [2, 3]
    assert following.status["problem"] is None


@pytest.mark.parametrize("name", ["a.parquet", "a.ndjson.gz"])
def test_a_file_taken_whole_that_cannot_be_read_is_not_given_up(
    name: str, following: Following, share: Share
) -> None:
    share.fail("read", "EIO", f"/{name}")
    if name.endswith("gz"):
        (share.written / name).write_bytes(gzip.compress(lines(*range(100))))
    else:
        pl.DataFrame({"n": range(100)}).write_parquet(share.written / name)
    assert following.read(200) == []
    assert following.status["unreadable"] == 1
    share.heal()
    assert following.read(200) == list(range(100))
    assert not following.rejects


def test_a_share_that_is_away_and_comes_back_is_read_on(following: Following, share: Share) -> None:
    file = share.written / "a.ndjson"
    file.write_bytes(lines(1))
    following.read()
    share.die()
    assert following.read(20) == []
    assert "Transport endpoint is not connected" in following.status["problem"]
    share.unmount()
    assert following.read(20) == []
    assert following.status["problem"] == "no file is there"
    with file.open("ab") as opened:
        opened.write(lines(2))
    share.mount()
    assert following.read(20) == [2]


def test_while_a_share_hangs_there_are_signs_of_life(
    share: Share, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(edge.sources.dataset, "_SILENT", 1.0)
    (share.written / "a.ndjson").write_bytes(lines(1))
    record = Record(fields={"n": "int"})
    source = bound(DatasetSource(path="seen", follow=True), tmp_path, record, Clock())

    async def hung() -> None:
        share.freeze()
        arrivals = source.arrivals(None)
        deadline, waits = time.monotonic() + 60, []
        while "does not answer" not in str(source.status().get("problem")):
            assert time.monotonic() < deadline
            begun = time.monotonic()
            assert await anext(arrivals) is None
            waits.append(time.monotonic() - begun)
        assert sorted(waits)[len(waits) // 2] < 1, "a busy machine may hold up some"
        share.thaw()
        while (arrival := await anext(arrivals)) is None:
            pass
        assert arrival.frame["n"].to_list() == [1]
        await arrivals.aclose()

    asyncio.run(hung())


DEFINITION = """
name: press
source: {{dataset: {{path: seen{options}}}}}
record: {{fields: {{n: int}}}}
sinks: {{out: {{file: {{path: out}}, roll: {{every: 1s}}}}}}
outbox: {{path: outbox}}
"""


@pytest.mark.parametrize("options", ["", ", follow: true"], ids=["once", "followed"])
def test_told_to_stop_while_a_share_hangs_it_leaves_within_the_grace(
    options: str, share: Share, tmp_path: Path
) -> None:
    (share.written / "a.ndjson").write_bytes(lines(1))
    (tmp_path / "press.yaml").write_text(DEFINITION.format(options=options))
    processor = Processor(tmp_path / "press.yaml")
    share.freeze()
    with processor.running() as process:
        time.sleep(0.5)  # by then it hangs; where not, it leaves all the same
        begun = time.monotonic()
        process.send_signal(signal.SIGTERM)
        assert process.wait(60) == 0, processor.tail()
        assert time.monotonic() - begun < GRACE
    share.thaw()
    with processor.running():
        until(lambda: arrived(tmp_path) == [1])


def test_killed_again_and_again_beside_a_writer_that_rotates_each_line_is_delivered_once(
    tmp_path: Path,
) -> None:
    folder = tmp_path / "seen"
    folder.mkdir()
    (tmp_path / "press.yaml").write_text(DEFINITION.format(options=", follow: true"))
    processor, file, written = Processor(tmp_path / "press.yaml"), folder / "app.ndjson", 0

    def write(lines_of: int) -> None:
        nonlocal written
        with file.open("ab") as opened:
            for _ in range(lines_of):
                opened.write(lines(written))
                opened.flush()
                written += 1

    def has_read(rows: int) -> Callable[[], bool]:
        return lambda: bool(status(tmp_path)["rows_read"] >= rows)

    def rotate() -> None:
        for number in range(9, 0, -1):
            older = Path(f"{file}.{number}")
            if older.exists():
                older.rename(f"{file}.{number + 1}")
        file.rename(f"{file}.1")

    for _ in range(3):
        write(500)
        with processor.running():
            until(has_read(written - 400))
            write(500)
            rotate()
            write(500)
        rotate()
        write(100)
    with processor.running():
        until(lambda: len(arrived(tmp_path)) >= written)
    assert arrived(tmp_path) == list(range(written))
