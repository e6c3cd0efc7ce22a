"""`dedupe`: which rows are the same, for how long, and what is forgotten."""

import math
from datetime import UTC, datetime, timedelta
from typing import Any

import polars as pl
import pytest
from pydantic import ValidationError

import edge.keyed
from edge.errors import DefinitionError
from edge.operators.dedupe import Dedupe
from tests.operators.cases import COLUMNS, STREAM

START = datetime(2024, 5, 1, tzinfo=UTC)


def kept(rows: list[dict[str, Any]], **options: Any) -> list[int]:
    """Indices of the rows that stay."""
    operator = Dedupe.model_validate(options)
    operator.bind(COLUMNS, STREAM)
    frame = pl.DataFrame(rows, schema=COLUMNS, orient="row").with_columns(
        edge_received=pl.Series(range(len(rows))).cast(COLUMNS["edge_received"])
    )
    return operator.process(frame)["edge_received"].to_physical().to_list()


def at(second: int, status: str = "ok", device: str = "a") -> dict[str, Any]:
    return {"ts": START + timedelta(seconds=second), "status": status, "device": device}


def test_an_equal_row_within_the_time_goes() -> None:
    rows = [at(0), at(59), at(60), at(70), at(61, "bad")]
    assert kept(rows, columns=["status"], within="1m") == [0, 2, 4]


def test_a_late_copy_of_an_equal_row_goes_too() -> None:
    assert kept([at(100), at(50), at(30)], columns=["status"], within="1m") == [0, 2]


def test_the_last_count_rows_kept_are_compared() -> None:
    rows = [at(0, text) for text in "aababcab"]
    assert kept(rows, columns=["status"], count=1) == [0, 2, 3, 4, 5, 6, 7]
    assert kept(rows, columns=["status"], count=2) == [0, 2, 5, 6, 7]


def test_series_do_not_mix_unless_told_so() -> None:
    rows = [at(0, device="a"), at(0, device="b")]
    assert kept(rows, columns=["status"], within="1m") == [0, 1]
    assert kept(rows, columns=["status"], within="1m", by=[]) == [0]


def test_all_columns_are_compared_but_those_of_the_processor() -> None:
    rows = [at(0) | {"x": 1.0}, at(0) | {"x": 1.0}, at(0) | {"x": 2.0}, at(1) | {"x": 1.0}]
    assert kept(rows, within="1m") == [0, 2, 3]


def test_null_equals_null_and_nan_equals_nan_but_not_each_other() -> None:
    rows = [at(0) | {"x": x} for x in (None, math.nan, None, math.nan, 0.0, -0.0)]
    assert kept(rows, columns=["x"], within="1m") == [0, 1, 4]


def test_texts_that_look_alike_when_joined_differ() -> None:
    rows = [at(0, 'a","b'), at(0, "a") | {"device": 'a","b'}]
    assert kept(rows, columns=["status", "device"], within="1m", by=[]) == [0, 1]


def test_memory_is_bounded_by_what_is_in_reach(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(edge.keyed, "SWEEP_ROWS", 100)
    operator = Dedupe.model_validate({"columns": ["n"], "within": "50s"})
    operator.bind(COLUMNS, STREAM)
    rows = [at(number) | {"n": number} for number in range(1_000)]
    operator.process(pl.DataFrame(rows, schema=COLUMNS))
    few = operator.snapshot(True)
    assert few is not None
    assert pl.read_ipc_stream(few[8:]).height == 50


def test_what_is_forgotten_beyond_max_rows_is_logged(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(edge.keyed, "SWEEP_ROWS", 4)
    rows = [at(0, text) for text in "abcd"] + [at(1, "d"), at(1, "a")]
    assert kept(rows, columns=["status"], within="1m", max_rows=2) == [0, 1, 2, 3, 5]
    assert caplog.messages == ["dedupe forgets 2 rows beyond max_rows 2"]


@pytest.mark.parametrize("options", [{}, {"within": "1m", "count": 1}])
def test_exactly_one_of_within_and_count_is_needed(options: Any) -> None:
    with pytest.raises(ValidationError, match=r"exactly one of within .* and count"):
        Dedupe.model_validate(options)


def test_a_missing_column_is_named() -> None:
    with pytest.raises(DefinitionError, match="dedupe: column 'sequence' is not in the batch"):
        Dedupe(columns=["sequence"], count=1).bind(COLUMNS, STREAM)
