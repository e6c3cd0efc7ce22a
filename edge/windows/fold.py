"""What is open: rows go in, windows that are closed come out, and what changed is written down."""

from collections.abc import Iterable, Sequence
from functools import partial
from typing import TYPE_CHECKING, Any, NamedTuple

import polars as pl

from edge import small
from edge.expression import select, with_columns
from edge.windows import few, memory
from edge.windows.aggregate import Aggregate, Side
from edge.windows.few import Few, FewRows, read_rows
from edge.windows.frames import columns_of, from_rows, joined, without
from edge.windows.index import Frames, Index
from edge.windows.kinds import KEY, ROW, ROW_TYPE, TIME, WINDOW, Kind, close_by_next

if TYPE_CHECKING:
    from polars._typing import JoinStrategy, MaintainOrderJoin

_INT = pl.Int64()
_CAME = "\0came"
_SLOT = "slot"
MOST_FEW = 5_000  # keys as Python values, a kilobyte each
MOST_HELD = 200_000  # values that MEDIAN and the like have in them


class Limits(NamedTuple):
    """keys: most that are remembered. forget: a key is forgotten that lies so many microseconds
    behind the latest time of all."""

    keys: int
    forget: int


class Folded(NamedTuple):
    """closed: key columns, `start` and `end` in microseconds, what the aggregates kept; in the
    order in which they were closed. late: numbers of the rows that came too late, or None."""

    closed: pl.DataFrame
    late: pl.Series | None


