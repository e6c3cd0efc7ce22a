"""Files that others write are followed: whatever happens to them, each line is read once."""

import gzip
import os
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import polars as pl
import pytest

import edge.dataset.follow
import edge.lines
from edge.cli.status import _source_line
from edge.codec import Record
from edge.lines import zstd
from edge.sources import Batch
from edge.sources.dataset import DatasetSource
from tests.sources.cases import csv
from tests.sources.following import Following, lines

Follow = Callable[..., Following]


@pytest.fixture
def follow(tmp_path: Path) -> Iterator[Follow]:
    made: list[Following] = []

    def make(**options: Any) -> Following:
        made.append(Following(tmp_path, **options))
        return made[-1]

    yield make
    for each in made:
        each.close()


def append(file: Path, text: bytes) -> None:
    with file.open("ab") as opened:
        opened.write(text)


# Files that grow


def test_new_files_and_appended_lines_are_read(follow: Follow, tmp_path: Path) -> None:
    following = follow()
    assert following.read() == []
    (tmp_path / "a.ndjson").write_bytes(lines(1, 2))
    assert following.read() == [1, 2]
    append(tmp_path / "a.ndjson", lines(3))
    (tmp_path / "deep").mkdir()
    (tmp_path / "deep" / "b.ndjson").write_bytes(lines(4))
    assert sorted(following.read()) == [3, 4]
    assert following.read(60) == []


def test_a_line_is_read_once_it_is_whole(follow: Follow, tmp_path: Path) -> None:
    following, text = follow(), lines(1, 2)
    for at in range(0, len(text), 20):
        append(tmp_path / "a.ndjson", text[at : at + 20])
        following.read(1.1)
    assert following.rows == [1, 2]
    assert not following.rejects


def test_half_a_line_of_csv_waits_for_an_hour(follow: Follow, tmp_path: Path) -> None:
    following = follow(path="*.csv")
    append(tmp_path / "a.csv", b"n\n1\n2")
    assert following.read(3000) == [1]
    append(tmp_path / "a.csv", b"34\n5")
    assert following.read(3000) == [234]
    assert following.read(1000) == [5]


def test_a_last_line_that_is_whole_json_waits_only_to_settle(
    follow: Follow, tmp_path: Path
) -> None:
    following = follow()
    append(tmp_path / "a.ndjson", lines(1, 2).rstrip())
    append(tmp_path / "b.ndjson", lines(3, 4)[:-5])
    assert sorted(following.read(4)) == [1, 3]
    assert following.read(4) == [2]
    assert following.read(4000) == []
    append(tmp_path / "a.ndjson", b"\n" + lines(5))
    assert following.read() == [5]
    assert [reject.topic for reject in following.rejects] == ["b.ndjson:2"]


def test_the_header_of_a_csv_file_may_come_in_pieces(follow: Follow, tmp_path: Path) -> None:
    following, text = follow(path="*.csv"), csv([1, 2, 3])
    for at in range(0, len(text), 3):
        append(tmp_path / "a.csv", text[at : at + 3])
        following.read(1.1)
    append(tmp_path / "a.csv", b"\n")
    following.read()
    assert following.rows == [1, 2, 3]
    assert not following.rejects


def test_a_path_may_be_absolute_and_a_header_long(follow: Follow, tmp_path: Path) -> None:
    names = ",".join(f'"column\n{n}"' for n in range(1000))
    following = follow(path=str(tmp_path / "in" / "*.csv"))
    (tmp_path / "in").mkdir()
    append(tmp_path / "in" / "a.csv", f"{names},n\n{',' * 1000}1\n".encode())
    assert following.read(3) == [1]
    append(tmp_path / "in" / "a.csv", f"{',' * 1000}2\n".encode())
    following.crash()
    assert following.read(3) == [2]


def test_hidden_and_unfinished_names_are_left_alone(follow: Follow, tmp_path: Path) -> None:
    following = follow(path="*")
    for name in (".a.ndjson", "a.ndjson.part", "b.ndjson.tmp"):
        (tmp_path / name).write_bytes(lines(1))
    assert following.read(10) == []
    (tmp_path / "a.ndjson.part").rename(tmp_path / "a.ndjson")
    assert following.read() == [1]


