"""Values as they came -> columns of the record's types; null where a value does not fit."""

from datetime import UTC, datetime
from typing import Any

import polars as pl

from edge.codec.record import TIMESTAMP, FieldSpec

YEAR_2200 = 7_258_118_400  # in seconds since 1970
_YEAR_1, _YEAR_9999 = -62_135_596_800_000_000, 253_402_300_799_999_999
UNITS = {"timestamp_s": 1, "timestamp_ms": 10**3, "timestamp_us": 10**6, "timestamp_ns": 10**9}
_ZONED = "%+"
_NAIVE = ("%Y-%m-%dT%H:%M:%S%.f", "%Y-%m-%d %H:%M:%S%.f")


def convert(values: pl.Series, field: FieldSpec, zone: str) -> pl.Series:
    """`values` in the column type of `field`; null where a value does not fit.

    Text is read (as in CSV), numbers must fit exactly, and nothing else is turned into anything.
    zone: of timestamps in text without an offset.
    """
    if field.type in ("str", "json"):
        return _text(values)
    if field.type == "float":
        return _float(values)
    if field.type == "int":
        return _int(values)
    if field.type == "bool":
        return _bool(values)
    return _timestamp(values, field.type, zone)


def _text(values: pl.Series) -> pl.Series:
    return values if values.dtype == pl.String else values.cast(pl.String, strict=False)


def _float(values: pl.Series) -> pl.Series:
    if values.dtype == pl.Float64:
        return values
    if values.dtype == pl.String:
        values = values.str.strip_chars()
    elif not values.dtype.is_numeric():
        return pl.repeat(None, len(values), dtype=pl.Float64, eager=True)
    return values.cast(pl.Float64, strict=False)


def _int(values: pl.Series) -> pl.Series:
    if values.dtype == pl.Int64:
        return values
    if values.dtype == pl.String:
        values = values.str.strip_chars()
        whole = values.cast(pl.Int64, strict=False)
        return whole if whole.null_count() == values.null_count() else _also_integral(values, whole)
    if values.dtype.is_float():
        return _integral(values)
    if values.dtype.is_numeric():
        return values.cast(pl.Int64, strict=False)
    return pl.repeat(None, len(values), dtype=pl.Int64, eager=True)


def _also_integral(text: pl.Series, whole: pl.Series) -> pl.Series:
    return whole.zip_with(whole.is_not_null(), _integral(text.cast(pl.Float64, strict=False)))


def _integral(values: pl.Series) -> pl.Series:
    fits = (values == values.round(0)) & (values.abs() < 2**63)
    return values.set(~fits.fill_null(False), None).cast(pl.Int64, strict=False)


def _bool(values: pl.Series) -> pl.Series:
    if values.dtype == pl.Boolean:
        return values
    if values.dtype == pl.String:
        words = {"true": True, "false": False}
        lower = values.str.to_lowercase()
        return lower.replace_strict(words, default=None, return_dtype=pl.Boolean)
    return pl.repeat(None, len(values), dtype=pl.Boolean, eager=True)


def _timestamp(values: pl.Series, kind: str, zone: str) -> pl.Series:
    if isinstance(values.dtype, pl.Datetime) or values.dtype == pl.Date:
        return _from_datetime(values, zone)
    if kind == "timestamp":
        if values.dtype == pl.String:
            return parse_times(values, zone)
        return pl.repeat(None, len(values), dtype=TIMESTAMP, eager=True)
    exact = kind in ("timestamp_us", "timestamp_ns")
    return _from_number(_int(values) if exact else _float(values), UNITS[kind])


def _from_datetime(values: pl.Series, zone: str) -> pl.Series:
    moment = values.cast(pl.Datetime("us", getattr(values.dtype, "time_zone", None)))
    return _in_utc(moment, zone) if moment.dtype == pl.Datetime("us") else moment.cast(TIMESTAMP)


def _from_number(values: pl.Series, unit: int) -> pl.Series:
    # Least and greatest first: a mask is made only where one of them is outside.
    least: Any = values.min()
    greatest: Any = values.max()
    if least is not None and not (least >= 0 and greatest < YEAR_2200 * unit):
        inside = ((values >= 0) & (values < YEAR_2200 * unit)).fill_null(False)
        values = values.set(~inside, None)
    micros = values // 1000 if unit == 10**9 else values * (10**6 // unit)
    if micros.dtype.is_float():
        micros = micros + 0.5  # the cast cuts off
    return micros.cast(pl.Int64, strict=False).cast(TIMESTAMP)


def parse_times(text: pl.Series, zone: str) -> pl.Series:
    """ISO 8601 text as microseconds UTC; null where it is none.

    Text without an offset is local time in `zone`: of a time that occurs twice the earlier is
    taken, one that is skipped does not fit.
    """
    found = pl.repeat(None, len(text), dtype=TIMESTAMP, eager=True)
    for form in _by_likelihood(text):
        if found.null_count() == text.null_count():
            return found
        found = found.zip_with(found.is_not_null(), _read(text, form, zone))
    if found.null_count() > text.null_count():
        rest = [_read_one(value, zone) for value in text.filter(found.is_null())]
        found = found.scatter(found.is_null().arg_true(), pl.Series(rest, dtype=TIMESTAMP))
    return found


def _by_likelihood(text: pl.Series) -> tuple[str, ...]:
    """The forms, that of the first value first. No text fits two, so the order decides nothing."""
    index = text.is_not_null().arg_max()
    sample = str(text[index]) if index is not None else ""
    if sample[19:].lstrip(".0123456789"):
        return (_ZONED, *_NAIVE)
    return (*(_NAIVE if sample[10:11] != " " else _NAIVE[::-1]), _ZONED)


def _read(text: pl.Series, form: str, zone: str) -> pl.Series:
    if form == _ZONED:
        found = text.str.to_datetime(form, time_unit="us", time_zone="UTC", strict=False)
    else:
        found = _in_utc(text.str.to_datetime(form, time_unit="us", strict=False), zone)
    ticks = found.to_physical()
    inside = ((ticks >= _YEAR_1) & (ticks <= _YEAR_9999)).fill_null(True)
    return found if inside.all() else found.set(~inside, None)


def _in_utc(local: pl.Series, zone: str) -> pl.Series:
    if zone == "UTC":
        return local.dt.replace_time_zone("UTC")
    aware = local.dt.replace_time_zone(zone, ambiguous="earliest", non_existent="null")
    return aware.dt.convert_time_zone("UTC")


def _read_one(value: str | None, zone: str) -> datetime | None:
    """The rarer forms of ISO 8601 that Python knows: a date alone, no seconds, no punctuation.

    Digits alone are none: they may have been a number.
    """
    if value is None or value.isdigit():
        return None
    try:
        moment = datetime.fromisoformat(value.strip())
        if moment.tzinfo is not None:
            return moment.astimezone(UTC)
    except (ValueError, OverflowError):
        return None
    aware: Any = _in_utc(pl.Series([moment], dtype=pl.Datetime("us")), zone)[0]
    return aware.astimezone(UTC) if aware is not None else None
