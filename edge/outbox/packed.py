"""Parcels that wait in the outbox smaller than they are sent."""

import sys
from collections.abc import Iterator, Mapping
from io import BytesIO
from typing import Any

if sys.version_info >= (3, 14):
    from compression import zstd
else:
    from backports import zstd

PACKED: Mapping[str, Any] = {"packed": "zstd"}
"""Attributes of a parcel whose body is the zstd frame of what is sent."""

_PIECE = 2**20


def sent_bytes(body: bytes, attributes: Mapping[str, Any]) -> Iterator[bytes]:
    """What is sent of a parcel with this body and these attributes, in pieces of 1 MiB at most."""
    if attributes.get("packed") != "zstd":
        yield body
        return
    with zstd.open(BytesIO(body), "rb") as file:
        while piece := file.read(_PIECE):
            yield piece