def test_older_files_are_read_first(follow: Follow, tmp_path: Path) -> None:
    for n, name in enumerate(["app.ndjson.2", "app.ndjson.1", "app.ndjson"]):
        (tmp_path / name).write_bytes(lines(n))
        os.utime(tmp_path / name, (n, n))
    assert follow().read() == [0, 1, 2]


# Files that are taken whole


@pytest.mark.parametrize("ending", ["gz", "zst"])
def test_a_compressed_file_is_read_when_it_does_not_change(
    ending: str, follow: Follow, tmp_path: Path
) -> None:
    following = follow()
    packed = (gzip.compress if ending == "gz" else zstd.compress)(lines(*range(1000)))
    file = tmp_path / f"a.ndjson.{ending}"
    for at in range(0, len(packed), len(packed) // 4 + 1):
        append(file, packed[at : at + len(packed) // 4 + 1])
        assert following.read(3) == []
    assert following.status["settling"] == 1
    assert following.read(6) == list(range(1000))
    assert following.read(60) == []


def test_a_compressed_file_whose_writer_pauses_is_read_on(follow: Follow, tmp_path: Path) -> None:
    following = follow()
    packed = gzip.compress(lines(*range(50_000)))
    append(tmp_path / "a.ndjson.gz", packed[:-1000])
    assert 0 < len(following.read(20)) < 50_000
    append(tmp_path / "a.ndjson.gz", packed[-1000:])
    following.read(20)
    assert following.rows == list(range(50_000))
    assert not following.rejects


def test_a_damaged_file_is_told_after_a_minute_and_holds_up_no_other(
    follow: Follow, tmp_path: Path
) -> None:
    following = follow()
    (tmp_path / "a.ndjson.gz").write_bytes(gzip.compress(lines(*range(9)))[:-9])
    (tmp_path / "b.parquet").write_bytes(b"PAR1 is not all")
    (tmp_path / "c.ndjson.gz").write_bytes(gzip.compress(lines(9)))
    assert 9 in following.read(20)
    assert not following.rejects
    following.read(60)
    assert {reject.topic.partition(":")[0] for reject in following.rejects if reject.topic} == {
        "a.ndjson.gz",
        "b.parquet",
    }
    following.read(600)
    assert len(following.rejects) == 2


def test_a_parquet_file_is_read_when_it_does_not_change(follow: Follow, tmp_path: Path) -> None:
    following = follow()
    pl.DataFrame({"n": range(10)}).write_parquet(tmp_path / "whole")
    whole = (tmp_path / "whole").read_bytes()
    for at in (0, 100, 200):
        (tmp_path / "a.parquet").write_bytes(whole[:at])
        assert following.read(3) == []
    (tmp_path / "a.parquet").write_bytes(whole)
    assert following.read(7) == list(range(10))
    os.utime(tmp_path / "a.parquet")
    assert following.read(20) == []
    (tmp_path / "a.parquet").rename(tmp_path / "b.parquet")
    assert following.read(20) == []
    pl.DataFrame({"n": range(10, 30)}).write_parquet(tmp_path / "b.parquet")
    assert following.read(20) == list(range(10, 30))


# Rotation, truncation, replacement

NAMES = {"followed": ".", "not followed": "app.ndjson"}
patterns = pytest.mark.parametrize("path", NAMES.values(), ids=NAMES)


@patterns
def test_a_renamed_file_is_read_to_its_end(path: str, follow: Follow, tmp_path: Path) -> None:
    following, file = follow(path=path), tmp_path / "app.ndjson"
    for n in range(0, 40, 4):
        append(file, lines(n))
        following.read()
        append(file, lines(n + 1))
        for number in (3, 2, 1):
            older = tmp_path / f"app.ndjson.{number}"
            if older.exists():
                older.rename(tmp_path / f"app.ndjson.{number + 1}")
        file.rename(tmp_path / "app.ndjson.1")
        append(file, lines(n + 2))
        following.read(3)
        append(tmp_path / "app.ndjson.1", lines(n + 3))
        following.read(10)
    assert sorted(following.rows) == list(range(40))
    assert len(following.states) < 100


@patterns
def test_a_renamed_file_need_not_be_followed_by_a_new_one(
    path: str, follow: Follow, tmp_path: Path
) -> None:
    following, file = follow(path=path), tmp_path / "app.ndjson"
    append(file, lines(1))
    following.read()
    following.stop()
    append(file, lines(2))
    file.rename(tmp_path / "app.ndjson.1")
    following.start()
    assert following.read(3) == [2]
    assert following.status["problem"] is None


@patterns
def test_a_file_renamed_while_nobody_looks_is_read_on(
    path: str, follow: Follow, tmp_path: Path
) -> None:
    following, file = follow(path=path), tmp_path / "app.ndjson"
    append(file, lines(1))
    following.read()
    following.stop()
    append(file, lines(2) + lines(3).rstrip())
    file.rename(tmp_path / "app.ndjson.1")
    append(file, lines(4))
    following.start()
    assert sorted(following.read(20)) == [2, 3, 4]


@patterns
def test_a_file_that_is_copied_and_cut_short_is_read_once(
    path: str, follow: Follow, tmp_path: Path
) -> None:
    following, file = follow(path=path), tmp_path / "app.ndjson"
    append(file, lines(*range(100)))
    following.read()
    append(file, lines(100))
    shutil.copy(file, tmp_path / "app.ndjson.1")
    following.read()
    os.truncate(file, 0)
    following.read()
    append(file, lines(101))
    following.read(20)
    assert sorted(following.rows) == list(range(102))


def test_a_file_that_is_compressed_after_its_rotation_is_read_once(
    follow: Follow, tmp_path: Path
) -> None:
    following, file = follow(), tmp_path / "app.ndjson"
    append(file, lines(*range(100)))
    following.read()
    append(file, lines(100))
    (tmp_path / "app.ndjson.1.gz").write_bytes(gzip.compress(file.read_bytes()))
    file.write_bytes(lines(101))
    following.read(20)
    assert sorted(following.rows) == list(range(102))


def test_a_rotated_file_does_not_wait_for_a_line_of_the_new_one(
    follow: Follow, tmp_path: Path
) -> None:
    following, file = follow(path="app.csv"), tmp_path / "app.csv"
    append(file, b"n\n1\n")
    following.read()
    append(file, b"2\n")
    following.stop()
    file.rename(tmp_path / "app.csv.1")
    append(file, b"n")
    following.start()
    assert following.read(20) == [2]
    append(tmp_path / "app.csv.1", b"3\n")
    assert following.read(20) == [3]
    append(file, b"\n4\n")
    assert following.read(8000) == [4]
    append(tmp_path / "app.csv.1", b"5\n")
    assert following.read(20) == []  # it was quiet for an hour


def test_a_long_file_is_read_in_turns_with_others(
    follow: Follow, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(edge.dataset.follow, "_TURN", 5000)
    monkeypatch.setattr(edge.lines, "BLOCK", 2000)
    following = follow()
    append(tmp_path / "a.ndjson", lines(*range(1000)))
    assert following.read(1) == list(range(1000))


def test_what_is_handed_over_together_has_at_most_the_bytes_of_a_batch(
    follow: Follow, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(edge.lines, "BLOCK", 2000)
    following = follow()
    following.batch = Batch(bytes=20_000)
    following.crash()
    append(tmp_path / "a.ndjson", lines(*range(1000)))
    counts = [0]
    while sum(counts) < 1000:
        arrival = following.take()
        counts.append(arrival.frame.height if arrival else 0)
    # Half of its bytes, at 16 for a row, and a block of some 25 rows on top.
    assert 100 < max(counts) <= 655


def test_a_true_copy_is_read_too(follow: Follow, tmp_path: Path) -> None:
    following = follow()
    append(tmp_path / "a.ndjson", lines(*range(100)))
    following.read()
    shutil.copy(tmp_path / "a.ndjson", tmp_path / "b.ndjson")
    assert following.read(3) == []
    assert following.read(10) == list(range(100))


def test_a_file_cut_short_and_grown_longer_between_two_looks_is_noticed(
    follow: Follow, tmp_path: Path
) -> None:
    following, file = follow(path="*.csv", record=Record(fields={"n": "int"})), tmp_path / "a.csv"
    file.write_bytes(b"n\n" + b"1\n" * 4000)
    following.read()
    file.write_bytes(b"n\n" + b"1\n" * 3000 + b"2\n" * 3000)
    assert following.read().count(2) == 3000


def test_a_file_renamed_over_another_is_read_from_its_start(follow: Follow, tmp_path: Path) -> None:
    following = follow(path="*.ndjson")
    append(tmp_path / "a.ndjson", lines(1, 2))
    following.read()
    append(tmp_path / "new", lines(3, 4))
    (tmp_path / "new").rename(tmp_path / "a.ndjson")
    assert following.read() == [3, 4]


def test_a_file_that_is_written_anew_with_more_at_its_end_is_read_on(
    follow: Follow, tmp_path: Path
) -> None:
    following = follow(path="*.ndjson")
    append(tmp_path / "a.ndjson", lines(1, 2))
    following.read()
    append(tmp_path / "new", lines(1, 2, 3))
    (tmp_path / "new").rename(tmp_path / "a.ndjson")
    assert following.read() == [3]


@pytest.mark.parametrize("how", ["moved to a folder that is not followed", "removed"])
def test_what_was_written_last_to_a_file_that_leaves_is_read(
    how: str, follow: Follow, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    following, file = follow(path="*.ndjson"), tmp_path / "a.ndjson"
    (tmp_path / "archive").mkdir()
    for n in range(3):
        append(file, lines(n))
        following.read()
    append(file, lines(3, 4).rstrip())
    if how == "removed":
        file.unlink()
    else:
        file.rename(tmp_path / "archive" / "a.ndjson")
    append(file, lines(5))
    following.read(3)
    assert sorted(following.rows) == [0, 1, 2, 3, 4, 5]
    assert "are lost" not in caplog.text


def test_what_was_seen_of_a_file_and_cut_off_is_said(
    follow: Follow, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    following, file = follow(), tmp_path / "a.ndjson"
    for n in range(3):
        append(file, lines(n))
        following.read()
    append(file, b'{"n":3')
    following.read()
    os.truncate(file, 0)
    following.read()
    assert "a.ndjson: was removed or cut short before all was read, 6 B are lost" in caplog.text


def test_a_link_to_a_file_is_the_same_file(follow: Follow, tmp_path: Path) -> None:
    following = follow()
    append(tmp_path / "today.ndjson", lines(1))
    (tmp_path / "current.ndjson").symlink_to("today.ndjson")
    assert following.read(20) == [1]


# What is remembered


def test_a_start_goes_on_where_the_last_commit_was(follow: Follow, tmp_path: Path) -> None:
    following = follow()
    append(tmp_path / "a.ndjson", lines(1, 2))
    following.read()
    append(tmp_path / "a.ndjson", lines(3))
    append(tmp_path / "b.ndjson", lines(4))
    while following.take() is None:
        pass
    following.crash()
    assert sorted(following.read()) == [3, 4]
    following.crash()
    assert following.read(20) == []


def test_files_that_vanish_and_come_back_are_not_read_again(follow: Follow, tmp_path: Path) -> None:
    (tmp_path / "share").mkdir()
    following = follow(path="share")
    append(tmp_path / "share" / "a.ndjson", lines(1))
    following.read()
    (tmp_path / "share").rename(tmp_path / "away")
    following.read(3600)
    assert following.status["problem"] == "share: No such file or directory"
    (tmp_path / "share").mkdir()
    following.read(3600)
    (tmp_path / "share").rmdir()
    (tmp_path / "away").rename(tmp_path / "share")
    append(tmp_path / "share" / "a.ndjson", lines(2))
    assert following.read(3) == [2]
    assert following.status["problem"] is None


@pytest.mark.parametrize("name", ["event-1.ndjson", "event-2.ndjson"])
def test_an_event_that_is_dropped_again_is_one_more(
    name: str, follow: Follow, tmp_path: Path
) -> None:
    following, first = follow(path="*.ndjson"), tmp_path / "event-1.ndjson"
    append(first, b'{"n":1}\n')
    following.read()
    first.rename(tmp_path / "x")  # keeps its inode, as a new file gets that of one removed before
    following.read()
    os.utime(tmp_path / "x", (10**9, 10**9))
    (tmp_path / "x").rename(tmp_path / name)
    following.read()
    assert following.rows == [1, 1]


def test_files_that_are_gone_are_forgotten(follow: Follow, tmp_path: Path) -> None:
    following = follow(forget="1h")
    for day in range(20):
        for n in range(20):
            append(tmp_path / f"{day}-{n}.ndjson", lines(n))
        following.read()
        for n in range(20):
            (tmp_path / f"{day}-{n}.ndjson").unlink()
        following.read(3700)
    whole = following.source.snapshot(True)
    assert whole is not None
    assert len(whole) < 300
    assert len(following.rows) == 400


def test_a_dataset_that_was_read_once_is_followed_without_reading_it_again(
    follow: Follow, tmp_path: Path
) -> None:
    append(tmp_path / "a.ndjson", lines(1))
    (tmp_path / "b.ndjson.gz").write_bytes(gzip.compress(lines(2)))
    append(tmp_path / "c.ndjson", lines(3))
    following = follow(follow=False)
    with pytest.raises(StopAsyncIteration):
        following.read(1e9)
    following.crash(follow=True)
    following.read()
    append(tmp_path / "a.ndjson", lines(4))
    append(tmp_path / "c.ndjson", lines(5))
    append(tmp_path / "d.ndjson", lines(6))
    following.crash()
    following.read(20)
    following.crash(follow=False)
    append(tmp_path / "d.ndjson", lines(7))
    with pytest.raises(StopAsyncIteration):
        following.read(1e9)
    assert sorted(following.rows) == [1, 2, 3, 4, 5, 6, 7]


# What is said


def test_status_says_what_is_there_what_settles_and_what_is_still_to_read(
    follow: Follow, tmp_path: Path
) -> None:
    following = follow(path="*")
    following.read()
    assert said(following) == "source dataset: follows 0 files; no file is there"
    append(tmp_path / "a.ndjson", lines(1))
    append(tmp_path / "b.csv", b"n\n1\n2")
    (tmp_path / "c.ndjson.gz").write_bytes(gzip.compress(lines(3)))
    append(tmp_path / "d.txt", b"?")
    following.read(3)
    packed = (tmp_path / "c.ndjson.gz").stat().st_size
    assert said(following) == (
        f"source dataset: follows 3 files; 1 wait to settle; {packed + 1} B to read; "
        "d.txt: the ending tells no format; set format"
    )


def said(following: Following) -> str:
    return str(_source_line({"kind": "dataset", **following.status}))


def test_what_is_removed_unread_is_said(
    follow: Follow, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    following = follow()
    (tmp_path / "a.ndjson.gz").write_bytes(gzip.compress(lines(1)))
    append(tmp_path / "b.ndjson", lines(1) + b"{")
    following.read(3)
    (tmp_path / "a.ndjson.gz").unlink()
    (tmp_path / "b.ndjson").unlink()
    following.read(3)
    assert "a.ndjson.gz: was removed before it was read" in caplog.text
    assert "b.ndjson: was removed or cut short before all was read, 1 B are lost" in caplog.text


def test_a_name_that_is_no_text_holds_up_no_other(follow: Follow, tmp_path: Path) -> None:
    following = follow()
    append(tmp_path / os.fsdecode(b"\xff.ndjson"), lines(1))
    append(tmp_path / "a.ndjson", lines(2))
    assert following.read(3) == [2]
    assert following.status["problem"] == "\\xff.ndjson: its name is not UTF-8; rename it"


def test_options_that_mean_nothing_together_are_refused() -> None:
    with pytest.raises(ValueError, match="follow and replay exclude each other"):
        DatasetSource(path="a", follow=True, replay={"speed": 2})
    with pytest.raises(ValueError, match="settle means something only with follow: true"):
        DatasetSource(path="a", settle="1s")
