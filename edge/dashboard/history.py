"""Numbers over time, in a bounded number of points: rates of the last seconds, hours of outbox."""

from collections import deque
from collections.abc import Sequence

from edge.clock import Clock
from edge.dashboard.diagram import Rates
from edge.observation import Observation

HOURS = 6
POINTS = 360

_FIRST = 2.0  # seconds between the first points; doubled whenever there are too many
_STEP = 60.0  # seconds that a clock may be set back by; until it is there again nothing is noted
_RATED = 5  # seconds over which rates are taken
_LATENCY = 300  # seconds over which latencies are taken
_LATENCY_EVERY = 5

Point = tuple[float, int, int]


class Filling:
    """[unix seconds, bytes, waiting rows] of the last hours: dense at first, then thinned out."""

    def __init__(self) -> None:
        self.points: list[Point] = []
        self._every = _FIRST

    def due(self, now: float) -> bool:
        """Whether it is time for the next point; a clock set back by much begins anew."""
        if self.points and now < self.points[-1][0] - _STEP:
            self.points = []
        return not self.points or now - self.points[-1][0] >= self._every

    def add(self, now: float, used: int, waiting: int) -> None:
        """One point."""
        self.points = [p for p in self.points if p[0] > now - HOURS * 3600]
        self.points.append((round(now, 1), used, waiting))
        if len(self.points) > POINTS:
            self.points = self.points[::-2][::-1]  # the newest stays
            self._every *= 2


class Pace:
    """What an observation says about the last seconds; looked at once a second."""

    def __init__(self, clock: Clock, observation: Observation) -> None:
        self._clock = clock
        self._observation = observation
        self._counts: deque[tuple[float, dict[tuple[str, str], int]]] = deque(maxlen=_RATED + 1)
        self._latencies: deque[tuple[float, dict[str, list[int]]]] = deque(
            maxlen=_LATENCY // _LATENCY_EVERY + 1
        )
        self.look()

    def look(self) -> None:
        """Remember what is counted now."""
        now = self._clock.steady()
        self._counts.append((now, dict(self._observation.counts)))
        if not self._latencies or now - self._latencies[-1][0] >= _LATENCY_EVERY:
            self._latencies.append((now, self._buckets()))

    def _buckets(self) -> dict[str, list[int]]:
        seen = self._observation
        sinks = {f"sink:{name}": list(each.counts) for name, each in seen.delivered.items()}
        return {"durable": list(seen.durable.counts), **sinks}

    def rates(self) -> Rates:
        """Rows a second by part and counter, over the last seconds."""
        then, before = self._counts[0]
        elapsed = self._clock.steady() - then
        if elapsed <= 0:
            return {}
        now = self._observation.counts
        return {
            name: round((rows - before.get(name, 0)) / elapsed, 1) for name, rows in now.items()
        }

    def latencies(self) -> dict[str, Sequence[int]]:
        """Rows by bucket of the last minutes: `durable`, and `sink:NAME` for what it delivered."""
        before = self._latencies[0][1]
        return {
            name: [b - a for a, b in zip(before[name], now, strict=True)]
            for name, now in self._buckets().items()
        }
