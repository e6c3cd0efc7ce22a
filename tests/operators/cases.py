"""One case per operator: its options, and the same thing as a plain loop over rows."""

import re
from collections.abc import Callable, Iterable, Iterator
from datetime import UTC, datetime, timedelta
from math import isfinite, isnan
from pathlib import Path
from typing import Any, NamedTuple

import polars as pl

from edge.component import Stream
from edge.expression import TIMESTAMP
from edge.operators import Operator, find_operator
from tests.operators.windows import AGGREGATE, WindowLoop

Row = dict[str, Any]
SWEEP = 8
"""The tests sweep memories after this many rows."""

COLUMNS = pl.Schema(
    {
        "ts": TIMESTAMP,
        "device": pl.String(),
        "x": pl.Float64(),
        "n": pl.Int64(),
        "status": pl.String(),
        "ok": pl.Boolean(),
        "edge_received": TIMESTAMP,
    }
)
STREAM = Stream(time="ts", key=("device",))


class Case(NamedTuple):
    """loop: what the operator must give, from all rows of a stream at once."""

    operator: str
    options: Any
    loop: Callable[[list[Row]], Iterable[Row]]

    def __str__(self) -> str:
        """The same in every process, as names of tests must be: without addresses."""
        return re.sub(r"<function (\w+) at \w+>", r"\1", f"{self.operator}-{self.options}")[:60]

    def make(self) -> tuple[Operator, pl.Schema]:
        operator = find_operator(self.operator).model_validate(self.options)
        assert isinstance(operator, Operator)
        return operator, operator.bind(COLUMNS, STREAM)


def add_double(row: Row) -> list[Row] | Row | None:
    """What the `rows: true` case calls."""
    if row["n"] is None:
        return None
    double = row | {"n": row["n"] * 2}
    return [row, double] if row["ok"] else double


def warm_only(frame: pl.DataFrame) -> pl.DataFrame:
    """What the case over columns calls."""
    warm = frame.filter(pl.col("n") > 0).with_columns(y=pl.col("n") * 0.5)
    return warm.select("ts", "device", "n", "edge_received", "y")


def _number(value: float | None) -> bool:
    return value is not None and not isnan(value)


def _filter(rows: list[Row]) -> Iterator[Row]:
    for row in rows:
        if (_number(row["x"]) and row["x"] > 1.0) or row["status"] == "ok":
            yield row


def _not_above(rows: list[Row]) -> Iterator[Row]:
    for row in rows:
        if _number(row["x"]) and not row["x"] > 1.0:
            yield row


def _since(rows: list[Row]) -> Iterator[Row]:
    start = datetime(2024, 5, 1, 0, 1, tzinfo=UTC)
    for row in rows:
        if row["ts"] is not None and row["ts"] >= start:
            yield row


def _derive(rows: list[Row]) -> Iterator[Row]:
    for row in rows:
        n = None if row["n"] is None else row["n"] * 2
        high = None if n is None else n > 4
        size = None if row["status"] is None else len(row["status"]) - 5
        level = "high" if high else "low"
        yield row | {"n": n, "high": high, "size": size, "level": level}


def _cast(rows: list[Row]) -> Iterator[Row]:
    for row in rows:
        x, n, ok = row["x"], row["n"], row["ok"]
        whole = int(x) if x is not None and isfinite(x) and abs(x) < 2**63 else None
        number = None if ok is None else float(ok)
        text = None if n is None else str(n)
        yield row | {"x": whole, "n": text, "ok": number, "status": None}


def _select(rows: list[Row]) -> Iterator[Row]:
    for row in rows:
        yield {"x": row["x"], "ts": row["ts"]}


def _drop(rows: list[Row]) -> Iterator[Row]:
    for row in rows:
        yield {name: value for name, value in row.items() if name not in ("n", "ok")}


def _rename(rows: list[Row]) -> Iterator[Row]:
    for row in rows:
        names = {"x": "n", "n": "x"}
        yield {names.get(name, name): value for name, value in row.items()}


def _kind(value: float | None) -> str:
    if value is None or isnan(value):
        return str(value)
    return "number" if isfinite(value) else str(value)


