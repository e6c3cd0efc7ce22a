"""The plain loop of `window`: row after row, every window with all its rows in a list."""

import statistics
from collections.abc import Callable, Iterator, Mapping, Sequence
from datetime import UTC, datetime, timedelta
from typing import Any

Row = dict[str, Any]

AGGREGATE = {
    "n_rows": "COUNT(*)",
    "n_x": "COUNT(x)",
    "kinds": "COUNT(DISTINCT status)",
    "total": "SUM(n)",
    "mean": "AVG(n)",
    "low": "MIN(x)",
    "high": "MAX(x)",
    "oldest": "FIRST(n)",
    "newest": "LAST(n)",
    "spread": "STDDEV(n)",
    "square": "VARIANCE(n)",
    "middle": "MEDIAN(n)",
    "most": "QUANTILE(n, 0.9)",
}
EPOCH = datetime(1970, 1, 1, tzinfo=UTC)


def seconds(number: float) -> timedelta:
    return timedelta(seconds=number)


class Key:
    """What is known of one key: its latest time, and its open windows as start -> rows."""

    def __init__(self) -> None:
        self.latest: datetime | None = None
        self.open: dict[Any, list[Row]] = {}
        self.sessions = 0


class WindowLoop:
    """size, every, gap, lateness and forget in seconds; sweep: rows between two sweeps."""

    def __init__(
        self,
        *,
        size: int = 0,
        every: int = 0,
        gap: int = 0,
        rows: int = 0,
        lateness: int = 0,
        max_keys: int = 10**6,
        forget: int = 10**6,
        sweep: int = 10**6,
    ) -> None:
        self.size, self.every = seconds(size), seconds(every or size)
        self.gap, self.rows, self.lateness = seconds(gap), rows, seconds(lateness)
        self.max_keys, self.forget, self.sweep = max_keys, seconds(forget), sweep
        self.keys: dict[Any, Key] = {}
        self.late = 0

    def __call__(self, rows: list[Row]) -> Iterator[Row]:
        """The results that come out before the end."""
        self.keys, self.late = {}, 0
        for count, row in enumerate(rows, 1):
            yield from self.take(row)
            if count % self.sweep == 0:
                yield from self.forget_some()

    def take(self, row: Row) -> Iterator[Row]:
        now = row["ts"]
        if now is None and not self.rows:
            self.late += 1
            return
        key = self.keys.setdefault(row["device"], Key())
        before = key.latest
        if now is not None:
            key.latest = max(now, before or now)
        if self.rows:
            yield from self._count(key, row)
        elif self.gap:
            yield from self._session(key, row, before)
        else:
            yield from self._sized(key, row, before)

    def _count(self, key: Key, row: Row) -> Iterator[Row]:
        key.open.setdefault(0, []).append(row)
        if len(key.open[0]) == self.rows:
            yield self._result(0, key.open.pop(0))

    def _session(self, key: Key, row: Row, before: datetime | None) -> Iterator[Row]:
        if before is not None and row["ts"] + self.gap <= before:
            self.late += 1
            return
        if before is not None and row["ts"] - before >= self.gap:
            yield from self._all_of(key)
        key.open.setdefault(0, []).append(row)

    def _sized(self, key: Key, row: Row, before: datetime | None) -> Iterator[Row]:
        first = EPOCH + (row["ts"] - EPOCH) // self.every * self.every
        starts = []
        while first + self.size > row["ts"]:
            starts.append(first)
            first -= self.every
        alive = [
            start
            for start in starts
            if before is None or start + self.size + self.lateness > before
        ]
        self.late += not alive
        for start in alive:
            key.open.setdefault(start, []).append(row)
        assert key.latest is not None
        for start in sorted(key.open):
            if start + self.size + self.lateness <= key.latest:
                yield self._result(start, key.open.pop(start))

    def forget_some(self) -> Iterator[Row]:
        def age(name: Any) -> tuple[Any, ...]:
            latest = self.keys[name].latest
            return latest is not None, latest or EPOCH, name is not None, name or ""

        names = sorted(self.keys, key=age)
        latest = max((key.latest for key in self.keys.values() if key.latest), default=None)
        old = set(names[: max(0, len(names) - self.max_keys)])
        for name in names:
            mine = self.keys[name].latest
            if latest and mine and mine < latest - self.forget:
                old.add(name)
        yield from self.flush(old)
        for name in old:
            del self.keys[name]

    def flush(self, names: set[Any] | None = None) -> list[Row]:
        """Close all windows of some keys, or of all."""
        chosen = self.keys if names is None else names
        results = [result for name in chosen for result in self._all_of(self.keys[name])]

        def order(result: Row) -> tuple[Any, ...]:
            end, name = result["window_end"], result["device"]
            start = result["ts"] or EPOCH
            return end is not None, end or EPOCH, name is not None, name or "", start

        return sorted(results, key=order)

    def _all_of(self, key: Key) -> Iterator[Row]:
        for start in sorted(key.open):
            yield self._result(start, key.open.pop(start))

    def _result(self, start: Any, rows: Sequence[Row]) -> Row:
        times = [row["ts"] for row in rows if row["ts"] is not None]
        first, last = min(times, default=None), max(times, default=None)
        if self.gap:
            assert last is not None
            last += self.gap
        elif not self.rows:
            first, last = start, start + self.size
        found = {name: make(rows, self.rows > 0) for name, make in _MADE.items()}
        return {"device": rows[0]["device"], "ts": first, "window_end": last, **found}


def _values(rows: Sequence[Row], column: str) -> list[Any]:
    return [row[column] for row in rows if row[column] is not None and row[column] == row[column]]


def _by_time(rows: Sequence[Row], column: str, by_arrival: bool) -> list[Any]:
    there = [row for row in rows if row[column] is not None]
    return [row[column] for row in (there if by_arrival else sorted(there, key=lambda r: r["ts"]))]


def _when(make: Callable[[list[Any]], Any], least: int = 1) -> Callable[[Sequence[Row], bool], Any]:
    def of(rows: Sequence[Row], by_arrival: bool) -> Any:
        values = _values(rows, "n")
        return make(values) if len(values) >= least else None

    return of


def _quantile(values: list[int], share: float) -> float:
    values = sorted(values)
    place = share * (len(values) - 1)
    low = int(place)
    high = min(low + 1, len(values) - 1)
    return values[low] + (values[high] - values[low]) * (place - low)


_MADE: Mapping[str, Callable[[Sequence[Row], bool], Any]] = {
    "n_rows": lambda rows, _: len(rows),
    "n_x": lambda rows, _: len(_values(rows, "x")),
    "kinds": lambda rows, _: len(set(_values(rows, "status"))),
    "total": _when(sum),
    "mean": _when(statistics.fmean),
    "low": lambda rows, _: min(_values(rows, "x"), default=None),
    "high": lambda rows, _: max(_values(rows, "x"), default=None),
    "oldest": lambda rows, by_arrival: next(iter(_by_time(rows, "n", by_arrival)), None),
    "newest": lambda rows, by_arrival: next(iter(_by_time(rows, "n", by_arrival)[::-1]), None),
    "spread": _when(statistics.stdev, 2),
    "square": _when(statistics.variance, 2),
    "middle": _when(statistics.median),
    "most": _when(lambda values: _quantile(values, 0.9)),
}
