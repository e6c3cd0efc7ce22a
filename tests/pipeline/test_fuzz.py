"""Whatever stands in a file, reading it ends in a definition or in faults of one line each."""

from typing import Any

import yaml
from hypothesis import given
from hypothesis import strategies as st

from edge.pipeline.document import parse
from tests.pipeline.press import FILE, GOOD, faults
from tests.search import examples

VALUES = parse(FILE, GOOD, {})[0].values
WORDS = ["name", "when", "s3", "filter", "${X}", "${", "1)", "-5s", "8MiB", "\x00", "\n", "é", ""]
SCALARS = st.one_of(
    st.none(),
    st.booleans(),
    st.integers(),
    st.floats(),
    st.text(max_size=12),
    st.sampled_from(WORDS),
)
ANYTHING = st.recursive(
    SCALARS,
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.dictionaries(st.sampled_from(WORDS) | st.text(max_size=5), inner, max_size=3)
    ),
    max_leaves=6,
)


def places(value: Any, place: tuple[Any, ...] = ()) -> list[tuple[Any, ...]]:
    items = (
        list(value.items() if isinstance(value, dict) else enumerate(value))
        if isinstance(value, dict | list)
        else []
    )
    return [place, *(inner for key, each in items for inner in places(each, (*place, key)))]


def replaced(value: Any, place: tuple[Any, ...], new: Any) -> Any:
    if not place:
        return new
    copy = dict(value) if isinstance(value, dict) else list(value)
    copy[place[0]] = replaced(value[place[0]], place[1:], new)
    return copy


def well_told(text: str) -> None:
    for fault in faults(text):
        assert fault.startswith(FILE), fault
        assert len(fault.splitlines()) == 1, fault


@examples(100)
@given(place=st.sampled_from(places(VALUES)), new=ANYTHING)
def test_any_value_at_any_place_is_taken_or_told(place: tuple[Any, ...], new: Any) -> None:
    well_told(yaml.safe_dump(replaced(VALUES, place, new), sort_keys=False))


@examples(100)
@given(start=st.integers(0, len(GOOD)), length=st.integers(0, 20), new=st.text(max_size=5))
def test_any_slip_of_the_pen_is_taken_or_told(start: int, length: int, new: str) -> None:
    well_told(GOOD[:start] + new + GOOD[start + length :])
