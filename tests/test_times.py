"""The text of a point in time does not depend on those beside it."""

from itertools import accumulate, cycle, islice
from typing import Literal

import polars as pl
import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from edge.codec.times import times_as_text

ROWS = 1500  # as many as are worth the way for many
CENTURY = 100 * 366 * 86_400 * 10**6

STEPS = st.one_of(
    st.just(0),
    st.integers(0, 3).map(lambda step: step * 1000),
    st.integers(-10, 10),
    st.integers(-5_000_000, 5_000_000),
    st.integers(0, CENTURY // ROWS),
)


def as_text(frame: pl.DataFrame, at_once: int) -> list[str | None]:
    texts = pl.concat(times_as_text(part) for part in frame.iter_slices(at_once))
    assert texts.schema == {"at": pl.String, "n": pl.Int64}
    return texts["at"].to_list()


def frame_of(times: list[int | None], dtype: pl.Datetime) -> pl.DataFrame:
    at = pl.Series("at", times, dtype=pl.Int64).cast(dtype)
    return pl.DataFrame([at, pl.int_range(len(times), dtype=pl.Int64, eager=True).alias("n")])


@given(
    st.integers(-CENTURY, CENTURY),
    st.lists(STEPS, min_size=1, max_size=50),
    st.sets(st.integers(0, ROWS - 1), max_size=5),
    st.sampled_from(["us", "ms", "ns"]),
    st.sampled_from([None, "UTC", "Asia/Kolkata", "America/New_York"]),
)
@example(0, [0], set(), "us", "UTC")
@example(-1, [1], {0, ROWS - 1}, "us", "UTC")
@example(999_999, [1000], set(), "us", None)
@example(8_000_000_000_000_000, [5000], set(), "us", "UTC")
def test_many_at_once_and_few_at_once_give_the_same(
    start: int,
    steps: list[int],
    gaps: set[int],
    unit: Literal["us", "ms", "ns"],
    zone: str | None,
) -> None:
    times: list[int | None] = list(accumulate(islice(cycle(steps), ROWS - 1), initial=start))
    for gap in gaps:
        times[gap] = None
    frame = frame_of(times, pl.Datetime(unit, zone))
    assert as_text(frame, ROWS) == as_text(frame, 500)


@pytest.mark.parametrize("step", [0, 1, 1000, 5_000_000])
def test_it_is_iso_8601_in_utc_with_six_digits(step: int) -> None:
    frame = frame_of([-1 + step * n for n in range(ROWS)], pl.Datetime("us", "Europe/Berlin"))
    assert as_text(frame, ROWS)[0] == "1969-12-31T23:59:59.999999Z"
    text = pl.Series(as_text(frame, ROWS))
    assert text.str.to_datetime("%Y-%m-%dT%H:%M:%S%.6fZ").to_physical().to_list() == [
        -1 + step * n for n in range(ROWS)
    ]


def test_times_that_are_all_missing_stay_so() -> None:
    assert as_text(frame_of([None] * ROWS, pl.Datetime("us")), ROWS) == [None] * ROWS


@pytest.mark.parametrize("name", ["^a$", "*", "^.*$", ""])
@pytest.mark.parametrize("rows", [1, ROWS])
def test_a_name_is_no_pattern(name: str, rows: int) -> None:
    frame = frame_of([0] * rows, pl.Datetime("us", "UTC")).rename({"at": name})
    assert times_as_text(frame)[name].to_list() == ["1970-01-01T00:00:00.000000Z"] * rows
