"""One JSON object looked at in Python: what is wrong with it, or its fields written anew."""

import json
from collections.abc import Callable, Collection, Mapping, Sequence
from typing import Any

import orjson

from edge.codec.record import FieldSpec
from edge.codec.rows import misfit, missing, shown

_MARK = "."


class Misfit(Exception):
    """A payload does not fit its record; the text is the reason."""


class Judge:
    """Checks objects against fields by the rules of `Record`, without polars."""

    def __init__(self, fields: Mapping[str, FieldSpec], rows: str | None) -> None:
        self._fields = [(name, spec.type, spec.steps(name)) for name, spec in fields.items()]
        self._rows = tuple(rows.split(_MARK)) if rows else ()

    def rewrite(self, text: bytes) -> bytes:
        """The declared fields of a JSON object alone, in exact types: 5 for 5.0. Raises Misfit."""
        return self._rewrite(orjson.loads(text))

    def rewrite_first(self, text: bytes) -> bytes:
        """`rewrite`, where of a key that occurs twice the first value counts, as in polars."""
        try:
            return self._rewrite(json.loads(text, object_pairs_hook=_first_wins))
        except (ValueError, RecursionError) as error:
            raise Misfit(f"payload is not JSON: {error}") from error

    def _rewrite(self, value: dict[str, Any]) -> bytes:
        if not self._rows:
            return orjson.dumps(self._rebuilt([value]))
        name = _MARK.join(self._rows)
        elements = _find(value, self._rows)
        if elements is None:
            raise Misfit(missing(name))
        if not isinstance(elements, list):
            raise Misfit(f"field {name!r} must be an array, got {shown(elements)}")
        for element in elements:
            if not isinstance(element, dict):
                raise Misfit(f"field {name!r} must be an array of objects, got {shown(element)}")
        rebuilt: dict[str, Any] = {}
        _put(rebuilt, self._rows, [self._rebuilt([element, value]) for element in elements])
        return orjson.dumps(rebuilt)

    def lacks(self, value: dict[str, Any], names: Collection[str]) -> bool:
        """Whether none of the fields called `names` is there with a value other than null."""
        try:
            return all(
                _find(value, steps) is None for name, _, steps in self._fields if name in names
            )
        except Misfit:
            return False

    def _rebuilt(self, places: Sequence[dict[str, Any]]) -> dict[str, Any]:
        rebuilt: dict[str, Any] = {}
        for name, kind, steps in self._fields:
            for place in places:
                value = _find(place, steps)
                if value is not None:
                    _put(rebuilt, steps, _fit(name, kind, value))
                    break
        return rebuilt


def _first_wins(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    return dict(reversed(pairs))


def _find(value: Any, steps: Sequence[str]) -> Any:
    for depth, step in enumerate(steps):
        if not isinstance(value, dict):
            if value is None:
                return None
            raise Misfit(
                f"field {_MARK.join(steps[:depth])!r} must be an object, got {shown(value)}"
            )
        value = value.get(step)
    return value


def _put(into: dict[str, Any], steps: Sequence[str], value: Any) -> None:
    for step in steps[:-1]:
        into = into.setdefault(step, {})
    into[steps[-1]] = value


def _fit(name: str, kind: str, value: Any) -> Any:
    """`value` in the JSON type that polars asks for, exactly; raises Misfit."""
    fitted = _FITS[kind](value)
    if fitted is None:
        raise Misfit(misfit(name, kind, value))
    return fitted


def _text(value: Any) -> Any:
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, int):
        return str(value)
    return value if isinstance(value, str) or _number(value) is not None else None


def _integer(value: Any) -> Any:
    if isinstance(value, float) and value.is_integer():
        value = int(value)
    if isinstance(value, bool) or not isinstance(value, int):
        return None
    return value if -(2**63) <= value < 2**63 else None


def _number(value: Any) -> Any:
    if isinstance(value, bool) or not isinstance(value, int | float):
        return None
    return float(value) if -1.8e308 < value < 1.8e308 else None


def _boolean(value: Any) -> Any:
    return value if isinstance(value, bool) else None


def _json(value: Any) -> str:
    return orjson.dumps(value).decode()


_FITS: Mapping[str, Callable[[Any], Any]] = {
    "str": _text,
    "int": _integer,
    "float": _number,
    "bool": _boolean,
    "json": _json,
    "timestamp": _text,
    "timestamp_s": _number,
    "timestamp_ms": _number,
    "timestamp_us": _integer,
    "timestamp_ns": _integer,
}
