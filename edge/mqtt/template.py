"""Topics made of columns, `plant/{line}/clean`: checked, filled in, and always legal."""

import re
from collections.abc import Sequence

import polars as pl

LONGEST = 65_535
"""Bytes of a topic at most (MQTT 5, 1.5.4)."""
NOTHING = "null"
"""The level for a value that is null or empty text."""

_COLUMN = re.compile(r"\{([^{}]*)\}")
# What has a meaning in a topic or a filter, what a broker may end the connection for (MQTT 5,
# 1.5.4), and % itself so that no two values become one.
_UNFIT = r"[/+#%\x00-\x1f\x7f-\x9f\x{FDD0}-\x{FDEF}\x{FFFE}\x{FFFF}]"
_UNFIT_HERE = re.compile("[/+#%\x00-\x1f\x7f-\x9f\ufdd0-\ufdef\ufffe\uffff]")


class Template:
    """The topic of a row: text in which `{column}` stands for what the row has there."""

    def __init__(self, text: str) -> None:
        """Raises ValueError for what no column can make a topic of."""
        plain = _COLUMN.sub("", text)
        if not text or len(text.encode()) > LONGEST:
            raise ValueError(f"must be a topic of 1 to {LONGEST} bytes, got {text[:80]!r}")
        if "{" in plain or "}" in plain or "{}" in text:
            raise ValueError(f"must name columns as {{column}}, got {text!r}")
        if "+" in plain or "#" in plain:
            raise ValueError(f"must not have + or #, which only subscribers use, got {text!r}")
        if _UNFIT_HERE.search(plain.replace("/", "").replace("%", "")):
            raise ValueError(f"must be without control characters, got {text!r}")
        self.text = text
        self.columns = tuple(dict.fromkeys(_COLUMN.findall(text)))

    def topics(self, frame: pl.DataFrame) -> pl.Series:
        """The topic of every row, String. A column that is not there counts as null.

        What a topic cannot hold inside a level is escaped as in a URL: `a/b` becomes `a%2Fb`.
        """
        parts = [
            self._level(part, frame) if index % 2 else pl.lit(part)
            for index, part in enumerate(_COLUMN.split(self.text))
        ]
        topics = frame.select(pl.concat_str(parts).alias("topic")).to_series()
        if self.text.startswith("{"):  # $SYS and its like are the broker's own
            topics = topics.str.replace(r"^\$", "%24")
        return topics if len(topics) == frame.height else topics.new_from_index(0, frame.height)

    def _level(self, name: str, frame: pl.DataFrame) -> pl.Series | pl.Expr:
        if name not in frame.columns:
            return pl.lit(NOTHING)
        texts = frame[name].cast(pl.String).replace("", None).fill_null(NOTHING)
        unfit = texts.filter(texts.str.contains(_UNFIT)).unique()
        return texts.replace(unfit, _escaped(unfit.to_list())) if len(unfit) else texts


def _escaped(values: Sequence[str]) -> pl.Series:
    made = [_UNFIT_HERE.sub(_percent, value) for value in values]
    return pl.Series(made, dtype=pl.String)


def _percent(found: re.Match[str]) -> str:
    return "".join(f"%{byte:02X}" for byte in found[0].encode())
