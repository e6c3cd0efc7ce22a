"""What every source promises: no row lost or doubled, from wherever a start goes on."""

import asyncio
import time
from collections.abc import Callable, Sequence
from pathlib import Path

import polars as pl
from polars.testing import assert_frame_equal

from edge.sources import Arrival, Source

IDLE = 40  # Nones in a row after which a source that never ends has no more
_ARRIVED = "edge_received"

Build = Callable[[], Source]
"""A new source, bound, over the same rows, as after a start of the process."""


async def _read(
    source: Source, position: bytes | None, most: int, kept: list[bytes] | None
) -> list[Arrival]:
    found: list[Arrival] = []
    arrivals, idle = source.arrivals(position), 0
    try:
        async for arrival in arrivals:
            idle = idle + 1 if arrival is None else 0
            if arrival is not None:
                found.append(arrival)
                if kept is not None:
                    kept.append(source.snapshot(False) or b"")
            if len(found) == most or (idle > IDLE and not source.finite):
                break
    finally:
        await arrivals.aclose()
        await source.close()
    return found


def read(
    source: Source,
    position: bytes | None = None,
    most: int = 10**6,
    kept: list[bytes] | None = None,
) -> list[Arrival]:
    """Arrivals until there are no more or `most` of them came, as the runner takes them.

    kept: gets what is to be remembered of each arrival.
    """
    return asyncio.run(_read(source, position, most, kept))


def restored(build: Build, kept: Sequence[bytes]) -> Source:
    """A source as after a start, which remembers what was committed."""
    source = build()
    source.restore([state for state in kept if state])
    return source


def same(arrivals: Sequence[Arrival], others: Sequence[Arrival]) -> None:
    """Both brought the same rows and the same rejects, however they were cut."""
    rejects = [[each for one in many for each in one.rejects] for many in (arrivals, others)]
    assert rejects[0] == rejects[1]
    frames = [[one.frame.drop(_ARRIVED) for one in many] for many in (arrivals, others)]
    heights = [sum(frame.height for frame in many) for many in frames]
    assert heights[0] == heights[1], f"{heights[0]} rows came, expected {heights[1]}"
    if heights[0]:
        assert_frame_equal(pl.concat(frames[0]), pl.concat(frames[1]))


def resumes_from_each_position(build: Build) -> None:
    """From each position it ever gave come the rows after it, and no other."""
    kept: list[bytes] = []
    arrivals = read(build(), kept=kept)
    assert len(arrivals) > 4, "let it give more arrivals: fewer rows in each, or more rows"
    # Of very many every so manyth, and the last.
    some = {*range(0, len(arrivals), 1 + len(arrivals) // 40), len(arrivals) - 1}
    for index in sorted(some):
        rest = read(restored(build, kept[: index + 1]), arrivals[index].position)
        same(rest, arrivals[index + 1 :])


def repeats_what_was_not_committed(build: Build) -> None:
    """An arrival that was handed over and not committed comes again after a start."""
    kept: list[bytes] = []
    first, second = read(build(), most=2, kept=kept)
    again = read(restored(build, kept[:1]), first.position)
    rows = pl.concat([arrival.frame for arrival in again]).head(second.frame.height)
    assert_frame_equal(rows.drop(_ARRIVED), second.frame.drop(_ARRIVED))


def yields_at_least_once_a_second(build: Build) -> None:
    """So that the runner can do other things; a busy machine may hold it up now and then."""

    async def longest() -> float:
        source, pauses, last, idle = build(), [0.0], time.monotonic(), 0
        async for arrival in source.arrivals(None):
            pauses.append(time.monotonic() - last)
            last = time.monotonic()
            idle = idle + 1 if arrival is None else 0
            if idle > IDLE and not source.finite:
                break
        await source.close()
        return max(pauses)

    assert any(asyncio.run(longest()) < 1 for _ in range(3))


def accounts_for_what_it_read(build: Build) -> None:
    """`read = rejected + redelivered + retained + taken`, for every arrival."""
    for arrival in read(build()):
        left = len(arrival.rejects) + arrival.redelivered + arrival.retained
        assert arrival.read == arrival.frame.height + left
        assert arrival.frame.columns[-1] == _ARRIVED


class SourcePromises:
    """Subclass it as `TestName`, with `prepare` and `build`; every promise is a test of pytest.

    The rows must come in more than four arrivals: bind it with `Batch(rows=1)`.
    """

    def prepare(self, folder: Path) -> None:
        """Put the rows where it reads, below a folder of the test's own."""

    def build(self, folder: Path) -> Source:
        """A new source, bound, over what `prepare` made."""
        raise NotImplementedError

    def _ready(self, folder: Path) -> Build:
        self.prepare(folder)
        return lambda: self.build(folder)

    def test_resumes_from_each_position_it_ever_gave(self, tmp_path: Path) -> None:
        """Nothing lost, nothing doubled after a start."""
        resumes_from_each_position(self._ready(tmp_path))

    def test_repeats_what_was_not_committed(self, tmp_path: Path) -> None:
        """A crash before the commit loses nothing."""
        repeats_what_was_not_committed(self._ready(tmp_path))

    def test_yields_at_least_once_a_second(self, tmp_path: Path) -> None:
        """The runner is never held up."""
        yields_at_least_once_a_second(self._ready(tmp_path))

    def test_what_was_read_is_taken_or_rejected(self, tmp_path: Path) -> None:
        """The ledger can balance."""
        accounts_for_what_it_read(self._ready(tmp_path))
