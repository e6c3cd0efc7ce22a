"""`derive`: order of the columns, replaced names, and what YAML makes of an expression."""

from typing import Any

import polars as pl
import pytest
from pydantic import ValidationError

from edge.errors import DefinitionError
from edge.operators.derive import Derive
from tests.operators.cases import COLUMNS, STREAM


def derived(columns: Any) -> dict[str, Any]:
    operator = Derive.model_validate(columns)
    schema = operator.bind(COLUMNS, STREAM)
    frame = pl.DataFrame([dict.fromkeys(COLUMNS) | {"x": 2.0, "n": 3}], schema=COLUMNS)
    result = operator.process(frame)
    assert result.schema == schema
    return result.row(0, named=True)


def test_each_expression_sees_the_columns_before_it() -> None:
    row = derived({"n": "n + 1", "m": "n * 10", "k": "m + n"})
    assert (row["n"], row["m"], row["k"]) == (4, 40, 44)
    assert list(row) == [*COLUMNS, "m", "k"]


def test_constants_are_columns_too() -> None:
    row = derived({"site": "'osaka'", "one": 1, "half": 0.5, "yes": True})
    assert (row["site"], row["one"], row["half"], row["yes"]) == ("osaka", 1, 0.5, True)


def test_a_column_may_be_called_columns() -> None:
    assert derived({"columns": "n + 1"})["columns"] == 4
    assert Derive(columns={"a": "n"}) == Derive.model_validate({"a": "n"})


def test_an_expression_cut_at_its_comma_says_quote_it() -> None:
    with pytest.raises(ValidationError) as caught:
        Derive.model_validate({"a": "ROUND(x", "1)": None})
    assert "'1)' has no expression; where one was cut at its comma, quote it" in str(caught.value)


def test_a_reserved_name_is_refused() -> None:
    with pytest.raises(DefinitionError) as caught:
        Derive(columns={"edge_x": "n"}).bind(COLUMNS, STREAM)
    assert str(caught.value) == (
        "derive: columns starting with 'edge_' are reserved, got 'edge_x'; rename it"
    )


def test_a_fault_names_the_new_column() -> None:
    with pytest.raises(DefinitionError) as caught:
        Derive(columns={"dew_point": "humidity * 2"}).bind(COLUMNS, STREAM)
    assert str(caught.value).startswith("derive 'dew_point': column 'humidity' is not in the batch")
