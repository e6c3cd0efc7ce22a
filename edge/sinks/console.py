"""Rows as NDJSON on standard output: to look, or to pipe into another program."""

import asyncio
import os
from collections.abc import Sequence
from datetime import timedelta
from typing import ClassVar

import polars as pl
from pydantic import PrivateAttr

from edge.codec import encode
from edge.component import Stream
from edge.errors import LinkDown
from edge.outbox.model import Parcel
from edge.outbox.packed import sent_bytes
from edge.sinks import Encoded, Receipt, Roll, Sink, split_id

STDOUT = 1


class ConsoleSink(Sink):
    """Prints rows as NDJSON to standard output.

    ```yaml
    console:
    ```

    Rows are delivered once the pipe, file or terminal took them; a parcel cut off in between is
    printed again, and `edge_id` tells. While standard output is closed or full the rows are kept.
    """

    roll_default: ClassVar[Roll] = Roll(2**20, timedelta(0))

    _identity: bool = PrivateAttr(True)

    def bind(self, columns: pl.Schema | None, stream: Stream, identity: bool, order: str) -> None:
        """Nothing to check."""
        self._identity = identity

    def encode(self, frame: pl.DataFrame) -> Encoded:
        """All rows as one parcel of NDJSON."""
        key = frame.item(0, "edge_id")
        first, last = split_id(key).sequence, split_id(frame.item(-1, "edge_id")).sequence
        rows = frame if self._identity else frame.drop("edge_id")
        body = encode(rows, "ndjson", "none")
        return Encoded([Parcel(key, first, last, frame.height, body)])

    async def send(self, parcels: Sequence[Parcel]) -> Receipt:
        """Write to standard output; LinkDown when it is closed or full."""
        return await asyncio.to_thread(_print, parcels)


def _print(parcels: Sequence[Parcel]) -> Receipt:
    delivered: list[int] = []
    try:
        for parcel in parcels:
            for piece in sent_bytes(parcel.body, parcel.attributes):
                _write_all(piece)
            delivered.append(parcel.id)
    except OSError as error:
        problem = f"cannot write to standard output: {error.strerror}; connect it to a reader"
        if not delivered:
            raise LinkDown(problem) from error
        return Receipt(delivered, problem=problem)
    return Receipt(delivered)


def _write_all(body: bytes) -> None:
    # Not through sys.stdout: what its buffer holds when a pipe breaks is written again at exit.
    rest = memoryview(body)
    while rest:
        rest = rest[os.write(STDOUT, rest) :]
