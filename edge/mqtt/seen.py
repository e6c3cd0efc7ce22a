"""What a start must know of an MQTT session: ids handed over, retained messages, subscriptions."""

import logging
import sys
from array import array
from collections.abc import Iterable, Mapping, Sequence
from functools import cache
from itertools import compress
from typing import Any

import orjson
from xxhash import xxh3_64_intdigest

from edge.codec import FieldSpec

log = logging.getLogger("edge.mqtt")

HASH = "xxh3-64"
"""Names the hash; a test pins its values."""
_MOST_RETAINED = 100_000
_IDS = 2**16


def fingerprints(topics: Sequence[bytes], payloads: Sequence[bytes]) -> Sequence[int]:
    """A 64-bit hash of topic and payload for each message."""
    # No topic holds the byte 0 (MQTT 5, 4.7.3).
    return list(map(xxh3_64_intdigest, map(b"\0".join, zip(topics, payloads, strict=True))))


def packet_ids(ids: Sequence[bytes]) -> "array[int]":
    """Packet ids as numbers; what has none is left out."""
    numbers = array("H", b"".join(ids))
    if sys.byteorder == "little":
        numbers.byteswap()
    return numbers


def topic_hashes(topics: Sequence[bytes]) -> Sequence[int]:
    """A 64-bit hash of each topic."""
    return list(map(xxh3_64_intdigest, topics))


class Seen:
    """Packet id -> hash of the message handed over under it, and what else outlives a start.

    Snapshots carry what changed since the last one: a line of JSON, then packet ids (2 bytes each),
    their hashes (8), topic hashes of retained messages (8) and the hashes of those messages (8).
    """

    def __init__(self) -> None:
        self._reset()

    def _reset(self) -> None:
        self.subscriptions: Sequence[str] = ()
        self.fields: Mapping[str, Any] | None = None
        self._by_id = _words(())  # at each packet id its hash, 0: not known; empty at first
        self._retained: dict[int, int] = {}
        self._clean()

    def _clean(self) -> None:
        self._new_ids = array("H")
        self._new_hashes = _words(())
        self._new_retained: dict[int, int] = {}
        self._forgotten = False
        self._resubscribed = False
        self._learned = False

    def is_repeat(self, packet_id: int, fingerprint: int) -> bool:
        """Whether a message with DUP is one that was handed over before."""
        return bool(self._by_id and fingerprint) and self._by_id[packet_id] == fingerprint

    def hand_over(self, ids: "array[int]", hashes: "array[int]") -> None:
        """Remember the hash of each packet id; what the id stood for before is forgotten."""
        self._take(ids, hashes)
        self._new_ids += ids
        self._new_hashes += hashes

    def _take(self, ids: "array[int]", hashes: "array[int]") -> None:
        if not ids:
            return
        if not self._by_id:
            self._by_id = _words((0,)) * _IDS
        first, after = ids[0], ids[0] + len(hashes)
        if ids == _all_ids()[first:after]:  # a broker gives one after the other
            self._by_id[first:after] = hashes
        else:
            for packet_id, hashed in zip(ids, hashes, strict=True):
                self._by_id[packet_id] = hashed

    def is_retained(self, topic: int, fingerprint: int) -> bool:
        """Whether this retained message was taken before."""
        return self._retained.get(topic) == fingerprint

    def take_retained(self, topic: int, fingerprint: int) -> None:
        """Remember a retained message; the oldest of more than 100,000 topics is forgotten."""
        for table in (self._retained, self._new_retained):
            table.pop(topic, None)
            table[topic] = fingerprint
            if len(table) > _MOST_RETAINED:
                del table[next(iter(table))]

    def subscribe(self, filters: Iterable[str]) -> bool:
        """Note what the session is subscribed to; False if it was known."""
        wanted = tuple(sorted(filters))
        if wanted == tuple(self.subscriptions):
            return False
        self.subscriptions = wanted
        self._resubscribed = True
        return True

    def learn_fields(self, fields: Mapping[str, FieldSpec] | None) -> None:
        """Note the fields that the first rows decided."""
        if fields is not None and self.fields is None:
            self.fields = {name: field.model_dump() for name, field in fields.items()}
            self._learned = True

    def forget_session(self) -> bool:
        """The broker has no session, so its packet ids start anew; False if none was known."""
        if not self._by_id:
            return False
        self._by_id = _words(())
        self._new_ids, self._new_hashes = array("H"), _words(())
        self._forgotten = True
        return True

    def snapshot(self, whole: bool) -> bytes | None:
        """What changed since the last call, or everything; None if nothing did."""
        ids, hashes, retained = self._new_ids, self._new_hashes, self._new_retained
        if whole:
            ids = array("H", compress(_all_ids(), self._by_id))
            hashes, retained = _words(filter(None, self._by_id)), self._retained
        subscribed = whole or self._resubscribed
        learned = whole or self._learned
        if not (ids or retained or subscribed or learned or self._forgotten):
            return None
        head = {
            "hash": HASH,
            "ids": len(ids),
            "retained": len(retained),
            "forget": self._forgotten,
            "subscriptions": self.subscriptions if subscribed else None,
            "fields": self.fields if learned else None,
        }
        numbers = [ids, hashes, _words(retained), _words(retained.values())]
        blob = b"".join([orjson.dumps(head), b"\n", *(each.tobytes() for each in numbers)])
        self._clean()
        return blob

    def restore(self, states: Sequence[bytes]) -> None:
        """Take back what `snapshot` gave: one whole, then changes."""
        self._reset()
        others = {hashed for state in states if (hashed := self._apply(state)) != HASH}
        if others:
            log.warning(
                "packet ids remembered with hash %s are forgotten, this version has %r; "
                "messages that the broker sends again now are taken twice",
                ", ".join(map(repr, sorted(others))),
                HASH,
            )
        self._clean()

    def _apply(self, state: bytes) -> str:
        """Take over one state, without what it hashed otherwise; gives the name of its hash."""
        line, _, body = state.partition(b"\n")
        head = orjson.loads(line)
        if head["subscriptions"] is not None:
            self.subscriptions = tuple(head["subscriptions"])
        if head["fields"] is not None:
            self.fields = head["fields"]
        hashed: str = head["hash"]
        if hashed != HASH:
            return hashed
        if head["forget"]:
            self._by_id = _words(())
        count, kept = head["ids"], head["retained"]
        ids = array("H", body[: 2 * count])
        words = _words(())
        words.frombytes(body[2 * count :])
        self._take(ids, words[:count])
        for topic, fingerprint in zip(
            words[count : count + kept], words[count + kept :], strict=True
        ):
            self.take_retained(topic, fingerprint)
        return hashed


@cache
def _all_ids() -> "array[int]":
    return array("H", range(_IDS))


def _words(values: Iterable[int]) -> "array[int]":
    return array("Q", values)
