"""What is made with little around it is what polars' own constructors make."""

from collections.abc import Callable, Sequence

import polars as pl
import pytest
from hypothesis import given
from hypothesis import strategies as st
from polars.testing import assert_frame_equal, assert_series_equal

from edge import small
from edge.codec import TIMESTAMP

_INT = st.integers(-(2**63), 2**63 - 1)
_FLOAT = st.floats() | st.integers(-(2**70), 2**70)
_MADE: Sequence[tuple[Callable[..., pl.Series], pl.DataType, st.SearchStrategy[object]]] = [
    (small.texts, pl.String(), st.text()),
    (small.floats, pl.Float64(), _FLOAT),
    (small.whole, pl.Int64(), _INT),
    (small.flags, pl.Boolean(), st.booleans()),
]


@given(st.data())
@pytest.mark.parametrize(("make", "dtype", "values"), _MADE)
def test_a_column_is_what_polars_makes(
    make: Callable[..., pl.Series],
    dtype: pl.DataType,
    values: st.SearchStrategy[object],
    data: st.DataObject,
) -> None:
    drawn = data.draw(st.lists(values | st.none(), max_size=20))
    for given_as in (drawn, tuple(drawn)):
        assert_series_equal(make("a", given_as), pl.Series("a", drawn, dtype))


@pytest.mark.parametrize(
    ("make", "value"), [(small.texts, 1), (small.floats, "1"), (small.whole, 1.5), (small.flags, 1)]
)
def test_a_value_of_another_type_is_an_error(make: Callable[..., pl.Series], value: object) -> None:
    with pytest.raises(TypeError):
        make("a", [None, value])


def test_a_number_beyond_64_bits_is_an_error() -> None:
    with pytest.raises(OverflowError):
        small.whole("a", [2**63])


@given(st.lists(st.integers(0, 7_258_118_399_000) | st.none(), max_size=20))
def test_times_are_numbers_times_a_factor(millis: list[int | None]) -> None:
    micros = [None if one is None else one * 1000 for one in millis]
    given_, asked = small.times(small.whole("t", millis), TIMESTAMP, 1000), pl.Series("t", micros)
    assert_series_equal(given_, asked.cast(pl.Int64).cast(TIMESTAMP))


@given(st.lists(st.booleans() | st.none(), max_size=20))
def test_rows_are_kept_where_the_mask_is_true(mask: list[bool | None]) -> None:
    rows = range(len(mask))
    frame = small.frame_of([small.whole("a", rows), small.texts("b", list(map(str, rows)))])
    asked = frame.filter(pl.Series(mask, dtype=pl.Boolean))
    assert_frame_equal(small.keep(frame, small.flags("", mask)), asked)


def test_columns_at_places() -> None:
    column = small.texts("a", ["x", None, "z"])
    assert small.at(column, small.places([2, 1, 2])).to_list() == ["z", None, "z"]
    with pytest.raises(pl.exceptions.OutOfBoundsError):
        small.at(column, small.places([3]))
