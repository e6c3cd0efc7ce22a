"""Where the keys stand in the frames of what is open, so that a few are found without looking."""

from array import array
from collections.abc import Sequence
from itertools import chain
from typing import Any, NamedTuple

import polars as pl

from edge.windows.frames import rows_at, without
from edge.windows.kinds import WINDOW

_PLACE = "\0place"
PATIENCE = 64
"""So many times the frames are searched before an index is made: it is lost when many rows come."""


class Frames(NamedTuple):
    """keys: one row for each. windows: one row for each open window."""

    keys: pl.DataFrame
    windows: pl.DataFrame


class Index:
    """Takes keys out of frames that stay as they are: their rows are stale from then on.

    `tidy` gives frames without stale rows. Without an index a search reads all names.
    """

    def __init__(self, names: Sequence[str]) -> None:
        self._names = list(names)
        self.clear()

    def clear(self) -> None:
        """The frames are others now, without stale rows."""
        self._searches = 0
        self._rows: dict[tuple[Any, ...], int] | None = None
        self._first, self._count = array("q"), array("q")  # of each key's windows
        self.stale_keys: list[int] = []
        self.stale_windows: list[int] = []

    def take(self, frames: Frames, names: Sequence[tuple[Any, ...]]) -> Frames:
        """The rows of some keys that were not taken before."""
        if self._rows is None:
            return self._search(frames, names)
        rows = [row for name in names if (row := self._rows.pop(name, None)) is not None]
        if not rows:
            return Frames(frames.keys.clear(), frames.windows.clear())
        ranges = (range(self._first[row], self._first[row] + self._count[row]) for row in rows)
        return self._taken(frames, rows, list(chain.from_iterable(ranges)))

    def _search(self, frames: Frames, names: Sequence[tuple[Any, ...]]) -> Frames:
        self._searches += 1
        schema = {name: frames.keys.schema[name] for name in self._names}
        wanted = pl.DataFrame(names, schema=schema, orient="row")
        return self._taken(
            frames,
            *(self._places(frame, wanted).to_list() for frame in (frames.keys, frames.windows)),
        )

    def _places(self, frame: pl.DataFrame, wanted: pl.DataFrame) -> pl.Series:
        numbered = frame.select(self._names).with_row_index(_PLACE)
        return numbered.join(wanted, on=self._names, how="semi", nulls_equal=True)[_PLACE]

    def _taken(self, frames: Frames, rows: list[int], windows: list[int]) -> Frames:
        self.stale_keys += rows
        self.stale_windows += windows
        return Frames(rows_at(frames.keys, rows), rows_at(frames.windows, windows))

    @property
    def is_wanted(self) -> bool:
        """Whether `make` would be worth its time."""
        return self._rows is None and self._searches >= PATIENCE

    def make(self, frames: Frames) -> Frames:
        """An index over the same rows in another order; none of them may be stale."""
        names = frames.keys.select(self._names).with_row_index(_PLACE)
        windows = frames.windows.join(names, on=self._names, nulls_equal=True)
        windows = windows.sort(_PLACE, WINDOW)
        self.clear()
        self._rows = {}
        counts = windows.group_by(_PLACE).len()
        held = names.join(counts, on=_PLACE, how="left", maintain_order="left")["len"].fill_null(0)
        self._note(frames.keys, held.to_list())
        return Frames(frames.keys, windows.drop(_PLACE))

    def _note(self, keys: pl.DataFrame, counts: Sequence[int]) -> None:
        assert self._rows is not None
        first = self._first[-1] + self._count[-1] if self._first else 0
        for name, count in zip(keys.select(self._names).iter_rows(), counts, strict=True):
            self._rows[name] = len(self._first)
            self._first.append(first)
            self._count.append(count)
            first += count

    def lose(self) -> None:
        """No index any more; what is stale stays so."""
        self._rows = None

    def add(self, frames: Frames, more: Frames, counts: Sequence[int]) -> Frames:
        """With rows of keys that are not there, of which each has so many windows, in order."""
        if self._rows is None or len(self.stale_keys) > frames.keys.height // 2:
            frames = self.tidy(frames)
        else:
            self._note(more.keys, counts)
        return Frames(*(pl.concat(pair, rechunk=True) for pair in zip(frames, more, strict=True)))

    def tidy(self, frames: Frames) -> Frames:
        """The frames without stale rows; the index is lost."""
        places = self.stale_keys, self.stale_windows
        self.clear()
        return Frames(*(without(*pair) for pair in zip(frames, places, strict=True)))
