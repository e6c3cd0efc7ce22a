"""Claim check: the body of a message that is too large for its queue, and the pointer to it."""

import functools
import json
from typing import Any

from edge.aws.queue import PAYLOAD_SIZE, POINTER
from edge.outbox.model import Parcel
from edge.sinks import Receipt
from edge.sinks.objects import ObjectStore

LARGEST_BODY = 2 * 2**30
"""Bytes of a body at most, which those clients name as their limit."""


class Claim(ObjectStore):
    """A bucket for the bodies of messages that are too large for their queue."""

    async def check_in(self, parcel: Parcel) -> Parcel | Receipt:
        """Put the body under the parcel's key; gives the parcel with a pointer in its place.

        A receipt where other bytes have that key. Raises what boto3 raises.
        """
        key = self.prefix + parcel.key
        if not await self.call(functools.partial(self._check_in, key, parcel.body)):
            return Receipt(rekey=[parcel.id])
        pointer = [POINTER, {"s3BucketName": self.bucket, "s3Key": key}]
        body = json.dumps(pointer, separators=(",", ":"), ensure_ascii=False).encode()
        attributes = {**parcel.attributes, PAYLOAD_SIZE: len(parcel.body)}
        return parcel._replace(body=body, attributes=attributes)

    def _check_in(self, key: str, body: bytes, client: Any) -> bool:
        return self.put(key, body, "application/json", client)
