"""`cast`: every type to every other, and null where a value is lost."""

import math
from datetime import UTC, date, datetime
from typing import Any

import polars as pl
import pytest

from edge.errors import DefinitionError
from edge.expression import TIMESTAMP
from edge.operators.cast import Cast
from tests.operators.cases import COLUMNS, STREAM

MAY = datetime(2024, 5, 1, tzinfo=UTC)
STRUCT = pl.Struct({"b": pl.Int64()})


def cast(value: Any, dtype: pl.DataType, kind: str) -> Any:
    frame = pl.DataFrame({"a": [value]}, schema={"a": dtype})
    operator = Cast.model_validate({"a": kind})
    schema = operator.bind(frame.schema, STREAM)
    result = operator.process(frame)
    assert result.schema == schema
    return result["a"].item()


@pytest.mark.parametrize(
    ("value", "dtype", "kind", "expected"),
    [
        (4.7, pl.Float64(), "int", 4),
        (-4.7, pl.Float64(), "int", -4),
        (1e300, pl.Float64(), "int", None),
        (math.nan, pl.Float64(), "int", None),
        ("42", pl.String(), "int", 42),
        ("4.7", pl.String(), "int", None),
        (True, pl.Boolean(), "int", 1),
        ("4.7", pl.String(), "float", 4.7),
        ("warm", pl.String(), "float", None),
        (2, pl.Int64(), "float", 2.0),
        (" True", pl.String(), "bool", True),
        ("false", pl.String(), "bool", False),
        ("yes", pl.String(), "bool", None),
        (0.5, pl.Float64(), "bool", True),
        (math.nan, pl.Float64(), "bool", None),
        (math.nan, pl.Float64(), "str", "NaN"),
        (1.5, pl.Float64(), "str", "1.5"),
        (True, pl.Boolean(), "str", "true"),
        (MAY, TIMESTAMP, "str", "2024-05-01T00:00:00.000000Z"),
        ({"b": 1}, STRUCT, "str", '{"b":1}'),
        ({"b": 1}, STRUCT, "json", '{"b":1}'),
        ([1, None], pl.List(pl.Int64()), "json", "[1,null]"),
        ('say "hi"', pl.String(), "json", '"say \\"hi\\""'),
        (math.nan, pl.Float64(), "json", None),
        (MAY, TIMESTAMP, "json", '"2024-05-01T00:00:00.000000Z"'),
        ("2024-05-01T02:00:00+02:00", pl.String(), "timestamp", MAY),
        ("May", pl.String(), "timestamp", None),
        (1_714_521_600_000_000, pl.Int64(), "timestamp", MAY),
        (math.nan, pl.Float64(), "timestamp", None),
        (date(2024, 5, 1), pl.Date(), "timestamp", MAY),
        (datetime(2024, 5, 1), pl.Datetime("ms"), "timestamp", MAY),
    ],
)
def test_a_value_becomes_the_type_or_null(
    value: Any, dtype: pl.DataType, kind: str, expected: Any
) -> None:
    assert cast(value, dtype, kind) == expected


@pytest.mark.parametrize("kind", ["str", "int", "float", "bool", "json", "timestamp"])
@pytest.mark.parametrize("name", ["ts", "x", "n", "status", "ok"])
def test_null_stays_null(kind: str, name: str) -> None:
    if (name, kind) in (("ok", "timestamp"), ("ts", "bool")):
        return
    assert cast(None, COLUMNS[name], kind) is None


def test_what_cannot_be_cast_is_refused_before_any_row_comes() -> None:
    columns = pl.Schema({"a": pl.List(pl.Int64())})
    with pytest.raises(DefinitionError) as caught:
        Cast(columns={"a": "timestamp"}).bind(columns, STREAM)
    assert str(caught.value) == (
        "cast 'a': List(Int64) cannot become timestamp; use the python operator"
    )


def test_a_missing_column_is_named() -> None:
    with pytest.raises(DefinitionError, match="cast: column 'a' is not in the batch"):
        Cast(columns={"a": "int"}).bind(COLUMNS, STREAM)
