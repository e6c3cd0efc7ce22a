"""Which window a row belongs to, and which row closes a window."""

from collections.abc import Sequence
from typing import Any, ClassVar, NamedTuple, Protocol

import polars as pl

from edge.expression import select, with_columns

ROW_TYPE = pl.UInt32()
ROW, KEY, TIME, WINDOW = "i", "kc", "t", "w"
"""Columns of rows at work: number in the batch, number of the key, event time, number of the
window. Beside them `m`, the latest time of the key before the batch, `f`, the end of what was
closed for it without a row, and `n0`, the rows of its open window (null where there is none)."""


class Assigned(NamedTuple):
    """rows: once for each window they belong to, with its number. late: numbers of the late rows,
    or None. steady: no row comes before an earlier one of its key."""

    rows: pl.DataFrame
    late: pl.Series | None = None
    steady: bool = False


class KeyState:
    """What is known of one key.

    latest: its latest event time. floor: the end of what was closed without a row. seen: the clock
    when its last row came. windows: the open ones by number.
    """

    __slots__ = ("floor", "latest", "seen", "windows")

    def __init__(self, latest: int | None = None, floor: int | None = None, seen: int = 0) -> None:
        self.latest, self.floor, self.seen = latest, floor, seen
        self.windows: dict[int, list[Any]] = {}


class Kind(Protocol):
    """How windows of one kind lie. All times are microseconds since 1970, all spans microseconds.

    Lateness is judged row by row against the latest time that the key had before, so that it is
    all the same how rows are cut into batches.
    """

    counts: ClassVar[bool]
    """Whether `n0` is asked for."""

    overlap: int
    """In how many windows a row may be."""

    def is_plain(self, batch: pl.DataFrame, keys: pl.DataFrame) -> bool:
        """Whether `close_by_next` will do: windows do not overlap, and no row is late."""

    def assign(self, work: pl.DataFrame) -> Assigned:
        """The windows of rows, which are in the order they came."""

    def start(self) -> pl.Expr:
        """The start of a window, from its number `w` and its earliest time `lo`."""

    def end(self) -> pl.Expr:
        """The end of a window, from its number `w` and its latest time `hi`."""

    def renumber(self) -> pl.Expr:
        """The numbers that the windows of keys keep for the next batch."""

    def close(self, windows: pl.DataFrame, assigned: Assigned, latest: pl.Series) -> pl.DataFrame:
        """Windows with `at`, the number of the row that closes each; null while it stays open.

        windows: of the keys that rows came for, with `first` and `last`, the numbers of their
        first and last row in this batch. latest: the latest time of each key, by its number.
        """

    def place(self, key: KeyState, time: int | None) -> tuple[Sequence[int], bool]:
        """The same for a single row, before the key knows of it: the numbers of its windows, none
        if it is late, and whether it closes what is open first."""

    def over(self, key: KeyState) -> Sequence[int]:
        """The numbers of the windows that are closed by the row that just went into its own."""


