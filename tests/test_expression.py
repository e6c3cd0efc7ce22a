"""SQL expressions: what they give, what is refused, and that one row never decides another's."""

import math
from datetime import UTC, datetime
from typing import Any

import polars as pl
import pytest
from hypothesis import given
from hypothesis import strategies as st
from polars.testing import assert_frame_equal

from edge.errors import DefinitionError
from edge.expression import (
    TIMESTAMP,
    Values,
    columns_read,
    compile_condition,
    compile_value,
    parse_timestamp,
    probe,
)
from tests.search import examples

COLUMNS = pl.Schema(
    {
        "ts": TIMESTAMP,
        "device": pl.String(),
        "x": pl.Float64(),
        "y": pl.Float64(),
        "n": pl.Int64(),
        "small": pl.Int8(),
        "ok": pl.Boolean(),
        "order": pl.Int64(),
        "d": pl.Struct({"temp": pl.Float64()}),
        "list": pl.List(pl.Int64()),
    }
)
NAN = math.nan
MAY = datetime(2024, 5, 1, tzinfo=UTC)


def value(sql: str, **row: Any) -> Any:
    frame = pl.DataFrame([dict.fromkeys(COLUMNS) | row], schema=COLUMNS)
    return frame.select(compile_value(sql, COLUMNS, "derive 'a'")).item()


def holds(sql: str, **row: Any) -> Any:
    frame = pl.DataFrame([dict.fromkeys(COLUMNS) | row], schema=COLUMNS)
    return frame.select(compile_condition(sql, COLUMNS, "filter")).item()


@pytest.mark.parametrize(
    "sql",
    ["x / 10", "n / 10", "x / 3.3", "(x + 1) / 1.8", "x // 0.1", "x / 7 / 3", "0 + x", "-x",
     "POW(x, 3)", "POWER(x, 0.3)", "x % 0.7", "SQRT(x) / 3", "ROUND(x, 1) / 1.8",
     "x / (5 * 2)", "x / CAST(10 AS DOUBLE)", "x + CAST(0 AS DOUBLE)", "x / -0e0",
     "x / POWER(10, 1)"],
)  # fmt: skip
def test_a_row_gives_the_same_alone_and_in_company(sql: str) -> None:
    columns = pl.Schema({"x": pl.Float64(), "n": pl.Int64()})
    values = [3.0, 0.0, -0.0, 0.1, -7.3, 21.3, 1e300, math.inf, math.nan, *map(float, range(50))]
    numbers = [int(each) if abs(each) < 1e9 else None for each in values]
    frame = pl.DataFrame({"x": values, "n": numbers}, schema=columns)
    added = Values({"v": compile_value(sql, columns, "w")}, columns)
    together = added.add(frame)["v"].cast(pl.String).to_list()
    assert [added.add(row)["v"].cast(pl.String).item() for row in frame.iter_slices(1)] == together


def test_a_number_divides_exactly() -> None:
    numbers = [*range(1000), 104_844_215_242_163]
    unsigned = pl.Series(numbers, dtype=pl.UInt64)
    frame = pl.DataFrame({"x": [*map(float, numbers)], "n": numbers, "u": unsigned})
    for sql, by in (("x / 10", 10), ("n / 10", 10), ("x / 1.8", 1.8), ("ROUND(x, 1) / 1.8", 1.8),
                    ("x / (5 * 2)", 10), ("u / 10", 10), ("n / POWER(10, 1)", 10)):  # fmt: skip
        expr = compile_value(sql, frame.schema, "w")
        expected = [number / by for number in numbers]
        assert frame.select(expr).to_series().to_list() == expected
        assert Values({"v": expr}, frame.schema).add(frame)["v"].to_list() == expected


def fault(sql: str, columns: pl.Schema = COLUMNS) -> str:
    with pytest.raises(DefinitionError) as caught:
        compile_value(sql, columns, "derive 'a'")
    return str(caught.value)


