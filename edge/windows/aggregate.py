"""`AVG(temperature)`: what is kept of the rows of a window, how two of it merge, what comes out."""

import re
from collections.abc import Callable, Mapping, Sequence
from difflib import get_close_matches
from typing import NamedTuple

import polars as pl

from edge.errors import DefinitionError
from edge.expression import compile_value, type_word
from edge.windows.steps import Step, find_step

ORDER = "o"
"""The column by which FIRST and LAST go: event time, or a constant where arrival decides."""

_CALL = re.compile(r"\s*([A-Za-z_]\w*)\s*\((.*)\)\s*", re.DOTALL)
_DISTINCT = re.compile(r"distinct\s+(.+)", re.IGNORECASE | re.DOTALL)
_INT, _FLOAT = pl.Int64(), pl.Float64()

Merge = Callable[[pl.Expr, pl.Expr], pl.Expr]


class Part(NamedTuple):
    """A column kept for an open window.

    collect: its value for a group of rows. merge: from the names of the same aggregate's columns
    before and after (`before("n")`, `after("n")`) its value for both together. grows: a list that
    only gets longer at its end; its part `saved` is how much of it is written down.
    """

    name: str
    collect: pl.Expr
    merge: Callable[["Side", "Side"], pl.Expr]
    grows: bool = False


Side = Callable[[str], pl.Expr]
"""The columns of an aggregate on one side of a merge: what was kept, or what came."""


class Aggregate(NamedTuple):
    """One column of the result of a window.

    value: what is aggregated, NaN as null; None for COUNT(*). parts: what is kept of it. result:
    computed from the kept columns, whose names `column` gives. step: the same for one row; None
    for values of types that only columns have. source: the column whose values they are, as it is.
    """

    name: str
    value: pl.Expr | None
    parts: Sequence[Part]
    result: Callable[[Side], pl.Expr]
    step: Step | None
    source: str | None = None

    def column(self, part: str) -> str:
        """The name of a kept column."""
        return f"{self.name}\0{part}"


def compile_aggregate(name: str, text: str, columns: pl.Schema, most: int) -> Aggregate:
    """`COUNT(*)`, `MAX(x)`, `QUANTILE(x, 0.9)`, ... over `columns`.

    most: how many values MEDIAN, QUANTILE and COUNT(DISTINCT ...) keep per window; the result of
    more is null. Raises DefinitionError for anything but a single call of the table.
    """
    where = f"window {name!r}"
    call = _CALL.fullmatch(text)
    if call is None or not _is_one_call(call[2]):
        raise DefinitionError(
            f"{where}: must be one call such as AVG(temperature), got {text!r}; compute with "
            "aggregates in a derive after the window, with values in a derive before it"
        )
    function, argument = call[1].upper(), call[2].strip()
    if function == "COUNT" and argument == "*":
        parts = [Part("n", pl.len().cast(_INT), _add("n"))]
        return Aggregate(name, None, parts, lambda of: of("n"), find_step(function, None, most))
    if function == "COUNT" and (distinct := _DISTINCT.fullmatch(argument)):
        function, argument = "COUNT DISTINCT", distinct[1]
    make = _TABLE.get(function)
    if make is None:
        near = get_close_matches(function, _TABLE, 1)
        hint = f"did you mean {near[0]}?" if near else f"known are {', '.join(_TABLE)}"
        raise DefinitionError(f"{where}: no aggregate is called {function}; {hint}")
    share = 0.5
    if function == "QUANTILE":
        argument, share = _split_share(argument, where)
    value = compile_value(argument, columns, where)
    source = value.meta.output_name() if value.meta.is_column() else None
    kind = pl.DataFrame(schema=columns).select(value.alias("x")).schema["x"]
    if kind.is_float():
        value = value.fill_nan(None)
    if function in _NUMERIC and not kind.is_numeric():
        raise DefinitionError(f"{where}: {function} takes numbers, got {type_word(kind)}")
    step = find_step(function, kind, most + 1)
    return make(_Call(name, value, kind, share, most, step))._replace(source=source)


