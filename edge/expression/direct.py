"""Simple expressions over few rows, computed operation by operation without polars' planner.

The planner is most of the work on a small batch: 0.05 ms an expression in a loop, 0.3 ms where a
batch comes every 50 ms and finds all caches cold. Here every operation is one call into the code of
polars that the planner would choose. Whatever might not come out the same to the last bit is left
to it. Polars is pinned to a minor version.
"""

from collections.abc import Callable
from typing import Any, Literal

import polars as pl

from edge import small
from edge.expression.meaning import repeated
from edge.expression.tree import Node

Compute = Callable[["pl._plr.PyDataFrame"], "pl._plr.PySeries"]
_Kind = Literal["f64", "i64", "str", "bool"]
_Part = tuple[Compute, _Kind]

_KINDS: dict[pl.DataType, _Kind] = {
    pl.Float64(): "f64",
    pl.Int64(): "i64",
    pl.String(): "str",
    pl.Boolean(): "bool",
}
_COMPARE = {"Eq": "eq", "NotEq": "neq", "Lt": "lt", "LtEq": "lt_eq", "Gt": "gt", "GtEq": "gt_eq"}
_TURNED = {"Lt": "Gt", "LtEq": "GtEq", "Gt": "Lt", "GtEq": "LtEq"}
_JOIN = {"And": "bitand", "Or": "bitor"}
_CALCULATE = {"Plus": "add", "Minus": "sub", "Mul": "mul", "Multiply": "mul"}
_CALCULATE |= {"Div": "div", "TrueDivide": "div"}
_NULL = {"Literal": {"Scalar": {"Null": "Null"}}}
_FALSE = {"Literal": {"Scalar": {"Boolean": False}}}
_EXACT = 2.0**52  # below, a float can have a fraction; what is added to it loses its own, rounded
_POWERS = 22  # of ten that a float holds exactly


class Unclear(Exception):
    """For these values only the planner is known to give what it gives."""


class _Unknown(Exception):
    """Something that is left to the planner for all values."""


def computes(node: Node, columns: pl.Schema) -> Compute | None:
    """What computes the tree of an expression over `columns`; None where the planner has to.

    It takes a frame and raises Unclear.
    """
    try:
        return _part(node, columns)[0]
    except (_Unknown, OverflowError):
        return None


def without_default(node: Node) -> Node:
    """A condition without what makes false of null, for those who take null for false."""
    match node:
        case {"Function": {"input": [inner, literal], "function": "FillNull"}}:
            return inner if literal == _FALSE else node
    return node


def _part(node: Node, columns: pl.Schema) -> _Part:
    match node:
        case {"Column": str(name)}:
            return _column(name, columns)
        case {"Ternary": {"predicate": asked, "truthy": value, "falsy": other}}:
            if other == _NULL and asked == _is_not_nan(value):
                return _without_nan(_part(value, columns))
        case {"BinaryExpr": {"left": left, "op": str(op), "right": right}}:
            return _binary(op, left, right, columns)
        case {"Function": {"input": [left, right], "function": {"Sql": {"Binary": str(op)}}}}:
            return _binary(op, left, right, columns)
        case {"Function": {"input": [value], "function": {"Boolean": "Not"}}}:
            return _not(_part(value, columns))
        case {"Function": {"input": [value], "function": {"Sql": {"Round": {"decimals": d}}}}}:
            return _rounded(_part(value, columns), d)
        case {"Cast": {"expr": value, "dtype": {"Literal": "Boolean"}}}:
            return _only(_part(value, columns), "bool")
    raise _Unknown


def _column(name: str, columns: pl.Schema) -> _Part:
    dtype = columns[name]
    kind = _KINDS.get(dtype)
    if kind is None:
        raise _Unknown

    def compute(frame: Any) -> Any:
        found = frame.get_column(name)
        if found.dtype() != dtype:  # a comparison would cut what it compares with to that type
            raise Unclear
        return found

    return compute, kind


def _only(part: _Part, *kinds: _Kind) -> _Part:
    if part[1] not in kinds:
        raise _Unknown
    return part


def _is_not_nan(value: Node) -> Node:
    return {"Function": {"input": [value], "function": {"Boolean": "IsNotNan"}}}


def _without_nan(part: _Part) -> _Part:
    """Where no value is NaN, null need not be put in its place."""
    value, kind = _only(part, "f64")

    def compute(frame: Any) -> Any:
        found = value(frame)
        total = found.sum()
        if total != total:  # of infinities too
            raise Unclear
        return found

    return compute, kind


def _not(part: _Part) -> _Part:
    value, kind = _only(part, "bool")
    return lambda frame: value(frame).not_(), kind


def _binary(op: str, left: Node, right: Node, columns: pl.Schema) -> _Part:
    if op in _JOIN:
        return _both(_JOIN[op], _part(left, columns), _part(right, columns), "bool")
    if op in _COMPARE:
        if "Literal" in left:
            op, left, right = _TURNED.get(op, op), right, left
        return _compared(_COMPARE[op], _part(left, columns), right)
    if op not in _CALCULATE:
        raise _Unknown
    name = _CALCULATE[op]
    if name == "div" and (number := repeated(right)) is not None:
        return _divided(_part(left, columns), number)
    if "Literal" in right:
        return _calculated(f"{name}_f64", _part(left, columns), right)
    if "Literal" in left:
        return _calculated(f"{name}_f64_rhs", _part(right, columns), left)
    return _both(name, _part(left, columns), _part(right, columns), "f64")


def _both(method: str, left: _Part, right: _Part, kind: _Kind) -> _Part:
    (one, _), (two, _) = _only(left, kind), _only(right, kind)
    return lambda frame: getattr(one(frame), method)(two(frame)), kind


def _compared(name: str, part: _Part, literal: Node) -> _Part:
    value, kind = _only(part, "f64", "i64", "str")
    method, other = f"{name}_{kind}", _scalar(literal, kind)
    return lambda frame: getattr(value(frame), method)(other), "bool"


def _calculated(method: str, part: _Part, literal: Node) -> _Part:
    value, kind = _only(part, "f64")
    other = _scalar(literal, kind)
    return lambda frame: getattr(value(frame), method)(other), kind


def _scalar(literal: Node, kind: _Kind) -> float | int | str:
    match literal:
        case {"Literal": {"Dyn": {"Int": int(number)}}} if abs(number) < _EXACT:
            if kind != "str":
                return float(number) if kind == "f64" else number
        case {"Literal": {"Dyn": {"Float": float(number)}}} if kind == "f64":
            return number
        case {"Literal": {"Scalar": {"String": str(text)}}} if kind == "str":
            return text
    raise _Unknown


def _divided(part: _Part, number: float) -> _Part:
    value, kind = _only(part, "f64")
    return lambda frame: _quotient(value(frame), number), kind


def _quotient(column: Any, number: float) -> Any:
    """Exact: to divide by a number, polars multiplies by what is nearly 1 / number."""
    return column.div(small.floats("", [number] * column.len())._s)


def _rounded(part: _Part, decimals: int) -> _Part:
    """Of positive numbers: the nearest one with so many decimals, of two the even one."""
    value, kind = _only(part, "f64")
    if decimals > _POWERS:
        raise _Unknown
    factor = 10.0**decimals

    def compute(frame: Any) -> Any:
        found = value(frame)
        least, most = found.min(), found.max()
        if least is None or not (least > 0 and most * factor < _EXACT):
            raise Unclear
        return _quotient(found.mul_f64(factor).add_f64(_EXACT).sub_f64(_EXACT), factor)

    return compute, kind
