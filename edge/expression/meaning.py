"""Gives an expression the meaning that is promised, where SQL in polars differs from it."""

import math
from datetime import UTC, datetime
from typing import Any

import polars as pl
from polars.exceptions import PolarsError, StructFieldNotFoundError

from edge.errors import DefinitionError
from edge.expression.columns import TIMESTAMP, parse_timestamp, probe, type_word
from edge.expression.tree import Node, dump, function_name, load
from edge.expression.wording import said

_COMPARISONS = frozenset({"Eq", "NotEq", "Lt", "LtEq", "Gt", "GtEq"})
_NULL_SAFE = frozenset({"EqValidity", "NotEqValidity"})
# polars writes a comparison in this second way when a literal has a decimal point
_SQL_COMPARISONS = {name: name for name in _COMPARISONS} | {"EqMissing": "EqValidity"}
_NARROW = (pl.Int8, pl.Int16, pl.Int32, pl.UInt8, pl.UInt16, pl.UInt32)
_MOMENT = "'2024-05-01T12:00:00Z'"


class Meaning:
    """Rewrites trees over `columns`; what it promises stands at `compile_value`."""

    def __init__(self, columns: pl.Schema, where: str) -> None:
        self.sample = probe(columns)
        self.where = where

    def dtype(self, node: Node) -> pl.DataType:
        try:
            return self.sample.select(load(node).alias("x")).schema["x"]
        except PolarsError as error:
            fault = said(error)
            if isinstance(error, StructFieldNotFoundError):
                fault = f"no field {fault!r} in the value"
            types = ", ".join(f"{name} is {type_word(t)}" for name, t in self.sample.schema.items())
            raise DefinitionError(f"{self.where}: {fault}; {types}") from error

    def rewrite(self, node: Node) -> Node:
        [(kind, body)] = node.items()
        if kind == "Literal":
            return self._literal(node)
        if kind == "BinaryExpr":
            node = self._binary(body)
        elif kind == "Ternary":
            node = {kind: {name: self.rewrite(child) for name, child in body.items()}}
        elif kind == "Cast":
            node = self._cast(body)
        elif kind == "Function":
            comparison = _as_comparison(body)
            node = self._binary(comparison) if comparison else self._call(body)
        return self.widen(node)

    def widen(self, node: Node) -> Node:
        """LENGTH(s) - 5 is 4294967293 in 32 unsigned bits, and 100 * a small column wraps too."""
        if self.dtype(node) in _NARROW:
            return {"Cast": {"expr": node, "dtype": {"Literal": "Int64"}, "options": "NonStrict"}}
        return node

    def _literal(self, node: Node) -> Node:
        match node["Literal"]:
            case {"Scalar": {"Datetime": [value, unit, None]}}:
                return {"Literal": {"Scalar": {"Datetime": [value, unit, {"inner": "UTC"}]}}}
            case {"Scalar": {"Decimal": [digits, _, scale]}}:
                return {"Literal": {"Dyn": {"Float": float(f"{digits}e-{scale}")}}}
            case {"Series": _}:
                return _in_floats(node)
        return node

    def _binary(self, body: Any) -> Node:
        left, right = self.rewrite(body["left"]), self.rewrite(body["right"])
        if body["op"] in _COMPARISONS | _NULL_SAFE:
            left, right = self._timely(left, right), self._timely(right, left)
        if body["op"] in _COMPARISONS:
            left, right = self._without_nan(left), self._without_nan(right)
        if body["op"] == "TrueDivide":
            right = self._exactly(left, right)
        return {"BinaryExpr": {"left": left, "op": body["op"], "right": right}}

    def _timely(self, node: Node, other: Node) -> Node:
        """A literal that is compared with a point in time, as one."""
        if not isinstance(self.dtype(other), pl.Datetime | pl.Date):
            return node
        dtype = self.dtype(node)
        if dtype == pl.String and "Literal" not in node:
            raise DefinitionError(
                f"{self.where}: a point in time is compared with text; write CAST(… AS TIMESTAMP)"
            )
        if dtype.is_numeric():
            raise DefinitionError(
                f"{self.where}: a point in time is compared with a number; write it as {_MOMENT}"
            )
        if dtype != pl.String:
            return node
        return dump(pl.lit(self._moment(pl.select(load(node)).item()), dtype=TIMESTAMP))

    def _moment(self, text: str) -> datetime:
        try:
            moment = datetime.fromisoformat(text)
        except ValueError:
            raise DefinitionError(
                f"{self.where}: a point in time must be written like {_MOMENT}, got {text!r}"
            ) from None
        return moment.astimezone(UTC) if moment.tzinfo else moment.replace(tzinfo=UTC)

    def _without_nan(self, node: Node) -> Node:
        if "Literal" in node or not self.dtype(node).is_float():
            return node
        value = load(node)
        return dump(pl.when(value.is_not_nan()).then(value))

    def _cast(self, body: Any) -> Node:
        inner = self.rewrite(body["expr"])
        target = body["dtype"]["Literal"]
        temporal = target == "Date" or (isinstance(target, dict) and "Datetime" in target)
        if temporal and self.dtype(inner) == pl.String:
            moment = parse_timestamp(load(inner))
            return dump(moment.cast(pl.Date, strict=False) if target == "Date" else moment)
        dtype = {"Literal": "Int64"} if target == "Int32" else _in_utc(body["dtype"])
        return {"Cast": {"expr": inner, "dtype": dtype, "options": "NonStrict"}}

    def _call(self, body: Any) -> Node:
        inputs = [self.rewrite(child) for child in body["input"]]
        _, variant = function_name(body)
        if variant == "IsIn":
            inputs = [self._without_nan(inputs[0]), self._timely_list(inputs[1], inputs[0])]
        if variant == "Slice" and len(inputs) == 3 and "Literal" not in inputs[2]:
            inputs[2] = dump(load(inputs[2]).clip(0))  # a negative length fails in polars
        if body["function"] == {"Sql": {"Binary": "Div"}}:
            inputs[1] = self._exactly(*inputs)
        if body["function"] == {"Sql": {"Binary": "IntDiv"}} and self._any_float(inputs):
            # polars' own cast to a whole number fails for NaN and infinity
            left, right = load(inputs[0]), load(self._exactly(*inputs))
            return dump((left / right).cast(pl.Int64, strict=False))
        return {"Function": body | {"input": inputs, "function": _lenient(body["function"])}}

    def _exactly(self, left: Node, right: Node) -> Node:
        """A constant that something is divided by, in a form that polars divides by.

        By a single number it multiplies, with what is nearly 1 / number: 3 / 10 would be
        0.30000000000000004.
        """
        columns, dtype = load(left).meta.root_names(), self.dtype(left)
        exact = dtype == pl.Float64 or dtype.is_integer()
        if not (columns and exact) or load(right).meta.root_names():
            return right
        number = pl.select(load(right)).item()
        if not isinstance(number, int | float) or not (number and math.isfinite(number)):
            return right
        return repeat(float(number), columns[0])

    def _any_float(self, nodes: list[Node]) -> bool:
        return any(self.dtype(node).is_float() for node in nodes)

    def _timely_list(self, node: Node, other: Node) -> Node:
        if not isinstance(self.dtype(other), pl.Datetime) or "Literal" not in node:
            return node
        texts = pl.select(load(node)).to_series()
        texts = texts.explode() if texts.dtype == pl.List else texts
        if texts.dtype != pl.String:
            return node
        moments = [self._moment(text) for text in texts.drop_nulls()]
        return dump(pl.lit(pl.Series([moments], dtype=pl.List(TIMESTAMP))))


