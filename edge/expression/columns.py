"""The columns a batch has: are those needed there, and what can their types do."""

from collections.abc import Iterable, Mapping
from datetime import date, datetime
from difflib import get_close_matches
from typing import Any

import polars as pl

from edge.errors import DefinitionError

TIMESTAMP = pl.Datetime("us", "UTC")
"""The type of every point in time inside a pipeline."""

_WORDS: Mapping[type[pl.DataType], str] = {
    pl.String: "str",
    pl.Int64: "int",
    pl.Float64: "float",
    pl.Boolean: "bool",
    pl.Datetime: "timestamp",
}
_SAMPLES: Mapping[type[pl.DataType], object] = {
    pl.String: "",
    pl.Boolean: False,
    pl.Datetime: datetime(2000, 1, 1),
    pl.Date: date(2000, 1, 1),
}


def require(names: Iterable[str], columns: Iterable[str], where: str, sql: str = "") -> None:
    """Raise DefinitionError, with the nearest name, unless all `names` are among `columns`.

    sql: what they were read from; there a name in double quotes was often meant as text.
    """
    present = list(columns)
    for name in names:
        if name not in present:
            near = get_close_matches(name, present, 1)
            hint = f"; did you mean {near[0]!r}?" if near else ""
            if f'"{name}"' in sql:
                hint = f"; a text stands in single quotes: '{name}'"
            has = ", ".join(column for column in present if not column.startswith("edge_"))
            raise DefinitionError(
                f"{where}: column {name!r} is not in the batch, which has {has}{hint}"
            )


def reserve(names: Iterable[str], where: str) -> None:
    """Raise DefinitionError if one of `names`, which an operator is to make, is reserved."""
    for name in names:
        if name.startswith("edge_"):
            raise DefinitionError(
                f"{where}: columns starting with 'edge_' are reserved, got {name!r}; rename it"
            )


def probe(columns: pl.Schema) -> pl.DataFrame:
    """Two rows of these columns, one of nulls and one of harmless values, to try things on.

    Some faults of types show only with a value at hand, never on an empty frame.
    """
    return pl.DataFrame(
        [
            pl.Series(name, [None, _sample(dtype)], strict=False)
            .cast(dtype, strict=False)
            for name, dtype in columns.items()
        ]
    )  # fmt: skip


def parse_timestamp(text: pl.Expr) -> pl.Expr:
    """ISO 8601 text as TIMESTAMP, UTC where it has no offset, null where it is anything else.

    The formats are fixed: polars' own guess looks at the first value of the batch. 0.15 us a row.
    """
    text = text.str.strip_chars().str.replace(" ", "T", literal=True)
    return pl.coalesce(
        text.str.to_datetime("%+", time_unit="us", time_zone="UTC", strict=False),
        text.str.to_datetime("%Y-%m-%dT%H:%M:%S%.f", time_unit="us", strict=False)
        .dt.replace_time_zone("UTC"),
        text.str.to_datetime("%Y-%m-%dT%H:%M", time_unit="us", strict=False)
        .dt.replace_time_zone("UTC"),
        text.str.to_date("%Y-%m-%d", strict=False).cast(TIMESTAMP),
    )  # fmt: skip


def _sample(dtype: Any) -> object:
    match dtype:
        case pl.List():
            return [_sample(dtype.inner)]
        case pl.Struct():
            return {field.name: _sample(field.dtype) for field in dtype.fields}
    return 0 if dtype.is_numeric() else _SAMPLES.get(type(dtype))


def type_word(dtype: pl.DataType) -> str:
    """A type as a record writes it: `str`, `float`."""
    return _WORDS.get(dtype.base_type(), str(dtype))
