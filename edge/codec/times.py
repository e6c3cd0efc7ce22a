"""Points in time -> text, many at once."""

from collections.abc import Sequence
from functools import cache

import polars as pl
from polars import selectors

ISO_8601 = "%Y-%m-%dT%H:%M:%S%.6fZ"
_SECONDS = "%Y-%m-%dT%H:%M:%S."
_MICROSECONDS = pl.Datetime("us")
_MANY = 1000
_SHARED = 4  # so many must have a text, or a part of it, in common


def times_as_text(frame: pl.DataFrame) -> pl.DataFrame:
    """Every Datetime, with or without a zone, as ISO 8601 in UTC with six digits and `Z`.

    Formatting takes 0.12 us a value. Of many, those that follow one another with the same time
    (they were read together) take a quarter of that, and those within a few seconds half.
    """
    moments = [name for name, kind in frame.schema.items() if isinstance(kind, pl.Datetime)]
    if not moments:
        return frame
    if frame.height >= _MANY:
        return frame.with_columns([_text(frame[name]) for name in moments])
    # Formatting takes a quarter less time without the zone. By type: `col` takes some names for
    # patterns.
    utc = selectors.datetime().dt.convert_time_zone("UTC").dt.replace_time_zone(None)
    return frame.with_columns(utc.dt.strftime(ISO_8601))


def _text(moments: pl.Series) -> pl.Series:
    utc = moments.alias("at").to_physical().cast(pl.Datetime(moments.dtype.time_unit))  # type: ignore[attr-defined]
    run = utc.rle_id()
    if run[-1] < len(utc) // _SHARED:
        text = utc.rle().struct.field("value").dt.strftime(ISO_8601).gather(run)
    elif utc.dtype == _MICROSECONDS:
        text = _by_second(utc)
    else:
        text = utc.dt.strftime(ISO_8601)
    return text.alias(moments.name)


def _by_second(utc: pl.Series) -> pl.Series:
    micros = utc.to_physical()
    second = micros // 1_000_000
    first, last = second.min(), second.max()
    # They are no numbers where all is null.
    if not (isinstance(first, int) and isinstance(last, int)) or last - first > len(utc) // _SHARED:
        return utc.dt.strftime(ISO_8601)
    each = pl.int_range(first, last + 1, eager=True) * 1_000_000
    text = each.cast(_MICROSECONDS).dt.strftime(_SECONDS).gather(second - first)
    rest = micros - second * 1_000_000
    milli = rest // 1000
    rest = rest - milli * 1000
    whole, upper, lower = _last_digits()
    if rest.max():
        return text + upper.gather(milli) + lower.gather(rest)
    return text + whole.gather(milli)


@cache
def _last_digits() -> Sequence[pl.Series]:
    """Whole milliseconds; milliseconds and microseconds apart."""
    forms = ("{:03}000Z", "{:03}", "{:03}Z")
    return [pl.Series([form.format(number) for number in range(1000)]) for form in forms]
