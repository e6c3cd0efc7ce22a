"""Rows -> data of CloudWatch, many to a parcel, and what became of each row."""

import math
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, NamedTuple

import orjson
import polars as pl

from edge.codec import compress
from edge.outbox.measures import unit_of
from edge.outbox.model import Divided, Parcel, Refusal
from edge.outbox.packed import PACKED, sent_bytes
from edge.sinks import Encoded

DATA = 1000
"""Data of one call at most (PutMetricData)."""
_BYTES = 900_000  # of the 1 MB that a call may have, without its namespace
_LARGEST = 2.0**360  # of a value, either way
_LONGEST = 1024  # characters of a dimension's value


class Shape(NamedTuple):
    """What is made of a row: the column of its time, of its metrics and of its dimensions.

    fixed: what every datum has beside (`StorageResolution`); units: by metric.
    """

    time: str
    metrics: Sequence[str]
    dimensions: Sequence[str]
    units: Mapping[str, str] = {}
    fixed: Mapping[str, Any] = {}


class Measured(NamedTuple):
    """One row: its sequence number, its time in Unix seconds, its data as boto3 takes them."""

    sequence: int
    time: float
    data: Sequence[Mapping[str, Any]]


def make_data(frame: pl.DataFrame, shape: Shape) -> Encoded:
    """Parcels of up to 1,000 data; the body is a JSON array with a line for each row.

    Null and NaN are no data; a row without any is refused. A parcel's key is the id of its first
    row.
    """
    ids = frame["edge_id"]
    stem = ids[0][: ids[0].rindex("-") + 1]
    refused, rows = [], []
    for row in _rows(frame, ids.str.slice(len(stem)).cast(pl.Int64), shape):
        if isinstance(row, Refusal):
            refused.append(row)
        else:
            rows.append(row)
    return Encoded([_parcel(stem, part) for part in _cut(rows)], refused)


def rows_of(parcel: Parcel) -> Sequence[Measured]:
    """What a parcel holds. Raises ValueError when it was made for a sink of another kind."""
    try:
        found = orjson.loads(b"".join(sent_bytes(parcel.body, parcel.attributes)))
        rows = [Measured(*row) for row in found]
        assert all(isinstance(row.time, float) and isinstance(row.data, list) for row in rows)
    except (ValueError, TypeError, AssertionError) as error:
        raise ValueError("the parcel holds no data of CloudWatch") from error
    return rows


def divide(
    parcel: Parcel, rows: Sequence[Measured], taken: set[int], refused: Mapping[int, str]
) -> Divided:
    """By place in `rows`, which is what the parcel holds; what is in neither goes again."""
    stem = parcel.key[: parcel.key.rindex("-") + 1]
    by_reason: dict[str, list[Measured]] = {}
    for place in sorted(refused):
        by_reason.setdefault(refused[place], []).append(rows[place])
    rest = [row for place, row in enumerate(rows) if place not in taken and place not in refused]
    return Divided(
        len(taken),
        [(_parcel(stem, part), reason) for reason, part in by_reason.items()],
        _parcel(stem, rest) if rest else None,
    )


def _rows(frame: pl.DataFrame, sequences: pl.Series, shape: Shape) -> Iterator[Measured | Refusal]:
    names = [name for name in shape.dimensions if name in frame.columns]
    dimensions = [frame[name].cast(pl.String).to_list() for name in names]
    metrics = [name for name in shape.metrics if name in frame.columns]
    values = [frame[name].cast(pl.Float64).to_list() for name in metrics]
    times = frame[shape.time].dt.epoch("us").to_list()
    kinds = [_kind(name, shape) for name in metrics]
    for place, (sequence, time) in enumerate(zip(sequences, times, strict=True)):
        told = [(n, each[place]) for n, each in zip(names, dimensions, strict=True) if each[place]]
        number = [each[place] for each in values]
        if time is None:
            yield Refusal(sequence, sequence, 1, f"its time, column {shape.time!r}, is null")
        elif reason := _unfit(told):
            yield Refusal(sequence, sequence, 1, reason)
        elif not any(map(_is_value, number)):
            yield Refusal(sequence, sequence, 1, f"no value in {', '.join(metrics)}")
        else:
            seconds = time / 1e6
            about = [{"Name": _plain(name), "Value": _plain(value)} for name, value in told]
            data = [
                {**kind, "Value": value, "Timestamp": seconds, "Dimensions": about}
                for kind, value in zip(kinds, number, strict=True)
                if _is_value(value)
            ]
            yield Measured(sequence, seconds, data)


def _kind(metric: str, shape: Shape) -> Mapping[str, Any]:
    unit = shape.units.get(metric) or unit_of(metric)
    return {"MetricName": _plain(metric), **({"Unit": unit} if unit else {}), **shape.fixed}


def _is_value(value: float | None) -> bool:
    return value is not None and math.isfinite(value) and abs(value) <= _LARGEST


def _unfit(dimensions: Sequence[tuple[str, str]]) -> str | None:
    for name, value in dimensions:
        if len(_plain(value)) > _LONGEST:
            return f"{len(value)} characters in column {name!r}; a dimension takes 1024"
    return None


def _plain(text: str) -> str:
    r"""As a dimension takes it, in ASCII: `Süd` is `S\xfcd`, a colon in front `\x3a`."""
    if text.isascii() and text.isprintable() and text.strip() and not text.startswith(":"):
        return text
    kept = (
        c if " " < c < "\x7f" or (c == " " and text.strip()) else f"\\x{ord(c):02x}" for c in text
    )
    made = "".join(kept)
    return f"\\x3a{made[1:]}" if made.startswith(":") else made


def _cut(rows: Sequence[Measured]) -> Iterator[Sequence[Measured]]:
    start = size = count = 0
    for index, row in enumerate(rows):
        length = len(orjson.dumps(row.data))
        if index > start and (count + len(row.data) > DATA or size + length > _BYTES):
            yield rows[start:index]
            start, size, count = index, 0, 0
        size, count = size + length, count + len(row.data)
    if rows:
        yield rows[start:]


def _parcel(stem: str, rows: Sequence[Measured]) -> Parcel:
    first, last = rows[0].sequence, rows[-1].sequence
    body = b"[" + b",\n".join(orjson.dumps(tuple(row)) for row in rows) + b"]\n"
    return Parcel(f"{stem}{first}", first, last, len(rows), compress(body, "zstd"), PACKED)