@pytest.mark.parametrize(
    ("sql", "row", "expected"),
    [
        ("n / 2", {"n": 5}, 2.5),
        ("n // 2", {"n": 5}, 2),
        ("n / 0", {"n": 5}, math.inf),
        ("n // 0", {"n": 5}, None),
        ("n % 0", {"n": 5}, None),
        ("x // 2", {"x": math.inf}, None),
        ("x // 2", {"x": 5.5}, 2),
        ("n * 1.8 + 32", {"n": 10}, 50.0),
        ("small * 100", {"small": 100}, 10_000),
        ("LENGTH(device) - 5", {"device": "ab"}, -3),
        ("EXTRACT(HOUR FROM ts) * 3600", {"ts": MAY.replace(hour=23)}, 82_800),
        ("CAST(device AS INT)", {"device": "4000000000"}, 4_000_000_000),
        ("CAST(device AS INT)", {"device": "many"}, None),
        ("CAST(x AS INT)", {"x": NAN}, None),
        ("CAST(device AS TIMESTAMP)", {"device": "2024-05-01 02:00:00+02:00"}, MAY),
        ("CAST(device AS DATE)", {"device": "2024-05-01"}, MAY.date()),
        ("STRPTIME(device, '%d.%m.%Y %H:%M')", {"device": "01.05.2024 00:00"}, MAY),
        ("STRPTIME(device, '%d.%m.%Y %H:%M')", {"device": "yesterday"}, None),
        ("CASE WHEN x > 80 THEN 'hot' ELSE 'cold' END", {"x": NAN}, "cold"),
        ("COALESCE(x, 1.5)", {}, 1.5),
        ("d.temp + 1", {"d": {"temp": 2.0}}, 3.0),
        ("list[2]", {"list": [7, 8]}, 8),
        ("list[3]", {"list": [7, 8]}, None),
        ('"order" + 1', {"order": 1}, 2),
        ("device || '!'", {"device": "a"}, "a!"),
        ("x > 1", {"x": NAN}, None),
        ("1", {}, 1),
    ],
)
def test_a_value_is_what_the_documentation_says(sql: str, row: Any, expected: Any) -> None:
    assert value(sql, **row) == expected


@pytest.mark.parametrize("sql", ["x > 1", "x > 1.5", "x != 1.5", "NOT x > 1.5", "x NOT IN (1.5)"])
@pytest.mark.parametrize("x", [None, NAN])
def test_null_and_nan_make_a_condition_false(sql: str, x: float | None) -> None:
    assert holds(sql, x=x) is False
    assert holds(sql, x=2.0) is (not sql.startswith("NOT"))


@pytest.mark.parametrize(
    ("sql", "expected"),
    [
        ("ts > '2024-04-30'", True),
        ("ts = '2024-05-01T02:00:00+02:00'", True),
        ("ts = '2024-05-01 00:00:00'", True),
        ("ts < TIMESTAMP '2024-05-01 00:00:00'", False),
        ("ts >= TIMESTAMPTZ '2024-05-01 00:00:00Z'", True),
        ("ts BETWEEN '2024-04-01' AND '2024-04-30'", False),
        ("ts IN ('2024-05-01', '2024-05-02')", True),
        ("ts > DATE '2024-04-30'", True),
        ("ts + INTERVAL '1 day' = '2024-05-02'", True),
        ("ts > CAST('2024-04-30' AS TIMESTAMP)", True),
    ],
)
def test_points_in_time_compare_with_literals(sql: str, expected: bool) -> None:
    assert holds(sql, ts=MAY) is expected


OTHER_ROWS = (
    "looks at other rows, and which rows share a batch is chance; "
    "aggregate where the rows are stored, an expression sees one row"
)


@pytest.mark.parametrize(
    ("sql", "what"),
    [
        ("x > AVG(x)", "an aggregate"),
        ("SUM(x * 1.5)", "an aggregate"),
        ("FIRST(x)", "an aggregate"),
        ("COUNT(*)", "COUNT(*)"),
        ("AVG(x) OVER (PARTITION BY device)", "OVER"),
        ("LAG(x) OVER (ORDER BY ts)", "OVER"),
        ("ROW_NUMBER() OVER (ORDER BY ts)", "OVER"),
        ("EXISTS (SELECT 1)", "a subquery"),
        ("UNNEST(list)", "UNNEST"),
    ],
)
def test_what_looks_at_other_rows_is_refused(sql: str, what: str) -> None:
    assert fault(sql) == f"derive 'a': {what} {OTHER_ROWS}"


