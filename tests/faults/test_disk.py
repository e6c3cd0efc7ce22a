"""The disk below the outbox: full, read-only, slow, out of inodes, held by a reader."""

import re
import sqlite3
import subprocess
import sys
import time
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, suppress
from pathlib import Path
from typing import Any

import polars as pl
import pytest

from edge.outbox import inspection
from tests.broker import Broker
from tests.faults.layer import mark, mounted
from tests.faults.mounts import MIB, ext4, tmpfs
from tests.loop import in_loop
from tests.mqtt.intake import KEPT, send
from tests.processor import Processor, until

DEFINITION = """
edge: 1
name: press
source: {{mqtt: {{url: {url}, topics: ['plant/{{device}}']}}}}
record: {{time: ts, key: device, fields: {{ts: timestamp_ms, n: int}}}}
sinks:
  out:
    file: {{path: {out}, compression: none}}
    roll: {{size: 256KiB, every: 100ms}}
outbox: {{path: {outbox}, max_size: {size}}}
"""


class Plant:
    """A processor whose outbox lies in `place`, a broker before it, and files behind it."""

    def __init__(self, folder: Path, broker: Broker, place: Path, size: str = "32MiB") -> None:
        self._broker = broker
        self.outbox, self.out = place / "outbox", folder / "out"
        self.definition = folder / "press.yaml"
        self.definition.write_text(
            DEFINITION.format(url=broker.url, out=self.out, outbox=self.outbox, size=size)
        )
        self._processor = Processor(self.definition)
        self.said = self._processor.said
        self.sent = 0

    @asynccontextmanager
    async def working(self) -> AsyncIterator[None]:
        """It runs, and some rows have gone all the way."""
        with self._processor.running():
            until(self.subscribed)
            await self.send(100)
            until(self.all_arrived)
            yield

    def subscribed(self) -> bool:
        return bool((self.status()["source"] or {}).get("subscriptions"))

    async def send(self, count: int) -> None:
        await send(self._broker, range(self.sent, self.sent + count))
        self.sent += count

    def arrived(self) -> list[int]:
        files = self.out.rglob("*.ndjson")
        return sorted(n for file in files for n in pl.read_ndjson(file)["n"].to_list())

    def all_arrived(self) -> bool:
        return len(self.arrived()) >= self.sent

    def status(self) -> dict[str, Any]:
        return inspection.status(self.outbox, time.time_ns() // 1000)

    def check(self) -> None:
        """Everything came once, and the ledger says the same."""
        until(self.all_arrived)
        assert self.arrived() == list(range(self.sent))
        assert self.status()["imbalances"] == []


@pytest.fixture
def broker(tmp_path: Path) -> Iterator[Broker]:
    with Broker(tmp_path / "broker", KEPT) as found:
        yield found


def break_off(disk: Path) -> None:
    """What the kernel does to a disk with errors, open files or not."""
    device = subprocess.run(["findmnt", "-no", "SOURCE", disk], capture_output=True, text=True)
    name = Path(device.stdout.strip()).name
    trigger = Path(f"/sys/fs/ext4/{name}/trigger_fs_error")
    trigger.write_text("1")


def said_by_status(plant: Plant) -> str:
    """The first line of `edge status`."""
    command = [sys.executable, "-m", "edge", "status", str(plant.definition)]
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    return done.stdout.splitlines()[0]


def fill(disk: Path) -> Path:
    """Somebody else's file, as large as it gets."""
    filler = disk / "filler"
    with suppress(OSError), filler.open("ab", 0) as file:
        while True:
            file.write(bytes(64 * 1024))
    return filler


@in_loop
async def test_a_full_disk_stops_the_intake_until_there_is_room(
    broker: Broker, tmp_path: Path
) -> None:
    with tmpfs(tmp_path / "disk", "size=48m") as disk:
        plant = Plant(tmp_path, broker, disk)
        async with plant.working():
            while "the disk is full; free space on the disk" not in plant.said():
                filler = fill(disk)  # again: what was delivered may have given room back
                await plant.send(100)
            assert len(plant.arrived()) < plant.sent
            assert "the disk is full" in said_by_status(plant)
            filler.unlink()
            plant.check()
            assert "has room again, intake goes on" in plant.said()
            until(lambda: (plant.outbox / "reserve").exists())
            until(lambda: "disk" not in said_by_status(plant))


@in_loop
async def test_a_disk_that_became_read_only_is_told_and_nothing_is_lost(
    broker: Broker, tmp_path: Path
) -> None:
    image, place = tmp_path / "image", tmp_path / "disk"
    with ext4(image, place, 96 * MIB) as disk:
        plant = Plant(tmp_path, broker, disk)
        async with plant.working():
            break_off(disk)
            await plant.send(100)
            until(lambda: "the disk takes no writes" in plant.said())
            assert "the disk is read-only" in said_by_status(plant)
    with ext4(image, place):
        async with plant.working():
            plant.check()


@in_loop
async def test_a_disk_of_two_seconds_a_sync_keeps_the_broker_and_is_told(
    broker: Broker, tmp_path: Path
) -> None:
    with mounted(tmp_path / "disk", tmp_path / "notes") as disk:
        plant = Plant(tmp_path, broker, disk)
        async with plant.working():
            mark(disk, "slow 2")
            await plant.send(1000)
            plant.check()
            assert re.search(r"a commit took \d+\.\d s; the disk is slow", plant.said())
            assert plant.status()["source"]["connections"] == 1
            mark(disk, "slow 0")


@in_loop
async def test_a_reader_that_holds_the_wal_stops_the_intake_at_the_cap_at_most(
    broker: Broker, tmp_path: Path
) -> None:
    plant = Plant(tmp_path, broker, tmp_path)
    async with plant.working():
        reader = sqlite3.connect(f"file:{plant.outbox}/outbox.sqlite?mode=ro", uri=True)
        reader.execute("BEGIN")
        reader.execute("SELECT count(*) FROM entry").fetchone()
        while "full at" not in plant.said():
            await plant.send(20_000)
            assert size_of(plant.outbox) <= 32 * MIB
        reader.close()
        plant.check()
        assert "has room again" in plant.said()
        assert size_of(plant.outbox) <= 32 * MIB


@in_loop
async def test_a_disk_without_inodes_stops_no_outbox_and_is_told(
    broker: Broker, tmp_path: Path
) -> None:
    with tmpfs(tmp_path / "disk", "size=64m,nr_inodes=40") as disk:
        plant = Plant(tmp_path, broker, disk)
        async with plant.working():
            with suppress(OSError):
                for number in range(40):
                    (disk / f"other-{number}").touch()
            await plant.send(5000)
            plant.check()
            assert "the disk has no inodes left" in said_by_status(plant)


@in_loop
async def test_a_missing_reserve_is_made_again(broker: Broker, tmp_path: Path) -> None:
    plant = Plant(tmp_path, broker, tmp_path)
    async with plant.working():
        (plant.outbox / "reserve").unlink()
    async with plant.working():
        plant.check()
        until(lambda: (plant.outbox / "reserve").exists())


def size_of(folder: Path) -> int:
    size = 0
    for each in folder.rglob("*"):
        with suppress(FileNotFoundError):  # files come and go
            size += each.stat().st_size if each.is_file() else 0
    return size