class _Deadband:
    """The plain loop of `deadband`, with the forgetting of keys."""

    def __init__(self, band: Callable[[float], float], beat: int | None, limit: int) -> None:
        self.band = band
        self.beat = None if beat is None else timedelta(seconds=beat)
        self.limit = limit

    def __call__(self, rows: list[Row]) -> Iterator[Row]:
        last: dict[Any, tuple[float | None, datetime | None]] = {}
        for count, row in enumerate(rows, 1):
            key, x, now = row["device"], row["x"], row["ts"]
            if key not in last or self._passes(x, now, *last[key]):
                yield row
                last[key] = (x, now or (last[key][1] if key in last else None))
            if count % SWEEP == 0:
                for key in _oldest(last, lambda key: last[key][1])[: -self.limit]:
                    del last[key]

    def _passes(self, x: Any, now: Any, last: Any, seen: Any) -> bool:
        if self.beat and now and (seen is None or now - seen >= self.beat):
            return True
        if _kind(x) != _kind(last):
            return True
        return _kind(x) == "number" and abs(x - last) > self.band(last)


def _oldest(keys: Iterable[Any], time: Callable[[Any], datetime | None]) -> list[Any]:
    """As texts the keys sort `"a"` < `"b"` < null, in JSON."""
    start = datetime(1970, 1, 1, tzinfo=UTC)
    return sorted(keys, key=lambda key: (time(key) is not None, time(key) or start, _text(key)))


def _text(key: Any) -> str:
    parts = key if isinstance(key, tuple) else (key,)
    return ",".join("null" if part is None else f'"{part}"' for part in parts)


class _Dedupe:
    """The plain loop of `dedupe` over device and status, with the forgetting of rows."""

    def __init__(self, within: int | None, count: int | None, limit: int) -> None:
        self.within = within and timedelta(seconds=within)
        self.count = count
        self.limit = limit

    def __call__(self, rows: list[Row]) -> Iterator[Row]:
        kept: list[tuple[Any, Any, Any]] = []  # series, what is compared, event time
        for position, row in enumerate(rows, 1):
            item = (row["device"], (row["device"], row["status"]), row["ts"])
            if not self._known(kept, *item):
                yield row
                if self.count or row["ts"]:
                    kept.append(item)
            if position % SWEEP == 0:
                kept = self._limited(kept)

    def _reach(self, kept: list[Any], series: Any, now: Any) -> list[Any]:
        """The kept rows of the series that still count, newest of each kind only."""
        mine = [item for item in kept if item[0] == series]
        if self.count:
            return mine[-self.count :]
        newest = max(item[2] for item in [*mine, (None, None, now)] if item[2])
        return [item for item in mine if newest - item[2] < self.within]

    def _known(self, kept: list[Any], series: Any, what: Any, now: Any) -> bool:
        if self.within and now is None:
            return False
        equal = [item for item in self._reach(kept, series, now) if item[1] == what]
        if self.count or not equal:
            return bool(equal)
        return bool(max(item[2] for item in equal) - now < self.within)

    def _limited(self, kept: list[Any]) -> list[Any]:
        alive = []
        for series in {item[0] for item in kept}:
            alive += self._reach(kept, series, None)
        newest: dict[Any, Any] = {}
        for _, what, now in alive:
            if what is not None:
                newest[what] = now if self.count else max(now, newest.get(what, now))
        gone = _oldest(newest, lambda what: newest[what])[: -self.limit]
        # a forgotten row still counts among the last ones kept, unless it was the very last
        left = [(item[0], None if item[1] in gone else item[1], item[2]) for item in alive]
        last = {item[0]: index for index, item in enumerate(left) if item[1] is not None}
        return [
            item
            for index, item in enumerate(left)
            if index <= last.get(item[0], -1) and (item[1] is not None or self.count)
        ]


class _Sample:
    """The plain loop of `sample: {every: ...}`, with the forgetting of keys."""

    def __init__(self, every: int, limit: int) -> None:
        self.every = timedelta(seconds=every)
        self.limit = limit

    def __call__(self, rows: list[Row]) -> Iterator[Row]:
        stamps: dict[Any, datetime] = {}  # of the row that opened the newest interval
        passed: dict[Any, set[int]] = {}  # the intervals of each key from which a row passed
        for position, row in enumerate(rows, 1):
            key, now = row["device"], row["ts"]
            if now is None:
                yield row
            else:
                interval = (now - datetime(1970, 1, 1, tzinfo=UTC)) // self.every
                mine = passed.setdefault(key, set())
                if mine and max(mine) - interval >= 64:
                    mine.clear()
                if interval not in mine:
                    yield row
                    stamps[key] = now if not mine or interval > max(mine) else stamps[key]
                mine.add(interval)
                passed[key] = {each for each in mine if max(mine) - each < 64}
            if position % SWEEP == 0:
                for key in _oldest(passed, lambda key: stamps[key])[: -self.limit]:
                    del passed[key]


