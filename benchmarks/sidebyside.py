"""Processors at full speed side by side on the same rows, to see what one per cent costs."""

import os
import shutil
import time
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, ExitStack, contextmanager
from pathlib import Path
from typing import NamedTuple

from benchmarks import definitions
from benchmarks.consumers import edge_process
from benchmarks.looking import LOOKS, OFF, ON, SCRAPED, VIEWED, Heard, looking
from benchmarks.outbox import Outbox
from benchmarks.plan import Plan, interleave
from benchmarks.processes import Failed, Process
from benchmarks.readings import rows
from benchmarks.table import Bar, Row

_AGAIN = "another"  # does the same as the first: how far two are apart that do
_CONTENDERS = {OFF: OFF, _AGAIN: OFF, ON: ON, SCRAPED: SCRAPED, VIEWED: VIEWED}
_OTHERS = [name for name in _CONTENDERS if name != OFF]
_TURN = "at full speed"
_FILES = 3  # a start, for each pair
_PATIENCE = 120.0  # seconds for a file
_SETTLE = 2.0  # seconds after which what the first rows set off is over
_MEMORY, _ROOM = Path("/dev/shm"), 30  # times the size of a file


class Pair(NamedTuple):
    """Microseconds of processor time a row: of one, and of the one without HTTP beside it."""

    cpu: float
    off: float


class Rounds(dict[str, list[Pair]]):
    """What each was measured beside the one without HTTP, file by file."""

    def __str__(self) -> str:
        sums = ((name, *map(sum, zip(*pairs, strict=True))) for name, pairs in self.items())
        return ", ".join(f"{name} {cpu / off:.3f}" for name, cpu, off in sums)


class Follower(NamedTuple):
    """A processor that follows the folder `source`, and writes below `results`."""

    process: Process
    outbox: Outbox
    source: Path
    results: Path
    heard: Heard

    def delivered(self) -> int:
        """Rows that are in files."""
        return self.outbox.delivered("results")


class Given(NamedTuple):
    """A file for all: its rows, and how many of them are to be delivered."""

    path: Path
    rows: int
    results: int


def full_speed(plan: Plan) -> list[Row]:
    """Rows lie ready, nobody waits for input. A round starts all twice, in either order."""
    orders = ([*_CONTENDERS], [*reversed(_CONTENDERS)])
    found = interleave(plan, {_TURN: lambda: _joined(_start(plan, order) for order in orders)})
    problem = found.problem(_TURN)
    rounds = _joined([] if problem else found.measured[_TURN])
    rows = []
    for name in _OTHERS:
        bar = Bar("at most", 1.02, "ratio") if name in (ON, SCRAPED) else None
        measure = f"CPU per row, {name if name != _AGAIN else OFF}"
        values, base = ([getattr(pair, of) for pair in rounds[name]] for of in Pair._fields)
        rows.append(Row("http", measure, "µs", values, OFF, base, bar, problem=problem))
    return rows


def _joined(parts: Iterable[Rounds]) -> Rounds:
    """The rounds of all, one after another."""
    whole = Rounds({name: [] for name in _OTHERS})
    for part in parts:
        for name, pairs in part.items():
            whole[name] += pairs
    return whole


def _start(plan: Plan, order: Sequence[str]) -> Rounds:
    """All are started once; then each gets files together with the one without HTTP, in turn."""
    few, many = (b"".join(rows(n)) for n in (plan.messages // 10, 2 * plan.messages))
    with _scratch(plan, len(many)) as folder, ExitStack() as stack:
        started = {name: stack.enter_context(_follower(folder, name)) for name in order}
        _take(started, folder, 0, few)  # what they import for the first rows is not counted
        time.sleep(_SETTLE)
        found = Rounds({name: [] for name in _OTHERS})
        turns = (name for _ in range(_FILES) for name in order if name != OFF)
        for number, name in enumerate(turns, 1):
            pair = {each: started[each] for each in order if each in (name, OFF)}
            taken = _take(pair, folder, number, many)
            found[name].append(Pair(taken[name], taken[OFF]))
        for name, each in started.items():
            if LOOKS[_CONTENDERS[name]] and not each.heard.bytes:
                raise Failed(f"edge: nothing came back to who looks, {name}")
        return found


@contextmanager
def _follower(scratch: Path, name: str) -> Iterator[Follower]:
    folder = scratch / name.lower().replace(" ", "-")
    source, results = folder / "rows", folder / "results"
    source.mkdir(parents=True)
    definition = definitions.followed(folder, source, results)
    outbox = Outbox(folder / definition.stem)
    with (
        looking(_CONTENDERS[name]) as (arguments, heard),
        edge_process(folder, "run", *arguments, str(definition)) as process,
    ):
        process.until(outbox.path.exists, _PATIENCE)
        yield Follower(process, outbox, source, results, heard)
        outbox.close()


def _take(
    followers: Mapping[str, Follower], folder: Path, number: int, body: bytes
) -> dict[str, float]:
    """Microseconds a row until the last is delivered; all are given the same file at once."""
    given = _write(folder, number, body)
    due = {name: each.delivered() + given.results for name, each in followers.items()}
    before = {name: each.process.cpu() for name, each in followers.items()}
    for each in followers.values():
        os.link(given.path, each.source / given.path.name)
    taken: dict[str, float] = {}
    deadline = time.monotonic() + _PATIENCE
    while len(taken) < len(followers):
        for name in followers.keys() - taken.keys():
            process = followers[name].process
            if followers[name].delivered() >= due[name]:
                taken[name] = (process.cpu() - before[name]) / given.rows * 1e6
            elif not process.alive() or time.monotonic() > deadline:
                raise Failed(f"{name}: did not take its rows: {process.complaint()}")
        time.sleep(0.02)
    given.path.unlink()
    for each in followers.values():
        (each.source / given.path.name).unlink()
        shutil.rmtree(each.results)
    return taken


def _write(folder: Path, number: int, body: bytes) -> Given:
    """`body` behind a row of its own: files that begin alike would be one that was moved."""
    head = b"".join(rows(1, first=1_000_000 + number))
    path = folder / f"{number}.ndjson"
    with path.open("wb") as file:
        file.write(head)
        file.write(body)
    return Given(path, *((head + body).count(text) for text in (b"\n", b'"ok"')))


def _scratch(plan: Plan, size: int) -> AbstractContextManager[Path]:
    """In memory if there is room for files of `size`: who waits for a disk is not at full speed."""
    roomy = _MEMORY.is_dir() and shutil.disk_usage(_MEMORY).free > _ROOM * size
    return (plan._replace(folder=_MEMORY) if roomy else plan).scratch()
