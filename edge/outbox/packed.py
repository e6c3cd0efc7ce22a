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

_PIECE = 2**18  # malloc maps and unmaps larger ones, and every page is cleared anew


def sent_size(body: bytes, attributes: Mapping[str, Any]) -> int:
    """How many bytes are sent of such a parcel; as stored, where the frame does not say."""
    if attributes.get("packed") != "zstd":
        return len(body)
    try:
        return zstd.get_frame_info(body).decompressed_size or len(body)
    except zstd.ZstdError:
        return len(body)


def sent_bytes(body: bytes, attributes: Mapping[str, Any]) -> Iterator[bytes]:
    """What is sent of such a parcel, in pieces of 256 KiB at most."""
    if attributes.get("packed") != "zstd":
        yield body
        return
    with zstd.open(BytesIO(body), "rb") as file:
        while piece := file.read(_PIECE):
            yield piece