@pytest.mark.parametrize(
    "sql",
    [
        "CORR(x, y)",
        "QUANTILE_CONT(x, 0.5)",
        "DENSE_RANK() OVER (ORDER BY x)",
        "COLUMNS('x')",
        "ARRAY_UNIQUE(list)",
        "x AS z",
        "CAST(device AS JSON)",
        "x IN (SELECT y FROM t)",
    ],
)
def test_what_is_not_known_to_look_at_one_row_is_refused(sql: str) -> None:
    assert fault(sql).startswith("derive 'a': ")


@pytest.mark.parametrize(
    "sql", ["NOW() > ts", "current_date", "ts < CURRENT_TIMESTAMP", "LOCALTIME"]
)
def test_the_clock_is_refused(sql: str) -> None:
    assert "use the column edge_received" in fault(sql)


def test_a_text_that_names_the_clock_is_no_clock() -> None:
    assert holds("device = 'now()'", device="now()") is True


@pytest.mark.parametrize(
    ("sql", "message"),
    [
        ("humidity / 2", "column 'humidity' is not in the batch, which has ts, device, x, y"),
        ("devise = 'a'", "; did you mean 'device'?"),
        ("order > 1", """; 'order' is also a SQL word: write it as "order\""""),
        (
            "device > 1",
            "text and numbers do not go together; CAST the text AS DOUBLE, or mind the quotes: "
            "'5' is text; device is str",
        ),
        ("x IN ('a')", "IN must have values of type float, got str; x is float"),
        ("LENGTH(x) > 1", "'x' must be str here, got float; x is float"),
        ("device = 'a' AND x", "AND and OR take conditions; compare each side with something"),
        ('device = "a1"', "; a text stands in single quotes: 'a1'"),
        ("RUOND(x)", "no function is called 'ruond', got 'RUOND(x)'; did you mean 'round'?"),
        ("x > 'a", """a quote is never closed, got "x > 'a\""""),
        ("x > 1 && y", "is not an expression of SQL, got 'x > 1 && y'; SQL writes AND, not &&"),
        ("x > 9,5", "got 'x > 9,5'; a decimal point is written 9.5"),
        ("\r", "is not an expression of SQL, got '\\r'"),
        ("NOT device", "; device is str"),
        ("ts > 5", "a point in time is compared with a number; write it as '2024-05-01T12:00:00Z'"),
        ("ts > 'noon'", "must be written like '2024-05-01T12:00:00Z', got 'noon'"),
        ("ts > device", "a point in time is compared with text; write CAST(… AS TIMESTAMP)"),
        ("d.wind > 1", "no field 'wind' in the value; d is Struct"),
        ("device ~ '('", "not a regular expression, got '('"),
        ("DATE(device)", "need a format such as '%d.%m.%Y'"),
        ("x >", "is not an expression of SQL, got 'x >'"),
        (" OR ".join(["x > 1"] * 70), "is nested too deeply; write a chain of ORs as IN (...)"),
        (" OR ".join(["x > 1"] * 1_000), "is nested too deeply; write a chain of ORs as IN (...)"),
        ("x" * 10_001, "must have at most 10000 characters, got 10001; a long list of values goes"),
    ],
)
def test_a_fault_says_what_is_wrong_and_what_to_do(sql: str, message: str) -> None:
    text = fault(sql)
    assert text.startswith("derive 'a': ")
    assert message in text


def test_a_condition_must_be_true_or_false() -> None:
    with pytest.raises(DefinitionError) as caught:
        compile_condition("x + 1", COLUMNS, "when")
    assert str(caught.value) == (
        "when: must be true or false, got float; compare it with something"
    )


def test_columns_read_are_known_without_a_batch() -> None:
    assert columns_read("edge_received > ts AND d.temp > 1", "when") == {"edge_received", "ts", "d"}


