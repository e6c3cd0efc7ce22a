"""Hours without a link, in simulated time: what is buffered, on the disk and in memory."""

import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from operator import attrgetter
from pathlib import Path
from typing import NamedTuple

from benchmarks.consumers import SECRETS
from benchmarks.definitions import Definition
from benchmarks.outbox import Outbox
from benchmarks.plan import Plan, interleave
from benchmarks.processes import Failed, Process
from benchmarks.readings import OFFLINE_RATE, passes
from benchmarks.table import Bar, Row

NAME = "bench"
"""Of the pipeline that fills the outbox, and of the one that finds it."""
_CHILD = """\
from edge.heap import use_one_arena

use_one_arena()  # as `edge run` does, before anything else is loaded

from benchmarks.simulated import main

main()
"""
_DAY = 24.0  # hours
_DAY_SIZE = 2.2  # GB
_FIXED = 0.08  # GB of reserve and WAL, however little is buffered


class Outage(NamedTuple):
    """gigabytes: the most that the outbox took on the disk, 10**9 bytes; megabytes: peak RSS,
    10**6 bytes; cpu: microseconds per reading, making it up included.
    """

    gigabytes: float
    megabytes: float
    cpu: float

    def __str__(self) -> str:
        return f"{self.gigabytes:.3f} GB, {self.megabytes:.0f} MB RSS, {self.cpu:.1f} µs a reading"


def offline(plan: Plan) -> list[Row]:
    """1,000 readings a second for hours without a link, in simulated time."""
    found = interleave(plan._replace(rounds=1), {"edge": partial(_offline, plan)})
    part = min(plan.hours / _DAY, 1.0)
    size = Bar("at most", _DAY_SIZE * part + _FIXED * (1 - part))
    gigabytes, megabytes = attrgetter("gigabytes"), attrgetter("megabytes")
    what, problem = f"{plan.hours:g} h offline", found.problem("edge")
    return [
        Row(
            "offline",
            f"outbox, {what}",
            "GB",
            found.values("edge", gigabytes),
            bar=size,
            problem=problem,
        ),
        Row(
            "offline",
            f"peak RSS, {what}",
            "MB",
            found.values("edge", megabytes),
            bar=Bar("at most", 250.0),
            problem=problem,
        ),
    ]


def _offline(plan: Plan) -> Outage:
    count = round(plan.hours * 3600 * OFFLINE_RATE)
    size = peak = 0
    with plan.scratch() as folder, _buffering(folder, count, 0, "") as process:
        while process.alive():
            peak = max(peak, process.peak())
            size = max(size, disk_use(folder / NAME))
            time.sleep(0.1)
        cpu = process.cpu() / count * 1e6
    return Outage(size / 1e9, peak / 1e6, cpu)


def buffer(folder: Path, count: int, pad: int = 0, roll: str = "") -> None:
    """Leave an outbox in `folder` where the rows of `count` readings wait.

    pad: bytes of noise in each reading; roll: as in a Definition.
    """
    with _buffering(folder, count, pad, roll) as process:
        while process.alive():
            time.sleep(0.05)


@contextmanager
def _buffering(folder: Path, count: int, pad: int, roll: str) -> Iterator[Process]:
    """The process that fills the outbox; checked in the end."""
    definition = Definition(NAME, 1, 1, roll=roll, max_size="4GiB").write(folder)
    command = [sys.executable, "-c", _CHILD, str(definition), str(count), str(pad)]
    root = str(Path(__file__).parent.parent)
    env = {"PYTHONPATH": root, "EDGE_STATE_DIR": str(folder), "POLARS_MAX_THREADS": "1", **SECRETS}
    with Process("simulated", command, folder, env) as process:
        yield process
        if code := process.stop():
            raise Failed(f"simulated: ended with exit code {code}: {process.complaint()}")
    outbox = Outbox(folder / NAME)
    rows, expected = outbox.buffered().rows, sum(map(passes, range(count)))
    outbox.close()
    if rows != expected:
        raise Failed(f"simulated: {rows:,} rows wait, expected {expected:,}")


def disk_use(folder: Path) -> int:
    """Bytes that the files below a folder take now."""
    total = 0
    for path in folder.rglob("*"):
        try:
            total += path.stat().st_size
        except FileNotFoundError:  # the WAL comes and goes
            continue
    return total
