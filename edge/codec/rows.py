"""Rows between reading and checking, and the words that reject them."""

from collections.abc import Mapping, Sequence
from typing import NamedTuple

import orjson
import polars as pl

from edge.codec.convert import convert
from edge.codec.record import FieldSpec

_SHOWN = 60


class Raw(NamedTuple):
    """Payloads taken apart, values not yet checked.

    frame: one column per field, of whatever type the format gives; a value that is not there is
        null. rejects: index of the payload and the reason.
    origin: the payload of each row, UInt32; None when there is exactly one row for each payload.
    """

    frame: pl.DataFrame
    origin: pl.Series | None = None
    rejects: Mapping[int, str] = {}


class Decoded(NamedTuple):
    """What payloads became.

    frame: one row per kept payload (several with `record.rows` or lines of CSV, none for an empty
        array), in the order of the payloads; one column per field, timestamps in microseconds UTC.
    origin: for every row the index of its payload (UInt32, rising): `values.gather(origin)` lines
        up what belongs to the payloads. None when rows and payloads are one to one, none rejected.
    rejects: index of the payload and the reason, by index. A payload is rejected as a whole.
    """

    frame: pl.DataFrame
    origin: pl.Series | None
    rejects: Sequence[tuple[int, str]]


def settle(raw: Raw, fields: Mapping[str, FieldSpec], zone: str) -> Decoded:
    """Columns in the types of `fields`; payloads with a value that is missing or misfits go."""
    frame = raw.frame.clone()
    for place, (name, field) in enumerate(fields.items()):
        given = raw.frame.to_series(place)
        column = convert(given, field, zone)
        if column is not given:
            frame.replace_column(place, column.alias(name))
    bad = _bad_rows(raw.frame, frame, fields)
    if bad is None:
        return Decoded(frame, raw.origin, sorted(raw.rejects.items()))
    origin = raw.origin
    if origin is None:
        origin = pl.int_range(frame.height, dtype=pl.UInt32, eager=True)
    rejects = {**raw.rejects}
    for row in bad.arg_true():
        if origin[row] not in rejects:
            rejects[origin[row]] = _reason(raw.frame, frame, fields, row)
    kept = ~origin.is_in(list(rejects)) if raw.origin is not None else ~bad
    return Decoded(frame.filter(kept), origin.filter(kept), sorted(rejects.items()))


def _bad_rows(
    raw: pl.DataFrame, frame: pl.DataFrame, fields: Mapping[str, FieldSpec]
) -> pl.Series | None:
    """Mask of the rows that lack a required value or hold one that misfits; None if all is well."""
    bad: pl.Series | None = None
    columns = zip(fields.values(), raw.get_columns(), frame.get_columns(), strict=True)
    for field, given, column in columns:
        allowed = given.null_count() if field.optional else 0
        if column.null_count() > allowed:
            wrong = column.is_null()
            if field.optional:
                wrong = wrong & given.is_not_null()
            bad = wrong if bad is None else bad | wrong
    return bad


def _reason(
    raw: pl.DataFrame, frame: pl.DataFrame, fields: Mapping[str, FieldSpec], row: int
) -> str:
    for name, field in fields.items():
        if frame[name][row] is None:
            if raw[name][row] is not None:
                return misfit(name, field.type, raw[name][row])
            if not field.optional:
                return missing(name)
    return "row cannot be read"


def missing(name: str) -> str:
    """The reason for a required value that is not there."""
    return f"field {name!r} is missing"


def misfit(name: str, expected: str, value: object) -> str:
    """The reason for a value that is not what its field takes."""
    return f"field {name!r} must be {_EXPECTED.get(expected, expected)}, got {shown(value)}"


def not_utf8(payload: bytes) -> str | None:
    """The reason for a payload that is not text; None if it is."""
    try:
        payload.decode()
    except UnicodeDecodeError as error:
        byte = payload[error.start]
        return f"payload is not UTF-8: byte 0x{byte:02x} at position {error.start} is no text"
    return None


def shown(value: object) -> str:
    """A value as short JSON, for a message."""
    try:
        text = orjson.dumps(value).decode()
    except TypeError:
        text = str(value)
    return text if len(text) <= _SHOWN else text[: _SHOWN - 3] + "..."


_EXPECTED = {
    "timestamp": "an ISO 8601 time",
    "timestamp_s": "seconds between 1970 and 2200",
    "timestamp_ms": "milliseconds between 1970 and 2200",
    "timestamp_us": "whole microseconds between 1970 and 2200",
    "timestamp_ns": "whole nanoseconds between 1970 and 2200",
}
