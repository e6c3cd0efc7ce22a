"""Payload bytes -> DataFrame, and DataFrame -> bodies (json, ndjson, csv, parquet)."""

from edge.codec.body import (
    Compression,
    Format,
    compress,
    encode,
    encode_packed,
    extension,
    pack,
    rows_as_json,
    unpack,
)
from edge.codec.decoder import Decoder
from edge.codec.record import TIMESTAMP, FieldSpec, FieldType, Record
from edge.codec.rows import Decoded
from edge.codec.times import ISO_8601
from edge.outbox.model import Reject

__all__ = [
    "ISO_8601",
    "TIMESTAMP",
    "Compression",
    "Decoded",
    "Decoder",
    "FieldSpec",
    "FieldType",
    "Format",
    "Record",
    "Reject",
    "compress",
    "encode",
    "encode_packed",
    "extension",
    "pack",
    "rows_as_json",
    "unpack",
]
