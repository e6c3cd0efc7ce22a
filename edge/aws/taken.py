"""Which messages of a queue were taken before: bounded, and given to the outbox as changes."""

import logging
from collections.abc import Mapping, Sequence
from itertools import islice
from typing import Any

import orjson
from xxhash import xxh3_128_digest

from edge.codec import FieldSpec

log = logging.getLogger("edge.sources.sqs")

HASH = "xxh3-128"
"""Names the hash; a test pins its values."""
_BYTES = 16


class Taken:
    """The ids of the newest `limit` messages that were taken.

    Snapshots carry what is new since the last one: a line of JSON, then 16 bytes for each id.
    """

    def __init__(self, limit: int) -> None:
        self._limit = limit
        self._reset()

    def _reset(self) -> None:
        self.fields: Mapping[str, Any] | None = None
        self._ids: dict[bytes, None] = {}
        self._clean()

    def _clean(self) -> None:
        self._new: list[bytes] = []
        self._learned = False

    def __len__(self) -> int:
        return len(self._ids)

    def take(self, name: str) -> bool:
        """Remember an id; False if it was taken before."""
        digest = xxh3_128_digest(name.encode())
        if digest in self._ids:
            return False
        self._ids[digest] = None
        self._new.append(digest)
        return True

    def learn_fields(self, fields: Mapping[str, FieldSpec] | None) -> None:
        """Note the fields that the first rows decided."""
        if fields is not None and self.fields is None:
            self.fields = {name: field.model_dump() for name, field in fields.items()}
            self._learned = True

    def snapshot(self, whole: bool) -> bytes | None:
        """What changed since the last call, or everything; None if nothing did."""
        self._forget()
        ids: Sequence[bytes] = list(self._ids) if whole else self._new
        if not (ids or self._learned or (whole and self.fields)):
            return None
        head = {"hash": HASH, "fields": self.fields if whole or self._learned else None}
        blob = b"".join([orjson.dumps(head), b"\n", *ids])
        self._clean()
        return blob

    def restore(self, states: Sequence[bytes]) -> None:
        """Take back what `snapshot` gave: one whole, then changes."""
        self._reset()
        for state in states:
            line, _, body = state.partition(b"\n")
            head = orjson.loads(line)
            self.fields = head["fields"] or self.fields
            if head["hash"] != HASH:
                log.warning("ids remembered with hash %r are forgotten", head["hash"])
                continue
            self._ids.update(
                dict.fromkeys(body[at : at + _BYTES] for at in range(0, len(body), _BYTES))
            )
        self._forget()

    def _forget(self) -> None:
        """The oldest above the limit."""
        excess = len(self._ids) - self._limit
        if excess > 0:
            for digest in list(islice(self._ids, excess)):
                del self._ids[digest]
