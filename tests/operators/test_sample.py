"""`sample`: which row of an interval passes, late rows and clocks that jump."""

from datetime import UTC, datetime, timedelta
from typing import Any

import polars as pl
import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError

from edge.errors import DefinitionError
from edge.operators.sample import Sample
from tests.operators.cases import COLUMNS, STREAM

START = datetime(2024, 5, 1, tzinfo=UTC)


def passed(seconds: list[int | None], **options: Any) -> list[int]:
    """Indices of the rows that pass."""
    operator = Sample.model_validate(options)
    operator.bind(COLUMNS, STREAM)
    rows = [
        {"ts": None if second is None else START + timedelta(seconds=second), "n": index}
        for index, second in enumerate(seconds)
    ]
    return operator.process(pl.DataFrame(rows, schema=COLUMNS))["n"].to_list()


def test_the_first_row_of_each_interval_passes() -> None:
    assert passed([3, 9, 10, 11, 19, 25, 25], every="10s") == [0, 2, 5]


def test_a_late_row_passes_if_its_interval_had_none() -> None:
    assert passed([5, 35, 15, 16, 36, 6, 25], every="10s") == [0, 1, 2, 6]


def test_a_clock_that_was_set_back_silences_nothing() -> None:
    hour = 3600
    assert passed([hour, hour + 1, 0, 1, 10, 11], every="10s") == [0, 2, 4]
    assert passed([0, 10**8, 10, 20, 21], every="10s") == [0, 1, 2, 3]


def test_a_row_without_time_passes() -> None:
    assert passed([1, None, 2, None], every="10s") == [0, 1, 3]


def test_the_first_of_so_many_rows_passes() -> None:
    assert passed([0] * 7, rows=3) == [0, 3, 6]
    assert passed([None] * 3, rows=1) == [0, 1, 2]


@given(st.lists(st.integers(-400, 400), max_size=60))
def test_near_the_newest_at_most_one_row_of_an_interval_passes(seconds: list[int]) -> None:
    numbers = [seconds[index] // 10 for index in passed(list(seconds), every="10s")]
    near = [number for number in numbers if max(numbers) - number < 64]
    if max(numbers, default=0) - min(numbers, default=0) < 64:
        assert len(near) == len(set(near))


def test_keys_are_sampled_apart() -> None:
    operator = Sample.model_validate({"every": "10s"})
    operator.bind(COLUMNS, STREAM)
    rows = [{"ts": START, "device": name} for name in ("a", "b", None, "a", "b", None)]
    frame = pl.DataFrame(rows, schema=COLUMNS)
    assert operator.process(frame)["device"].to_list() == ["a", "b", None]
    assert operator.account(6, 3) == {"sampled": 3}


@pytest.mark.parametrize("options", [{}, {"every": "10s", "rows": 3}])
def test_exactly_one_of_every_and_rows_is_needed(options: Any) -> None:
    with pytest.raises(ValidationError, match="must have exactly one of every"):
        Sample.model_validate(options)


def test_a_bare_duration_is_every() -> None:
    assert Sample.model_validate("10s") == Sample.model_validate({"every": "10s"})


def test_a_missing_column_is_named() -> None:
    operator = Sample.model_validate({"every": "10s", "by": ["line"]})
    with pytest.raises(DefinitionError, match="sample: column 'line' is not in the batch"):
        operator.bind(COLUMNS, STREAM)
