"""Files are read once, to the exact row, whatever happened to them in the meantime."""

import asyncio
import gzip
import json
import logging
import os
import subprocess
import sys
from itertools import pairwise
from pathlib import Path
from typing import Any

import polars as pl
import pytest

import edge.lines
from edge.codec import Record, Reject
from edge.errors import DefinitionError
from edge.lines import zstd
from edge.sources import Arrival, Batch
from edge.sources.dataset import DatasetSource
from tests.sources.cases import RECORD, bound, csv, ndjson


async def _read(source: DatasetSource, position: bytes | None) -> list[Arrival]:
    return [each async for each in source.arrivals(position) if each is not None]


def read(source: DatasetSource, position: bytes | None = None) -> list[Arrival]:
    return asyncio.run(_read(source, position))


def read_all(folder: Path, path: str, record: Record = RECORD, **options: Any) -> pl.DataFrame:
    """The rows of all files, without the time of their arrival."""
    arrivals = read(bound(DatasetSource(path=path, **options), folder, record))
    return pl.concat([each.frame for each in arrivals]).drop("edge_received")


def test_a_folder_is_read_in_the_order_of_names(tmp_path: Path) -> None:
    (tmp_path / "in" / "deep").mkdir(parents=True)
    (tmp_path / "in" / "b.csv").write_bytes(csv([1]))
    (tmp_path / "in" / "a.ndjson").write_bytes(ndjson([0]))
    (tmp_path / "in" / "deep" / "c.jsonl.gz").write_bytes(gzip.compress(ndjson([2])))
    (tmp_path / "in" / "notes.txt").write_text("not data")
    assert read_all(tmp_path, "in")["n"].to_list() == [0, 1, 2]
    assert read_all(tmp_path, str(tmp_path / "in" / "*.csv"))["n"].to_list() == [1]
    assert read_all(tmp_path, "in/**/*.gz")["n"].to_list() == [2]


def test_a_format_may_be_said_where_the_ending_tells_none(tmp_path: Path) -> None:
    (tmp_path / "export.dat").write_bytes(csv([1, 2]))
    with pytest.raises(DefinitionError, match="the ending tells no format"):
        read_all(tmp_path, "export.dat")
    assert read_all(tmp_path, "export.dat", format="csv")["n"].to_list() == [1, 2]


def test_a_path_that_holds_nothing_is_a_fault_of_the_definition(tmp_path: Path) -> None:
    with pytest.raises(DefinitionError, match=r"source\.dataset\.path: no file is at"):
        read_all(tmp_path, "missing/*.csv")


def test_rows_inside_an_array_are_no_part_of_csv(tmp_path: Path) -> None:
    record = Record(fields={"n": "int"}, rows="readings")
    with pytest.raises(DefinitionError, match="are for JSON"):
        bound(DatasetSource(path="a.csv", format="csv"), tmp_path, record)


def test_columns_of_csv_are_found_by_name_and_read_strictly(tmp_path: Path) -> None:
    text = 'Time,Temp C,other\n2013-12-02 21:15:00,73.9,x\n1,2,3\n2013-12-02 21:20:00,"74",y\n'
    (tmp_path / "a.csv").write_text("\ufeff" + text)
    fields = {"at": {"type": "timestamp", "path": "Time"}, "t": {"type": "float", "path": "Temp C"}}
    record = Record(fields=fields, time="at", timezone="Europe/Berlin")
    arrivals = read(bound(DatasetSource(path="a.csv"), tmp_path, record))
    assert [str(at) for at in arrivals[0].frame["at"]] == [
        "2013-12-02 20:15:00+00:00",
        "2013-12-02 20:20:00+00:00",
    ]
    assert arrivals[0].frame["t"].to_list() == [73.9, 74.0]
    reject = Reject("field 'at' must be an ISO 8601 time, got \"1\"", b"1,2,3", "a.csv:3")
    assert arrivals[0].rejects == [reject]


def test_csv_without_a_header_follows_the_fields(tmp_path: Path) -> None:
    (tmp_path / "a.csv").write_text("1,a\n2,b\n")
    record = Record(format="csv", header=False, fields={"n": "int", "name": "str"})
    assert read_all(tmp_path, "a.csv", record).rows() == [(1, "a"), (2, "b")]


