"""Expressions over the columns of a batch, evaluated with little around them."""

from collections.abc import Callable, Mapping, Sequence

import polars as pl
from polars._utils.wrap import wrap_df, wrap_s
from polars.lazyframe.opt_flags import QueryOptFlags

from edge import small
from edge.expression.direct import Unclear, computes, without_default
from edge.expression.tree import dump

FEW = 1000
"""Rows up to which simple expressions are computed without polars' planner."""

# What `DataFrame.select_seq` and `with_columns_seq` come down to. They look into the environment,
# copy the flags and choose an engine on each call, which is a third of their processor time where a
# small batch comes every 50 ms and finds all caches cold. Polars is pinned to a minor version.
_EAGER = QueryOptFlags._eager()._pyoptflags


def select(frame: pl.DataFrame, exprs: Sequence[pl.Expr]) -> pl.DataFrame:
    """As `frame.select_seq(exprs)`."""
    return _collect(frame._df.lazy().select_seq([expr._pyexpr for expr in exprs]))


def with_columns(frame: pl.DataFrame, exprs: Sequence[pl.Expr]) -> pl.DataFrame:
    """As `frame.with_columns_seq(exprs)`."""
    return _collect(frame._df.lazy().with_columns_seq([expr._pyexpr for expr in exprs]))


def select_rows(frame: pl.DataFrame, exprs: Sequence[pl.Expr]) -> pl.DataFrame:
    """As `select`, of expressions that look at one row: how many come together makes no difference.

    To polars it does. With one value it divides and adds otherwise than with many, and a column
    that it knows to hold the same value everywhere it takes for one value.
    """
    return _of_rows(frame, select, exprs)


def _of_rows(
    frame: pl.DataFrame,
    evaluate: Callable[[pl.DataFrame, Sequence[pl.Expr]], pl.DataFrame],
    exprs: Sequence[pl.Expr],
) -> pl.DataFrame:
    """What `evaluate` gives for all values written out, and for a row that comes alone twice."""
    if not frame.width:
        return evaluate(frame, exprs)
    if frame.height != 1:
        return evaluate(small.frame_of(frame.get_columns()), exprs)
    return evaluate(small.frame_of(frame.vstack(frame).get_columns()), exprs).head(1)


def _collect(lazy: "pl._plr.PyLazyFrame") -> pl.DataFrame:
    return wrap_df(lazy.with_optimizations(_EAGER).collect("in-memory", None))


class Condition:
    """Tells for batch after batch which rows stay."""

    def __init__(self, expr: pl.Expr, columns: pl.Schema) -> None:
        """expr: of `compile_condition`, over `columns`."""
        self._expr = expr
        self._compute = computes(without_default(dump(expr)), columns)

    def keep(self, frame: pl.DataFrame) -> pl.DataFrame:
        """As `frame.filter(expr)`; the mask first, then column by column."""
        if self._compute is not None and frame.height <= FEW:
            try:
                return small.keep(frame, wrap_s(self._compute(frame._df)))
            except Unclear:
                pass
        return small.keep(frame, select_rows(frame, [self._expr]).to_series())


class Values:
    """Adds columns to batch after batch; none of them sees another."""

    def __init__(self, exprs: Mapping[str, pl.Expr], columns: pl.Schema) -> None:
        """exprs: of `compile_value` over `columns`, by the name of the column they make."""
        self._exprs = [expr.alias(name) for name, expr in exprs.items()]
        found = {name: computes(dump(expr), columns) for name, expr in exprs.items()}
        computed = {name: compute for name, compute in found.items() if compute is not None}
        all_new = len(computed) == len(exprs) and not columns.keys() & exprs.keys()
        self._computed = list(computed.items()) if all_new else []

    def add(self, frame: pl.DataFrame) -> pl.DataFrame:
        """As `frame.with_columns(exprs)`."""
        if self._computed and frame.height <= FEW:
            try:
                return self._added(frame)
            except (Unclear, pl.exceptions.DuplicateError):
                pass
        return _of_rows(frame, with_columns, self._exprs)

    def _added(self, frame: pl.DataFrame) -> pl.DataFrame:
        made = []
        for name, compute in self._computed:
            column = compute(frame._df)
            column.rename(name)
            made.append(column)
        return wrap_df(frame._df.hstack(made))
