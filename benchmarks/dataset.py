"""A whole file through the product, beside one lazy polars query that does the same."""

import os
import sys
import time
from collections.abc import Callable
from functools import partial
from operator import attrgetter
from pathlib import Path
from typing import NamedTuple

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
    count = 4 * plan.messages
    source = plan.folder / "rows.ndjson"
    with source.open("wb") as file:
        file.writelines(rows(count))
        file.flush()
        os.fsync(file.fileno())  # else the first contender pays for writing it back
    found = interleave(
        plan, {"polars": partial(_polars, plan, source), "edge": partial(_edge, plan, source)}
    )
    source.unlink()

    def row(measure: str, unit: str, of: Callable[[Ran], float], bar: Bar | None) -> Row:
        values, baselines = found.values("edge", of), found.values("polars", of)
        problem = found.problem("edge", "polars")
        return Row("dataset", measure, unit, values, "polars", baselines, bar, problem=problem)

    return [
        row("CPU, start to end", "s", attrgetter("cpu"), Bar("at most", 2.5, "ratio")),
        row("peak RSS", "MB", attrgetter("megabytes"), Bar("at most", 200.0)),
        row("rows a second", "rows/s", lambda ran: count / ran.wall, None),
    ]


def _polars(plan: Plan, source: Path) -> Ran:
    with plan.scratch() as folder:
        results = folder / "results.ndjson"
        root = str(Path(__file__).parent.parent)
        command = [sys.executable, "-m", "benchmarks.subscribers", "polars", str(source)]
        # One thread is the cheapest way to do it, so the hardest to be compared with.
        env = {"PYTHONPATH": root, "POLARS_MAX_THREADS": "1"}
        ran = _run(Process("polars", [*command, str(results)], folder, env))
        _check([results], source)
    return ran


def _edge(plan: Plan, source: Path) -> Ran:
    with plan.scratch() as folder:
        results = folder / "results"
        definition = definitions.dataset(folder, source, results)
        ran = _run(edge_process(folder, "run", "--once", str(definition)))
        _check(sorted(results.rglob("*.ndjson")), source)
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


def _check(results: list[Path], source: Path) -> None:
    """99 rows of 100 pass the filter; anything else is not the same work."""
    with source.open("rb") as file:
        expected = sum(b'"ok"' in line for line in file)
    found = sum(path.read_bytes().count(b"\n") for path in results)
    if found != expected:
        raise Failed(f"{found:,} rows came out of {source.name}, expected {expected:,}")