def _is_one_call(inside: str) -> bool:
    """Whether the parenthesis that opened before `inside` closes behind it and not within."""
    depth = 0
    for piece in re.findall(r"'(?:[^']|'')*'|\"[^\"]*\"|[()]", inside):
        depth += {"(": 1, ")": -1}.get(piece, 0)
        if depth < 0:
            return False
    return depth == 0


def _split_share(argument: str, where: str) -> tuple[str, float]:
    value, _, text = argument.rpartition(",")
    try:
        share = float(text)
    except ValueError:
        share = -1.0
    if not value or not 0 <= share <= 1:
        raise DefinitionError(
            f"{where}: QUANTILE takes a value and a share between 0 and 1 such as "
            f"QUANTILE(latency, 0.95), got {argument!r}"
        )
    return value, share


class _Call(NamedTuple):
    name: str
    value: pl.Expr
    kind: pl.DataType
    share: float
    most: int
    step: Step | None

    @property
    def rows(self) -> pl.Expr:
        """The values of a group of rows, in the order they came."""
        return pl.col(value_column(self.name))

    def make(self, parts: Sequence[Part], result: Callable[[Side], pl.Expr]) -> Aggregate:
        return Aggregate(self.name, self.value, parts, result, self.step)


def value_column(name: str) -> str:
    """The column of a batch that holds the values of the aggregate `name`."""
    return f"{name}\0value"


def _add(part: str) -> Callable[[Side, Side], pl.Expr]:
    return lambda kept, came: kept(part).fill_null(0) + came(part).fill_null(0)


def _count(call: _Call) -> Aggregate:
    return call.make([Part("n", call.rows.count().cast(_INT), _add("n"))], lambda of: of("n"))


def _sum(call: _Call) -> Aggregate:
    kind = _FLOAT if call.kind.is_float() else _INT
    parts = [
        Part("n", call.rows.count().cast(_INT), _add("n")),
        Part("sum", call.rows.sum().cast(kind), _add("sum")),
    ]
    return call.make(parts, lambda of: pl.when(of("n") > 0).then(of("sum")))


def _average(call: _Call) -> Aggregate:
    parts = [
        Part("n", call.rows.count().cast(_INT), _add("n")),
        Part("sum", call.rows.cast(_FLOAT).sum(), _add("sum")),
    ]
    return call.make(parts, lambda of: pl.when(of("n") > 0).then(of("sum") / of("n")))


def _least(call: _Call) -> Aggregate:
    part = Part("x", call.rows.min(), lambda kept, came: pl.min_horizontal(kept("x"), came("x")))
    return call.make([part], lambda of: of("x"))


def _greatest(call: _Call) -> Aggregate:
    part = Part("x", call.rows.max(), lambda kept, came: pl.max_horizontal(kept("x"), came("x")))
    return call.make([part], lambda of: of("x"))


def _first(call: _Call) -> Aggregate:
    return _at_the_end(call, pl.Expr.first, lambda kept, came: kept("t") <= came("t"))


def _last(call: _Call) -> Aggregate:
    return _at_the_end(call, pl.Expr.last, lambda kept, came: kept("t") > came("t"))


def _at_the_end(
    call: _Call,
    pick: Callable[[pl.Expr], pl.Expr],
    stays: Callable[[Side, Side], pl.Expr],
) -> Aggregate:
    """The value with the least or greatest time, nulls left out; of equal times by arrival."""
    there = call.rows.is_not_null()
    times = pl.col(ORDER).filter(there)

    def merge(part: str) -> Callable[[Side, Side], pl.Expr]:
        def of(kept: Side, came: Side) -> pl.Expr:
            keep = came("t").is_null() | stays(kept, came).fill_null(False)
            return pl.when(keep).then(kept(part)).otherwise(came(part))

        return of

    parts = [
        Part("t", pick(times.sort_by(times, maintain_order=True)), merge("t")),
        Part("x", pick(call.rows.filter(there).sort_by(times, maintain_order=True)), merge("x")),
    ]
    return call.make(parts, lambda of: of("x"))


