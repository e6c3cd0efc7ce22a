"""`compress`: keeps the rows from which a line between them tells all others, within an error."""

from collections.abc import Iterable, Mapping, Sequence
from datetime import timedelta
from itertools import takewhile
from math import inf, isfinite
from typing import Any

import polars as pl
from pydantic import Field, PrivateAttr

from edge.component import PositiveDuration, Stream
from edge.errors import DefinitionError
from edge.expression import require, select, type_word
from edge.keyed import Keyed, event_times, key_text
from edge.operators import Operator, as_it_was
from edge.origin import Origin, body_of, fit

_HELD = 6  # where an entry says whether a row is held back
_ROW = 7  # where that row begins; the last field is the time


class Compress(Operator):
    """Drops the rows that a straight line between the kept ones tells, within an error, per key.

    ```yaml
    compress:
      column: temperature
      error: 0.5
      max_gap: 10m
    ```

    Swinging door trending, as process historians do it (E. H. Bristol, 1990), in its strict form: a
    line drawn between two kept rows that follow each other passes no dropped row of theirs by more
    than `error`. The last row of a key is held back until the next one shows whether it is needed;
    it comes out at the latest when the files end. With `max_gap` no line spans more event time,
    where there are rows to end it.

    A row that is not later than the one before it in its key passes as it is, and so does a row
    without event time; no line goes through them.

    Nulls and NaN: no line goes across null, NaN or infinity. The row before passes, the first such
    row passes, further ones are dropped, and the next number passes.

    Memory: the held row and six numbers for at most `max_keys` keys. After every 65,536th row the
    excess is forgotten, oldest event time first, and its held rows pass. About 1 kB of RAM per key
    where rows have five columns. When an option or a column is changed, rows that are held back
    then pass.

    Cost: 0.2 ms per batch, 0.5 us per row, and 8 us per key in the batch, half of it to remember
    the held row.
    """

    removes = "compressed"

    column: str = Field(description="The number that is followed.")
    error: float = Field(gt=0, lt=inf, description="How far a dropped value may be off the line.")
    max_gap: PositiveDuration | None = Field(
        None, description="How far apart in event time two kept rows may be."
    )
    idle: PositiveDuration | None = Field(
        None,
        description="The held row of a key passes when no row came for so long; never before the "
        "next one if left out. Time in which the processor does not run does not count.",
    )
    by: list[str] | None = Field(
        None, description="Columns that tell one series from another; the record's key if left out."
    )
    max_keys: int = Field(100_000, ge=1, description="How many series are remembered.")

    _memory: Keyed = PrivateAttr()
    _origin: Origin = PrivateAttr()
    _key: pl.Expr = PrivateAttr()
    _time: str = PrivateAttr()
    _columns: pl.Schema = PrivateAttr()
    _held: int = PrivateAttr(default=0)
    _clock: int = PrivateAttr(default=0)
    _heard: dict[str, int] = PrivateAttr(default_factory=dict)  # when keys that hold had a row

    def bind(self, columns: pl.Schema, stream: Stream) -> pl.Schema:
        by = stream.key if self.by is None else self.by
        require([self.column, *by, stream.time], columns, "compress")
        if not columns[self.column].is_numeric():
            raise DefinitionError(
                f"compress: column {self.column!r} must be a number, got "
                f"{type_word(columns[self.column])}; for text, use dedupe with count: 1"
            )
        numbers = {"origin": pl.Int64(), **dict.fromkeys(("value", "low", "high"), pl.Float64())}
        held = {f"held_{number}": kind for number, kind in enumerate(columns.values())}
        flags = {"back": pl.Boolean(), "held": pl.Boolean()}
        fields = {**numbers, "last": pl.Float64(), **flags, **held}
        self._memory = Keyed({**fields, "time": pl.Int64()}, self.max_keys)
        self._key = key_text(by, columns)
        self._time = stream.time
        self._columns = columns
        self._origin = Origin(self.model_dump(mode="json"), stream, columns)
        return columns

    def process(self, frame: pl.DataFrame) -> pl.DataFrame:
        parts = [frame.clear()]
        for piece, full in self._memory.pieces(frame):
            parts.append(self._compress(piece))
            if full:
                parts.append(self._released(self._memory.sweep()))
                left = self._memory.entries
                self._heard = {key: at for key, at in self._heard.items() if key in left}
        return pl.concat(parts)

    def _compress(self, frame: pl.DataFrame) -> pl.DataFrame:
        """Rows of the piece, and those held back before it, in the order in which they pass."""
        keys = select(frame, [self._key]).to_series().to_list()
        gap = None if self.max_gap is None else self.max_gap // timedelta(microseconds=1)
        doors = _Doors(self.error, gap)
        for key in dict.fromkeys(keys):
            doors.take_up(key, self._memory.entries.get(key))
        values = frame[self.column].cast(pl.Float64).to_list()
        passed = doors.passing(keys, values, event_times(frame, self._time))
        # Rows of earlier batches stand behind those of this one; their numbers count from the end.
        earlier = pl.DataFrame(doors.earlier[::-1], schema=self._columns, orient="row")
        rows = pl.concat([frame, earlier], rechunk=False)
        self._keep(doors.series, rows)
        self._held += doors.change
        return rows[[at % rows.height for at in passed]]

    def _keep(self, series: Mapping[str, "_Series"], rows: pl.DataFrame) -> None:
        """Remember keys, with the rows among `rows` that they hold back."""
        put, heard, clock = self._memory.put, self._heard, self._clock
        places = [each.held % rows.height for each in series.values() if each.held is not None]
        held = iter(rows[places].rows())
        nothing = (None,) * len(self._columns)
        for key, each in series.items():
            heard.pop(key, None)
            if each.held is None:
                put(key, (*each.line(), False, *nothing, each.time))
            else:
                put(key, (*each.line(), True, *next(held), each.time))
                heard[key] = clock

    def _released(self, entries: Sequence[tuple[Any, ...]]) -> pl.DataFrame:
        """The rows that forgotten keys held back."""
        rows = [entry[_ROW:-1] for entry in entries if entry[_HELD]]
        self._held -= len(rows)
        return pl.DataFrame(rows, schema=self._columns, orient="row")

    def _release(self, keys: Iterable[str]) -> pl.DataFrame:
        """The rows that these keys hold back; their lines go on from there."""
        entries = self._memory.entries
        ordered = sorted(keys, key=lambda key: (entries[key][-1], key))
        released = self._released([entries[key] for key in ordered])
        series = {key: _Series(entries[key]) for key in ordered}
        for each in series.values():
            each.start(each.time, each.last)
        self._keep(series, released)
        return released

    def flush(self) -> pl.DataFrame | None:
        entries = self._memory.entries
        return self._release([key for key, entry in entries.items() if entry[_HELD]])

    @property
    def timed(self) -> bool:
        return self.idle is not None

    def advance(self, elapsed: int) -> pl.DataFrame | None:
        self._clock += elapsed
        assert self.idle is not None
        since = self._clock - self.idle // timedelta(microseconds=1)
        due = list(takewhile(lambda key: self._heard[key] <= since, self._heard))
        return self._release(due) if due else None

    def account(self, before: int, after: int) -> dict[str, int]:
        held, self._held = self._held if before else -after, 0
        return {"held": held, self.removes: before - after - held}

    def shape(self) -> object:
        return [[name, str(kind)] for name, kind in self._columns.items()]

    def snapshot(self, whole: bool) -> bytes | None:
        body = self._memory.snapshot(whole)
        return self._origin.seal(body) if whole and body is not None else body

    def restore(self, states: Sequence[bytes]) -> None:
        self._held = self._clock = 0
        self._memory.restore([body_of(states[0]), *states[1:]] if states else ())
        entries = self._memory.entries
        self._heard = {key: 0 for key, entry in entries.items() if entry[_HELD]}

    def salvage(self, states: Sequence[bytes]) -> pl.DataFrame | None:
        """What was held back, with the columns of today."""
        rows = as_it_was(Compress, states).flush()
        assert rows is not None
        return fit(rows, self._columns)


