"""`filter`: what passes, and what a wrong condition says."""

import pytest

from edge.errors import DefinitionError
from edge.operators.filter import Filter
from tests.operators.cases import COLUMNS, STREAM


def test_yaml_and_python_forms_agree() -> None:
    assert Filter.model_validate("x > 1") == Filter(where="x > 1")
    assert Filter.model_validate({"where": "x > 1"}) == Filter(where="x > 1")


def test_the_columns_stay() -> None:
    assert Filter(where="x > 1").bind(COLUMNS, STREAM) == COLUMNS


def test_a_missing_column_is_named_with_those_there_are() -> None:
    with pytest.raises(DefinitionError) as caught:
        Filter(where="temperature > 1").bind(COLUMNS, STREAM)
    assert str(caught.value) == (
        "filter 'temperature > 1': column 'temperature' is not in the batch, which has "
        "ts, device, x, n, status, ok"
    )


def test_the_schema_takes_both_forms() -> None:
    short, long = Filter.model_json_schema()["anyOf"]
    assert short["type"] == "string"
    assert "$ref" in long or long["type"] == "object"
