"""Payloads of which some are JSON arrays of rows."""

from collections.abc import Iterator, Sequence
from typing import NamedTuple

import orjson
import polars as pl

from edge.codec.decoder import Decoder
from edge.codec.record import Record

_ROWS = "edge_rows"  # no field of a record can be called so


class Unfolded(NamedTuple):
    """Rows of payloads.

    origin: for every row the index of its payload (UInt32, rising). rejects: index of the payload,
    what of it did not become a row, and why.
    """

    frame: pl.DataFrame
    origin: pl.Series
    rejects: Sequence[tuple[int, bytes, str]]


class ArrayDecoder:
    """A Decoder that also takes a JSON array of objects: each object is a row, and for itself.

    Not for two threads at once.
    """

    def __init__(self, record: Record, captures: Sequence[str] = ()) -> None:
        """Raises DefinitionError as `Record.decoder` does."""
        self.plain = record.decoder(captures)
        self._takes_arrays = record.format == "json" and record.rows is None
        self._arrays = Decoder(record.model_copy(update={"rows": _ROWS}))

    def decode(self, payloads: Sequence[bytes]) -> Unfolded:
        """Payloads decoded together; what does not fit is rejected with its reason."""
        folded = [self._takes_arrays and body.lstrip()[:1] == b"[" for body in payloads]
        if not any(folded):
            return self._singly(range(len(payloads)), payloads)
        if self.plain.fields is not None:
            self._arrays.fields = self.plain.fields
        wrapped = map(_wrap, payloads, folded)
        found = self._arrays.decode(list(wrapped))
        if self.plain.fields is None and self._arrays.fields is not None:
            self.plain.fields = self._arrays.fields
        if not found.rejects and found.origin is not None:
            return Unfolded(found.frame, found.origin, [])
        # Together a payload is rejected as a whole, for one bad row of many.
        apart = [
            (index, row)
            for index, (body, array) in enumerate(zip(payloads, folded, strict=True))
            for row in (_elements(body) if array else [body])
        ]
        return self._singly([index for index, _ in apart], [row for _, row in apart])

    def _singly(self, indices: Sequence[int], payloads: Sequence[bytes]) -> Unfolded:
        found = self.plain.decode(payloads)
        origin = pl.Series(indices, dtype=pl.UInt32)
        return Unfolded(
            found.frame,
            origin if found.origin is None else origin.gather(found.origin),
            [(indices[at], payloads[at], reason) for at, reason in found.rejects],
        )


def _wrap(body: bytes, folded: bool) -> bytes:
    return b'{"%b":%b}' % (_ROWS.encode(), body if folded else b"[" + body + b"]")


def _elements(body: bytes) -> Iterator[bytes]:
    try:
        rows = orjson.loads(body)
    except orjson.JSONDecodeError:
        rows = None
    if isinstance(rows, list):
        yield from map(orjson.dumps, rows)
    else:
        yield body
