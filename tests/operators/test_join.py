"""`join`: what it refuses, and what is counted."""

from typing import Any

import pytest

from edge.errors import DefinitionError
from edge.operators.join import Join
from tests.operators.cases import COLUMNS, STREAM
from tests.operators.test_window import readings


def join(**options: Any) -> Join:
    given = {"series": "device = 'b'", "columns": {"other": "n"}, "tolerance": "10s", "by": []}
    operator = Join.model_validate({**given, **options})
    operator.bind(COLUMNS, STREAM)
    return operator


def test_a_row_gets_the_newest_of_the_other_series_and_it_is_folded() -> None:
    operator = join()
    rows = operator.process(readings((0, "a"), (1, "b"), (2, "a"), (3, "b"), (13, "a"), (14, "a")))
    assert rows.select("n", "other").rows() == [(0, None), (2, 1), (4, 3), (5, None)]
    assert operator.account(6, 4) == {"folded": 2, "filtered": 0}


def test_a_row_that_lags_gets_what_was_newest_as_of_its_time() -> None:
    rows = join().process(readings((5, "b"), (4, "a"), (3, "b"), (6, "a"), (4, "a")))
    assert rows.select("n", "other").rows() == [(1, None), (3, 0), (4, 2)]


def test_of_two_others_of_one_time_the_later_is_given() -> None:
    rows = join().process(readings((5, "b"), (5, "b"), (5, "a")))
    assert rows["other"].to_list() == [1]


def test_only_so_many_others_are_remembered() -> None:
    rows = join(history=2).process(readings((1, "b"), (2, "b"), (3, "b"), (1, "a"), (2, "a")))
    assert rows.select("n", "other").rows() == [(3, None), (4, 1)]


def test_others_far_ahead_are_forgotten_as_new_ones_come() -> None:
    far = 10**9
    rows = join(history=2).process(
        readings((0, "b"), (far, "b"), (far, "b"), (1, "a"), (2, "b"), (3, "b"), (4, "a"))
    )
    assert rows.select("n", "other").rows() == [(3, None), (6, 5)]


def test_null_in_yaml_is_the_word_null() -> None:
    assert join(missing=None).missing == "null"


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"series": "devise = 'b'"}, "column 'devise' is not in the batch"),
        ({"series": "n"}, "must be true or false, got int"),
        ({"columns": {"x": "n"}}, "join: column 'x' is there already; choose another name"),
        ({"columns": {"y": "z"}}, "column 'z' is not in the batch"),
    ],
)
def test_a_join_that_cannot_work_is_refused(options: dict[str, Any], said: str) -> None:
    with pytest.raises(DefinitionError) as error:
        join(**options)
    assert said in str(error.value)
