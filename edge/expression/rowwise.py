"""Which parts of an expression look at one row only; everything else is refused."""

from typing import Any

import polars as pl
from polars.exceptions import PolarsError

from edge.errors import DefinitionError
from edge.expression.tree import Node, children, dump, function_name, load

# Functions that look at one row only: a whole family, or one of its members. What polars adds
# later is refused until somebody has looked at it.
_FUNCTIONS = """
Abs Atan2 Ceil Clip Coalesce Exp FillNull Floor Log Log1p MaxHorizontal MinHorizontal Pow Round
Sign Sql.Binary Sql.IsIn Sql.Round Sql.ToFloat TemporalExpr Trigonometry Truncate
StructExpr.FieldByName Bitwise.CountOnes Bitwise.CountZeros
Boolean.IsFinite Boolean.IsIn Boolean.IsInfinite Boolean.IsNan Boolean.IsNotNan Boolean.IsNotNull
Boolean.IsNull Boolean.Not
ListExpr.Contains ListExpr.Get ListExpr.Join ListExpr.Length ListExpr.Max ListExpr.Mean ListExpr.Min
ListExpr.Sum
StringExpr.ConcatHorizontal StringExpr.Contains StringExpr.EndsWith StringExpr.Find StringExpr.Head
StringExpr.LenBytes StringExpr.LenChars StringExpr.Lowercase StringExpr.Normalize StringExpr.PadEnd
StringExpr.PadStart StringExpr.Replace StringExpr.Reverse StringExpr.Slice StringExpr.Split
StringExpr.StartsWith StringExpr.StripChars StringExpr.StripCharsEnd StringExpr.StripCharsStart
StringExpr.StripPrefix StringExpr.StripSuffix StringExpr.Strptime StringExpr.Tail
StringExpr.Titlecase StringExpr.Uppercase
"""
_ROWWISE = frozenset(_FUNCTIONS.split())
_NODES = frozenset({"Column", "Literal", "BinaryExpr", "Ternary", "Cast", "Function"})
_OTHER_ROWS = {
    "Agg": "an aggregate",
    "Len": "COUNT(*)",
    "Over": "OVER",
    "SubPlan": "a subquery",
    "Explode": "UNNEST",
}


def refuse_other_rows(node: Node | str, where: str) -> None:
    """Raise DefinitionError if the tree under `node` looks at more than one row."""
    kind, body = (node, None) if isinstance(node, str) else next(iter(node.items()))
    if kind in _OTHER_ROWS:
        raise DefinitionError(
            f"{where}: {_OTHER_ROWS[kind]} looks at other rows, and which rows share a batch is "
            "chance; aggregate where the rows are stored, an expression sees one row"
        )
    if kind == "Alias":
        raise DefinitionError(f"{where}: a name given with AS, or a list in brackets; leave it out")
    if kind not in _NODES:
        raise DefinitionError(f"{where}: {kind} is not possible in an expression over one row")
    if kind == "Function":
        _check_function(body, where)
    for child in children(kind, body):
        refuse_other_rows(child, where)


def _check_function(body: Any, where: str) -> None:
    family, variant = function_name(body)
    if not _ROWWISE & {family, f"{family}.{variant}"}:
        raise DefinitionError(
            f"{where}: {family} {variant} is not known to look at one row only; use the python "
            "operator for it"
        )
    if variant == "Strptime" and body["function"]["StringExpr"]["Strptime"][1]["format"] is None:
        raise DefinitionError(
            f"{where}: DATE, TIME, TIMESTAMP and DATETIME of a text need a format such as "
            "'%d.%m.%Y'; ISO 8601 text is read by CAST(… AS TIMESTAMP)"
        )
    if family == "StringExpr" and variant in ("Contains", "Replace"):
        _check_pattern(body, where)


def _check_pattern(body: Any, where: str) -> None:
    """A pattern that is no regular expression would make every row null, without a word."""
    match body["input"][1]:
        case {"Literal": {"Scalar": {"String": pattern}}}:
            trial = {"Function": body | {"input": [dump(pl.lit("")), *body["input"][1:]]}}
        case _:
            return
    try:
        pl.select(load(trial))
    except PolarsError as error:
        raise DefinitionError(f"{where}: not a regular expression, got {pattern!r}") from error
