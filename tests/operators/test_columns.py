"""`select`, `drop` and `rename`: which columns are there afterwards."""

import pytest

from edge.errors import DefinitionError
from edge.operators import Operator
from edge.operators.drop import Drop
from edge.operators.rename import Rename
from edge.operators.select import Select
from tests.operators.cases import COLUMNS, STREAM


def names(operator: Operator) -> list[str]:
    return operator.bind(COLUMNS, STREAM).names()


def fault(operator: Operator) -> str:
    with pytest.raises(DefinitionError) as caught:
        operator.bind(COLUMNS, STREAM)
    return str(caught.value)


def test_select_keeps_the_order_given() -> None:
    assert names(Select(columns=["x", "device", "ts"])) == ["x", "device", "ts"]
    assert Select.model_validate(["x"]) == Select(columns=["x"])


def test_drop_keeps_all_others() -> None:
    assert names(Drop(columns=["ts", "ok"])) == ["device", "x", "n", "status", "edge_received"]
    assert Drop.model_validate(["x"]) == Drop(columns=["x"])


def test_rename_keeps_the_place_and_may_swap() -> None:
    assert names(Rename(columns={"ts": "time"}))[0] == "time"
    assert names(Rename.model_validate({"x": "n", "n": "x"}))[2:4] == ["n", "x"]


@pytest.mark.parametrize(
    ("operator", "message"),
    [
        (Select(columns=["temp"]), "select: column 'temp' is not in the batch, which has ts"),
        (Select(columns=["statu"]), "; did you mean 'status'?"),
        (Select(columns=["x", "x"]), "select: column 'x' is named twice; name it once"),
        (Drop(columns=["temp"]), "drop: column 'temp' is not in the batch, which has ts"),
        (Drop(columns=list(COLUMNS)), "drop: no column would be left; keep at least one"),
        (Rename(columns={"temp": "t"}), "rename: column 'temp' is not in the batch"),
        (Rename(columns={"x": "n"}), "rename: two columns would be called 'n'; drop one of them"),
        (Rename(columns={"x": "edge_x"}), "rename: columns starting with 'edge_' are reserved"),
    ],
)
def test_a_fault_says_what_is_wrong(operator: Operator, message: str) -> None:
    assert message in fault(operator)
