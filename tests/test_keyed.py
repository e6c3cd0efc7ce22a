"""What operators remember: exact after a restart, bounded, and the same however rows were cut."""

import math
from typing import Any

import polars as pl
import pytest
from hypothesis import given
from hypothesis import strategies as st

import edge.keyed
from edge.keyed import Keyed, event_times, key_text

FIELDS: dict[str, pl.DataType] = {"value": pl.Float64(), "time": pl.Int64()}
entries = st.tuples(
    st.none() | st.floats(allow_nan=False), st.none() | st.integers(-(2**62), 2**62)
)


def feed(memory: Keyed, heights: list[int]) -> list[tuple[int, bool]]:
    return [
        (piece.height, full)
        for height in heights
        for piece, full in memory.pieces(pl.DataFrame({"a": range(height)}))
    ]


def whole_of(memory: Keyed) -> bytes:
    whole = memory.snapshot(True)
    assert whole is not None
    return whole


@given(st.lists(st.tuples(st.text(max_size=3), st.none() | entries), max_size=20), st.booleans())
def test_entries_survive_as_one_whole_and_changes(puts: Any, whole: bool) -> None:
    memory = Keyed(FIELDS, 100)
    states = [whole_of(memory)]
    for key, entry in puts:
        if entry is not None:
            memory.put(key, entry)
        elif key in memory.entries:
            memory.forget([key])
        change = memory.snapshot(whole)
        if change is not None:
            states = [change] if whole else [*states, change]
    again = Keyed(FIELDS, 100)
    again.put("leftover", (1.0, 1))
    again.restore(states)
    assert again.entries == memory.entries


def test_there_is_nothing_to_write_until_a_row_came() -> None:
    memory = Keyed(FIELDS, 9)
    assert memory.snapshot(False) is None
    feed(memory, [3])
    counted = memory.snapshot(False)
    assert counted is not None
    assert memory.snapshot(False) is None
    again = Keyed(FIELDS, 9)
    again.restore([counted])
    assert again.snapshot(False) is None


def test_a_sweep_is_due_after_the_same_rows_however_they_are_cut(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(edge.keyed, "SWEEP_ROWS", 4)
    assert feed(Keyed(FIELDS, 9), [10]) == [(4, True), (4, True), (2, False)]
    assert feed(Keyed(FIELDS, 9), [3, 1, 2]) == [(3, False), (1, True), (2, False)]
    memory = Keyed(FIELDS, 9)
    feed(memory, [3])
    again = Keyed(FIELDS, 9)
    again.restore([whole_of(memory)])
    assert feed(again, [3]) == [(1, True), (2, False)]


def test_a_sweep_forgets_the_oldest_times_first_then_by_key() -> None:
    memory = Keyed(FIELDS, 2)
    for key, time in [("new", 9), ("b", 5), ("a", 5), ("none", None)]:
        memory.put(key, (1.0, time))
    memory.sweep()
    assert set(memory.entries) == {"new", "b"}


NUMBERS = [None, math.nan, math.inf, 0.0, -0.0, 1.0, 5e-324]


@pytest.mark.parametrize(
    ("dtype", "values", "groups"),
    [
        (pl.Float64(), NUMBERS, 6),
        (pl.String(), [None, "", "null", "NaN", "a", "\\", '"', "a"], 7),
        (pl.Int64(), [None, 0, 2**63 - 1, 2**63 - 2], 4),
        (pl.Boolean(), [None, True, False], 3),
        (pl.List(pl.Int64()), [None, [], [1], [1, 2], [1]], 4),
        (pl.Decimal(10, 2), [None, 1, 2], 3),
        (pl.Binary(), [None, b"", b"\xff", b"\xfe"], 4),
    ],
)
def test_key_texts_are_equal_exactly_for_equal_values(
    dtype: pl.DataType, values: list[Any], groups: int
) -> None:
    frame = pl.DataFrame({"a": pl.Series(values, dtype=dtype)})
    assert frame.select(key_text(["a"], frame.schema)).to_series().n_unique() == groups


@given(st.lists(st.tuples(st.text(), st.text(), st.floats() | st.none()), max_size=8, unique=True))
def test_key_texts_of_several_columns_do_not_run_together(rows: Any) -> None:
    frame = pl.DataFrame(
        rows, schema={"a": pl.String, "b": pl.String, "c": pl.Float64}, orient="row"
    )
    texts = frame.select(key_text(["a", "b", "c"], frame.schema)).to_series()
    assert texts.n_unique() == frame.n_unique()


def test_no_columns_make_one_series() -> None:
    frame = pl.DataFrame({"a": [1, 2]})
    assert frame.select(key_text([], frame.schema)).to_series().to_list() == ["", ""]


def test_event_times_are_microseconds_or_none_at_all() -> None:
    frame = pl.DataFrame({"ts": pl.Series([1_000, None]).cast(pl.Datetime("ms", "UTC"))})
    assert event_times(frame, "ts") == [1_000_000, None]
    assert event_times(frame, "other") == [None, None]