class _Every:
    """The plain loop of `sample: {rows: ...}`."""

    def __init__(self, many: int, limit: int) -> None:
        self.many = many
        self.limit = limit

    def __call__(self, rows: list[Row]) -> Iterator[Row]:
        seen: dict[Any, list[Row]] = {}
        for position, row in enumerate(rows, 1):
            mine = seen.setdefault(row["device"], [])
            if len(mine) % self.many == 0:
                yield row
            mine.append(row)
            if position % SWEEP == 0:
                for key in _oldest(seen, lambda key: _latest(seen[key]))[: -self.limit]:
                    del seen[key]


def _latest(rows: list[Row]) -> datetime | None:
    return max((row["ts"] for row in rows if row["ts"]), default=None)


class _Join:
    """The plain loop of `join`: rows with status ok give their x and n to the others."""

    def __init__(
        self,
        tolerance: int,
        limit: int = 99,
        history: int = 8,
        *,
        keep: bool = False,
        drop: bool = False,
    ) -> None:
        self.tolerance = timedelta(seconds=tolerance)
        self.limit, self.history, self.keep, self.drop = limit, history, keep, drop

    def __call__(self, rows: list[Row]) -> Iterator[Row]:
        others: dict[Any, list[Row]] = {}
        for count, row in enumerate(rows, 1):
            key, now = row["device"], row["ts"]
            if row["status"] == "ok":
                if now:
                    others[key] = [*others.get(key, []), row][-self.history :]
                if self.keep:
                    yield row | {"y": None, "m": None}
            else:
                there = [other for other in others.get(key, []) if now and other["ts"] <= now]
                newest = max((other["ts"] for other in there), default=None)
                if newest and now - newest <= self.tolerance:
                    other = [other for other in there if other["ts"] == newest][-1]
                    yield row | {"y": other["x"], "m": other["n"]}
                elif not self.drop:
                    yield row | {"y": None, "m": None}
            if count % SWEEP == 0:
                for key in _oldest(others, lambda key: others[key][-1]["ts"])[: -self.limit]:
                    del others[key]


class _Compress:
    """The plain loop of `compress`: a line to each new row is tried against all rows since."""

    def __init__(self, error: float, gap: int, limit: int) -> None:
        self.error, self.gap, self.limit = error, timedelta(seconds=gap), limit

    def __call__(self, rows: list[Row]) -> Iterator[Row]:
        # Of each key the rows since the last that passed, that one first; the last one is held.
        lines: dict[Any, list[Row]] = {}
        back: set[Any] = set()  # keys of which the last row was earlier than the newest
        for count, row in enumerate(rows, 1):
            key, now = row["device"], row["ts"]
            line = lines.get(key, [])
            newest = line[-1]["ts"] if line else None
            set_back = bool(now and newest and now < newest)
            if now is None or now == newest:
                yield row
            elif set_back and key not in back:
                yield row
                back.add(key)
            else:
                yield from self._take(line, row, set_back)
                back.discard(key)
                lines[key] = line
            if count % SWEEP == 0:
                for key in _oldest(lines, lambda key: lines[key][-1]["ts"])[: -self.limit]:
                    yield from lines.pop(key)[1:][-1:]
                    back.discard(key)

    def _take(self, line: list[Row], row: Row, set_back: bool) -> Iterator[Row]:
        is_number = _kind(row["x"]) == "number"
        was_number = bool(line) and _kind(line[-1]["x"]) == "number"
        if is_number and was_number and not set_back:
            if len(line) > 1 and not self._fits(line, row):
                yield line[-1]
                line[:] = line[-1:]
            line.append(row)
            return
        yield from line[1:][-1:]
        if is_number or was_number or not line or set_back:
            yield row
        line[:] = [row]

    def _fits(self, line: list[Row], row: Row) -> bool:
        start = line[0]
        if row["ts"] - start["ts"] > self.gap:
            return False

        def slope(other: Row, off: float) -> float:
            span = (other["ts"] - start["ts"]) // timedelta(microseconds=1)
            return float((other["x"] + off - start["x"]) / span)

        return all(
            slope(other, -self.error) <= slope(row, 0.0) <= slope(other, self.error)
            for other in line[1:]
        )


DEVICES = str(Path(__file__).with_name("devices.csv"))
_FOUND = {"a": {"place": "osaka", "limit": 20.5}, "c": {"place": "kyoto", "limit": 30.0}}


def _lookup(rows: list[Row]) -> Iterator[Row]:
    for row in rows:
        yield row | _FOUND.get(row["device"], {"place": None, "limit": None})


def _lookup_or_drop(rows: list[Row]) -> Iterator[Row]:
    for row in rows:
        if row["device"] in _FOUND:
            yield row | {"site": _FOUND[row["device"]]["place"]}


