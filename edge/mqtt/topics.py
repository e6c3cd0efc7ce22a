"""Topic filters with captures such as `plant/{line}/+/telemetry`: checked, matched, as columns."""

import re
from collections.abc import Sequence

import polars as pl

from edge import small

_NAME = re.compile(r"[A-Za-z_][A-Za-z0-9_]*")
_MOST_TOPICS = 100_000
_UNKNOWN = "topic matches none of the topics of this source"


class Pattern:
    """One entry of `topics`: the filter a broker understands and the names of its captures."""

    def __init__(self, text: str) -> None:
        """Raises ValueError for what is not a topic filter."""
        self.text = text
        levels = _checked_levels(text)
        self.names = tuple(level[1:-1] for level in levels if level.startswith("{"))
        self.filter = "/".join("+" if level.startswith("{") else level for level in levels)
        self._expression = re.compile(_expression(levels), re.DOTALL)

    def match(self, topic: str) -> dict[str, str] | None:
        """What the captures hold for `topic`; None if the filter does not match it."""
        found = self._expression.fullmatch(topic)
        return found.groupdict() if found else None


def _checked_levels(text: str) -> list[str]:
    if not text or "\0" in text or len(text.encode()) > 65_535:
        raise ValueError(f"must be a topic of 1 to 65535 bytes without null, got {text[:80]!r}")
    if text.startswith("$share/"):
        raise ValueError(f"must be a plain topic, got {text!r}; write share: GROUP beside topics")
    levels = text.split("/")
    names = []
    for place, level in enumerate(levels):
        if "{" in level or "}" in level:
            names.append(_capture(level, text))
        elif "#" in level and (level != "#" or place < len(levels) - 1):
            raise ValueError(f"must have # only as the whole last level, got {text!r}")
        elif "+" in level and level != "+":
            raise ValueError(f"must have + only as a whole level, got {level!r} in {text!r}")
    twice = sorted({name for name in names if names.count(name) > 1})
    if twice:
        raise ValueError(f"must capture each name once, got {twice[0]!r} twice in {text!r}")
    return levels


def _capture(level: str, text: str) -> str:
    name = level[1:-1]
    if level != f"{{{name}}}" or not _NAME.fullmatch(name):
        raise ValueError(
            f"must capture a whole level as {{name}} with letters, digits and _, "
            f"got {level!r} in {text!r}"
        )
    if name.startswith("edge_"):
        raise ValueError(f"must not capture {name!r}: columns starting with edge_ are reserved")
    return name


def _expression(levels: Sequence[str]) -> str:
    parts = []
    for place, level in enumerate(levels):
        separator = "/" if place else ""
        # A wildcard at the first level does not match $SYS and its like (MQTT 5, 4.7.2).
        hidden = "" if place else r"(?!\$)"
        if level == "#":
            parts.append(f"(?:{separator}.*)?" if place else f"{hidden}.*")
        elif level == "+":
            parts.append(f"{separator}{hidden}[^/]*")
        elif level.startswith("{"):
            parts.append(f"{separator}{hidden}(?P<{level[1:-1]}>[^/]*)")
        else:
            parts.append(separator + re.escape(level))
    return "".join(parts)


class _Index(dict[bytes, int]):
    """Topic -> its place in the tables of `Topics`, which learn a topic when it is first seen."""

    def __init__(self, topics: "Topics") -> None:
        self._topics = topics

    def __missing__(self, topic: bytes) -> int:
        self[topic] = place = self._topics.learn(topic)
        return place


class Topics:
    """Turns topics into capture columns, with work per distinct topic instead of per message."""

    def __init__(self, patterns: Sequence[Pattern]) -> None:
        self._patterns = patterns
        self.names = tuple(dict.fromkeys(name for each in patterns for name in each.names))
        self._forget()

    def _forget(self) -> None:
        self._index = _Index(self)
        self._captures: list[dict[str, str]] = []
        self._faults: dict[int, str] = {}
        self._table = pl.DataFrame()

    def learn(self, topic: bytes) -> int:
        """Match a topic against the patterns, the first that matches wins; returns its place."""
        place = len(self._captures)
        try:
            text = topic.decode()
        except UnicodeDecodeError:
            self._captures.append({})
            self._faults[place] = "topic is not UTF-8"
            return place
        matches = (pattern.match(text) for pattern in self._patterns)
        found = next((match for match in matches if match is not None), None)
        if found is None:
            self._faults[place] = _UNKNOWN
        self._captures.append(found or {})
        return place

    def places(self, topics: Sequence[bytes]) -> tuple[list[int], dict[int, str]]:
        """For each message the place of its topic, and index -> fault of those without a pattern.

        Places hold until the next call.
        """
        if len(self._captures) > _MOST_TOPICS:
            self._forget()
        places = list(map(self._index.__getitem__, topics))
        if not self._faults:
            return places, {}
        faults = self._faults
        return places, {i: faults[place] for i, place in enumerate(places) if place in faults}

    def columns(self, places: pl.Series) -> Sequence[pl.Series]:
        """One String column per capture, one row per place; null where the pattern lacks it."""
        if self._table.height != len(self._captures):
            schema = dict.fromkeys(self.names, pl.String)
            self._table = pl.DataFrame(self._captures, schema=schema, orient="row")
        return [small.at(column, places) for column in self._table.get_columns()]
