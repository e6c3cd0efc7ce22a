"""What is computed without polars' planner is what the planner gives, to the last bit."""

import math

import polars as pl
import pytest
from hypothesis import given
from hypothesis import strategies as st
from polars.testing import assert_frame_equal

from edge.expression import (
    Condition,
    Values,
    compile_condition,
    compile_value,
    select,
    with_columns,
)
from edge.expression.direct import Unclear, computes, without_default
from edge.expression.evaluate import FEW
from edge.expression.tree import dump
from tests.search import examples

COLUMNS = pl.Schema(
    {"x": pl.Float64(), "y": pl.Float64(), "n": pl.Int64(), "s": pl.String(), "ok": pl.Boolean()}
)
ROW = {"x": 1.5, "y": -2.0, "n": 3, "s": "ok", "ok": True}

numbers = st.sampled_from(
    ["0", "1", "32", "1.8", "0.1", "1e3", "-2.5", "9007199254740993", "-0e0", "(5 * 2)",
     "(0 - 10)", "CAST(10 AS DOUBLE)", "POWER(10, 1)"]
)  # fmt: skip
comparisons = st.sampled_from(["=", "<>", "<", "<=", ">", ">="])
sums = st.recursive(
    st.sampled_from(["x", "y"]),
    lambda inner: st.one_of(
        st.builds("({} {} {})".format, inner, st.sampled_from("+-*/"), numbers),
        st.builds("({} {} {})".format, numbers, st.sampled_from("+-*/"), inner),
        st.builds("({} {} {})".format, inner, st.sampled_from("+-*/"), inner),
        st.builds("ROUND({}, {})".format, inner, st.integers(0, 40)),
    ),
    max_leaves=4,
)
plain = st.one_of(
    st.just("ok"),
    st.builds("{} {} {}".format, sums, comparisons, numbers),
    st.builds("{} {} {}".format, numbers, comparisons, sums),
    st.builds("n {} {}".format, comparisons, st.sampled_from(["0", "3", "2.5", "-7"])),
    st.builds("s {} '{}'".format, comparisons, st.sampled_from(["ok", "", "ü"])),
    st.builds("{} {} {}".format, sums, comparisons, sums),
)
conditions = st.recursive(
    plain,
    lambda inner: st.one_of(
        st.builds("({} AND {})".format, inner, inner),
        st.builds("({} OR {})".format, inner, inner),
        st.builds("(NOT {})".format, inner),
    ),
    max_leaves=5,
)
floats = st.one_of(
    st.none(),
    st.floats(),
    st.sampled_from([0.0, -0.0, math.nan, math.inf, -math.inf, 0.5, 2.5, 15.0, 2.0**52]),
    st.integers(0, 10**6).map(lambda number: number / 1000),
)
rows = st.lists(
    st.fixed_dictionaries(
        {
            "x": floats,
            "y": floats,
            "n": st.none() | st.integers(-(2**63), 2**63 - 1) | st.integers(-3, 4),
            "s": st.none() | st.sampled_from(["ok", "", "ü", "z"]),
            "ok": st.none() | st.booleans(),
        }
    ),
    max_size=6,
)


def frame_of(given_rows: list[dict[str, object]]) -> pl.DataFrame:
    return pl.DataFrame(given_rows, schema=COLUMNS)


def with_company(frame: pl.DataFrame) -> pl.DataFrame:
    """The rows twice: to a single one polars adds otherwise. It must not know that they repeat."""
    return pl.DataFrame([pl.concat([column, column]) for column in frame])


def as_text(frame: pl.DataFrame) -> list[tuple[str, ...]]:
    """0.0 and -0.0 are equal, and NaN nothing, but each is written in its own way."""
    return frame.select(pl.all().cast(pl.String)).rows()


def test_what_pipelines_mostly_say_needs_no_planner() -> None:
    frame = frame_of([ROW])
    for sql in (
        "s = 'ok' AND x > 15",
        "NOT (x * 1.8 + 32 >= 100 OR n <> 3)",
        "x BETWEEN 1 AND 2.5",
        "ok AND 15 < x",
    ):
        compute = computes(without_default(dump(compile_condition(sql, COLUMNS, "w"))), COLUMNS)
        assert compute is not None, sql
        compute(frame._df)
    for sql in ("ROUND(x * 1.8 + 32, 2)", "(x - 32) * 5 / 9", "-x", "x * y"):
        compute = computes(dump(compile_value(sql, COLUMNS, "w")), COLUMNS)
        assert compute is not None, sql
        compute(frame._df)


@examples(300)
@given(conditions, rows)
def test_a_condition_keeps_what_the_planner_keeps(
    sql: str, given_rows: list[dict[str, object]]
) -> None:
    expr, frame = compile_condition(sql, COLUMNS, "w"), frame_of(given_rows)
    mask = select(with_company(frame), [expr]).to_series().head(frame.height)
    assert_frame_equal(Condition(expr, COLUMNS).keep(frame), frame.filter(mask))