class Sized:
    """Windows of one size, one beginning `every` so many microseconds since 1970."""

    counts: ClassVar[bool] = False

    def __init__(self, size: int, every: int, lateness: int) -> None:
        self.overlap = -(-size // every)
        self._size = size
        self._every = every
        self._lateness = lateness

    def is_plain(self, batch: pl.DataFrame, keys: pl.DataFrame) -> bool:
        apart = self._every == self._size and not self._lateness
        return apart and _is_steady(batch, keys) and keys["f"].null_count() == keys.height

    def assign(self, work: pl.DataFrame) -> Assigned:
        steady = "m" not in work.columns or _is_steady(work, work)
        if not steady:
            work = _with_peaks(work)
        base = pl.col(TIME) // self._every * self._every
        places = [
            with_columns(work, [(base - back * self._every).alias(WINDOW)])
            for back in range(self.overlap)
        ]
        rows = places[0]
        if len(places) > 1:
            inside = pl.col(WINDOW) + self._size > pl.col(TIME)
            rows = pl.concat(places).filter(inside).sort(ROW, maintain_order=True)
        if steady and ("f" not in work.columns or work["f"].null_count() == work.height):
            return Assigned(rows, None, True)
        end = pl.col(WINDOW) + self._size
        late = pl.lit(False) if steady else end + self._lateness <= pl.col("before")
        return Assigned(*_without_late(rows, late, end), steady)

    def start(self) -> pl.Expr:
        return pl.col(WINDOW)

    def end(self) -> pl.Expr:
        return pl.col(WINDOW) + self._size

    def renumber(self) -> pl.Expr:
        return pl.col(WINDOW)

    def close(self, windows: pl.DataFrame, assigned: Assigned, latest: pl.Series) -> pl.DataFrame:
        reach = self._size + self._lateness
        needs = (windows[WINDOW] + reach).alias("needs")
        if not (needs <= latest.gather(windows[KEY])).any():
            return windows.with_columns(pl.lit(None, ROW_TYPE).alias("at"))
        peak = TIME if assigned.steady else "peak"
        # Only the first row that reaches beyond another end can close anything.
        step = ((pl.col(peak) - reach) // self._every).alias("step")
        first = [pl.col(peak).first().alias("peak"), pl.col(ROW).first().alias("at")]
        return (
            windows.with_columns(needs)
            .sort("needs")
            .join_asof(
                assigned.rows.group_by(KEY, step).agg(first).sort("peak"),
                left_on="needs",
                right_on="peak",
                by=KEY,
                strategy="forward",
                check_sortedness=False,
            )
        )

    def place(self, key: KeyState, time: int | None) -> tuple[Sequence[int], bool]:
        assert time is not None
        found = []
        window = time // self._every * self._every
        while (end := window + self._size) > time:
            behind = key.latest is not None and end + self._lateness <= key.latest
            if not (behind or (key.floor is not None and end <= key.floor)):
                found.append(window)
            window -= self._every
        return found, False

    def over(self, key: KeyState) -> Sequence[int]:
        assert key.latest is not None
        last = key.latest - self._size - self._lateness
        return [window for window in key.windows if window <= last]


class Gap:
    """Sessions: a window ends when nothing comes for a key for `gap` microseconds."""

    counts: ClassVar[bool] = True

    def __init__(self, gap: int) -> None:
        self.overlap = 1
        self._gap = gap

    def is_plain(self, batch: pl.DataFrame, keys: pl.DataFrame) -> bool:
        return False

    def assign(self, work: pl.DataFrame) -> Assigned:
        end = pl.col(TIME) + self._gap
        rows, late = _without_late(_with_peaks(work), end <= pl.col("before"), end)
        apart = (pl.col(TIME) - pl.col("before") >= self._gap).fill_null(True)
        opens = pl.col("n0").is_null() & (pl.int_range(pl.len()).over(KEY) == 0)
        number = (apart | opens).cast(pl.Int64).cum_sum().over(KEY)
        return Assigned(with_columns(rows, [number.alias(WINDOW)]), late)

    def start(self) -> pl.Expr:
        return pl.col("lo")

    def end(self) -> pl.Expr:
        return pl.col("hi") + self._gap

    def renumber(self) -> pl.Expr:
        return pl.lit(0, pl.Int64())

    def close(self, windows: pl.DataFrame, assigned: Assigned, latest: pl.Series) -> pl.DataFrame:
        del assigned, latest
        return close_by_next(windows)

    def place(self, key: KeyState, time: int | None) -> tuple[Sequence[int], bool]:
        assert time is not None
        before, floor = key.latest, key.floor
        end = time + self._gap
        if (before is not None and end <= before) or (floor is not None and end <= floor):
            return (), False
        return (0,), before is not None and time - before >= self._gap

    def over(self, key: KeyState) -> Sequence[int]:
        return ()


class Rows:
    """Windows of so many rows of a key."""

    counts: ClassVar[bool] = True

    def __init__(self, count: int) -> None:
        self.overlap = 1
        self._count = count

    def is_plain(self, batch: pl.DataFrame, keys: pl.DataFrame) -> bool:
        return False

    def assign(self, work: pl.DataFrame) -> Assigned:
        place = pl.col("n0").fill_null(0) + pl.int_range(pl.len()).over(KEY)
        return Assigned(with_columns(work, [(place // self._count).alias(WINDOW)]))

    def start(self) -> pl.Expr:
        return pl.col("lo")

    def end(self) -> pl.Expr:
        return pl.col("hi")

    def renumber(self) -> pl.Expr:
        return pl.lit(0, pl.Int64())

    def close(self, windows: pl.DataFrame, assigned: Assigned, latest: pl.Series) -> pl.DataFrame:
        del assigned, latest
        full = pl.when(pl.col("n") == self._count).then(pl.col("last"))
        return windows.with_columns(full.alias("at"))

    def place(self, key: KeyState, time: int | None) -> tuple[Sequence[int], bool]:
        return (0,), False

    def over(self, key: KeyState) -> Sequence[int]:
        return (0,) if key.windows[0][2] == self._count else ()


def close_by_next(windows: pl.DataFrame) -> pl.DataFrame:
    """Windows with `at`: each is closed by the first row of the next one of its key."""
    following = pl.col("first").shift(-1).over(KEY, order_by=WINDOW)
    return with_columns(windows, [following.alias("at")])


def _is_steady(rows: pl.DataFrame, keys: pl.DataFrame) -> bool:
    """Whether time never goes back, for all keys together; most batches are so."""
    earliest, latest = rows[TIME].min(), keys["m"].max()
    behind = latest is not None and earliest is not None and latest > earliest  # type: ignore[operator]
    return not behind and rows[TIME].is_sorted()


def _with_peaks(work: pl.DataFrame) -> pl.DataFrame:
    """Add `before` and `peak`, the latest time of the key without and with each row."""
    peak = pl.max_horizontal(pl.col(TIME).cum_max().over(KEY), "m")
    work = with_columns(work, [peak.alias("peak")])
    before = pl.col("peak").shift(1).over(KEY).fill_null(pl.col("m"))
    return with_columns(work, [before.alias("before")])


def _without_late(
    rows: pl.DataFrame, late: pl.Expr, end: pl.Expr
) -> tuple[pl.DataFrame, pl.Series | None]:
    """Late is what belongs to windows that are all closed, by a later row or without one."""
    late = late.fill_null(False) | (end <= pl.col("f")).fill_null(False)
    mask = select(rows, [late.alias("late")]).to_series()
    if not mask.any():
        return rows, None
    kept = rows.filter(~mask)
    numbers = rows.filter(mask)[ROW].unique(maintain_order=True)
    return kept, numbers.filter(~numbers.is_in(kept[ROW].implode()))
