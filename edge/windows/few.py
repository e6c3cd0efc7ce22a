"""A few rows into their windows, one after the other in Python.

In a trickle all caches are cold when a batch comes, and the code of polars is large: five rows take
4.6 ms of processor time in forty calls, here 1.3 ms, of which half is writing down what changed.
"""

from collections.abc import Iterable, Iterator, Sequence
from itertools import chain, islice, repeat
from typing import Any, NamedTuple

import polars as pl

from edge.windows.aggregate import ORDER, Aggregate, value_column
from edge.windows.kinds import TIME, KeyState, Kind
from edge.windows.steps import Step

MOST = 200
"""Rows, as often as they are in a window; more go the general way."""

_LO, _HI, _COUNT, _NEW, _PARTS = range(5)
_KEY_KINDS = (pl.String(), pl.Boolean(), pl.Int64(), pl.Int32(), pl.Int16(), pl.Int8())

Name = tuple[Any, ...]
"""The values of the key columns."""


class FewRows(NamedTuple):
    """A batch column by column: the key of each row, its event time, what FIRST and LAST go by, and
    the value for each aggregate, null for NaN."""

    names: Sequence[Name]
    times: Sequence[int | None]
    orders: Sequence[int]
    values: Sequence[Iterable[Any]]


Row = tuple[Any, ...]
"""Of one of the frames, in the order of its columns."""


def read_rows(
    batch: pl.DataFrame, names: Iterable[str], aggregates: Iterable[Aggregate]
) -> FewRows:
    """A batch as `Windows.fold` gets it."""
    values: list[Iterable[Any]] = [
        repeat(True) if each.value is None else batch.get_column(value_column(each.name)).to_list()
        for each in aggregates
    ]
    return FewRows(
        list(zip(*(batch.get_column(name).to_list() for name in names), strict=True)),
        batch.get_column(TIME).to_list(),
        batch.get_column(ORDER).to_list(),
        values,
    )


def values_of(frame: pl.DataFrame, source: str | None) -> Iterable[Any]:
    """What a column holds, null for NaN; for None something for every row."""
    if source is None:
        return repeat(True)
    column = frame.get_column(source)
    values = column.to_list()
    if column.dtype.is_float():
        return [value if value == value else None for value in values]
    return values


class Ended(NamedTuple):
    """Windows that were closed, as rows of the columns of open ones; numbers of the late rows."""

    windows: list[Row]
    late: list[int]


class Few:
    """The keys that came lately, with their open windows, as Python values.

    keys: by name. touched: names of what changed since `told` was called. held: values that went
    into lists, those of windows that are closed by now too.
    """

    def __init__(self, kind: Kind, aggregates: Sequence[Aggregate], names: Sequence[str]) -> None:
        self.keys: dict[Name, KeyState] = {}
        self.touched: dict[Name, None] = {}
        self.held = 0
        self._kind = kind
        self._names = names
        self._steps: list[tuple[Step, int]] = []
        self._grows: list[int] = []
        self._sets: list[int] = []
        at = _PARTS
        for each in aggregates:
            assert each.step is not None
            self._steps.append((each.step, at))
            if each.parts[0].grows:
                self._grows.append(at)
                if isinstance(each.step.start()[0], dict):
                    self._sets.append(at)
            at += len(each.parts)

    @staticmethod
    def can_read(aggregates: Sequence[Aggregate], keys: Iterable[pl.DataType]) -> bool:
        """Whether all is of types that Python has as they are."""
        return all(each.step for each in aggregates) and all(kind in _KEY_KINDS for kind in keys)

    def clear(self) -> None:
        """Forget all."""
        self.keys.clear()
        self.touched.clear()
        self.held = 0

    # -- rows

    def unknown(self, names: Iterable[Name]) -> list[Name]:
        """Those that are not here."""
        return [name for name in dict.fromkeys(names) if name not in self.keys]

    def fold(self, rows: FewRows, clock: int) -> Ended:
        """Rows whose keys are all here, or new."""
        ended, late = list[Row](), list[int]()
        adds = [(step.add, at) for step, at in self._steps]
        values = zip(*rows.values, strict=False)
        each_row = zip(rows.names, rows.times, rows.orders, values, strict=False)
        for number, (name, time, order, row) in enumerate(each_row):
            key = self.keys.get(name)
            if key is None:
                key = self.keys[name] = KeyState()
            self.touched[name] = None
            key.seen = clock
            windows, anew = self._kind.place(key, time)
            if time is not None and (key.latest is None or time > key.latest):
                key.latest = time
            if not windows:
                late.append(number)
                continue
            if anew:
                ended += self._close(name, key, list(key.windows))
            for window in windows:
                kept = key.windows.get(window)
                if kept is None:
                    kept = key.windows[window] = self._begin()
                _count(kept, time)
                for (add, at), value in zip(adds, row, strict=True):
                    if value is not None:
                        add(kept, at, value, order)
            if over := self._kind.over(key):
                ended += self._close(name, key, over)
        return Ended(ended, late)

    def _begin(self) -> list[Any]:
        kept: list[Any] = [None, None, 0, True]
        for step, _ in self._steps:
            kept += step.start()
        return kept

    def _close(self, name: Name, key: KeyState, windows: Sequence[int]) -> Iterator[Row]:
        for window in sorted(windows):
            yield (*name, window, *self._plain(key.windows.pop(window)))

    # -- as rows of the frames

    def take(self, keys: pl.DataFrame, windows: pl.DataFrame) -> None:
        """Take over what is known of keys, and their open windows."""
        width = len(self._names)
        for row in keys.iter_rows():
            self.keys[row[:width]] = KeyState(*row[width:])
        for row in windows.iter_rows():
            kept = list(row[width + 1 :])
            for at in self._sets:
                kept[at] = dict.fromkeys(kept[at])
            self.held += sum(len(kept[at]) for at in self._grows)
            self.keys[row[:width]].windows[row[width]] = kept

    def key_rows(self, names: Iterable[Name]) -> Iterator[Row]:
        """What is known of some keys, in the order of the frame of keys."""
        for name in names:
            key = self.keys[name]
            yield (*name, key.latest, key.floor, key.seen)

    def window_rows(self, names: Iterable[Name], tails: bool = False) -> Iterator[Row]:
        """Their open windows, by number. tails: of a list that grows what is not written down."""
        for name in names:
            windows = self.keys[name].windows
            for window in sorted(windows):
                yield (*name, window, *self._plain(windows[window], tails))

    def _plain(self, kept: list[Any], tails: bool = False) -> list[Any]:
        if not self._grows:
            return kept
        plain = kept.copy()
        for at in self._grows:
            plain[at] = list(islice(kept[at], kept[at + 1] if tails else 0, None))
        return plain

    def told(self) -> None:
        """What was touched is written down."""
        if self._grows:
            for kept in chain.from_iterable(
                self.keys[name].windows.values() for name in self.touched
            ):
                for at in self._grows:
                    self.held += len(kept[at]) - kept[at + 1]
                    kept[at + 1] = len(kept[at])
        self.touched.clear()


def _count(kept: list[Any], time: int | None) -> None:
    kept[_COUNT] += 1
    kept[_NEW] = True
    if time is not None:
        if kept[_LO] is None or time < kept[_LO]:
            kept[_LO] = time
        if kept[_HI] is None or time > kept[_HI]:
            kept[_HI] = time
