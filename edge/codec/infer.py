"""First rows -> the fields of a record whose definition does not name them."""

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import orjson
import polars as pl

from edge.codec.convert import convert
from edge.codec.record import FieldSpec, FieldType, Record

_ROWS = 1000
_UNITS: Sequence[FieldType] = ("timestamp_s", "timestamp_ms", "timestamp_us", "timestamp_ns")
_EXACT = 2**53


def infer_objects(payloads: Sequence[bytes], record: Record) -> Mapping[str, FieldSpec] | None:
    """Fields of JSON payloads by the rules of `Record`; None when none of them is an object."""
    seen: dict[str, list[Any]] = {}
    for payload in payloads[:_ROWS]:
        for element in _rows_of(payload, record.rows):
            for name, value in element.items():
                if not name.startswith("edge_") and name:
                    seen.setdefault(name, []).append(value)
    if not seen:
        return None
    known = dict(record.fields or {})
    taken = {field.steps(name)[0] for name, field in known.items()} | set(known)
    guessed = {name: values for name, values in seen.items() if name not in taken}
    return {**known, **{name: _guess(name, values, record) for name, values in guessed.items()}}


def infer_columns(frame: pl.DataFrame, record: Record) -> Mapping[str, FieldSpec]:
    """Fields of columns that are text (CSV) or typed (Parquet)."""
    return {
        name: _guess(name, _typed(frame[name].head(_ROWS)), record)
        if frame[name].dtype == pl.String
        else _from_type(name, frame[name].dtype)
        for name in frame.columns
        if not name.startswith("edge_")
    }


def _rows_of(payload: bytes, rows: str | None) -> Iterable[dict[str, Any]]:
    try:
        value = orjson.loads(payload)
    except orjson.JSONDecodeError:
        return
    if not isinstance(value, dict):
        return
    if rows is None:
        yield value
        return
    first, *rest = rows.split(".")
    elements: Any = value.get(first)
    for step in rest:
        elements = elements.get(step) if isinstance(elements, dict) else None
    outer = {name: each for name, each in value.items() if name != first}
    for element in elements if isinstance(elements, list) else ():
        if isinstance(element, dict):
            yield {**outer, **element}


def _typed(text: pl.Series) -> list[Any]:
    """Cells of CSV as the numbers and booleans they are, if all of a column are."""
    for kind in ("int", "float", "bool"):
        found = convert(text, FieldSpec(type=kind), "UTC")
        if found.null_count() == text.null_count() < len(text):
            return found.to_list()
    return text.to_list()


def _guess(name: str, values: Sequence[Any], record: Record) -> FieldSpec:
    if name == record.time:
        return FieldSpec(type=_time_type(values))
    return FieldSpec(type=_type_of([value for value in values if value is not None]), optional=True)


def _type_of(values: Sequence[Any]) -> FieldType:
    kinds = {type(value) for value in values}
    if kinds == {str}:
        return "str"
    if kinds == {bool}:
        return "bool"
    if kinds == {int} and any(abs(value) > _EXACT for value in values):
        return "int"
    return "float" if kinds and kinds <= {int, float} else "json"


def _time_type(values: Sequence[Any]) -> FieldType:
    numbers = [value for value in values if type(value) in (int, float)]
    if not numbers:
        return "timestamp"
    middle = pl.Series([sorted(numbers)[len(numbers) // 2]], dtype=pl.Float64)
    for unit in _UNITS:
        moment = convert(middle, FieldSpec(type=unit), "UTC")[0]
        if moment is not None and moment.year >= 2000:
            return unit
    return "timestamp_s"


def _from_type(name: str, dtype: pl.DataType) -> FieldSpec:
    kind: FieldType = "str"
    if dtype.is_integer():
        kind = "int"
    elif dtype.is_numeric():
        kind = "float"
    elif dtype == pl.Boolean:
        kind = "bool"
    elif dtype.is_temporal():
        kind = "timestamp"
    return FieldSpec(type=kind, optional=True)
