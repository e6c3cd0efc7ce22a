"""MQTT packets out of a byte stream: PUBLISH taken apart, all others left whole."""

import struct
from collections.abc import Sequence

from edge.errors import LinkDown

PUBLISH = 0x30
PUBACK = 0x40
DUPLICATE = 0x08
RETAIN = 0x01
CONTROL_LIMIT = 2**20
"""Bytes of a packet that is no PUBLISH; a broker that sends more is not an MQTT broker."""
KEPT_OF_OVERSIZE = 1024
"""Bytes that are kept of a payload over the limit, to show what it was."""
_VARIABLE_HEADER = 2**17
# Type and flags, the two bytes of a length up to 16 KiB, the length of the topic. One call for all
# of them takes less time than an index for each.
_START = struct.Struct(">BBBH").unpack_from


class Messages:
    """PUBLISH packets of one connection in the order they came; the columns are equally long.

    topics, payloads: bytes as they came. ids: packet id as two bytes, empty at QoS 0.
    duplicates, retained: indices of the messages with that flag.
    oversize: index -> true size of a payload over the limit; its column holds the first bytes.
    arrivals: (how many, microseconds UTC), one pair per read. size: bytes read for them.
    """

    __slots__ = (
        "arrivals",
        "duplicates",
        "generation",
        "ids",
        "oversize",
        "payloads",
        "retained",
        "size",
        "topics",
    )

    def __init__(self, generation: int = 0) -> None:
        self.generation = generation
        self.topics: list[bytes] = []
        self.payloads: list[bytes] = []
        self.ids: list[bytes] = []
        self.duplicates: list[int] = []
        self.retained: list[int] = []
        self.oversize: dict[int, int] = {}
        self.arrivals: list[tuple[int, int]] = []
        self.size = 0

    def __len__(self) -> int:
        return len(self.topics)

    def add(
        self, head: int, topic: bytes, packet_id: bytes, payload: bytes, oversize: int = 0
    ) -> None:
        """One message; `head` is the first byte of its packet.

        oversize: bytes of the whole payload if it is over the limit, so that it is cut off here.
        """
        index = len(self.topics)
        if head & DUPLICATE:
            self.duplicates.append(index)
        if head & RETAIN:
            self.retained.append(index)
        if oversize:
            self.oversize[index] = oversize
        self.topics.append(topic)
        self.payloads.append(payload)
        self.ids.append(packet_id)