def test_parquet_columns_obey_the_record(tmp_path: Path) -> None:
    frame = pl.DataFrame({"n": [1.0, 2.5], "at": ["2024-01-01", None], "f": [1, 2]})
    frame.write_parquet(tmp_path / "a.parquet")
    record = Record(
        fields={"n": "int", "at": "optional timestamp", "f": "float", "x": "optional str"}
    )
    (arrival,) = read(bound(DatasetSource(path="a.parquet"), tmp_path, record))
    assert arrival.frame.drop("at", "edge_received").rows() == [(1, 1.0, None)]
    assert arrival.rejects[0].topic == "a.parquet:2"
    assert arrival.rejects[0].reason == "field 'n' must be int, got 2.5"


def test_a_quote_that_is_never_closed_costs_its_own_line(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(edge.lines, "BLOCK", 200)
    lines = ["n,name", *(f"{n},a" for n in range(100))]
    lines[51] = '50,"a'
    (tmp_path / "a.csv").write_text("\n".join(lines))
    arrivals = read(bound(DatasetSource(path="a.csv"), tmp_path))
    numbers = [n for each in arrivals for n in each.frame["n"].to_list()]
    assert numbers == [n for n in range(100) if n != 50]
    (reject,) = [reject for each in arrivals for reject in each.rejects]
    assert (reject.payload, reject.topic) == (b'50,"a', "a.csv:52")


def test_a_quote_that_is_open_at_the_end_of_the_file_ends_the_reading(tmp_path: Path) -> None:
    (tmp_path / "a.csv").write_text('n,name\n1,a\n2,"b')
    assert sum(each.read for each in read(bound(DatasetSource(path="a.csv"), tmp_path))) == 2


def test_an_endless_line_is_cut_off_and_rejected(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(edge.lines, "BLOCK", 1000)
    monkeypatch.setattr(edge.lines, "LONGEST", 4000)
    text = b'{"n":1}\n{"n":"' + b"x" * 9000 + b'"}\n{"n":2}\n'
    (tmp_path / "a.ndjson").write_bytes(text)
    arrivals = read(bound(DatasetSource(path="a.ndjson"), tmp_path))
    assert [n for each in arrivals for n in each.frame["n"].to_list()] == [1, 2]
    (reject,) = [reject for each in arrivals for reject in each.rejects]
    assert reject.topic == "a.ndjson:2"
    assert arrivals[-1].position is not None
    place = json.loads(arrivals[-1].position)
    assert (place["offset"], place["line"]) == (len(text), 3)


@pytest.mark.parametrize("ending", ["gz", "zst"])
def test_a_damaged_archive_gives_what_it_still_holds(
    ending: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(edge.lines, "BLOCK", 1000)
    noise = b"".join(
        b'{"n":%d,"name":"%s"}\n' % (n, os.urandom(40).hex().encode()) for n in range(5000)
    )
    packed = gzip.compress(noise) if ending == "gz" else zstd.compress(noise)
    (tmp_path / f"a.ndjson.{ending}").write_bytes(packed[: len(packed) // 2])
    (tmp_path / "b.ndjson").write_bytes(b'{"n":-1}')
    arrivals = read(bound(DatasetSource(path="."), tmp_path))
    numbers = [n for each in arrivals for n in each.frame["n"].to_list()]
    assert len(numbers) > 100
    assert numbers == [*range(len(numbers) - 1), -1]
    (reject,) = [reject for each in arrivals for reject in each.rejects]
    assert reject.reason.startswith("file is damaged")
    again = read(bound(DatasetSource(path="."), tmp_path), arrivals[-2].position)
    assert not again[0].rejects


# What happens to files between two runs


def _position_after(folder: Path, path: str) -> bytes | None:
    return read(bound(DatasetSource(path=path), folder))[-1].position


def test_a_line_longer_than_a_block_comes_alone(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(edge.lines, "BLOCK", 1000)
    long = "x" * 2500
    text = "".join(f'"{long if n == 7 else n}",{n}\n' for n in range(20))
    (tmp_path / "a.csv").write_text(f"name,n\n{text}")
    record = Record(format="csv", fields={"name": "str", "n": "int"})  # type: ignore[arg-type]
    arrivals = read(bound(DatasetSource(path="a.csv"), tmp_path, record))
    numbers = [each.frame["n"].to_list() for each in arrivals]
    assert numbers == [[*range(7)], [7], [*range(8, 20)]]


def test_blocks_that_make_a_parcel_come_together(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(edge.lines, "BLOCK", 1000)
    for name in "ab":
        (tmp_path / f"{name}.ndjson").write_bytes(ndjson(range(500)))
    singly = read(bound(DatasetSource(path="."), tmp_path))
    most = 3 * max(each.frame.estimated_size() for each in singly)
    batch = Batch(parcel=int(most) + 3 * 100)
    arrivals = read(bound(DatasetSource(path="."), tmp_path, batch=batch))
    sizes = [each.frame.estimated_size() for each in arrivals]
    assert len(singly) > 2.5 * len(arrivals)
    assert max(sizes) <= batch.parcel
    for what in (
        lambda read: [n for each in read for n in each.frame["n"].to_list()],
        lambda read: [reject for each in read for reject in each.rejects],
    ):
        assert what(arrivals) == what(singly)
    # What is read of one file never waits for the next.
    places = [json.loads(each.position or b"") for each in arrivals]
    assert [place["file"] for place in places] == sorted(place["file"] for place in places)
    ends = [place for place, after in pairwise(places) if place["file"] != after["file"]]
    assert [end["offset"] for end in ends] == [len(ndjson(range(500)))]


def test_rejects_count_for_what_comes_together(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(edge.lines, "BLOCK", 1000)
    (tmp_path / "a.ndjson").write_bytes(b"oops oops\n" * 1000)
    arrivals = read(bound(DatasetSource(path="."), tmp_path, batch=Batch(parcel=2000)))
    assert {len(each.rejects) for each in arrivals} == {200}


def test_a_file_that_grew_is_read_on(tmp_path: Path) -> None:
    file = tmp_path / "a.ndjson"
    file.write_bytes(b'{"n":1}\n')
    position = _position_after(tmp_path, "a.ndjson")
    file.write_bytes(b'{"n":1}\n{"n":2}\n')
    (arrival,) = read(bound(DatasetSource(path="a.ndjson"), tmp_path), position)
    assert arrival.frame["n"].to_list() == [2]


def test_the_rest_of_a_line_that_was_taken_half_is_no_row_of_its_own(tmp_path: Path) -> None:
    file = tmp_path / "a.csv"
    file.write_bytes(b"n,name\n1,a\n2,b")
    position = _position_after(tmp_path, "a.csv")
    file.write_bytes(b"n,name\n1,a\n2,b7\n3,c\n")
    (arrival,) = read(bound(DatasetSource(path="a.csv"), tmp_path), position)
    assert arrival.frame["n"].to_list() == [3]
    (reject,) = arrival.rejects
    assert (reject.payload, reject.topic) == (b"7", "a.csv:3")
    assert reject.reason.startswith("continues a line")


def test_a_path_to_other_files_is_read_from_the_first(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    (tmp_path / "a.csv").write_bytes(csv([1]))
    (tmp_path / "b.csv").write_bytes(csv([2]))
    position = _position_after(tmp_path, "b.csv")
    (arrival,) = read(bound(DatasetSource(path="a.csv"), tmp_path), position)
    assert arrival.frame["n"].to_list() == [1]
    assert "other files than before" in caplog.text
    assert read(bound(DatasetSource(path="[ab].csv"), tmp_path), position) == []


@pytest.mark.parametrize("other", [b'{"n":7}\n', b'{"n":8}\n{"n":9}\n{"n":10}\n'])
def test_another_file_under_the_same_name_is_read_from_its_start(
    other: bytes, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    file = tmp_path / "a.ndjson"
    file.write_bytes(b'{"n":1}\n{"n":2}\n')
    position = _position_after(tmp_path, "a.ndjson")
    file.write_bytes(other)
    with caplog.at_level(logging.WARNING):
        arrivals = read(bound(DatasetSource(path="a.ndjson"), tmp_path), position)
    assert arrivals[0].frame.height == other.count(b"\n")
    assert "a.ndjson: is not the file it was" in caplog.text


def test_a_file_that_is_gone_is_passed_over(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    for number, name in enumerate("abc"):
        (tmp_path / f"{name}.ndjson").write_bytes(b'{"n":%d}\n' % number)
    position = read(bound(DatasetSource(path="."), tmp_path))[1].position
    (tmp_path / "b.ndjson").unlink()
    with caplog.at_level(logging.WARNING):
        arrivals = read(bound(DatasetSource(path="."), tmp_path), position)
    assert [n for each in arrivals for n in each.frame["n"].to_list()] == [2]
    assert "b.ndjson: is gone" in caplog.text


def test_what_the_first_rows_decided_is_remembered(tmp_path: Path) -> None:
    (tmp_path / "a.ndjson").write_bytes(b'{"n":1,"s":"x"}\n')
    first = bound(DatasetSource(path="a.ndjson"), tmp_path, Record())
    read(first)
    kept = first.snapshot(whole=False)
    assert kept is not None
    assert first.snapshot(whole=False) is None
    assert first.snapshot(whole=True) == kept
    (tmp_path / "a.ndjson").write_bytes(b'{"n":1.5}\n')
    again = bound(DatasetSource(path="a.ndjson"), tmp_path, Record())
    again.restore([kept])
    assert read(again)[0].frame.drop("edge_received").to_dicts() == [{"n": 1.5, "s": None}]


# Progress, memory and orderly ends


def test_progress_is_told_in_bytes_on_the_disk(tmp_path: Path) -> None:
    packed = gzip.compress(ndjson(range(100)))
    (tmp_path / "a.ndjson.gz").write_bytes(packed)
    source = bound(DatasetSource(path="a.ndjson.gz"), tmp_path)
    read(source)
    status = source.status()
    assert status["bytes_done"] == status["bytes_total"] == len(packed)
    assert (status["files_done"], status["files"]) == (1, 1)


def test_a_source_stopped_in_the_middle_leaves_nothing_open(tmp_path: Path) -> None:
    (tmp_path / "a.ndjson").write_bytes(ndjson(range(1000)))

    async def stopped() -> None:
        source = bound(DatasetSource(path="a.ndjson"), tmp_path)
        task = asyncio.create_task(_read(source, None))
        await asyncio.sleep(0)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        await source.close()

    asyncio.run(stopped())  # an unclosed file would be a ResourceWarning, which is an error


READ_IN_PROCESS = """
import asyncio, sys
from pathlib import Path
from tests.sources.cases import bound
from edge.sources import Batch
from edge.sources.dataset import DatasetSource

async def main():
    rows = 0
    batch = Batch(parcel=6 * 2**20)
    source = bound(DatasetSource(path=sys.argv[2]), Path(sys.argv[1]), batch=batch)
    async for arrival in source.arrivals(None):
        rows += arrival.frame.height if arrival else 0
    # Not ru_maxrss: that is at least what the test runner had when it started this process.
    status = Path("/proc/self/status").read_text()
    print(rows, int(status.partition("VmHWM:")[2].split()[0]) // 1024)

asyncio.run(main())
"""


def test_a_big_file_is_read_in_bounded_memory(tmp_path: Path) -> None:
    """200 MB of text, most of it in one archive that unpacks a hundredfold."""
    line = b'{"n":12345,"name":"%s"}\n' % (b"x" * 77)
    with gzip.open(tmp_path / "a.ndjson.gz", "wb", compresslevel=1) as file:
        for _ in range(20):
            file.write(line * 100_000)
    command = [sys.executable, "-c", READ_IN_PROCESS, str(tmp_path), "a.ndjson.gz"]
    environment = {**os.environ, "POLARS_MAX_THREADS": "1", "PYTHONPATH": os.getcwd()}
    done = subprocess.run(command, capture_output=True, text=True, check=True, env=environment)
    rows, megabytes = map(int, done.stdout.split())
    assert rows == 2_000_000
    assert megabytes < 200
