"""The promises every operator keeps; being in the table of cases is what enrols one."""

import inspect
import math
import re
from collections.abc import Iterator, Sequence
from datetime import UTC, datetime, timedelta

import polars as pl
import pytest
import yaml
from hypothesis import example, given
from hypothesis import strategies as st
from polars.testing import assert_frame_equal

import edge.keyed
from edge.operators import OPERATORS, Operator, find_operator
from edge.operators.window import Window
from edge.promises.operator import accounts, is_pure, pieces, resumes, splits, undisturbed
from edge.windows import few, fold, index
from tests.operators.cases import CASES, COLUMNS, SWEEP, Case, Row
from tests.search import examples

START = datetime(2024, 5, 1, tzinfo=UTC)
NUMBERS = [0.0, -0.0, 1.0, 1.4, 1.6, 20.0, 21.9, 22.1, 1e300, math.nan, math.inf, -math.inf, None]

moments = st.none() | st.integers(0, 150).map(lambda second: START + timedelta(seconds=second))
rows_of_any_kind = st.lists(
    st.fixed_dictionaries(
        {
            "ts": moments,
            "device": st.sampled_from(["a", "b", None]),
            "x": st.sampled_from(NUMBERS) | st.floats(-30, 30),
            "n": st.none() | st.integers(-3, 5),
            "status": st.sampled_from(["ok", "bad", 'a "quoted", text', None]),
            "ok": st.sampled_from([True, False, None]),
            "edge_received": st.just(START),
        }
    ),
    min_size=1,
    max_size=40,
)
cuts = st.lists(st.integers(0, 40), max_size=6).map(sorted)
every_case = pytest.mark.parametrize("case", CASES, ids=str)
searched = examples(25)


@pytest.fixture(autouse=True, scope="module")
def _small_limits() -> Iterator[None]:
    """What happens now and then happens often: sweeps, and all that `window` does with many."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(edge.keyed, "SWEEP_ROWS", SWEEP)
        patch.setattr(few, "MOST", 5)
        patch.setattr(fold, "MOST_FEW", 1)
        patch.setattr(index, "PATIENCE", 1)
        yield


def as_frame(rows: Sequence[Row], columns: pl.Schema = COLUMNS) -> pl.DataFrame:
    return pl.DataFrame(rows, schema=columns, orient="row")


def remembered(operator: Operator) -> object:
    """All that it remembers, in a form in which the same is equal."""
    state = operator.snapshot(True)
    if not isinstance(operator, Window) or state is None:
        return state
    # Arrow leaves open what bytes there are in the place of a null.
    other = operator.model_copy()
    other.restore([state])
    frames = other._windows.keys, other._windows.open
    return [repr(frame.sort(frame.columns).rows()) for frame in frames]


@every_case
@given(rows=rows_of_any_kind)
@searched
def test_loop_gives_what_a_plain_loop_over_rows_gives(case: Case, rows: list[Row]) -> None:
    _, columns = case.make()
    expected = as_frame(list(case.loop(rows)), columns)
    assert_frame_equal(undisturbed(case.make, as_frame(rows)), expected)


@every_case
@given(rows=rows_of_any_kind, cuts=cuts)
@example(rows=[dict.fromkeys(COLUMNS)], cuts=[])
@searched
def test_split_batches_give_the_same_rows(case: Case, rows: list[Row], cuts: list[int]) -> None:
    splits(case.make, as_frame(rows), cuts)


@every_case
@given(rows=rows_of_any_kind, cuts=cuts, whole=st.lists(st.booleans(), min_size=8, max_size=8))
@searched
def test_resume_between_any_two_batches_changes_nothing(
    case: Case, rows: list[Row], cuts: list[int], whole: list[bool]
) -> None:
    resumes(case.make, as_frame(rows), cuts, whole)


@every_case
@given(rows=rows_of_any_kind, cuts=cuts)
@searched
def test_resume_from_a_log_of_changes_changes_nothing(
    case: Case, rows: list[Row], cuts: list[int]
) -> None:
    frame = as_frame(rows)
    operator, _ = case.make()
    parts, states = [], []
    for part in pieces(frame, cuts):
        parts.append(operator.process(part))
        states.append(operator.snapshot(not states))
        rebuilt, _ = case.make()
        rebuilt.restore([state for state in states if state is not None])
        again, _ = case.make()
        again.restore([state for state in (rebuilt.snapshot(True),) if state is not None])
        assert remembered(again) == remembered(operator)


@every_case
def test_empty_batch_gives_none_and_the_promised_columns(case: Case) -> None:
    assert undisturbed(case.make, as_frame([])).height == 0


@every_case
@given(rows=rows_of_any_kind)
@examples(20)
def test_pure_the_batch_is_left_alone_and_a_second_run_agrees(case: Case, rows: list[Row]) -> None:
    is_pure(case.make, as_frame(rows))


@every_case
@given(rows=rows_of_any_kind)
@examples(20)
def test_rows_that_go_are_accounted_for(case: Case, rows: list[Row]) -> None:
    accounts(case.make, as_frame(rows))


def test_every_operator_has_its_case() -> None:
    assert {case.operator for case in CASES} == set(OPERATORS)


@pytest.mark.parametrize("name", OPERATORS)
def test_docstring_says_what_it_does_and_its_example_loads(name: str) -> None:
    operator = find_operator(name)
    text = operator.__doc__ or ""
    assert re.match(r"[A-Z][^.]+\.\n", text)
    assert "Nulls and NaN:" in text
    assert "Cost:" in text
    [block] = re.findall(r"```yaml\n(.*?)```", inspect.cleandoc(text), re.DOTALL)
    [(key, options)] = yaml.safe_load(block).items()
    assert key == name
    operator.model_validate(options)


@pytest.mark.parametrize("name", OPERATORS)
def test_every_option_is_described_and_in_the_schema(name: str) -> None:
    operator = find_operator(name)
    assert all(field.description for field in operator.model_fields.values())
    assert operator.model_json_schema()