NEVER_FAIL = [
    "x // y", "n // small", "n % small", "x / y", "x % y", "n * n", "SQRT(x)", "LN(x)", "LOG(x, n)",
    "POW(x, y)", "POW(n, 2)", "EXP(x)", "ABS(n)", "ROUND(x, 2)", "FLOOR(x)", "SIGN(x)", "-n",
    "CAST(x AS INT)", "CAST(n AS SMALLINT)", "CAST(device AS FLOAT)", "CAST(n AS TIMESTAMP)",
    "CAST(n AS BOOLEAN)", "CAST(x AS DECIMAL(10, 2))", "CAST(ts AS DATE)", "CAST(ts AS VARCHAR)",
    "CAST(device AS TIMESTAMP)", "CAST(device AS DATE)", "STRPTIME(device, '%Y')",
    "DATE(device, '%Y')", "EXTRACT(YEAR FROM ts)", "EXTRACT(EPOCH FROM ts)", "STRFTIME(ts, '%c')",
    "ts + INTERVAL '1 month'", "SUBSTR(device, n, small)", "LEFT(device, small)", "LPAD(device, 4)",
    "SPLIT_PART(device, '-', 2)", "REGEXP_LIKE(device, '^a+')", "device LIKE '%a_'",
    "REGEXP_REPLACE(device, '(.)a', '$1')", "STRPOS(device, 'a')", "INITCAP(device)",
    "CONCAT(device, n, x)", "device || n", "GREATEST(x, n, small)", "LEAST(x, y)", "NULLIF(n, 0)",
    "x > 1.5 OR ok", "NOT ok", "x IN (1, 2.5)", "n IN (1, 2.5)", "x IS NOT DISTINCT FROM y",
    "ts > '2024-01-01'", "list[small]", "ARRAY_SUM(list)", "ARRAY_LENGTH(list)", "d.temp > x",
    "CASE WHEN x > y THEN n ELSE small END", "COALESCE(x, n)", "ATAN2(x, y)", "BIT_COUNT(n)",
]  # fmt: skip

wild_rows = st.lists(
    st.fixed_dictionaries(
        {
            "ts": st.none() | st.datetimes(timezones=st.just(UTC)),
            "device": st.none()
            | st.sampled_from(["", "a-1", "2024-05-01", "2024", "1e400", "12:00", "ä€😀", "\0"])
            | st.text(max_size=5),
            "x": st.none() | st.floats(),
            "y": st.none() | st.sampled_from([0.0, -0.0, 1.0, NAN, math.inf, -math.inf]),
            "n": st.none() | st.integers(-(2**63), 2**63 - 1) | st.sampled_from([0, 1, -1]),
            "small": st.none() | st.integers(-128, 127),
            "ok": st.none() | st.booleans(),
            "order": st.none(),
            "d": st.none() | st.just({"temp": 1.0}),
            "list": st.none() | st.lists(st.integers(0, 9), max_size=3),
        }
    ),
    min_size=1,
    max_size=8,
)


@pytest.mark.parametrize("sql", NEVER_FAIL)
@given(rows=wild_rows)
@examples(20)
def test_no_row_fails_a_batch_and_none_decides_for_another(sql: str, rows: Any) -> None:
    expr = compile_value(sql, COLUMNS, "derive 'a'").alias("a")
    frame = pl.DataFrame(rows, schema=COLUMNS, orient="row")
    alone = [frame[index].select(expr) for index in range(frame.height)]
    assert_frame_equal(frame.select(expr), pl.concat(alone))


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("2024-05-01T00:00:00Z", MAY),
        ("2024-05-01T02:00:00.000+0200", MAY),
        ("2024-05-01 00:00", MAY),
        (" 2024-05-01 ", MAY),
        ("2024-05-01T00:00:00.000001Z", MAY.replace(microsecond=1)),
        ("01.05.2024", None),
        ("", None),
        (None, None),
    ],
)
def test_iso_text_is_read_as_utc_and_anything_else_is_null(text: str, expected: Any) -> None:
    frame = pl.DataFrame({"t": [text]}, schema={"t": pl.String})
    assert frame.select(parse_timestamp(pl.col("t"))).item() == expected


def test_a_probe_has_a_row_of_nulls_and_a_row_of_values() -> None:
    frame = probe(COLUMNS)
    assert frame.schema == COLUMNS
    assert set(frame.row(0)) == {None}
    assert frame.row(1)[:5] == (datetime(2000, 1, 1, tzinfo=UTC), "", 0.0, 0.0, 0)
