"""`window`: folds the rows of a stretch of event time into one row of aggregates."""

from collections import Counter
from collections.abc import Sequence
from datetime import timedelta

import polars as pl
from pydantic import Field, PrivateAttr, model_validator

from edge.component import Duration, PositiveDuration, Stream
from edge.errors import DefinitionError
from edge.expression import TIMESTAMP, require, reserve, select, select_rows
from edge.keyed import cut_at_sweeps
from edge.operators import Beside, Lost, Operator, as_it_was
from edge.origin import Origin, body_of, fit
from edge.windows.aggregate import ORDER, Aggregate, compile_aggregate, value_column
from edge.windows.few import FewRows, values_of
from edge.windows.fold import Limits, Windows, result_of
from edge.windows.kinds import TIME, Gap, Kind, Rows, Sized

_MICROSECOND = timedelta(microseconds=1)
_RECEIVED = "edge_received"
_MOST = 1_500  # windows of one row, each a row in memory: a day every minute still goes
_AT_ONCE = 2_000_000  # rows of windows that are made of rows together, 200 bytes each
_CLOCK_IS_SET = 1_735_689_600_000_000  # 2025-01-01: a machine whose clock says less has lost it
_KEY, _AHEAD = "k", "ahead"
_INT = pl.Int64()


class Window(Operator):
    """Folds rows into one row of aggregates per key and window of event time.

    ```yaml
    window:
      size: 10s
      by: [line, device]
      aggregate:
        peak: MAX(temperature)
        mean: AVG(temperature)
        n: COUNT(*)
    ```

    Exactly one of `size` (windows that begin at multiples of it since 1970; with `every` they
    overlap, at most 1,500 at a time), `gap` (a session: until nothing came for so long) and `rows`
    (so many rows of a key). A result has the columns of `by`, the event time column with the start
    of the window, `window_end`, and the aggregates.

    Aggregates are COUNT(*), COUNT(x), COUNT(DISTINCT x), SUM, AVG, MIN, MAX, FIRST and LAST (by
    event time), STDDEV and VARIANCE (of a sample), MEDIAN and QUANTILE(x, 0.95), of a column or of
    an expression of one row. Compute with aggregates in a `derive` after the window.

    A window is closed by the first row of its key that is `allowed_lateness` past its end; by
    `idle`; by the end of a finite source. Results come in the order in which windows are closed,
    wherever batches begin and end. A row is late when all its windows are closed: it is dropped and
    counted, or goes to the sink that `late` names. So does a row without event time. A row more
    than `max_ahead` past the clock of this machine is rejected as `future`, for it would close all;
    not while that clock is evidently not set.

    Nulls and NaN: aggregates leave both out. What had no value is null, COUNT is 0. STDDEV and
    VARIANCE of a single value are null. A null key is a key.

    Memory: the open windows of at most `max_keys` keys, about 100 bytes each, and 300 more where
    rows come a few at a time; MEDIAN, QUANTILE and COUNT(DISTINCT) keep up to `max_rows` values,
    and are null for more. After every 65,536th row the keys that lie `forget` behind the latest,
    and the oldest of too many, are forgotten and their windows closed. Exact after a crash; float
    sums may differ by 1e-9 of their size when rows are cut otherwise.

    Cost: 1 ms per batch of up to 200 rows and 4 us for each of them, however many windows are open;
    4 ms per larger batch, 0.2 us per row.
    """

    size: PositiveDuration | None = Field(None, description="How long a window is.")
    every: PositiveDuration | None = Field(
        None, description="How often a window begins; the size if left out, so they do not overlap."
    )
    gap: PositiveDuration | None = Field(
        None, description="A session ends when a key has no row for so much event time."
    )
    rows: int | None = Field(None, ge=1, description="How many rows of a key make a window.")
    by: list[str] | None = Field(
        None, description="Columns that tell one series from another; the record's key if left out."
    )
    aggregate: dict[str, str] = Field(
        description="Name of each result column and the aggregate for it.", min_length=1
    )
    allowed_lateness: Duration = Field(
        timedelta(0), description="How much event time a window of a size waits for late rows."
    )
    late: str = Field(
        "drop", description="`drop` late rows, or the name of a sink that takes them and no others."
    )
    idle: PositiveDuration | None = Field(
        None,
        description="The windows of a key close when no row came for so long; never if left "
        "out. Time in which the processor does not run does not count.",
    )
    early: PositiveDuration | None = Field(
        None,
        description="How often open windows give a result of what they hold so far, with "
        "`edge_early` true.",
    )
    max_keys: int = Field(100_000, ge=1, description="How many keys are remembered.")
    forget: PositiveDuration = Field(
        timedelta(days=7), description="How far behind the latest of all a key may be."
    )
    max_ahead: PositiveDuration = Field(
        timedelta(days=1), description="How far past this machine's clock a row may be."
    )
    max_rows: int = Field(
        10_000, ge=1, description="Most values kept for MEDIAN, QUANTILE and COUNT(DISTINCT)."
    )

    _windows: Windows = PrivateAttr()
    _origin: Origin = PrivateAttr()
    _keys: dict[str, str] = PrivateAttr()
    _prepare: list[pl.Expr] = PrivateAttr()
    _sources: list[str | None] = PrivateAttr()
    _result: list[pl.Expr] = PrivateAttr()
    _columns: pl.Schema = PrivateAttr()
    _nothing: pl.DataFrame = PrivateAttr()
    _time: str = PrivateAttr()
    _judges_future: bool = PrivateAttr()
    _rows_at_once: int = PrivateAttr()
    _counts: Counter[str] = PrivateAttr(default_factory=Counter)
    _late: list[pl.DataFrame] = PrivateAttr(default_factory=list)
    _losses: list[Lost] = PrivateAttr(default_factory=list)

    @model_validator(mode="after")
    def _fits_together(self) -> "Window":
        given = [name for name in ("size", "gap", "rows") if getattr(self, name) is not None]
        if len(given) != 1:
            what = " and ".join(given) or "none of them"
            raise ValueError(f"must have exactly one of size, gap and rows, got {what}")
        if self.every is not None and (self.size is None or self.every > self.size):
            raise ValueError("every: goes with a size that is not shorter; rows between would go")
        if self.every is not None and self.size is not None and self.size / self.every > _MOST:
            raise ValueError(
                f"every: a row must be in at most {_MOST} windows, got {self.size // self.every}; "
                "let them begin less often"
            )
        if self.allowed_lateness and self.size is None:
            raise ValueError(
                "allowed_lateness: only windows of a size wait for late rows; choose a longer gap"
            )
        return self

    # -- binding

    def others(self) -> Sequence[str]:
        return () if self.late == "drop" else (self.late,)

    @property
    def timed(self) -> bool:
        return self.idle is not None or self.early is not None

    def bind(self, columns: pl.Schema, stream: Stream) -> pl.Schema:
        by = list(stream.key if self.by is None else self.by)
        require([*by, stream.time], columns, "window")
        reserve(self.aggregate, "window")
        self._refuse_twice([*by, stream.time, "window_end", *self.aggregate])
        aggregates = [
            compile_aggregate(name, text, columns, self.max_rows)
            for name, text in self.aggregate.items()
        ]
        are_columns = all(each.value is None or each.source for each in aggregates)
        self._sources = [each.source for each in aggregates] if are_columns else []
        self._time = stream.time
        self._origin = Origin(self.model_dump(mode="json"), stream, columns)
        self._judges_future = _RECEIVED in columns and stream.time != _RECEIVED
        overlap = self.size / self.every if self.size and self.every else 1
        self._rows_at_once = int(_AT_ONCE / overlap)
        self._keys = {f"{_KEY}{number}": name for number, name in enumerate(by)}
        self._prepare = self._preparation(aggregates)
        sample = pl.DataFrame(schema=columns).select(self._prepare)
        limits = Limits(self.max_keys, self.forget // _MICROSECOND)
        self._windows = Windows(self._kind(), aggregates, sample, self._key_names(), limits)
        self._result = self._results(aggregates)
        mark = {"edge_early": pl.Boolean()} if self.early is not None else {}
        self._columns = pl.Schema({**self._windows.flush().select(self._result).schema, **mark})
        self._nothing = self._columns.to_frame()
        return self._columns

    def _refuse_twice(self, names: Sequence[str]) -> None:
        twice = next((name for name in names if names.count(name) > 1), None)
        if twice is not None:
            raise DefinitionError(f"window: the result has two columns {twice!r}; rename one")

    def _key_names(self) -> list[str]:
        return list(self._keys) or [_KEY]

    def _preparation(self, aggregates: Sequence[Aggregate]) -> list[pl.Expr]:
        keys = [pl.col(name).alias(key) for key, name in self._keys.items()]
        # FIRST and LAST of so many rows go by arrival, as these windows do.
        time = pl.col(self._time).to_physical()
        order = pl.lit(0, pl.Int64()) if self.rows else time
        values = (
            each.value.alias(value_column(each.name))
            for each in aggregates
            if each.value is not None
        )
        one = pl.repeat(0, pl.len(), dtype=pl.Int8()).alias(_KEY)
        prepared = [*(keys or [one]), time.alias(TIME), order.alias(ORDER), *values]
        if self._judges_future:
            prepared.append((time - pl.col(_RECEIVED).to_physical()).alias(_AHEAD))
        return prepared

    def _results(self, aggregates: Sequence[Aggregate]) -> list[pl.Expr]:
        return [
            *(pl.col(key).alias(name) for key, name in self._keys.items()),
            pl.col("start").cast(TIMESTAMP).alias(self._time),
            pl.col("end").cast(TIMESTAMP).alias("window_end"),
            *map(result_of, aggregates),
        ]

    def _kind(self) -> Kind:
        if self.rows is not None:
            return Rows(self.rows)
        if self.gap is not None:
            return Gap(self.gap // _MICROSECOND)
        assert self.size is not None
        size = self.size // _MICROSECOND
        every = size if self.every is None else self.every // _MICROSECOND
        return Sized(size, every, self.allowed_lateness // _MICROSECOND)

    # -- rows

    def process(self, frame: pl.DataFrame) -> pl.DataFrame:
        closed: list[pl.DataFrame] = []
        for piece, due in cut_at_sweeps(frame, self._windows.rows):
            closed += map(self._fold, piece.iter_slices(self._rows_at_once))
            if due:
                closed.append(self._windows.forget())
        return self._finish(closed)

    def _fold(self, frame: pl.DataFrame) -> pl.DataFrame:
        """One piece; what is not folded is counted."""
        self._windows.rows += frame.height
        few = self._read_few(frame) if self._windows.takes_few(frame.height) else None
        if few is not None:
            closed, late = self._windows.fold_few(few)
        else:
            frame, work = self._without_future(*self._without_untimed(frame))
            closed, late = self._windows.fold(work)
        if late is not None and late.len():
            self._set_aside(frame[late], "came after its window was closed")
        self._counts["folded"] += frame.height - (0 if late is None else late.len())
        return closed

    def _read_few(self, frame: pl.DataFrame) -> FewRows | None:
        """A few rows as they are; None where an expression or a time is to be looked at first."""
        if not self._sources:
            return None
        times = frame.get_column(self._time).cast(_INT).to_list()
        if None in times and self.rows is None:
            return None
        if self._judges_future:
            limit = self.max_ahead // _MICROSECOND
            received = frame.get_column(_RECEIVED).cast(_INT).to_list()
            both = zip(times, received, strict=True)
            if any(time - now > limit for time, now in both if time and now):
                return None
        keys = [frame.get_column(name).to_list() for name in self._keys.values()]
        names = list(zip(*keys, strict=True)) if keys else [(0,)] * frame.height
        orders = [0] * frame.height if self.rows else times
        return FewRows(names, times, orders, [values_of(frame, each) for each in self._sources])

    def _without_untimed(self, frame: pl.DataFrame) -> tuple[pl.DataFrame, pl.DataFrame]:
        """Rows, and what windows need of them."""
        work = select_rows(frame, self._prepare)
        times = work.get_column(TIME)
        if self.rows is not None or not times.null_count():
            return frame, work
        self._set_aside(frame.filter(times.is_null()), "has no event time")
        timed = times.is_not_null()
        return frame.filter(timed), work.filter(timed)

    def _without_future(
        self, frame: pl.DataFrame, work: pl.DataFrame
    ) -> tuple[pl.DataFrame, pl.DataFrame]:
        if not self._judges_future:
            return frame, work
        ahead = work.get_column(_AHEAD)
        most: int | None = ahead.max()  # type: ignore[assignment]
        limit = self.max_ahead // _MICROSECOND
        if most is None or most <= limit:
            return frame, work
        judged = frame[_RECEIVED].to_physical() >= _CLOCK_IS_SET
        future = ((ahead > limit) & judged).fill_null(False)
        self._count_lost("future", frame.filter(future), "lies further ahead than max_ahead", True)
        return frame.filter(~future), work.filter(~future)

    def _set_aside(self, rows: pl.DataFrame, reason: str) -> None:
        if self.late == "drop":
            self._count_lost("late", rows, reason)
        else:
            self._counts["late"] += rows.height
            self._late.append(rows)

    def _count_lost(self, kind: str, rows: pl.DataFrame, reason: str, show: bool = False) -> None:
        if rows.height:
            self._counts[kind] += rows.height
            self._losses.append(Lost(kind, rows.height, reason, rows if show else None))

    def _finish(self, windows: Sequence[pl.DataFrame], early: bool = False) -> pl.DataFrame:
        """Results, from what is kept of windows."""
        some = [frame for frame in windows if frame.height]
        if not some:
            return self._nothing
        mark = [pl.lit(early).alias("edge_early")] if self.early is not None else []
        together = some[0] if len(some) == 1 else pl.concat(some)
        return select(together, [*self._result, *mark])

    def flush(self) -> pl.DataFrame | None:
        return self._finish([self._windows.flush()])

    def advance(self, elapsed: int) -> pl.DataFrame | None:
        windows = self._windows
        windows.advance(elapsed)
        results = []
        if self.idle is not None:
            results.append(self._finish([windows.close_idle(self.idle // _MICROSECOND)]))
        if self.early is not None:
            results.append(self._finish([windows.early(self.early // _MICROSECOND)], early=True))
        return pl.concat(results)

    # -- accounts and memory

    def account(self, before: int, after: int) -> dict[str, int]:
        del before
        counts, self._counts = self._counts, Counter()
        return {**counts, "created": after}

    def beside(self) -> Beside | None:
        if not (self._late or self._losses):
            return None
        rows = {self.late: pl.concat(self._late)} if self._late else {}
        losses, self._late, self._losses = self._losses, [], []
        return Beside(rows, losses)

    def shape(self) -> object:
        return {name: str(kind) for name, kind in self._windows.open.schema.items()}

    def snapshot(self, whole: bool) -> bytes | None:
        body = self._windows.snapshot(whole)
        return self._origin.seal(body) if whole and body is not None else body

    def restore(self, states: Sequence[bytes]) -> None:
        self._counts.clear()
        self._late.clear()
        self._losses.clear()
        self._windows.restore([body_of(states[0]), *states[1:]] if states else ())

    def salvage(self, states: Sequence[bytes]) -> pl.DataFrame | None:
        """What was open, with the columns of today: others are left out, new ones null."""
        before = as_it_was(Window, states)
        rows = before.flush()
        assert rows is not None
        mark = [pl.lit(True).alias("edge_early")] if self.early is not None else []
        return fit(rows.rename({before._time: self._time}), self._columns).with_columns(mark)
