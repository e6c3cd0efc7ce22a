"""What the file sink promises: a file is whole or not there, and is never written over."""

import asyncio
import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import polars as pl
import pytest

from edge.codec import encode
from edge.errors import LinkDown
from edge.outbox.model import Parcel
from edge.sinks import Receipt
from edge.sinks.file import FileSink
from tests.sinks.places import OUTBOX, PATH, STREAM, bound, numbered, rows


def sink(folder: Path, **options: Any) -> FileSink:
    made = bound(FileSink(path="out", **options), stream=STREAM._replace(folder=folder))
    assert isinstance(made, FileSink)
    return made


def send(sink: FileSink, parcels: Sequence[Parcel]) -> Receipt:
    return asyncio.run(sink.send(parcels))


def files(folder: Path) -> list[str]:
    return sorted(str(p.relative_to(folder)) for p in folder.rglob("*") if p.is_file())


def test_the_path_starts_at_the_folder_of_the_definition(tmp_path: Path) -> None:
    target = sink(tmp_path)
    send(target, numbered(target.encode(rows(3)).parcels))
    assert files(tmp_path) == [f"out/{PATH}/{OUTBOX}-1-3.ndjson"]


@pytest.mark.parametrize(
    ("options", "ending"),
    [
        ({}, "ndjson"),
        ({"compression": "zstd"}, "ndjson.zst"),
        ({"format": "csv", "compression": "gzip"}, "csv.gz"),
        ({"format": "json"}, "json"),
        ({"format": "parquet"}, "parquet"),
    ],
)
def test_the_ending_says_what_is_inside(
    tmp_path: Path, options: dict[str, str], ending: str
) -> None:
    target = sink(tmp_path, **options)
    (parcel,) = target.encode(rows(3)).parcels
    assert parcel.key.endswith(f"-3.{ending}")


def test_a_reader_of_hive_folders_gets_the_rows_back(tmp_path: Path) -> None:
    target = sink(tmp_path, format="parquet", partition=["date", "line"])
    send(target, numbered(target.encode(rows(12)).parcels))
    back = pl.read_parquet(tmp_path / "out", hive_partitioning=True).drop("date")
    assert back.select(rows(1).columns).sort("ts").equals(rows(12))


def test_a_file_left_half_written_is_written_again(tmp_path: Path) -> None:
    target = sink(tmp_path)
    (parcel,) = numbered(target.encode(rows(3)).parcels)
    place = tmp_path / "out" / parcel.key
    place.parent.mkdir(parents=True)
    (place.parent / f".{place.name}.part").write_bytes(b"half of i")
    assert send(target, [parcel]).delivered == (1,)
    assert files(tmp_path) == [f"out/{parcel.key}"]
    assert place.read_bytes() == encode(rows(3), "ndjson", "none")


def test_other_bytes_under_the_name_are_kept(tmp_path: Path) -> None:
    target = sink(tmp_path)
    (parcel,) = numbered(target.encode(rows(3)).parcels)
    send(target, [parcel])
    (other,) = numbered(target.encode(rows(2)).parcels)
    assert send(target, [other._replace(key=parcel.key)]) == Receipt(rekey=(1,))
    assert (tmp_path / "out" / parcel.key).read_bytes() == encode(rows(3), "ndjson", "none")


@pytest.mark.parametrize("form", ["ndjson", "csv", "json"])
def test_plain_text_waits_compressed_and_arrives_plain(tmp_path: Path, form: str) -> None:
    target = sink(tmp_path, format=form)
    (parcel,) = numbered(target.encode(rows(50_000)).parcels)
    send(target, [parcel])
    written = (tmp_path / "out" / parcel.key).read_bytes()
    assert written == encode(rows(50_000), form, "none")  # type: ignore[arg-type]
    assert len(parcel.body) * 5 < len(written)
    assert send(target, [parcel]).delivered == (1,)


def test_a_parcel_of_an_older_version_is_written_as_it_stands(tmp_path: Path) -> None:
    target = sink(tmp_path)
    (parcel,) = numbered(target.encode(rows(3)).parcels)
    send(target, [parcel._replace(body=b"plain", attributes={})])
    assert (tmp_path / "out" / parcel.key).read_bytes() == b"plain"


def test_a_full_disk_is_waited_for(tmp_path: Path) -> None:
    target = sink(tmp_path)
    (parcel,) = numbered(target.encode(rows(3)).parcels)
    place = tmp_path / "out" / parcel.key
    place.parent.mkdir(parents=True)
    unfinished = place.parent / f".{place.name}.part"
    os.symlink("/dev/full", unfinished)
    with pytest.raises(LinkDown, match="No space left on device; make room"):
        send(target, [parcel])
    unfinished.unlink()
    assert send(target, [parcel]).delivered == (1,)


def test_the_name_of_a_file_that_was_there_is_made_safe_too(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    synced, fsync = [], os.fsync

    def watched(descriptor: int) -> None:
        synced.append(Path(os.readlink(f"/proc/self/fd/{descriptor}")))
        fsync(descriptor)

    target = sink(tmp_path)
    parcels = numbered(target.encode(rows(3)).parcels)
    send(target, parcels)  # and the process dies before its folder is synced
    monkeypatch.setattr(os, "fsync", watched)
    assert send(target, parcels).delivered == (1,)
    assert synced == [(tmp_path / "out" / parcels[0].key).parent]


@pytest.mark.parametrize(("order", "delivered"), [("none", (2,)), ("all", ())])
def test_nothing_goes_ahead_of_a_file_that_waits_where_order_is_kept(
    tmp_path: Path, order: str, delivered: tuple[int, ...]
) -> None:
    target = sink(tmp_path, partition=["line"])
    target.bind(None, STREAM._replace(folder=tmp_path), True, order)
    parcels = numbered(target.encode(rows(2)).parcels)
    blocked = (tmp_path / "out" / parcels[0].key).parent
    blocked.parent.mkdir(parents=True)
    blocked.write_text("no folder can be here")
    if delivered:
        assert send(target, parcels).delivered == delivered
    else:
        with pytest.raises(LinkDown):
            send(target, parcels)
    blocked.unlink()
    assert send(target, parcels).delivered == (1, 2)
