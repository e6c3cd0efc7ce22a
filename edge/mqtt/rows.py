"""Messages -> rows: what was there before is left out, the rest is decoded, captures are added."""

from array import array
from collections.abc import Collection, Iterator, Sequence
from itertools import chain, compress, repeat
from typing import Literal, NamedTuple

import polars as pl

from edge import small
from edge.codec import TIMESTAMP, Decoder, Reject
from edge.component import format_size
from edge.mqtt.packets import KEPT_OF_OVERSIZE, Messages
from edge.mqtt.seen import Seen, fingerprints, packet_ids, topic_hashes
from edge.mqtt.topics import Topics

Retained = Literal["skip", "once", "keep"]


class Rows(NamedTuple):
    """What messages became: rows, payloads that are none, and how many messages were left out."""

    frame: pl.DataFrame
    rejects: Sequence[Reject]
    redelivered: int
    retained: int


class RowReader:
    """Makes rows of messages; remembers in `seen` what it handed over. Not for two threads."""

    def __init__(
        self, decoder: Decoder, topics: Topics, retained: Retained, recognise: bool, limit: int
    ) -> None:
        """limit: the largest payload, for the reason of a reject."""
        self.seen = Seen()
        self._decoder = decoder
        self._infers = decoder.columns is None
        self._topics = topics
        self._retained = retained
        self._recognise = recognise
        self._limit = limit

    @property
    def columns(self) -> pl.Schema | None:
        """What `read` gives: fields, captures, `edge_received`; None while only data can tell."""
        fields = self._decoder.columns
        if fields is None:
            return None
        captures = dict.fromkeys(self._topics.names, pl.String())
        others = {name: kind for name, kind in fields.items() if name not in captures}
        return pl.Schema({**others, **captures, "edge_received": TIMESTAMP})

    def use_remembered_fields(self) -> None:
        """Decode as an earlier run did, where the definition does not name the fields."""
        if self._decoder.columns is None and self.seen.fields:
            self._decoder.fields = self.seen.fields

    def read(self, messages: Messages) -> Rows:
        """Every message becomes rows, a reject, or one of the counts."""
        repeats, retained = self._known(messages)
        places, faults = self._topics.places(messages.topics)
        for index, size in messages.oversize.items():
            faults[index] = (
                f"payload has {format_size(size)}, the limit is {format_size(self._limit)} "
                f"(max_payload); its first {min(size, KEPT_OF_OVERSIZE)} bytes are kept"
            )
        left_out = {*repeats, *retained}
        rejects = [
            _reject(messages, index, reason)
            for index, reason in sorted(faults.items())
            if index not in left_out
        ]
        frame, misfits = self._decode(messages, places, left_out.union(faults))
        return Rows(frame, [*rejects, *misfits], len(repeats), len(retained))

    def _known(self, messages: Messages) -> tuple[Collection[int], Collection[int]]:
        """Indices of messages that came before, and of retained ones that are not wanted."""
        once = self._retained == "once" and messages.retained
        marks: Sequence[int] = ()
        if once or (self._recognise and any(messages.ids)):
            marks = fingerprints(messages.topics, messages.payloads)
        repeats = self._repeats(messages, marks) if self._recognise else set()
        new = [index for index in messages.retained if index not in repeats]
        if self._retained != "once":
            return repeats, new if self._retained == "skip" else ()
        return repeats, list(self._retained_before(messages, new, marks)) if new else ()

    def _repeats(self, messages: Messages, marks: Sequence[int]) -> set[int]:
        ids, seen = messages.ids, self.seen
        repeats = {
            index
            for index in messages.duplicates
            if ids[index] and seen.is_repeat(int.from_bytes(ids[index], "big"), marks[index])
        }
        seen.hand_over(packet_ids(ids), array("Q", compress(marks, ids)))
        return repeats

    def _retained_before(
        self, messages: Messages, indices: Sequence[int], marks: Sequence[int]
    ) -> Iterator[int]:
        topics = topic_hashes([messages.topics[index] for index in indices])
        for index, topic in zip(indices, topics, strict=True):
            if self.seen.is_retained(topic, marks[index]):
                yield index
            else:
                self.seen.take_retained(topic, marks[index])

    def _decode(
        self, messages: Messages, places: Sequence[int], without: Collection[int]
    ) -> tuple[pl.DataFrame, Sequence[Reject]]:
        # Eager calls on Series only: each trip through an expression costs a small batch 20 us.
        place = small.places(places)
        times = list(chain.from_iterable(repeat(time, count) for count, time in messages.arrivals))
        received = small.times(small.whole("edge_received", times), TIMESTAMP)
        taken: Sequence[int] = range(len(messages))
        payloads: Sequence[bytes] = messages.payloads
        if without:
            taken = [index for index in taken if index not in without]
            payloads = [payloads[index] for index in taken]
            place, received = place[taken], received[taken]
        decoded = self._decoder.decode(payloads)
        rejects = [_reject(messages, taken[index], why) for index, why in decoded.rejects]
        frame, origin = decoded.frame, decoded.origin
        if origin is not None:
            place, received = place[origin], received[origin]
        if self._infers:
            self.seen.learn_fields(self._decoder.fields)
            frame = frame.drop(self._topics.names, strict=False)
        return frame.hstack([*self._topics.columns(place), received]), rejects


def _reject(messages: Messages, index: int, reason: str) -> Reject:
    topic = messages.topics[index].decode(errors="replace")
    return Reject(reason, messages.payloads[index], topic)