class Windows:
    """The open windows of all keys, in two frames that are replaced and never changed.

    keys: one row per key; `m` is the latest event time, `f` the end of what was closed without a
    row, `a` the clock when the last row came. open: one row per open window; `new` tells whether
    rows came since its last early result. clock: microseconds in which somebody was there to see a
    key fall silent. rows: seen so far, late ones included; the operator counts them.
    """

    def __init__(
        self,
        kind: Kind,
        aggregates: Sequence[Aggregate],
        sample: pl.DataFrame,
        keys: Sequence[str],
        limits: Limits,
    ) -> None:
        """sample: an empty batch as `fold` will get it; keys: its key columns."""
        sample = sample.with_row_index(ROW)
        self._kind = kind
        self._aggregates = aggregates
        self._names = list(keys)
        self._limits = limits
        parts = {each.column(part.name): part for each in aggregates for part in each.parts}
        self._lists = {
            each.column(part.name): each.column("saved")
            for each in aggregates
            for part in each.parts
            if part.grows
        }
        self._collect = [
            pl.col(TIME).min().alias("lo"),
            pl.col(TIME).max().alias("hi"),
            pl.len().cast(_INT).alias("n"),
            pl.col(ROW).first().alias("first"),
            pl.col(ROW).last().alias("last"),
            *(part.collect.alias(name) for name, part in parts.items()),
        ]
        kept = sample.group_by(self._names).agg(self._collect).schema
        types = {name: kept[name] for name in self._names}
        numbers = dict.fromkeys((WINDOW, "lo", "hi", "n"), _INT)
        kinds = {name: kept[name] for name in parts}
        self._open_schema = pl.Schema({**types, **numbers, "new": pl.Boolean(), **kinds})
        self._keys_schema = pl.Schema({**types, "m": _INT, "f": _INT, "a": _INT})
        self._closed_schema = pl.Schema({**types, "start": _INT, "end": _INT, **kinds})
        self._none_closed = pl.DataFrame(schema=self._closed_schema)
        self._index = Index(self._names)
        takes_few = Few.can_read(aggregates, types.values())
        self._few = Few(kind, aggregates, self._names) if takes_few else None
        self._reset()

    def _reset(self) -> None:
        self.rows = 0
        self.clock = 0
        self._told = 0
        self.open = pl.DataFrame(schema=self._open_schema)
        self.keys = pl.DataFrame(schema=self._keys_schema)
        self._touched: list[pl.DataFrame] = []
        self._index.clear()
        if self._few:
            self._few.clear()

    # -- rows

    def fold(self, batch: pl.DataFrame) -> Folded:
        """Rows with key columns, `t`, `o` and a column of values for each aggregate."""
        if self.takes_few(batch.height):
            return self.fold_few(read_rows(batch, self._names, self._aggregates))
        self._gather()
        return self._fold_many(batch.with_row_index(ROW))

    def takes_few(self, rows: int) -> bool:
        """Whether so many rows are folded one by one."""
        return self._few is not None and rows * self._kind.overlap <= few.MOST

    def fold_few(self, rows: FewRows) -> Folded:
        """The same, row by row, where `takes_few` says so."""
        few = self._few
        assert few is not None
        if self.keys.height and (unknown := few.unknown(rows.names)):
            if self._index.is_wanted:
                self.keys, self.open = self._index.make(self._index.tidy(self._frames()))
            few.take(*self._index.take(self._frames(), unknown))
        ended, late = few.fold(rows, self.clock)
        closed = self._none_closed
        if ended:
            closed = self._with_ends(from_rows(ended, self._open_schema)).select(
                self._closed_schema.names()
            )
        return Folded(closed, pl.Series(late, dtype=ROW_TYPE) if late else None)

    def _frames(self) -> Frames:
        return Frames(self.keys, self.open)

    def _gather(self) -> None:
        """Into the frames with all that is kept as Python values."""
        if not (self._few and self._few.keys):
            self.keys, self.open = self._index.tidy(self._frames())
            return
        if self._few.touched:
            names = {name: self._keys_schema[name] for name in self._names}
            self._touched.append(pl.DataFrame(list(self._few.touched), names, orient="row"))
        self._index.lose()
        self._lay_aside(self._few)

    def _lay_aside(self, few: Few) -> None:
        counts = [len(key.windows) for key in few.keys.values()]
        self.keys, self.open = self._index.add(self._frames(), self._written(few, few.keys), counts)
        few.clear()

    def _written(self, few: Few, names: Iterable[tuple[Any, ...]], tails: bool = False) -> Frames:
        names = list(names)
        return Frames(
            from_rows(few.key_rows(names), self._keys_schema),
            from_rows(few.window_rows(names, tails), self._open_schema),
        )

    def _fold_many(self, batch: pl.DataFrame) -> Folded:
        if self._kind.is_plain(batch, self.keys):
            return self._fold_plain(batch)
        latest = pl.col(TIME).max().alias("top")
        groups = self._numbered(batch.group_by(self._names, maintain_order=True).agg(latest))
        here = self._match(self.open.with_row_index(_SLOT), self._keys_of(groups), "inner")
        known = groups.select(*self._names, KEY, "m", "f")
        if self._kind.counts:
            counts = here.group_by(KEY).agg(pl.col("n").sum().alias("n0"))
            known = known.join(counts, on=KEY, how="left")
        assigned = self._kind.assign(self._match(batch, known))
        came = assigned.rows.group_by(KEY, WINDOW).agg(self._collect)
        windows = self._kind.close(self._merge(here, came), assigned, groups["now"])
        return self._settled(groups, here, windows, assigned.late)

    def _fold_plain(self, batch: pl.DataFrame) -> Folded:
        """The same where only the next window of a key can close one: a third of the time."""
        rows = self._kind.assign(batch).rows
        came = rows.group_by([*self._names, WINDOW]).agg(self._collect)
        latest = pl.col("hi").max().alias("top")
        groups = self._numbered(came.group_by(self._names, maintain_order=True).agg(latest))
        keys = self._keys_of(groups)
        here = self._match(self.open.with_row_index(_SLOT), keys, "inner")
        windows = self._merge(here, self._match(came, keys).drop(self._names))
        return self._settled(groups, here, close_by_next(windows), None)

    def _settled(
        self,
        groups: pl.DataFrame,
        here: pl.DataFrame,
        windows: pl.DataFrame,
        late: pl.Series | None,
    ) -> Folded:
        self._replace(groups, here, windows)
        return Folded(self._closed_of(windows, groups), late)

    def _numbered(self, groups: pl.DataFrame) -> pl.DataFrame:
        """Keys that rows came for, numbered, with what is known of them."""
        groups = self._match(groups.with_row_index(KEY), self.keys.with_row_index(_SLOT))
        return with_columns(groups, [pl.max_horizontal("m", "top").alias("now")])

    def _match(
        self, left: pl.DataFrame, right: pl.DataFrame, how: "JoinStrategy" = "left"
    ) -> pl.DataFrame:
        """Rows of both that have the same key; null is a key like any other."""
        order: MaintainOrderJoin = "none" if how == "inner" else "left"
        return left.join(right, on=self._names, how=how, nulls_equal=True, maintain_order=order)

    def _keys_of(self, groups: pl.DataFrame) -> pl.DataFrame:
        return pl.DataFrame([groups.get_column(name) for name in (*self._names, KEY)])

    def _merge(self, here: pl.DataFrame, came: pl.DataFrame) -> pl.DataFrame:
        """What was kept of windows and what came for them, in one."""
        both = here.drop(self._names).join(
            came, on=[KEY, WINDOW], how="full", coalesce=True, suffix=_CAME
        )
        merged = [
            pl.min_horizontal("lo", "lo" + _CAME).alias("lo"),
            pl.max_horizontal("hi", "hi" + _CAME).alias("hi"),
            (pl.col("n").fill_null(0) + pl.col("n" + _CAME).fill_null(0)).alias("n"),
            (pl.col("new").fill_null(False) | pl.col("n" + _CAME).is_not_null()).alias("new"),
        ]
        for each in self._aggregates:
            kept, new = partial(_column, each, ""), partial(_column, each, _CAME)
            merged += [part.merge(kept, new).alias(each.column(part.name)) for part in each.parts]
        return select(both, [pl.col(KEY), pl.col(WINDOW), pl.col("first"), pl.col("last"), *merged])

    def _closed_of(self, windows: pl.DataFrame, groups: pl.DataFrame) -> pl.DataFrame:
        closed = windows["at"].is_not_null()
        if not closed.any():
            return self._none_closed
        named = _named(windows.filter(closed), groups, self._names)
        return self._with_ends(named).sort("at", "end", "start").select(self._closed_schema.names())

    def _with_ends(self, windows: pl.DataFrame) -> pl.DataFrame:
        ends = [self._kind.start().alias("start"), self._kind.end().alias("end")]
        return with_columns(windows, ends)

    def _replace(self, groups: pl.DataFrame, here: pl.DataFrame, windows: pl.DataFrame) -> None:
        """Put keys, and those of their windows that stay open, in the place of what was there."""
        stays = small.keep(windows, windows["at"].is_null())
        stays = with_columns(stays, [self._kind.renumber().alias(WINDOW)])
        named = _named(stays, groups, self._names)
        others = without(self.open, here[_SLOT])
        self.open = joined(others, columns_of(named, self._open_schema))
        clock = pl.lit(self.clock, _INT).alias("a")
        known = select(
            groups, [*map(pl.col, self._names), pl.col("now").alias("m"), pl.col("f"), clock]
        )
        self.keys = joined(without(self.keys, groups[_SLOT].drop_nulls()), known)
        self._touched.append(columns_of(groups, self._names))

    # -- without rows

    def flush(self) -> pl.DataFrame:
        """Close all."""
        self._gather()
        return self._close(self.open)

    def forget(self) -> pl.DataFrame:
        """Forget keys that are far behind, and the oldest of too many; their windows close."""
        self._gather()
        latest: int | None = self.keys["m"].max()  # type: ignore[assignment]
        by_age = self.keys.sort("m", *self._names, nulls_last=False)
        excess = max(0, by_age.height - self._limits.keys)
        old = pl.int_range(pl.len()) < excess
        if latest is not None:
            old = old | (pl.col("m") < latest - self._limits.forget).fill_null(False)
        gone = by_age.filter(old).select(self._names)
        if not gone.height:
            return self._close(self.open.clear())
        closed = self._close(self._match(self.open, gone, "semi"))
        self.keys = self._match(self.keys, gone, "anti")
        self._touched.append(gone)
        return closed

    def advance(self, elapsed: int) -> None:
        """`elapsed` microseconds went by in which rows could have come."""
        self.clock += elapsed

    def close_idle(self, idle: int) -> pl.DataFrame:
        """Close the windows of keys that were silent for `idle` microseconds."""
        if not self._has_silent(self.clock - idle):
            return self._none_closed
        self._gather()
        silent = self.keys.filter(pl.col("a") <= self.clock - idle).select(self._names)
        return self._close(self._match(self.open, silent, "semi"))

    def _has_silent(self, since: int) -> bool:
        """Whether there is an open window of a key that had no row since then."""
        keys = self._few.keys.values() if self._few else ()
        if any(key.seen <= since and key.windows for key in keys):
            return True
        silent = self.keys.filter(pl.col("a") <= since).select(self._names)
        places = self._match(self.open.with_row_index(_SLOT), silent, "semi")[_SLOT]
        return not set(places).issubset(self._index.stale_windows)

    def early(self, every: int) -> pl.DataFrame:
        """What open windows hold so far, if the last time was `every` microseconds ago."""
        if self.clock - self._told < every:
            return self._none_closed
        self._gather()
        self._told = self.clock
        new = self.open.filter("new")
        self.open = self.open.with_columns(pl.lit(False).alias("new"))
        self._touched.append(new.select(self._names))
        return self._sorted(new)

    def _close(self, windows: pl.DataFrame) -> pl.DataFrame:
        """Take windows out, and remember that rows for them come too late now."""
        if windows.height:
            ends = self._with_ends(windows).group_by(self._names).agg(pl.col("end").max())
            floor = pl.max_horizontal("f", "end").alias("f")
            self.keys = self._match(self.keys, ends).with_columns(floor).drop("end")
            self.open = self._match(self.open, ends, "anti")
            self._touched.append(ends.select(self._names))
        return self._sorted(windows)

    def _sorted(self, windows: pl.DataFrame) -> pl.DataFrame:
        ends = self._with_ends(windows)
        return ends.sort("end", *self._names, "start").select(self._closed_schema.names())

    # -- memory

    def snapshot(self, whole: bool) -> bytes | None:
        """What changed since the last call, or everything; None if nothing did.

        Numbers, then the keys, then the open windows, as Arrow streams. Of a key that changed all
        windows are there; `gone` marks one that was forgotten. Of a list that grows there is what
        comes behind the first `saved` values.
        """
        if self._few and not (whole or self._touched):
            return self._snapshot_of_few(self._few)
        if not (whole or self._touched):
            return None
        self._gather()
        keys, windows = self.keys, self.open
        if not whole:
            touched = pl.concat([self.keys.select(self._names).clear(), *self._touched]).unique()
            keys = self._match(touched, self.keys.with_columns(pl.lit(False).alias("gone")))
            windows = self._match(self.open, touched, "semi")
        else:
            keys = keys.with_columns(pl.lit(False).alias("gone"))
            windows = windows.with_columns(
                pl.lit(0, _INT).alias(saved) for saved in self._lists.values()
            )
        tails = (pl.col(name).list.slice(pl.col(saved)) for name, saved in self._lists.items())
        windows = windows.with_columns(tails)
        self.open = self._all_saved(self.open)
        self._touched = []
        keys = keys.with_columns(pl.col("gone").fill_null(True))
        return self._state(keys.sort(self._names), windows.sort(*self._names, WINDOW))

    def _snapshot_of_few(self, few: Few) -> bytes | None:
        if not few.touched:
            return None
        keys, windows = self._written(few, few.touched, tails=True)
        few.told()
        if len(few.keys) > MOST_FEW or few.held > MOST_HELD:
            self._lay_aside(few)
        return self._state(keys.with_columns(pl.lit(False).alias("gone")), windows)

    def _state(self, keys: pl.DataFrame, windows: pl.DataFrame) -> bytes:
        return memory.write((self.rows, self.clock, self._told), keys, windows)

    def restore(self, states: Sequence[bytes]) -> None:
        """Take back what `snapshot` gave: one whole, then changes."""
        self._reset()
        if states:
            found = memory.read(states, self._names, self._lists)
            self.rows, self.clock, self._told = found.counts
            self.keys = found.keys.select(self._keys_schema.names())
            self.open = self._all_saved(found.windows.select(self._open_schema.names()))

    def _all_saved(self, windows: pl.DataFrame) -> pl.DataFrame:
        lengths = [
            pl.col(name).list.len().cast(_INT).alias(saved) for name, saved in self._lists.items()
        ]
        return windows.with_columns(lengths) if lengths else windows


def _column(aggregate: Aggregate, suffix: str, part: str) -> pl.Expr:
    return pl.col(aggregate.column(part) + suffix)


def _named(windows: pl.DataFrame, groups: pl.DataFrame, names: Sequence[str]) -> pl.DataFrame:
    """Windows with the key columns of their group."""
    numbers = windows.get_column(KEY)
    return windows.hstack([groups.get_column(name).gather(numbers) for name in names])


def result_of(aggregate: Aggregate) -> pl.Expr:
    """The column of the result, from what is kept of closed windows."""
    side: Side = partial(_column, aggregate, "")
    return aggregate.result(side).alias(aggregate.name)
