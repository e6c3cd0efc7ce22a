"""An expression as the tree that polars writes: read it, write it, walk it."""

import io
import json
from collections.abc import Iterable
from typing import Any

import polars as pl

Node = dict[str, Any]
"""A mapping with one key, the kind of the node: `{"Column": "a"}`."""


def load(node: Node) -> pl.Expr:
    """The expression that the tree under `node` stands for."""
    return pl.Expr.deserialize(io.StringIO(json.dumps(node)), format="json")


def dump(expr: pl.Expr) -> Node:
    """The tree of an expression; a plain str for the few nodes that have nothing inside."""
    node: Node = json.loads(expr.meta.serialize(format="json"))
    return node


def first_line(error: Exception) -> str:
    """What polars says, without the parse trees it may say it with."""
    return str(error).partition("\n")[0][:160]


def function_name(body: Any) -> tuple[str, str]:
    """Family and variant of a Function node: `("StringExpr", "Uppercase")`, `("Abs", "")`."""
    given = body["function"]
    if isinstance(given, str):
        return given, ""
    [(family, variant)] = given.items()
    return family, next(iter(variant)) if isinstance(variant, dict) else str(variant)


def children(kind: str, body: Any) -> Iterable[Any]:
    """The nodes directly under a node, in the order written."""
    match kind:
        case "BinaryExpr":
            return (body["left"], body["right"])
        case "Ternary":
            return (body["predicate"], body["truthy"], body["falsy"])
        case "Cast":
            return (body["expr"],)
        case "Function":
            return tuple(body["input"])
        case _:
            return ()
