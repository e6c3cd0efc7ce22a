"""`python`: functions from files, modules and variables; what they must return."""

from pathlib import Path
from typing import Any

import polars as pl
import pytest

from edge.component import Stream
from edge.errors import DataError, DefinitionError
from edge.operators.python import Python
from tests.operators.cases import COLUMNS, STREAM

FRAME = pl.DataFrame([{"device": "a", "x": 1.0, "n": 2}], schema=COLUMNS)
OUT = {"device": "str", "double": "float"}


def process(function: Any, **options: Any) -> pl.DataFrame:
    operator = Python(function=function, **options)
    schema = operator.bind(COLUMNS, STREAM)
    result = operator.process(FRAME)
    assert result.schema == schema
    return result


def reason(function: Any, **options: Any) -> str:
    with pytest.raises(DataError) as caught:
        process(function, **options)
    return str(caught.value).partition(": ")[2]


def test_a_function_of_a_file_beside_the_definition(tmp_path: Path) -> None:
    (tmp_path / "press.py").write_text(
        "def keep(frame):\n    return frame.filter(frame['n'] > 1)\n"
    )
    operator = Python(function="press.py:keep")
    operator.bind(COLUMNS, Stream("ts", ("device",), tmp_path))
    assert operator.process(FRAME).equals(FRAME)


def test_a_function_of_a_module() -> None:
    result = process("tests.operators.cases:add_double", rows=True)
    assert result["n"].to_list() == [4]


def test_declared_columns_come_out_with_those_of_the_processor() -> None:
    def double(row: dict[str, Any]) -> dict[str, Any]:
        assert "edge_received" not in row
        return {"device": row["device"], "double": row["x"] * 2}

    result = process(double, rows=True, columns=OUT)
    assert result.columns == ["device", "double", "edge_received"]
    assert result["double"].item() == 2.0


def test_none_drops_a_row_and_a_list_makes_several() -> None:
    assert process(lambda row: None, rows=True).height == 0
    assert process(lambda row: [row, row], rows=True).height == 2


def test_an_exception_names_the_function_and_what_it_was() -> None:
    with pytest.raises(DataError) as caught:
        process(lambda frame: frame["nothing"])
    assert str(caught.value).startswith(f"python '{__name__}:test_an_exception")
    assert "ColumnNotFoundError" in str(caught.value)
    assert "ZeroDivisionError" in reason(lambda row: 1 / 0, rows=True)


@pytest.mark.parametrize(
    ("function", "options", "message"),
    [
        (lambda frame: 1, {}, "must return a polars.DataFrame, got int"),
        (lambda row: 1, {"rows": True}, "must return a dict, None or a list of dicts, got int"),
        (lambda frame: frame.drop("x"), {}, "other columns than declared: 'x' is missing"),
        (lambda frame: frame.with_columns(edge_id=1), {}, "'edge_id' is new"),
        (lambda row: row | {"y": 1}, {"rows": True}, "'y' is new"),
        (
            lambda frame: frame.with_columns(x=pl.lit("a")),
            {},
            "column 'x' must be Float64, got String",
        ),
        (lambda row: row | {"n": "a"}, {"rows": True}, "returned a row of wrong types"),
    ],
)
def test_a_wrong_result_says_what_is_wrong(function: Any, options: Any, message: str) -> None:
    assert message in reason(function, **options)


def test_narrower_numbers_are_widened() -> None:
    narrow = pl.col("n").cast(pl.Int32)
    assert process(lambda frame: frame.with_columns(narrow))["n"].item() == 2


@pytest.mark.parametrize(
    ("function", "message"),
    [
        ("press.py:keep", "python 'press.py:keep': cannot be loaded: FileNotFoundError"),
        ("no.such.module:keep", "cannot be loaded: ModuleNotFoundError"),
        ("math:warm", "there is no function 'warm' in math"),
        ("keep", "must be file.py:name or module:name"),
    ],
)
def test_a_function_that_is_not_there_is_a_fault_of_the_definition(
    function: str, message: str
) -> None:
    with pytest.raises(DefinitionError) as caught:
        Python(function=function).bind(COLUMNS, STREAM)
    assert message in str(caught.value)


def test_a_reserved_column_is_refused() -> None:
    with pytest.raises(DefinitionError, match="are reserved, got 'edge_x'"):
        Python(function="math:sqrt", columns={"edge_x": "int"}).bind(COLUMNS, STREAM)


def test_a_function_given_in_python_is_written_as_its_name() -> None:
    assert Python(function=process).model_dump()["function"] == f"{__name__}:process"
