"""Payloads that are one value each -> the text column `value`."""

import base64
from collections.abc import Sequence

import polars as pl

from edge.codec.rows import Raw, not_utf8

_TYPES = {"value": pl.String}


def read_values(payloads: Sequence[bytes]) -> Raw:
    """Payloads as text; one that is not UTF-8 is rejected."""
    try:
        return Raw(pl.DataFrame({"value": [payload.decode() for payload in payloads]}, _TYPES))
    except UnicodeDecodeError:
        return _read_singly(payloads)


def _read_singly(payloads: Sequence[bytes]) -> Raw:
    texts: dict[int, str] = {}
    rejects: dict[int, str] = {}
    for index, payload in enumerate(payloads):
        if reason := not_utf8(payload):
            rejects[index] = reason
        else:
            texts[index] = payload.decode()
    origin = pl.Series(list(texts), dtype=pl.UInt32)
    return Raw(pl.DataFrame({"value": list(texts.values())}, _TYPES), origin, rejects)


def read_raw(payloads: Sequence[bytes]) -> Raw:
    """Payloads as text, whatever they are: what is not UTF-8 becomes base64 after `base64:`."""
    return Raw(pl.DataFrame({"value": [_as_text(payload) for payload in payloads]}, _TYPES))


def _as_text(payload: bytes) -> str:
    try:
        return payload.decode()
    except UnicodeDecodeError:
        return "base64:" + base64.b64encode(payload).decode()
