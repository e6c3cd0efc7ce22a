"""Series and frames of small batches: what polars' own methods come down to, and no more.

They look at what they are given from many sides before they call into Rust. Where a batch of a few
rows comes every 50 ms and finds all caches cold, that is most of its processor time: 250
microseconds for the first `pl.Series` of a batch, 70 for the same done here. Polars is pinned to a
minor version.
"""

from collections.abc import Iterable, Sequence
from typing import Any, BinaryIO

import polars as pl
from polars._utils.wrap import wrap_df, wrap_s

_PySeries = pl._plr.PySeries
_PyFrame = pl._plr.PyDataFrame


def texts(name: str, values: Sequence[Any]) -> pl.Series:
    """str or None each; raises TypeError for what is not, as the next three do."""
    return wrap_s(_PySeries.new_str(name, values, True))


def floats(name: str, values: Sequence[Any]) -> pl.Series:
    """float, int or None each; a bool is taken for a number."""
    return wrap_s(_PySeries.new_opt_f64(name, values, True))


def whole(name: str, values: Sequence[Any]) -> pl.Series:
    """int or None each; OverflowError beyond 64 bits."""
    return wrap_s(_PySeries.new_opt_i64(name, values, True))


def flags(name: str, values: Sequence[Any]) -> pl.Series:
    """bool or None each."""
    return wrap_s(_PySeries.new_opt_bool(name, values, True))


def places(values: Sequence[int]) -> pl.Series:
    """Indices, for `at`."""
    return wrap_s(_PySeries.new_opt_u32("", values, True))


def times(count: pl.Series, dtype: pl.DataType, factor: int = 1) -> pl.Series:
    """Whole numbers times `factor` as points in time of `dtype`."""
    number = count._s if factor == 1 else count._s.mul_i64(factor)
    return wrap_s(number.cast(dtype, True, False))


def at(column: pl.Series, indices: pl.Series) -> pl.Series:
    """The values of a column at `places`; raises where there is none."""
    return wrap_s(column._s.gather_with_series(indices._s))


def frame_of(columns: Iterable[pl.Series]) -> pl.DataFrame:
    """Columns of one length and with different names as a frame."""
    return wrap_df(_PyFrame([column._s for column in columns]))


def read_stream(file: BinaryIO) -> pl.DataFrame:
    """The frame of an Arrow IPC stream."""
    return wrap_df(_PyFrame.read_ipc_stream(file, None, None, None, None, False))


def keep(frame: pl.DataFrame, mask: pl.Series) -> pl.DataFrame:
    """The rows for which `mask` is true, column by column.

    Filtering a frame as a whole hands every column to polars' own thread and back.
    """
    chosen = mask._s
    if chosen.all(False):  # not of nulls
        return frame
    return wrap_df(_PyFrame([column.filter(chosen) for column in frame._df.get_columns()]))
