"""What a running pipeline counts for those who look at it: latencies, newest rows, link times."""

import bisect
from collections import Counter, deque
from collections.abc import Callable, Sequence
from itertools import pairwise
from typing import NamedTuple

import polars as pl

from edge.clock import Clock
from edge.newest import RECEIVED, Newest
from edge.outbox.ledger import sink_part
from edge.outbox.model import Commit, Parcel

BOUNDS = (
    *(0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0),
    *(60.0, 300.0, 900.0, 3600.0, 4 * 3600.0, 24 * 3600.0, 7 * 24 * 3600.0),
)
"""Upper ends of the buckets of every histogram, seconds: from a commit to days without a link."""

_LOOKED_AT = 16  # rows of a batch whose latency is taken, evenly spread
_TIMELINE = 100  # changes of a link that are kept


class Histogram:
    """How many rows took how long, in buckets that end at BOUNDS; the last has no end."""

    def __init__(self) -> None:
        self.counts = [0] * (len(BOUNDS) + 1)
        self.sum = 0.0

    def add(self, seconds: float, rows: int = 1) -> None:
        """`rows` took `seconds`; below zero, after a clock was set, counts as zero."""
        seconds = max(0.0, seconds)
        self.counts[bisect.bisect_left(BOUNDS, seconds)] += rows
        self.sum += seconds * rows


def quantile(counts: Sequence[int], share: float) -> float | None:
    """Seconds that `share` of the rows took at most, straight within a bucket; None: no rows.

    What is above the last bound counts as the last bound.
    """
    wanted = share * sum(counts)
    if not wanted:
        return None
    for count, (low, high) in zip(counts, pairwise((0.0, *BOUNDS)), strict=False):
        if count >= wanted:
            return low + (high - low) * wanted / count
        wanted -= count
    return BOUNDS[-1]


class Change(NamedTuple):
    """A link went `up` or `down`, or is down for another reason; at: microseconds UTC."""

    at: int
    state: str
    why: str | None


class Timeline:
    """What became of a link while the processor ran; cheap enough to be kept always.

    tell: called on the event loop after each change, where somebody looks.
    """

    def __init__(self, clock: Clock) -> None:
        self.tell: Callable[[], None] | None = None
        self.changes: deque[Change] = deque(maxlen=_TIMELINE)
        self.retries = 0  # sends after which nothing, or not everything, had arrived
        self.last_delivery: int | None = None  # microseconds UTC
        self.next_try: int | None = None  # microseconds UTC; None while the way is open
        self._clock = clock

    def note(self, state: str, why: str | None = None) -> None:
        """How the link stands now; kept where that is something new."""
        if not self.changes or self.changes[-1][1:] != (state, why):
            self.changes.append(Change(self._clock.now(), state, why))
            if self.tell is not None:
                self.tell()

    def failed(self, pause: float) -> None:
        """What was sent has to be sent again, in `pause` seconds."""
        self.retries += 1
        self.next_try = self._clock.now() + round(pause * 1e6)

    def delivered(self) -> None:
        """Rows have arrived."""
        self.last_delivery, self.next_try = self._clock.now(), None


class Observation:
    """What one pipeline did since somebody began to look; used on the event loop only.

    counts: what went into the ledger since then, by (part, counter). durable: arrival to commit,
    delivered: commit to delivery by sink, in rows; commits: how long each commit took.
    """

    def __init__(self, clock: Clock, key: Sequence[str], time: str, sinks: Sequence[str]) -> None:
        self.counts: Counter[tuple[str, str]] = Counter()
        self.durable, self.commits = Histogram(), Histogram()
        self.delivered = {name: Histogram() for name in sinks}
        self.newest = Newest(clock, key, time)
        self._clock = clock

    def arrived(self, frame: pl.DataFrame) -> None:
        """Rows that a source brought are durable now, or set aside."""
        self.newest.add(frame)
        if not frame.height or RECEIVED not in frame.columns:
            return
        every = -(-frame.height // _LOOKED_AT)
        # By index: a slice with steps takes polars a hundred times as long.
        times = frame[RECEIVED].cast(pl.Int64)
        now, height = self._clock.now(), frame.height
        for place in range(0, height, every):
            self.durable.add((now - times[place]) / 1e6, min(every, height - place))

    def committed(self, commit: Commit, took: float) -> None:
        """What became durable, and in how many seconds."""
        self.counts.update(commit.counts)
        for sink, rows in commit.appended().items():
            self.counts[sink_part(sink), "appended"] += rows
        self.commits.add(took)

    def sent(self, sink: str, parcels: Sequence[Parcel]) -> None:
        """Parcels have arrived; each as old as its oldest row."""
        now = self._clock.now()
        for parcel in parcels:
            self.delivered[sink].add((now - parcel.time) / 1e6, parcel.rows)
            self.counts[sink_part(sink), "delivered"] += parcel.rows
