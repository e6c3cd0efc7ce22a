"""Objects in an S3 bucket, one per parcel, each put exactly once under a key of its own."""

import asyncio
import functools
from collections.abc import Sequence
from pathlib import PurePosixPath
from typing import Any

from edge.aws import classify
from edge.outbox.model import Parcel
from edge.outbox.packed import sent_bytes
from edge.sinks import Receipt
from edge.sinks.objects import ObjectStore
from edge.sinks.partition import Partitioned
from edge.sinks.receipt import join, receipt_for

# Compressed files carry the type of the compression and no Content-Encoding: with it some clients
# unpack silently and others do not. Readers such as Athena go by the ending of the key.
_CONTENT_TYPES = {
    ".gz": "application/gzip",
    ".zst": "application/zstd",
    ".parquet": "application/vnd.apache.parquet",
    ".csv": "text/csv; charset=utf-8",
    ".json": "application/json",
    ".ndjson": "application/x-ndjson",
}
_ANYTHING = "application/octet-stream"


class S3Sink(ObjectStore, Partitioned):
    """Puts one object per parcel: ndjson, csv, parquet or json, with Hive partitions.

    ```yaml
    s3:
      bucket: plant-lake
      prefix: readings/
      format: parquet
      partition: [date]
    ```

    An object is put only where none is (`If-None-Match`), and carries the SHA-256 of its bytes, so
    a repeat after a lost answer leaves one object. Needs s3:PutObject on the prefix; with
    s3:GetObject a key that is taken can be looked at.
    """

    async def send(self, parcels: Sequence[Parcel]) -> Receipt:
        """Put the parcels, side by side if no order is kept; LinkDown if none was settled."""
        if self._ordered:
            return await self._send_in_turn(parcels)
        return join(await asyncio.gather(*map(self._send_one, parcels), return_exceptions=True))

    def _prefix(self) -> str:
        return self.prefix

    async def _send_one(self, parcel: Parcel) -> Receipt:
        try:
            return await self.call(functools.partial(self._put, parcel))
        except Exception as error:
            return receipt_for(classify(error, self.target), [parcel])

    def _put(self, parcel: Parcel, client: Any) -> Receipt:
        body = b"".join(sent_bytes(parcel.body, parcel.attributes))
        content_type = _CONTENT_TYPES.get(PurePosixPath(parcel.key).suffix, _ANYTHING)
        if self.put(parcel.key, body, content_type, client):
            return Receipt([parcel.id])
        return Receipt(rekey=[parcel.id])