class Splitter:
    """Cuts what was read from a socket into packets.

    Bytes go in with `feed`, packets come out with `take`, at whatever places the stream is cut.
    """

    def __init__(self, properties: bool, max_payload: int) -> None:
        """properties: whether packets carry MQTT 5 properties."""
        self._properties = properties
        self._max_payload = max_payload
        # The second byte of a packet's length up to which no payload in it can be too large.
        self._highest = min(127, (max_payload + 1 >> 7) - 1)
        self._data = b""
        self._at = 0
        self._skip = 0
        self._skipped: tuple[int, bytes, bytes, bytes, int] | None = None

    def feed(self, data: bytes) -> None:
        """Bytes that follow those fed before."""
        self._data = self._data[self._at :] + data
        self._at = 0

    def take(self, messages: Messages, limit: int) -> Sequence[bytes]:
        """Add complete PUBLISH packets to `messages` until it holds `limit`; returns the others.

        Stops before a PUBLISH that is one too many. Raises LinkDown for what is not MQTT.
        """
        others: list[bytes] = []
        while True:
            self._take_plain(messages, limit)
            if not self._take_any(messages, limit, others):
                return others

    def _take_plain(self, messages: Messages, limit: int) -> None:
        # The hot path: 0.4 us per message. It leaves whatever is unusual to `_take_any`.
        highest = self._highest
        if self._skip or highest < 0:
            return
        data, at, size, properties = self._data, self._at, len(self._data), self._properties
        add_topic, add_payload = messages.topics.append, messages.payloads.append
        add_id = messages.ids.append
        try:
            for _ in range(limit - len(messages.topics)):
                head, low, high, named = _START(data, at)
                if low > 127:
                    if high > highest:
                        break
                    name, end = at + 5, at + 3 + (low & 127 | high << 7)
                else:  # no second byte, so that what follows lies one place before
                    name, end = at + 4, at + 2 + low
                    named = high << 8 | named >> 8
                if end > size:
                    break
                middle = body = name + named
                packet_id = b""
                if head == 0x32:
                    body += 2
                    packet_id = data[middle:body]
                elif head != 0x30:
                    break
                if properties:
                    skip = data[body]
                    if skip > 127:
                        break
                    body += skip + 1
                if body > end or not named:
                    break
                add_topic(data[name:middle])
                add_id(packet_id)
                add_payload(data[body:end])
                at = end
        except (IndexError, struct.error):  # the stream is cut inside the header of a packet
            pass
        self._at = at

    def _take_any(self, messages: Messages, limit: int, others: list[bytes]) -> bool:
        if self._skip and not self._finish_skip(messages):
            return False
        found = _variable_integer(self._data, self._at + 1)
        if found is None:
            return False
        head, (length, start) = self._data[self._at], found
        end = start + length
        if head & 0xF0 == PUBLISH:
            return len(messages) < limit and self._take_publish(messages, head, start, end)
        if not head & 0xF0 or length > CONTROL_LIMIT:
            raise LinkDown(f"the broker sent a packet of type {head >> 4} with {length} bytes")
        if end > len(self._data):
            return False
        others.append(self._data[self._at : end])
        self._at = end
        return True

    def _take_publish(self, messages: Messages, head: int, start: int, end: int) -> bool:
        whole = end <= len(self._data)
        if not whole and end - start <= self._max_payload:
            return False
        packet = self._data[start : end if whole else start + _VARIABLE_HEADER]
        parts = self._parts(head, packet)
        if parts is None:
            if whole or len(packet) == _VARIABLE_HEADER:
                raise LinkDown(f"the broker sent a malformed PUBLISH of {end - start} bytes")
            return False
        topic, packet_id, body = parts
        size = end - start - body
        if size <= self._max_payload:
            if whole:
                messages.add(head, topic, packet_id, packet[body:])
                self._at = end
            return whole
        if len(packet) < min(end - start, body + KEPT_OF_OVERSIZE):
            return False
        self._skipped = head, topic, packet_id, packet[body : body + KEPT_OF_OVERSIZE], size
        self._skip, self._at = end - start - body, start + body
        return self._finish_skip(messages)

    def _parts(self, head: int, packet: bytes) -> tuple[bytes, bytes, int] | None:
        """Topic, packet id and where the payload starts; None if `packet` ends before it."""
        qos = head >> 1 & 3
        if qos > 1:
            raise LinkDown(
                f"the broker sent a message with QoS {qos}, which was not subscribed to; "
                "another client may have used this client id: choose another client_id"
            )
        middle = 2 + int.from_bytes(packet[:2], "big")
        body = middle + 2 if qos else middle
        if self._properties:
            found = _variable_integer(packet, body)
            if found is None:
                return None
            body = found[0] + found[1]
        if body > len(packet):
            return None
        if middle == 2:
            raise LinkDown("the broker sent a message without a topic")
        return packet[2:middle], packet[middle : middle + 2] if qos else b"", body

    def _finish_skip(self, messages: Messages) -> bool:
        """Step over a payload that is too large; its message counts once all of it has come."""
        part = min(self._skip, len(self._data) - self._at)
        self._skip -= part
        self._at += part
        if self._skip or self._skipped is None:
            return False
        messages.add(*self._skipped)
        self._skipped = None
        return True


def _variable_integer(data: bytes, at: int) -> tuple[int, int] | None:
    """A variable byte integer and where it ends (MQTT 5, 1.5.5); None if `data` ends before."""
    value = 0
    for place, byte in enumerate(data[at : at + 4]):
        value |= (byte & 127) << 7 * place
        if byte < 128:
            return value, at + place + 1
    if len(data) >= at + 4:
        raise LinkDown("the broker sent a packet whose length has more than four bytes")
    return None


def acknowledgement(ids: Sequence[bytes]) -> bytes:
    """PUBACK packets for packet ids of two bytes each, joined; the same in MQTT 3.1.1 and 5."""
    return b"@\x02" + b"@\x02".join(ids) if ids else b""


def acknowledged(packet: bytes) -> tuple[int, int]:
    """Packet id and reason code of a PUBACK; one without a code is a success (MQTT 5, 3.4.2.1)."""
    start = 2
    while packet[start - 1] > 127:
        start += 1
    reason = packet[start + 2] if len(packet) > start + 2 else 0
    return packet[start] << 8 | packet[start + 1], reason


def variable(value: int) -> bytes:
    """A number as a variable byte integer (MQTT 5, 1.5.5)."""
    if value < 128:
        return bytes((value,))
    digits = bytearray()
    while value > 127:
        digits.append(value & 127 | 128)
        value >>= 7
    digits.append(value)
    return bytes(digits)


def text(value: bytes) -> bytes:
    """A UTF-8 string as it stands in a packet: with its length before it."""
    return len(value).to_bytes(2, "big") + value
