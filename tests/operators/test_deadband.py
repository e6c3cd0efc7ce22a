"""`deadband`: which changes pass, the heartbeat, and what is remembered."""

import math
from datetime import UTC, datetime, timedelta
from typing import Any

import polars as pl
import pytest
from pydantic import ValidationError

from edge.errors import DefinitionError
from edge.operators.deadband import Deadband
from tests.operators.cases import COLUMNS, STREAM

START = datetime(2024, 5, 1, tzinfo=UTC)


def passed(values: list[Any], seconds: list[int] | None = None, **options: Any) -> list[Any]:
    operator = Deadband.model_validate({"column": "x", **options})
    operator.bind(COLUMNS, STREAM)
    times = [START + timedelta(seconds=second) for second in seconds or range(len(values))]
    rows = [{"ts": time, "x": value} for time, value in zip(times, values, strict=True)]
    return operator.process(pl.DataFrame(rows, schema=COLUMNS))["x"].to_list()


def test_a_row_passes_when_it_is_further_than_the_band_from_the_last_that_passed() -> None:
    assert passed([1.0, 1.5, 1.75, 1.25, 0.5], change=0.5) == [1.0, 1.75, 0.5]


def test_a_slow_drift_passes_in_steps() -> None:
    assert passed([0.0, 0.25, 0.5, 0.75, 1.0, 1.25], change=0.5) == [0.0, 0.75]


def test_zero_passes_every_change() -> None:
    assert passed([1.0, 1.0, 1.0000001, 1.0], change=0) == [1.0, 1.0000001, 1.0]


def test_a_percentage_is_of_the_last_passed_value() -> None:
    assert passed([100.0, 109.0, 111.0, 121.0, 99.0], change="10%") == [100.0, 111.0, 99.0]
    assert passed([0.0, 0.0, 1e-9], change="10%") == [0.0, 1e-9]


def test_going_to_null_nan_or_infinity_passes_and_so_does_coming_back() -> None:
    values = [1.0, None, None, 1.0, math.inf, math.inf, -math.inf, 1.0]
    assert passed(values, change=5) == [1.0, None, 1.0, math.inf, -math.inf, 1.0]
    assert len(passed([1.0, math.nan, math.nan, None, math.nan], change=5)) == 4


def test_the_heartbeat_counts_event_time_from_the_last_passed_row() -> None:
    values = [1.0, 1.1, 1.2, 1.3, 1.4]
    assert passed(values, [0, 59, 60, 90, 120], change=5, heartbeat="1m") == [1.0, 1.2, 1.4]


def test_keys_do_not_mix() -> None:
    operator = Deadband(column="x", change=1)
    operator.bind(COLUMNS, STREAM)
    rows = [{"device": name, "x": x} for name, x in [("a", 1.0), ("b", 9.0), ("a", 1.5), (None, 1)]]
    result = operator.process(pl.DataFrame(rows, schema=COLUMNS))
    assert result["device"].to_list() == ["a", "b", None]


def test_a_snapshot_holds_only_the_keys_that_changed() -> None:
    operator = Deadband(column="x", change=1)
    operator.bind(COLUMNS, STREAM)
    many = [{"device": f"d{number}", "x": 1.0} for number in range(5_000)]
    operator.process(pl.DataFrame(many, schema=COLUMNS))
    whole = operator.snapshot(True)
    operator.process(pl.DataFrame([{"device": "d7", "x": 5.0}], schema=COLUMNS))
    change = operator.snapshot(False)
    operator.process(pl.DataFrame([{"device": "d7", "x": 5.0}], schema=COLUMNS))
    nothing = operator.snapshot(False)
    assert whole is not None
    assert change is not None
    assert nothing is not None
    assert len(nothing) < 16 < len(change) < 2_000 < len(whole)


@pytest.mark.parametrize("change", ["2", "two", "-2%", -0.1, math.nan, math.inf, True, None])
def test_a_change_that_is_none_is_refused(change: Any) -> None:
    with pytest.raises(ValidationError, match="must be"):
        Deadband.model_validate({"column": "x", "change": change})


def test_text_is_sent_to_dedupe() -> None:
    with pytest.raises(DefinitionError) as caught:
        Deadband(column="status", change=1).bind(COLUMNS, STREAM)
    assert str(caught.value) == (
        "deadband: column 'status' must be a number, got str; for text, use dedupe with count: 1"
    )


def test_a_heartbeat_needs_the_time_and_a_missing_key_is_named() -> None:
    columns = pl.Schema({"device": pl.String(), "x": pl.Float64()})
    Deadband(column="x", change=1).bind(columns, STREAM)
    with pytest.raises(DefinitionError, match="column 'ts' is not in the batch"):
        Deadband.model_validate({"column": "x", "change": 1, "heartbeat": "1m"}).bind(
            columns, STREAM
        )
    with pytest.raises(DefinitionError, match="column 'line' is not in the batch"):
        Deadband(column="x", change=1, by=["line"]).bind(columns, STREAM)
