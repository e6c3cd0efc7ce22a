"""DataFrame -> the bytes that are stored and sent."""

import gzip
import sys
from io import BytesIO
from typing import Literal

import polars as pl

if sys.version_info >= (3, 14):
    from compression import zstd
else:
    from backports import zstd

Format = Literal["ndjson", "csv", "parquet", "json"]
Compression = Literal["none", "gzip", "zstd"]

_ISO_8601 = "%Y-%m-%dT%H:%M:%S%.6fZ"
_ENDINGS = {"none": "", "gzip": ".gz", "zstd": ".zst"}
_GZIP_LEVEL, _ZSTD_LEVEL = 6, 3


def encode(frame: pl.DataFrame, form: Format, compression: Compression) -> bytes:
    """Rows as the bytes of one file; the same frame always gives the same bytes.

    Timestamps are ISO 8601 in UTC with six digits of a second and `Z`; in Parquet TIMESTAMP(us,
    UTC). JSON has no NaN and no infinity, they become null there. Parquet is compressed inside, by
    column, with zstd unless `compression` says gzip or none; it is never compressed as a whole.
    """
    if form == "parquet":
        return _parquet(frame, compression)
    if form == "csv":
        plain = frame.write_csv(datetime_format=_ISO_8601).encode()
    elif form == "json":
        plain = b"[" + b",\n".join(rows_as_json(frame)) + b"]\n"
    else:
        plain = _ndjson(frame)
    return compress(plain, compression)


def extension(form: Format, compression: Compression) -> str:
    """The end of a file's name, without the first dot: `ndjson.zst`, `csv.gz`, `parquet`."""
    return form if form == "parquet" else form + _ENDINGS[compression]


def compress(body: bytes, compression: Compression) -> bytes:
    """The same body always gives the same bytes: no time, no file name."""
    if compression == "gzip":
        return gzip.compress(body, _GZIP_LEVEL, mtime=0)
    return zstd.compress(body, _ZSTD_LEVEL) if compression == "zstd" else body


def rows_as_json(frame: pl.DataFrame) -> list[bytes]:
    """One JSON object for each row, in order, as `encode` writes them in NDJSON."""
    return _ndjson(frame).splitlines() if frame.width else [b"{}"] * frame.height


def _ndjson(frame: pl.DataFrame) -> bytes:
    # Polars itself writes as many digits as each value needs, and +00:00.
    moments = [name for name, kind in frame.schema.items() if isinstance(kind, pl.Datetime)]
    text = frame.with_columns(pl.col(moments).dt.strftime(_ISO_8601)) if moments else frame
    body = BytesIO()
    text.write_ndjson(body)
    return body.getvalue()


def _parquet(frame: pl.DataFrame, compression: Compression) -> bytes:
    body = BytesIO()
    inside = {"none": "uncompressed", "gzip": "gzip", "zstd": "zstd"}
    frame.write_parquet(body, compression=inside[compression])  # type: ignore[arg-type]
    return body.getvalue()


def pack(frame: pl.DataFrame) -> bytes:
    """Rows as the body of an outbox entry: an Arrow IPC stream, compressed with zstd."""
    body = BytesIO()
    frame.write_ipc_stream(body, compression="zstd")
    return body.getvalue()


def unpack(body: bytes) -> pl.DataFrame:
    """The rows that `pack` was given."""
    return pl.read_ipc_stream(BytesIO(body))
