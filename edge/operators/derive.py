"""`derive`: adds columns that are computed from others, or replaces them."""

from collections.abc import Mapping
from typing import Any

import polars as pl
from pydantic import Field, PrivateAttr, field_validator

from edge.component import Stream
from edge.expression import Values, columns_read, compile_value, probe, reserve
from edge.operators import Operator


class Derive(Operator):
    """Adds columns computed by SQL expressions; a name that exists is replaced in its place.

    ```yaml
    derive:
      fahrenheit: temperature * 1.8 + 32
      level: CASE WHEN fahrenheit > 176 THEN 'hot' ELSE 'ok' END
    ```

    The columns are made in the order written; each expression sees those before it.

    Nulls and NaN: arithmetic with null gives null, with NaN gives NaN; a comparison with either
    gives null. 3/10 is 0.3, 1/0 inf and 0/0 NaN; `//` and `%` of whole numbers by zero give null.
    A CAST that cannot keep the value gives null. Whole numbers are 64 bits wide.

    Cost: 0.03 ms per batch, 0.01 us per row and arithmetic operation.
    """

    short = "columns"
    own_memory = True

    columns: dict[str, str] = Field(
        description="Name of each new column and the SQL expression for it.", min_length=1
    )

    _steps: list[Values] = PrivateAttr(default_factory=list)

    @field_validator("columns", mode="before")
    @classmethod
    def _read_expressions(cls, given: Any) -> Any:
        if not isinstance(given, Mapping):
            return given
        for name, sql in given.items():
            if sql is None:
                raise ValueError(
                    f"{name!r} has no expression; where one was cut at its comma, quote it: "
                    "{x: 'ROUND(a, 1)'}, or write it on a line of its own"
                )
        return {name: _as_sql(sql) for name, sql in given.items()}

    def bind(self, columns: pl.Schema, stream: Stream) -> pl.Schema:
        reserve(self.columns, "derive")
        steps: list[tuple[pl.Schema, dict[str, pl.Expr]]] = []
        for name, sql in self.columns.items():
            where = f"derive {name!r}"
            expr = compile_value(sql, columns, where)
            if not steps or steps[-1][1].keys() & {name, *columns_read(sql, where)}:
                steps.append((columns, {}))
            steps[-1][1][name] = expr
            columns = probe(columns).with_columns(expr.alias(name)).schema
        self._steps = [Values(exprs, before) for before, exprs in steps]
        return columns

    def process(self, frame: pl.DataFrame) -> pl.DataFrame:
        for values in self._steps:
            frame = values.add(frame)
        return frame


def _as_sql(given: Any) -> Any:
    """YAML reads `one: 1` as a number and `yes: true` as a boolean; both are SQL as written."""
    if isinstance(given, bool):
        return str(given).lower()
    return str(given) if isinstance(given, int | float) else given
