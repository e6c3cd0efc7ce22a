"""What polars says of an expression, in words of SQL and of `record.fields`."""

import re
from collections.abc import Callable, Mapping
from difflib import get_close_matches

from polars.exceptions import PolarsError

from edge.expression.tree import first_line

_FUNCTIONS = """
abs acos asin atan atan2 cbrt ceil ceiling char_length coalesce concat concat_ws cos date date_part
degrees ends_with exp floor greatest if ifnull initcap least left length ln log log10 log2
lower ltrim mod nullif pi pow power radians regexp_like replace reverse right round rtrim sign sin
sqrt starts_with strftime strpos strptime substr tan timestamp upper
"""
_FOREIGN = (
    (re.compile("&&"), "SQL writes AND, not &&"),
    (re.compile(r"!(?!=)"), "SQL writes NOT, not !"),
    (re.compile(r"\*\*|\^"), "SQL writes POWER(a, b)"),
    (re.compile(r"\d,\d"), "a decimal point is written 9.5"),
    (re.compile(r"#"), "a comment starts with --"),
)
_TYPES: Mapping[str, str] = {
    "str": "str", "string": "str", "bool": "bool", "boolean": "bool", "i64": "int", "int64": "int",
    "i32": "int", "int32": "int", "f64": "float", "float64": "float",
}  # fmt: skip
_NUMBERS_AND_TEXT = (
    "text and numbers do not go together; CAST the text AS DOUBLE, or mind the quotes: '5' is text"
)
TOO_DEEP = (
    "is nested too deeply; write a chain of ORs as IN (...), and longer ones as several "
    "operators, one after the other"
)
_SAID: tuple[tuple[re.Pattern[str], Callable[[re.Match[str]], str]], ...] = (
    (re.compile(r"unsupported function '(.*?)'"), lambda said: _no_function(said[1])),
    (re.compile(r"Unterminated string literal"), lambda _: "a quote is never closed"),
    (re.compile(r"cannot compare string with numeric"), lambda _: _NUMBERS_AND_TEXT),
    (re.compile(r"arithmetic on dtypes .*\bstr\b"), lambda _: _NUMBERS_AND_TEXT),
    (
        re.compile(r"'is_in' cannot check for (\w+) values in List\((\w+)\)"),
        lambda said: f"IN must have values of type {_word(said[1])}, got {_word(said[2])}",
    ),
    (
        re.compile(r"^[&|] on \w+ and \w+ is not supported"),
        lambda _: "AND and OR take conditions; compare each side with something",
    ),
    (
        re.compile(r"expected `(\w+)`, got `(\w+)` for series with name `(.*)`"),
        lambda said: f"{said[3]!r} must be {_word(said[1])} here, got {_word(said[2])}",
    ),
    # of a tree that polars has written itself: it reads 128 levels, a chain of 60 terms
    (re.compile(r"could not deserialize"), lambda _: TOO_DEEP),
    (re.compile(r"unable to parse|sql parser error|not currently supported|is not supported, got|"
                r"array element|unexpected token"), lambda _: "is not an expression of SQL"),
)  # fmt: skip


def said(error: PolarsError) -> str:
    """The first line of an error, as a reader needs it."""
    line = " ".join(first_line(error).split())
    found = ((pattern.search(line), words) for pattern, words in _SAID)
    return next((words(match) for match, words in found if match), line)


def unread(error: PolarsError, sql: str, bare: str) -> str:
    """What to say of SQL that cannot be read; `bare`: the same without its texts."""
    fault, _, remedy = said(error).partition("; ")
    remedy = remedy or next((words for part, words in _FOREIGN if part.search(bare)), "")
    return f"{fault}, got {sql!r}" + (f"; {remedy}" if remedy else "")


def _no_function(name: str) -> str:
    near = get_close_matches(name, _FUNCTIONS.split(), 1)
    return f"no function is called {name!r}" + (f"; did you mean {near[0]!r}?" if near else "")


def _word(dtype: str) -> str:
    return _TYPES.get(dtype.lower(), dtype)
