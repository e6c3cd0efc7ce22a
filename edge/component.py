"""What sources, operators and sinks share: options, lookup by name, durations and sizes."""

import importlib
import re
from collections.abc import Mapping, Sequence
from datetime import timedelta
from difflib import get_close_matches
from importlib.metadata import entry_points
from pathlib import Path
from typing import Annotated, Any, Literal, NamedTuple

from pydantic import BaseModel, BeforeValidator, ConfigDict, PlainSerializer, WithJsonSchema

from edge.errors import DefinitionError

_DURATION_UNITS = {
    "us": 1,
    "ms": 1_000,
    "s": 1_000_000,
    "m": 60_000_000,
    "h": 3_600_000_000,
    "d": 86_400_000_000,
    "w": 604_800_000_000,
}
_SIZE_UNITS = {
    "B": 1,
    "kB": 10**3,
    "KB": 10**3,
    "MB": 10**6,
    "GB": 10**9,
    "TB": 10**12,
    "KiB": 2**10,
    "MiB": 2**20,
    "GiB": 2**30,
    "TiB": 2**40,
}
_DURATION_TEXT = re.compile(r"(?:\d+(?:\.\d+)?(?:us|ms|s|m|h|d|w))+")
_DURATION_PART = re.compile(r"(\d+(?:\.\d+)?)(us|ms|s|m|h|d|w)")
_SIZE_TEXT = re.compile(r"(\d+(?:\.\d+)?)\s*([kKMGT]i?B|B)")
_LONGEST = timedelta(days=36_500)  # with a time of today it still fits into a timestamp
_LARGEST = 2**62  # bytes; sums of them still fit into SQLite


def parse_duration(value: object) -> timedelta:
    """Text such as `50ms`, `30s`, `1h30m` as a span of time; a bare number is refused."""
    if isinstance(value, timedelta):
        return value
    if isinstance(value, str) and _DURATION_TEXT.fullmatch(value):
        parts = _DURATION_PART.findall(value)
        micros = sum(float(number) * _DURATION_UNITS[unit] for number, unit in parts)
        if micros > _LONGEST / timedelta(microseconds=1):
            raise ValueError(f"must be at most {_LONGEST.days}d, got {_shortened(value)}")
        return timedelta(microseconds=round(micros))
    raise ValueError(f"must be a duration such as 30s or 5m, got {_shortened(value)}")


def parse_size(value: object) -> int:
    """Text such as `8MiB` or `500kB` as bytes; a bare number has no unit and is refused in YAML."""
    if isinstance(value, int) and not isinstance(value, bool):
        raise ValueError(f"must be a size with its unit such as 8MiB or 500kB, got {value!r}")
    if isinstance(value, str) and (match := _SIZE_TEXT.fullmatch(value)):
        size = float(match[1]) * _SIZE_UNITS[match[2]]
        if size > _LARGEST:
            raise ValueError(f"must be at most {Size(_LARGEST)}, got {_shortened(value)}")
        return round(size)
    raise ValueError(f"must be a size such as 8MiB or 500kB, got {_shortened(value)}")


def parse_rate(value: object) -> int:
    """Text such as `2MiB/s` as bytes per second."""
    if isinstance(value, str) and value.endswith("/s"):
        return parse_size(value.removesuffix("/s"))
    raise ValueError(f"must be a rate such as 2MiB/s, got {value!r}")


def format_duration(span: timedelta) -> str:
    """The shortest text that `parse_duration` reads back: `timedelta(seconds=90)` is `1m30s`."""
    micros = round(span.total_seconds() * 1_000_000)
    if not micros:
        return "0s"
    parts = []
    for unit in ("d", "h", "m", "s", "ms", "us"):
        number, micros = divmod(micros, _DURATION_UNITS[unit])
        if number:
            parts.append(f"{number}{unit}")
    return "".join(parts)


def format_size(size: float) -> str:
    """Bytes for people: `8388608` is `8.0 MiB`."""
    for unit in ("B", "KiB", "MiB", "GiB"):
        if abs(size) < 1024:
            return f"{size:.0f} B" if unit == "B" else f"{size:.1f} {unit}"
        size /= 1024
    return f"{size:.1f} TiB"


def _shortened(value: object) -> str:
    """What was given, in a message of one line."""
    text = repr(value)
    return text if len(text) <= 60 else f"{text[:60]}..."


def _parse_positive(value: object) -> timedelta:
    is_span = isinstance(value, timedelta) or (
        isinstance(value, str) and _DURATION_TEXT.fullmatch(value)
    )
    span = parse_duration(value) if is_span else timedelta(0)
    if span <= timedelta(0):
        raise ValueError(
            f"must be a duration above zero such as 30s or 5m, got {_shortened(value)}"
        )
    return span


