"""`cast`: changes the type of columns."""

from typing import Literal

import polars as pl
from pydantic import Field, PrivateAttr

from edge.codec import ISO_8601
from edge.component import Stream
from edge.errors import DefinitionError
from edge.expression import TIMESTAMP, parse_timestamp, probe, require, reserve, with_columns
from edge.operators import Operator

Type = Literal["str", "int", "float", "bool", "json", "timestamp"]


class Cast(Operator):
    """Changes the type of columns; a value that the new type cannot hold becomes null.

    ```yaml
    cast:
      temperature: float
      started: timestamp
    ```

    `int` cuts the fraction off (4.7 becomes 4) and reads whole numbers in text. `bool` reads `true`
    and `false` in text, and takes every number but 0 for true. `timestamp` reads ISO 8601 text, UTC
    where it has no offset, and whole numbers as microseconds since 1970. `str` writes a timestamp
    as ISO 8601 with `Z`. `json` writes the value as JSON text.

    Nulls and NaN: null stays null; NaN becomes null as `int`, `bool`, `json` and `timestamp`, and
    the text `NaN` as `str`. What was lost can be counted by comparing with the column before.

    Cost: 0.02 ms per batch; per row 0.01 us between numbers, 0.05 to 0.2 us to and from text.
    """

    short = "columns"
    own_memory = True

    columns: dict[str, Type] = Field(description="Column and the type it gets.", min_length=1)

    _casts: list[pl.Expr] = PrivateAttr(default_factory=list)

    def bind(self, columns: pl.Schema, stream: Stream) -> pl.Schema:
        require(self.columns, columns, "cast")
        reserve(self.columns, "cast")
        sample = probe(columns)
        self._casts.clear()
        for name, kind in self.columns.items():
            expr = _CASTS[kind](pl.col(name), columns[name]).alias(name)
            try:
                sample.with_columns(expr)
            except pl.exceptions.PolarsError as error:
                raise DefinitionError(
                    f"cast {name!r}: {columns[name]} cannot become {kind}; use the python operator"
                ) from error
            self._casts.append(expr)
        return sample.with_columns(self._casts).schema

    def process(self, frame: pl.DataFrame) -> pl.DataFrame:
        return with_columns(frame, self._casts)


def _to_str(value: pl.Expr, dtype: pl.DataType) -> pl.Expr:
    if isinstance(dtype, pl.Datetime):
        return value.dt.convert_time_zone("UTC").dt.strftime(ISO_8601)
    if dtype.is_nested():
        return _to_json(value, dtype)
    return value.cast(pl.String, strict=False)


def _to_int(value: pl.Expr, dtype: pl.DataType) -> pl.Expr:
    return value.cast(pl.Int64, strict=False)


def _to_float(value: pl.Expr, dtype: pl.DataType) -> pl.Expr:
    return value.cast(pl.Float64, strict=False)


def _to_bool(value: pl.Expr, dtype: pl.DataType) -> pl.Expr:
    if dtype == pl.String:
        words = value.str.strip_chars().str.to_lowercase()
        known = {"true": True, "false": False}
        return words.replace_strict(known, default=None, return_dtype=pl.Boolean)
    if dtype.is_float():
        return (value != 0) & pl.when(value.is_not_nan()).then(True)
    return value.cast(pl.Boolean, strict=False)


def _to_json(value: pl.Expr, dtype: pl.DataType) -> pl.Expr:
    """polars writes structs only, so the value goes into one and its text comes out of it."""
    if isinstance(dtype, pl.Datetime):
        value = _to_str(value, dtype)
    inner = pl.struct(value.alias("v")).struct.json_encode().str.slice(len('{"v":'))
    text = inner.str.head(-1)
    return pl.when(text != "null").then(text)


def _to_timestamp(value: pl.Expr, dtype: pl.DataType) -> pl.Expr:
    if dtype == pl.String:
        return parse_timestamp(value)
    if dtype.is_float():
        value = value.cast(pl.Int64, strict=False)
    return value.cast(TIMESTAMP, strict=False)


_CASTS = {
    "str": _to_str,
    "int": _to_int,
    "float": _to_float,
    "bool": _to_bool,
    "json": _to_json,
    "timestamp": _to_timestamp,
}
