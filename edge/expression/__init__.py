"""SQL text -> a checked polars expression that looks at one row at a time."""

import re
from collections.abc import Iterable

import polars as pl
from polars.exceptions import PolarsError

from edge.errors import DefinitionError
from edge.expression.columns import (
    TIMESTAMP,
    parse_timestamp,
    probe,
    require,
    reserve,
    type_word,
)
from edge.expression.evaluate import Condition, Values, select, select_rows, with_columns
from edge.expression.meaning import Meaning
from edge.expression.rowwise import refuse_other_rows
from edge.expression.tree import dump, load
from edge.expression.wording import TOO_DEEP, unread

__all__ = [
    "TIMESTAMP",
    "Condition",
    "Values",
    "columns_read",
    "compile_condition",
    "compile_value",
    "parse_timestamp",
    "probe",
    "require",
    "reserve",
    "select",
    "select_rows",
    "type_word",
    "with_columns",
]

_LONGEST = 10_000  # characters; from some 10,000 terms on polars ends the process
_QUOTED = re.compile(r"'(?:[^']|'')*'|\"(?:[^\"]|\"\")*\"|--[^\n]*|/\*.*?\*/", re.DOTALL)
_CLOCK = re.compile(
    r"\bnow\s*\(|\b(?:current_date|current_time|current_timestamp|localtime|localtimestamp)\b",
    re.IGNORECASE,
)


def compile_value(sql: str, columns: pl.Schema, where: str) -> pl.Expr:
    """The expression `sql` over `columns`; `where` (`derive 'x'`) opens every error message.

    Whole numbers come out 64 bits wide. `/` always gives a float: 3/10 is 0.3, 1/0 inf, 0/0 NaN.
    `//` and `%` of whole numbers give null for a zero divisor. A cast that cannot keep a value
    gives null.
    Comparing NaN gives null, as comparing null does, so that a broken reading is never "high".
    Points in time compare with text such as `'2024-05-01T12:00:00Z'` (UTC without an offset).

    Raises DefinitionError for a column that is not there, types that do not go together, and
    whatever looks at other rows or at the clock.
    """
    return _compile(sql, columns, where)[0]


def compile_condition(sql: str, columns: pl.Schema, where: str) -> pl.Expr:
    """As `compile_value`, for a Boolean expression; where it is null the result is false."""
    expr, dtype = _compile(sql, columns, where)
    if dtype not in (pl.Boolean, pl.Null):
        raise DefinitionError(
            f"{where}: must be true or false, got {type_word(dtype)}; compare it with something"
        )
    known = expr if dtype == pl.Boolean else expr.cast(pl.Boolean)
    return known.fill_null(False)


def columns_read(sql: str, where: str) -> frozenset[str]:
    """The names of the columns that `sql` reads, whether or not they exist."""
    return frozenset(_parse(sql, (), where).meta.root_names())


def _compile(sql: str, columns: pl.Schema, where: str) -> tuple[pl.Expr, pl.DataType]:
    expr = _parse(sql, columns, where)
    try:
        tree = dump(expr)
        refuse_other_rows(tree, where)
        require(names := expr.meta.root_names(), columns, where, sql)
        meaning = Meaning(pl.Schema({name: columns[name] for name in names}), where)
        tree = meaning.widen(meaning.rewrite(tree))
        return load(tree), meaning.dtype(tree)
    except RecursionError:
        raise DefinitionError(f"{where}: {TOO_DEEP}") from None


def _parse(sql: str, columns: Iterable[str], where: str) -> pl.Expr:
    if len(sql) > _LONGEST:
        raise DefinitionError(
            f"{where}: must have at most {_LONGEST} characters, got {len(sql)}; a long list of "
            "values goes into the file of a `lookup`"
        )
    bare = _QUOTED.sub("''", sql)
    if clock := _CLOCK.search(bare):
        raise DefinitionError(
            f"{where}: {clock[0].rstrip('( ')} is the time of computing, which a repeat would "
            "change; use the column edge_received (a column of that name goes in double quotes)"
        )
    try:
        return pl.sql_expr(sql)
    except PolarsError as error:
        words = [name for name in columns if re.search(rf"\b{re.escape(name)}\b", bare)]
        clash = next((word for word in words if not _is_plain(word)), None)
        raise DefinitionError(
            f"{where}: {unread(error, sql, bare)}"
            + (f'; {clash!r} is also a SQL word: write it as "{clash}"' if clash else "")
        ) from error


def _is_plain(name: str) -> bool:
    """Whether a column of this name can be written without quotes."""
    try:
        return bool(pl.sql_expr(name).meta.root_names() == [name])
    except PolarsError:
        return False