def _rows(rows: list[Row]) -> Iterator[Row]:
    for row in rows:
        answer = add_double(row)
        if isinstance(answer, list):
            yield from answer
        elif answer is not None:
            yield answer


def _columns(rows: list[Row]) -> Iterator[Row]:
    for row in rows:
        if row["n"] is not None and row["n"] > 0:
            kept = {name: row[name] for name in ("ts", "device", "n", "edge_received")}
            yield {"y": row["n"] * 0.5} | kept


CASES = [
    Case("filter", "x > 1.0 OR status = 'ok'", _filter),
    Case("filter", "NOT x > 1.0", _not_above),
    Case("filter", "ts >= '2024-05-01T00:01:00Z'", _since),
    Case(
        "derive",
        {
            "n": "n * 2",
            "high": "n > 4",
            "size": "LENGTH(status) - 5",
            "level": "CASE WHEN high THEN 'high' ELSE 'low' END",
        },
        _derive,
    ),
    Case("select", ["x", "ts"], _select),
    Case("drop", ["n", "ok"], _drop),
    Case("rename", {"x": "n", "n": "x"}, _rename),
    Case("cast", {"x": "int", "n": "str", "ok": "float", "status": "timestamp"}, _cast),
    Case("deadband", {"column": "x", "change": 0.5}, _Deadband(lambda last: 0.5, None, 9)),
    Case(
        "deadband",
        {"column": "x", "change": "10%", "heartbeat": "1m", "max_keys": 1},
        _Deadband(lambda last: abs(last) * 0.1, 60, 1),
    ),
    Case("dedupe", {"columns": ["status"], "within": "1m"}, _Dedupe(60, None, 99)),
    Case(
        "dedupe",
        {"columns": ["status"], "within": "1m", "max_rows": 2},
        _Dedupe(60, None, 2),
    ),
    Case("dedupe", {"columns": ["status"], "count": 1}, _Dedupe(None, 1, 99)),
    Case("dedupe", {"columns": ["status"], "count": 2, "max_rows": 3}, _Dedupe(None, 2, 3)),
    Case("compress", {"column": "x", "error": 1.5}, _Compress(1.5, 10**6, 99)),
    Case(
        "compress",
        {"column": "x", "error": 5, "max_gap": "30s", "max_keys": 1},
        _Compress(5, 30, 1),
    ),
    Case("sample", "20s", _Sample(20, 99)),
    Case("sample", {"every": "1s", "max_keys": 2}, _Sample(1, 2)),
    Case("sample", {"rows": 3}, _Every(3, 99)),
    Case("sample", {"rows": 2, "max_keys": 1}, _Every(2, 1)),
    *(
        Case(
            "join",
            {"series": "status = 'ok'", "columns": {"y": "x", "m": "n"}, **options},
            loop,
        )
        for options, loop in (
            ({"tolerance": "1m"}, _Join(60)),
            ({"tolerance": "20s", "max_keys": 1, "missing": "drop"}, _Join(20, 1, drop=True)),
            ({"tolerance": "1h", "keep": True}, _Join(3600, keep=True)),
            ({"tolerance": "1h", "history": 2}, _Join(3600, history=2)),
        )
    ),
    Case(
        "lookup",
        {"file": DEVICES, "by": "device", "columns": {"place": "site", "limit": "limit"}},
        _lookup,
    ),
    Case(
        "lookup",
        {"file": DEVICES, "by": {"device": "device"}, "columns": ["site"], "missing": "drop"},
        _lookup_or_drop,
    ),
    *(
        Case("window", {"aggregate": AGGREGATE, **options}, loop)
        for options, loop in (
            ({"size": "10s"}, WindowLoop(size=10)),
            (
                {"size": "10s", "every": "4s", "allowed_lateness": "3s"},
                WindowLoop(size=10, every=4, lateness=3),
            ),
            ({"gap": "7s"}, WindowLoop(gap=7)),
            ({"rows": 3}, WindowLoop(rows=3)),
            (
                {"size": "20s", "allowed_lateness": "30s", "max_keys": 2, "forget": "40s"},
                WindowLoop(size=20, lateness=30, max_keys=2, forget=40, sweep=SWEEP),
            ),
            ({"rows": 2, "max_keys": 1}, WindowLoop(rows=2, max_keys=1, sweep=SWEEP)),
        )
    ),
    Case("python", {"function": f"{__name__}:add_double", "rows": True}, _rows),
    Case(
        "python",
        {
            "function": warm_only,
            "columns": {"y": "float", "ts": "timestamp", "device": "str", "n": "int"},
        },
        _columns,
    ),
]