_DURATION_SCHEMA = WithJsonSchema(
    {"type": "string", "pattern": r"^(\d+(\.\d+)?(us|ms|s|m|h|d|w))+$", "examples": ["30s", "5m"]}
)
Duration = Annotated[
    timedelta, BeforeValidator(parse_duration), PlainSerializer(format_duration), _DURATION_SCHEMA
]
"""A span of time written with its unit; zero is allowed."""

PositiveDuration = Annotated[
    timedelta,
    BeforeValidator(_parse_positive),
    PlainSerializer(format_duration),
    _DURATION_SCHEMA,
]
"""A span of time above zero, written with its unit."""


class Size(int):
    """Bytes; written with a unit in a definition: `8MiB`."""

    @classmethod
    def __get_pydantic_core_schema__(cls, _source: Any, _handler: Any) -> Any:
        from pydantic_core import core_schema

        def read(value: object) -> "Size":
            return value if isinstance(value, cls) else cls(parse_size(value))

        return core_schema.no_info_plain_validator_function(
            read, serialization=core_schema.plain_serializer_function_ser_schema(str)
        )

    @classmethod
    def __get_pydantic_json_schema__(cls, _schema: Any, _handler: Any) -> dict[str, Any]:
        return {
            "type": "string",
            "pattern": r"^\d+(\.\d+)?\s*([kKMGT]i?B|B)$",
            "examples": ["8MiB"],
        }

    def __str__(self) -> str:
        for unit in ("TiB", "GiB", "MiB", "KiB"):
            if self and self % _SIZE_UNITS[unit] == 0:
                return f"{self // _SIZE_UNITS[unit]}{unit}"
        return f"{int(self)}B"


Rate = Annotated[
    int,
    BeforeValidator(lambda value: value if isinstance(value, Size) else parse_rate(value)),
    WithJsonSchema({"type": "string", "pattern": r"^.+/s$", "examples": ["2MiB/s"]}),
]
"""Bytes per second, written `2MiB/s`."""


Names = Annotated[
    tuple[str, ...],
    BeforeValidator(lambda value: (value,) if isinstance(value, str) else value),
    WithJsonSchema({"anyOf": [{"type": "string"}, {"type": "array", "items": {"type": "string"}}]}),
]
"""One name, or a list of them."""


Missing = Annotated[
    Literal["null", "drop"], BeforeValidator(lambda value: "null" if value is None else value)
]
"""What happens to a row for which nothing is found; YAML reads the word null as None."""


class Stream(NamedTuple):
    """What every part of a pipeline may know about the rows it handles.

    `time` is the event time column (`edge_received` where the record names none), `key` the columns
    that tell one series from another (the default of `by` everywhere), `folder` where relative
    paths of the definition start, `client` what a part calls itself where it connects.
    """

    time: str = "edge_received"
    key: tuple[str, ...] = ()
    folder: Path = Path()
    client: str = "edge"


class Permission(NamedTuple):
    """Actions that a part asks of AWS on one resource, as a statement of a policy has them.

    resource: an ARN, in whose first parts `{partition}`, `{region}` and `{account}` stand for those
    of the processor. condition: as in a policy.
    """

    actions: tuple[str, ...]
    resource: str
    condition: Mapping[str, Any] = {}


class Component(BaseModel):
    """Options, their limits, their documentation and the behaviour of one part, in one class.

    Subclasses are named after their YAML name (`window` -> `Window`, `mqtt` -> `MqttSource`), live
    in a module of that name, and are found through the table in their folder's `__init__`.
    Options are immutable; what a part works with at run time are private attributes
    (`PrivateAttr`), set in `bind` or when first needed, so that making one opens nothing.
    """

    model_config = ConfigDict(extra="forbid", frozen=True, arbitrary_types_allowed=True)

    def permissions(self, path: str) -> Sequence[Permission]:
        """What the part asks of AWS: the role that a deployment gives its task allows nothing else.

        path: `<site>/<pipeline>/<sink>`, which every key of a sink starts with behind its prefix.
        """
        return ()


def find(table: Mapping[str, str], group: str, kind: str, name: str) -> type[Component]:
    """The class called `name` in `table` or in the entry points of `group`; imports only that one.

    Raises DefinitionError with the nearest known name.
    """
    target = table.get(name)
    if target is None:
        outside = {point.name: point for point in entry_points(group=group)}
        if name in outside:
            loaded: type[Component] = outside[name].load()
            return loaded
        near = get_close_matches(name, [*table, *outside], 1)
        hint = f"did you mean {near[0]!r}?" if near else "known are " + ", ".join(sorted(table))
        raise DefinitionError(f"no {kind} is called {name!r}; {hint}")
    module, _, attribute = target.partition(":")
    found: type[Component] = getattr(importlib.import_module(module), attribute)
    return found
