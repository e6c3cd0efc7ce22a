"""What wrote a piece of memory: enough to read it again when the options are others by then."""

import json
import struct
from collections.abc import Mapping
from typing import Any, NamedTuple

import polars as pl

from edge.codec import pack, unpack
from edge.component import Stream

_LENGTHS = struct.Struct("<II")


class Origin(NamedTuple):
    """options: as `model_dump` gives them in JSON mode. columns: of the rows that came in."""

    options: Mapping[str, Any]
    stream: Stream
    columns: pl.Schema

    def seal(self, body: bytes) -> bytes:
        """`body` with its origin before it."""
        text = json.dumps([self.options, self.stream.time, self.stream.key]).encode()
        columns = pack(self.columns.to_frame())
        return _LENGTHS.pack(len(text), len(columns)) + text + columns + body


def unseal(sealed: bytes) -> tuple[Origin, bytes]:
    """What `seal` made. Raises ValueError or struct.error for anything else."""
    options, time, key = json.loads(sealed[slice(*_text(sealed))])
    start, end = _columns(sealed)
    columns = unpack(sealed[start:end]).schema
    return Origin(options, Stream(time, tuple(key)), columns), sealed[end:]


def body_of(sealed: bytes) -> bytes:
    """The body alone."""
    return sealed[_columns(sealed)[1] :]


def _text(sealed: bytes) -> tuple[int, int]:
    return _LENGTHS.size, _LENGTHS.size + _LENGTHS.unpack_from(sealed)[0]


def _columns(sealed: bytes) -> tuple[int, int]:
    start = _text(sealed)[1]
    return start, start + _LENGTHS.unpack_from(sealed)[1]


def fit(rows: pl.DataFrame, columns: pl.Schema) -> pl.DataFrame:
    """Rows with `columns`: others are left out; what is missing or of no such type is null."""
    missing = [pl.lit(None).alias(name) for name in columns if name not in rows.columns]
    return rows.with_columns(missing).select(columns.names()).cast(columns, strict=False)
