"""Expressions over the columns of a batch, evaluated with little around them."""

from collections.abc import Sequence

import polars as pl
from polars._utils.wrap import wrap_df
from polars.lazyframe.opt_flags import QueryOptFlags

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


def _collect(lazy: "pl._plr.PyLazyFrame") -> pl.DataFrame:
    return wrap_df(lazy.with_optimizations(_EAGER).collect("in-memory", None))
