"""One case for each source: a real place to read from, and what must come out of it."""

import gzip
import json
import re
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import NamedTuple

import polars as pl

from edge.clock import Clock
from edge.codec import Record
from edge.component import Stream
from edge.lines import zstd
from edge.sources import Batch, Source
from edge.sources.dataset import DatasetSource
from tests.scripted import HandClock

RECORD = Record(fields={"n": "int", "name": "optional str"})
ROWS = 500
SINGLE = Batch(rows=1)
FIRST, SECOND = range(300), range(300, ROWS)


class Case(NamedTuple):
    """source: its name in the table. prepare: puts `ROWS` rows and some rejects below a folder.

    build: a new source over what `prepare` made, bound, as after a start of the process.
    """

    source: str
    title: str
    prepare: Callable[[Path], None]
    build: Callable[[Path], Source]


def bound(
    source: DatasetSource,
    folder: Path,
    record: Record = RECORD,
    clock: Clock | None = None,
    batch: Batch = SINGLE,
) -> DatasetSource:
    """The source as the runner gets it ready."""
    stream = Stream(time=record.time or "edge_received", folder=folder)
    source.bind(record, stream, "edge-test", batch, clock or Clock())
    return source


def ndjson(numbers: Sequence[int]) -> bytes:
    """A line per number, each tenth followed by a bad one and a blank one."""
    lines = []
    for n in numbers:
        lines.append(json.dumps({"n": n, "name": "ä" * (n % 30)}, ensure_ascii=False))
        lines += ["oops", ""] if n % 10 == 9 else []
    return "\n".join(lines).encode()


def csv(numbers: Sequence[int]) -> bytes:
    """As `ndjson`; some cells hold commas, quotes and line breaks."""
    lines = ["ignored,name,n"]
    for n in numbers:
        lines.append(f',"a ""b"",\n{n}",{n}' if n % 7 == 3 else f",a,{n}")
        lines += ["x,y,z", ""] if n % 10 == 9 else []
    return "\r\n".join(lines).encode()


def timed(numbers: Sequence[int]) -> bytes:
    """As `ndjson`, a row every second of event time."""
    second = re.compile(rb'(?<={"n": )(\d+)')
    return second.sub(rb'\1, "at": \1', ndjson(numbers))


def _text(ending: str, write: Callable[[Sequence[int]], bytes]) -> Case:
    pack = {"gz": gzip.compress, "zst": zstd.compress}.get(ending.rpartition(".")[2], bytes)

    def prepare(folder: Path) -> None:
        (folder / f"1.{ending}").write_bytes(pack(write(FIRST)))
        (folder / f"2.{ending}").write_bytes(pack(b""))
        (folder / f"3.{ending}").write_bytes(pack(write(SECOND)))

    return _case(f"*.{ending}", prepare)


def _parquet(folder: Path) -> None:
    for number, numbers in enumerate((FIRST, SECOND)):
        values = [float(n) if n is not None else n for each in numbers for n in _with_bad(each)]
        frame = pl.DataFrame({"n": values}, schema={"n": pl.Float64})
        frame.write_parquet(folder / f"{number}.parquet", row_group_size=37)


def _with_bad(n: int) -> list[float]:
    return [n, n + 0.5] if n % 10 == 9 else [n]


def _case(path: str, prepare: Callable[[Path], None]) -> Case:
    return Case("dataset", path, prepare, lambda folder: bound(DatasetSource(path=path), folder))


def _together() -> Case:
    """Blocks of 1 kB, as many as hold 3 kB once they are columns."""
    batch = SINGLE._replace(parcel=3000)
    case = _text("ndjson", ndjson)
    build = lambda folder: bound(DatasetSource(path=case.title), folder, batch=batch)  # noqa: E731
    return case._replace(title="together", build=build)


def _replay() -> Case:
    """Parts of some 50 rows, several out of each block."""
    case = _text("ndjson", timed)
    record = Record(time="at", fields={"n": "int", "at": "timestamp_s"})
    source = {"path": "*.ndjson", "replay": {"speed": 1000}}
    build = lambda folder: bound(DatasetSource(**source), folder, record, HandClock())  # noqa: E731
    return case._replace(title="replay", build=build)


def _followed(case: Case) -> Case:
    """The same files, read by a source that never ends."""
    source = {"path": case.title, "follow": True}
    build = lambda folder: bound(DatasetSource(**source), folder, RECORD, HandClock())  # noqa: E731
    return case._replace(title=f"follow {case.title}", build=build)


CASES = [
    _text("ndjson", ndjson),
    _text("ndjson.gz", ndjson),
    _text("ndjson.zst", ndjson),
    _text("csv", csv),
    _text("csv.gz", csv),
    _case("*.parquet", _parquet),
    _together(),
    _replay(),
    _followed(_text("ndjson", ndjson)),
    _followed(_text("csv", csv)),
    _followed(_case("*.parquet", _parquet)),
]