def _variance(call: _Call) -> Aggregate:
    """Of a sample (n - 1); partial results merge as Chan, Golub and LeVeque (1983) do."""
    rows = call.rows.cast(_FLOAT)

    def counts(kept: Side, came: Side) -> tuple[pl.Expr, pl.Expr]:
        return kept("n").fill_null(0), came("n").fill_null(0)

    def mean(kept: Side, came: Side) -> pl.Expr:
        before, new = counts(kept, came)
        step = (came("mean") - kept("mean")) * new / (before + new)
        return (
            pl.when(before == 0)
            .then(came("mean"))
            .when(new == 0)
            .then(kept("mean"))
            .otherwise(kept("mean") + step)
        )

    def square(kept: Side, came: Side) -> pl.Expr:
        before, new = counts(kept, came)
        apart = came("mean") - kept("mean")
        both = (before > 0) & (new > 0)
        between = pl.when(both).then(apart * apart * before * new / (before + new)).otherwise(0.0)
        return kept("square").fill_null(0.0) + came("square").fill_null(0.0) + between

    parts = [
        Part("n", call.rows.count().cast(_INT), _add("n")),
        Part("mean", rows.mean(), mean),
        Part("square", ((rows - rows.mean()) ** 2).sum(), square),
    ]
    return call.make(parts, lambda of: pl.when(of("n") > 1).then(of("square") / (of("n") - 1)))


def _deviation(call: _Call) -> Aggregate:
    variance = _variance(call)
    return variance._replace(result=lambda of: variance.result(of).sqrt())


def _quantile(call: _Call) -> Aggregate:
    inside = pl.element().cast(_FLOAT).quantile(call.share, "linear")
    return _of_values(call, lambda values: values.list.eval(inside).list.first())


def _distinct(call: _Call) -> Aggregate:
    return _of_values(call, lambda values: values.list.len().cast(_INT), distinct=True)


def _of_values(
    call: _Call, result: Callable[[pl.Expr], pl.Expr], *, distinct: bool = False
) -> Aggregate:
    """Of all values, which are kept: one more than may be, so that the excess shows."""
    limit = call.most + 1

    def bound(values: pl.Expr) -> pl.Expr:
        return (values.list.unique(maintain_order=True) if distinct else values).list.head(limit)

    rows = call.rows.drop_nulls()
    collect = rows.unique(maintain_order=True).head(limit) if distinct else rows.head(limit)
    empty = pl.lit([], dtype=pl.List(call.kind))

    def merge(kept: Side, came: Side) -> pl.Expr:
        both = kept("values").fill_null(empty), came("values").fill_null(empty)
        return bound(pl.concat_list(*both))

    none = pl.lit(0, _INT)
    saved = Part("saved", none, lambda kept, came: kept("saved").fill_null(0))
    return call.make(
        [Part("values", collect.implode(), merge, grows=True), saved],
        lambda of: pl.when(of("values").list.len() < limit).then(result(of("values"))),
    )


_TABLE: Mapping[str, Callable[[_Call], Aggregate]] = {
    "COUNT": _count,
    "COUNT DISTINCT": _distinct,
    "SUM": _sum,
    "AVG": _average,
    "MIN": _least,
    "MAX": _greatest,
    "FIRST": _first,
    "LAST": _last,
    "STDDEV": _deviation,
    "VARIANCE": _variance,
    "MEDIAN": _quantile,
    "QUANTILE": _quantile,
}
_NUMERIC = {"SUM", "AVG", "STDDEV", "VARIANCE", "MEDIAN", "QUANTILE"}