class _Series:
    """One key: where its line starts, between which slopes it may run, and what is held back.

    origin, time: microseconds, of the start of the line and of the last row. value: at the start;
    None behind what is no number. last: the value of the held row. back: the last row was earlier
    than `time`. held: number in the batch of the held row, below zero for one of an earlier batch;
    None: there is none.
    """

    __slots__ = ("back", "held", "high", "last", "low", "origin", "time", "value")

    def __init__(self, entry: Sequence[Any] | None) -> None:
        """entry: as it is remembered; None for a new key. Nothing is held yet."""
        self.origin: int | None = None
        self.value: float | None = None
        self.low, self.high, self.last, self.back = -inf, inf, 0.0, False
        self.time: int | None = None
        self.held: int | None = None
        if entry is not None:
            self.origin, self.value, self.low, self.high, self.last, self.back = entry[:_HELD]
            self.time = entry[-1]

    def line(self) -> tuple[Any, ...]:
        """What is remembered in front of the held row."""
        return self.origin, self.value, self.low, self.high, self.last, self.back

    def start(self, time: int | None, value: float | None) -> None:
        """Begin a line; with None for a value there is none until the next number."""
        self.origin, self.value, self.low, self.high = time, value, -inf, inf
        self.held = None


class _Doors:
    """The loop over the rows of a batch. Attributes of a pydantic model would cost too much in it.

    earlier: rows held back before this batch. change: how many more rows are held than before it.
    """

    def __init__(self, error: float, gap: int | None) -> None:
        """gap: microseconds."""
        self.series: dict[str, _Series] = {}
        self.earlier: list[tuple[Any, ...]] = []
        self.change = 0
        self._error = error
        self._gap = gap

    def take_up(self, key: str, entry: tuple[Any, ...] | None) -> None:
        """Go on with a key as it was left."""
        series = self.series[key] = _Series(entry)
        if entry is not None and entry[_HELD]:
            self.earlier.append(entry[_ROW:-1])
            series.held = -len(self.earlier)

    def passing(
        self, keys: Sequence[str], values: Sequence[float | None], times: Sequence[int | None]
    ) -> list[int]:
        """Numbers of the rows that pass, in order, below zero for those of an earlier batch."""
        passed: list[int] = []
        before = len(self.earlier)
        for index, key in enumerate(keys):
            series, value, now = self.series[key], values[index], times[index]
            if value is not None and not isfinite(value):
                value = None
            if now is None or (series.time is not None and now <= series.time):
                passed.append(index)
                if now is None or now == series.time:
                    continue
                series.back = not series.back
                if series.back:
                    continue
                if series.held is not None:
                    passed.insert(-1, series.held)
                series.start(now, value)
            elif value is None:
                self._break(series, index, now, passed)
            elif series.value is None:
                series.start(now, value)
                passed.append(index)
            else:
                self._swing(series, index, now, value, passed)
            series.time, series.back = now, False
        self.change = sum(each.held is not None for each in self.series.values()) - before
        return passed

    def _break(self, series: _Series, index: int, now: int, passed: list[int]) -> None:
        """What is no number ends a line, and one after another is enough."""
        if series.held is not None:
            passed.append(series.held)
        if series.value is not None or series.origin is None:
            passed.append(index)
        series.start(now, None)

    def _swing(
        self, series: _Series, index: int, now: int, value: float, passed: list[int]
    ) -> None:
        """Hold the row back if a line to it passes near all since the start; else start anew."""
        assert series.origin is not None
        assert series.value is not None
        slope = (value - series.value) / (now - series.origin)
        fits = series.low <= slope <= series.high and isfinite(slope)
        too_far = self._gap is not None and now - series.origin > self._gap
        if series.held is not None and (too_far or not fits):
            passed.append(series.held)
            series.start(series.time, series.last)
        span = now - (series.origin or 0)
        start = series.value
        low, high = (value - self._error - start) / span, (value + self._error - start) / span
        if low > series.low:
            series.low = low
        if high < series.high:
            series.high = high
        series.held, series.last = index, value