@examples(300)
@given(sums, sums, rows)
def test_values_are_what_the_planner_gives(
    one: str, two: str, given_rows: list[dict[str, object]]
) -> None:
    frame = frame_of(given_rows)
    exprs = {name: compile_value(sql, COLUMNS, "w") for name, sql in {"a": one, "b": two}.items()}
    found = Values(exprs, COLUMNS).add(frame)
    expected = with_columns(
        with_company(frame), [expr.alias(name) for name, expr in exprs.items()]
    ).head(frame.height)
    assert found.schema == expected.schema
    assert as_text(found) == as_text(expected)


@examples(300)
@given(sums, conditions, rows)
def test_a_row_comes_out_the_same_alone_among_few_and_among_many(
    sql: str, where: str, given_rows: list[dict[str, object]]
) -> None:
    values = Values({"a": compile_value(sql, COLUMNS, "w")}, COLUMNS)
    condition = Condition(compile_condition(where, COLUMNS, "w"), COLUMNS)

    def outcome(frame: pl.DataFrame) -> list[tuple[str, ...]]:
        return as_text(condition.keep(values.add(frame)))

    few = frame_of(given_rows)
    assert [row for place in range(few.height) for row in outcome(few[place])] == outcome(few)
    times = FEW // max(1, few.height) + 1
    assert outcome(pl.concat([few] * times)) == outcome(few) * times


@pytest.mark.parametrize("ten", ["10.0", "10", "CAST(10 AS DOUBLE)", "COALESCE(10.0, x)"])
@pytest.mark.parametrize("rows", [1, 2, FEW, FEW + 1])
def test_a_column_of_one_value_is_a_column(ten: str, rows: int) -> None:
    columns = pl.Schema({"x": pl.Float64()})
    constants = Values(
        {"ten": compile_value(ten, columns, "w"), "zero": compile_value("0.0", columns, "w")},
        columns,
    )
    frame = constants.add(pl.DataFrame({"x": [3.0] * rows}))
    both = {"v": "x / ten", "z": "zero * -1 + zero"}
    exprs = {name: compile_value(sql, frame.schema, "w") for name, sql in both.items()}
    added = Values(exprs, frame.schema)
    assert set(added.add(frame).select("v", "z").cast(pl.String).rows()) == {("0.3", "0.0")}
    condition = Condition(compile_condition("x / ten > 0.3", frame.schema, "w"), frame.schema)
    assert not condition.keep(frame).height


@given(st.lists(st.floats(0, 1e9, exclude_min=True), min_size=1), st.integers(0, 6))
def test_positive_numbers_are_rounded_without_the_planner(
    given_values: list[float], decimals: int
) -> None:
    frame = pl.DataFrame({"x": given_values})
    expr = compile_value(f"ROUND(x, {decimals})", frame.schema, "w")
    compute = computes(dump(expr), frame.schema)
    assert compute is not None
    assert (
        pl.Series._from_pyseries(compute(frame._df)).to_list() == frame.select(expr)["x"].to_list()
    )


@pytest.mark.parametrize(
    ("sql", "values"),
    [
        ("x > 1", [1.0, math.nan]),
        ("ROUND(x, 1) > 1", [1.0, -1.0]),
        ("ROUND(x, 1) > 1", [1.0, 2.0**52]),
        ("ROUND(x, 1) > 1", [None, None]),
    ],
)
def test_values_that_would_come_out_otherwise_are_left_to_the_planner(
    sql: str, values: list[float | None]
) -> None:
    frame = pl.DataFrame({"x": values}, schema={"x": pl.Float64})
    expr = compile_condition(sql, frame.schema, "w")
    compute = computes(without_default(dump(expr)), frame.schema)
    assert compute is not None
    with pytest.raises(Unclear):
        compute(frame._df)
    assert_frame_equal(Condition(expr, frame.schema).keep(frame), frame.filter(expr))


def test_a_column_of_another_type_is_left_to_the_planner() -> None:
    declared, given_frame = pl.Schema({"x": pl.Float64()}), pl.DataFrame({"x": [1, 2]})
    condition = Condition(compile_condition("x > 1.5", declared, "w"), declared)
    assert condition.keep(given_frame)["x"].to_list() == [2]


def test_many_rows_are_left_to_the_planner() -> None:
    frame = pl.DataFrame({"x": [1.0] * FEW + [math.nan]})
    expr = compile_condition("x > 0", frame.schema, "w")
    assert Condition(expr, frame.schema).keep(frame).height == FEW


def test_a_column_that_is_replaced_stays_in_its_place() -> None:
    frame = frame_of([ROW])
    exprs = {"x": compile_value("x + 1", COLUMNS, "w"), "z": compile_value("x", COLUMNS, "w")}
    added = Values(exprs, COLUMNS).add(frame)
    assert added.columns == ["x", "y", "n", "s", "ok", "z"]
    assert added.row(0) == (2.5, -2.0, 3, "ok", True, 1.5)


def test_a_copy_under_another_name_leaves_the_column_alone() -> None:
    frame = frame_of([ROW])
    added = Values({"z": compile_value("x", COLUMNS, "w")}, COLUMNS).add(frame)
    assert (frame.columns, added.columns) == ([*COLUMNS], [*COLUMNS, "z"])
    assert added["x"].name == "x"