def repeat(number: float, column: str) -> Node:
    """A number as a column of it; `column` is one that the rows have.

    Made of whatever that holds: a literal, or `when` with the same on both sides, polars knows to
    be one number.
    """
    return dump(pl.col(column).is_null().cast(pl.Float64) * 0.0 + pl.lit(number, pl.Float64))


def repeated(node: Node) -> float | None:
    """The number that `repeat` was given; None for any other tree."""
    match node:
        case {"BinaryExpr": {"right": {"Literal": {"Scalar": {"Float64": float(number)}}}}}:
            columns = load(node).meta.root_names()
            return number if columns and node == repeat(number, columns[0]) else None
    return None


def _as_comparison(body: Any) -> Any:
    """`{"left": ..., "op": "Gt", "right": ...}` where the function is a comparison, else None."""
    match body:
        case {"input": [left, right], "function": {"Sql": {"Binary": str(name)}}}:
            op = _SQL_COMPARISONS.get(name)
            return op and {"left": left, "op": op, "right": right}
    return None


def _in_floats(node: Node) -> Node:
    """A list of literals, of which those with a decimal point are floats and not decimals."""
    values = pl.select(load(node)).to_series()
    inner = values.dtype.inner if isinstance(values.dtype, pl.List) else values.dtype
    if not isinstance(inner, pl.Decimal):
        return node
    wanted = pl.List(pl.Float64) if isinstance(values.dtype, pl.List) else pl.Float64
    return dump(pl.lit(values.cast(wanted)))


def _in_utc(given: Any) -> Any:
    """Types of points in time without a zone become TIMESTAMP, at any depth."""
    match given:
        case {"Datetime": [_, None]}:
            return {"Datetime": ["Microseconds", {"inner": "UTC"}]}
        case dict():
            return {name: _in_utc(inner) for name, inner in given.items()}
        case list():
            return [_in_utc(inner) for inner in given]
        case _:
            return given


def _lenient(function: Any) -> Any:
    """One value that does not fit must give null and not fail its whole batch."""
    match function:
        case {"StringExpr": {"Strptime": [dtype, options]}}:
            return {"StringExpr": {"Strptime": [_in_utc(dtype), options | {"strict": False}]}}
        case {"StringExpr": {"Contains": options}}:
            return {"StringExpr": {"Contains": options | {"strict": False}}}
        case {"StringExpr": {"Find": options}}:
            return {"StringExpr": {"Find": options | {"strict": False}}}
        case _:
            return function
