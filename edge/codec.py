"""Payload bytes -> DataFrame, and DataFrame -> bodies (json, ndjson, csv, parquet)."""

from collections.abc import Mapping, Sequence
from typing import Literal, NamedTuple

import polars as pl
from pydantic import BaseModel

from edge.outbox.model import Reject


class Record(BaseModel):
    """How a payload becomes rows (being written)."""


class Decoded(NamedTuple):
    """What payloads became.

    frame: one row per kept payload (several with `record.rows`), in the order of the payloads.
    origin: for every row the index of its payload; None when rows and payloads are one to one.
    rejects: index of the payload and the reason.
    """

    frame: pl.DataFrame
    origin: pl.Series | None
    rejects: Sequence[tuple[int, str]]


class Decoder:
    """Turns payloads of one record into columns; made by `Record.decoder()`."""

    columns: pl.Schema | None

    def decode(self, payloads: Sequence[bytes]) -> Decoded:
        """Payloads decoded together; one that does not fit is rejected with its reason."""
        raise NotImplementedError


Format = Literal["ndjson", "csv", "parquet", "json"]
Compression = Literal["none", "gzip", "zstd"]


def encode(frame: pl.DataFrame, form: Format, compression: Compression) -> bytes:
    """Rows as the bytes of one file; the same frame always gives the same bytes."""
    raise NotImplementedError


__all__ = ["Compression", "Decoded", "Decoder", "Format", "Record", "Reject", "encode"]
_ = Mapping
