"""A whole file through the product, beside one lazy polars query that does the same."""

import os
import sys
import time
from collections.abc import Callable
from functools import partial
from operator import attrgetter
from pathlib import Path
from typing import NamedTuple

import orjson

from benchmarks import definitions
from benchmarks.consumers import edge_process
from benchmarks.plan import Plan, interleave
from benchmarks.processes import Failed, Process
from benchmarks.readings import rows
from benchmarks.table import Bar, Row


class Ran(NamedTuple):
    """A process from start to end: processor and wall seconds, most resident bytes (10**6)."""

    cpu: float
    wall: float
    megabytes: float

    def __str__(self) -> str:
        return f"{self.cpu:.2f} s CPU, {self.wall:.2f} s, {self.megabytes:.0f} MB"


def whole_file(plan: Plan) -> list[Row]:
    """NDJSON file, filter, derive, outbox, NDJSON files: processor time and memory."""
    return _compare(plan, "dataset", None)


def windows(plan: Plan) -> list[Row]:
    """NDJSON file, filter, windows of 10 s per device, outbox, NDJSON files."""
    return _compare(plan, "windows", Bar("at most", 4.0, "ratio"))


def _compare(plan: Plan, name: str, wall: Bar | None) -> list[Row]:
    count = 4 * plan.messages
    source = plan.folder / "rows.ndjson"
    with source.open("wb") as file:
        file.writelines(rows(count))
        file.flush()
        os.fsync(file.fileno())  # else the first contender pays for writing it back
    contenders = {"polars": _polars, "edge": _edge}
    found = interleave(
        plan, {each: partial(run, plan, source, name) for each, run in contenders.items()}
    )
    source.unlink()

    def row(measure: str, unit: str, of: Callable[[Ran], float], bar: Bar | None) -> Row:
        values, baselines = found.values("edge", of), found.values("polars", of)
        problem = found.problem("edge", "polars")
        return Row(name, measure, unit, values, "polars", baselines, bar, problem=problem)

    return [
        row("CPU, start to end", "s", attrgetter("cpu"), Bar("at most", 2.5, "ratio")),
        row("wall, start to end", "s", attrgetter("wall"), wall),
        row("peak RSS", "MB", attrgetter("megabytes"), Bar("at most", 200.0)),
        row("rows a second", "rows/s", lambda ran: count / ran.wall, None),
    ]


def _polars(plan: Plan, source: Path, name: str) -> Ran:
    with plan.scratch() as folder:
        results = folder / "results.ndjson"
        root = str(Path(__file__).parent.parent)
        command = [sys.executable, "-m", "benchmarks.subscribers", "polars", str(source)]
        # One thread is the cheapest way to do it, so the hardest to be compared with.
        env = {"PYTHONPATH": root, "POLARS_MAX_THREADS": "1"}
        ran = _run(Process("polars", [*command, str(results), name], folder, env))
        _check([results], source, name)
    return ran


def _edge(plan: Plan, source: Path, name: str) -> Ran:
    with plan.scratch() as folder:
        results = folder / "results"
        definition = definitions.dataset(folder, source, results, name == "windows")
        ran = _run(edge_process(folder, "run", "--once", str(definition)))
        _check(sorted(results.rglob("*.ndjson")), source, name)
    return ran


def _run(process: Process) -> Ran:
    """Let it come to its end; memory is asked for while it is there to be asked."""
    start, peak = time.monotonic(), 0
    with process:
        while process.alive():
            peak = max(peak, process.peak())
            time.sleep(0.02)
        cpu, wall = process.cpu(), time.monotonic() - start
        if code := process.stop():
            raise Failed(f"{process.name}: ended with exit code {code}: {process.complaint()}")
    return Ran(cpu, wall, peak / 1e6)


def _check(results: list[Path], source: Path, name: str) -> None:
    """99 rows of 100 pass the filter; anything else is not the same work."""
    with source.open("rb") as file:
        expected = sum(b'"ok"' in line for line in file)
    if name == "windows":
        lines = (line for path in results for line in path.read_bytes().splitlines())
        found = sum(orjson.loads(line)["n"] for line in lines)
    else:
        found = sum(path.read_bytes().count(b"\n") for path in results)
    if found != expected:
        raise Failed(f"{found:,} rows came out of {source.name}, expected {expected:,}")
