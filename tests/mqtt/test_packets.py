"""Whatever a broker sends, and wherever the stream is cut: the same packets, or a clear end."""

from collections.abc import Sequence
from itertools import pairwise

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from edge.errors import LinkDown
from edge.mqtt.packets import KEPT_OF_OVERSIZE, Messages, Splitter, acknowledgement
from tests.mqtt.wire import publish

PINGRESP = b"\xd0\x00"


def split(
    pieces: Sequence[bytes], five: bool = False, limit: int = 10**9, most: int = 2**20
) -> tuple[list[object], list[bytes], str | None]:
    """All that a splitter makes of `pieces`: messages, other packets, the error that ended it.

    What was no message goes with the connection when there is an error.
    """
    splitter, messages, others = Splitter(five, most), Messages(), list[bytes]()
    found: list[object] = []
    try:
        for piece in pieces:
            splitter.feed(piece)
            while True:
                others += splitter.take(messages, limit)
                if len(messages) < limit:
                    break
                found += columns(messages)
                messages = Messages()
    except LinkDown as error:
        return found + columns(messages), [], str(error)
    return found + columns(messages), others, None


def columns(messages: Messages) -> list[object]:
    assert len(messages.topics) == len(messages.payloads) == len(messages.ids)
    return [
        (
            messages.topics[i],
            messages.payloads[i],
            messages.ids[i],
            i in messages.duplicates,
            i in messages.retained,
            messages.oversize.get(i),
        )
        for i in range(len(messages))
    ]


def cut(stream: bytes, places: Sequence[int]) -> list[bytes]:
    marks = [0, *sorted(place % (len(stream) + 1) for place in places), len(stream)]
    return [stream[start:end] for start, end in pairwise(marks)]


PLACES = st.lists(st.integers(0, 10**6), max_size=30)
PUBLISHED = st.tuples(
    st.binary(min_size=1, max_size=200),
    st.binary(max_size=400),
    st.integers(0, 1),
    st.sampled_from([0, 1, 8, 9]),
    st.integers(1, 65_535),
    st.binary(max_size=200),
)


@given(st.lists(PUBLISHED, max_size=20), PLACES, st.booleans(), st.integers(1, 30))
def test_a_stream_cut_anywhere_gives_the_packets_that_went_in(
    given_: list[tuple[bytes, bytes, int, int, int, bytes]],
    places: list[int],
    five: bool,
    limit: int,
) -> None:
    stream, expected = b"", list[object]()
    for topic, payload, qos, flags, packet_id, properties in given_:
        stream += publish(topic, payload, qos, flags, packet_id, properties if five else None)
        stream += PINGRESP
        number = packet_id.to_bytes(2, "big") if qos else b""
        large = len(payload) if len(payload) > 100 else None
        expected.append((topic, payload, number, bool(flags & 8), bool(flags & 1), large))
    found, others, error = split(cut(stream, places), five, limit, most=100)
    assert error is None
    assert found == expected
    assert others == [PINGRESP] * len(given_)


@given(st.binary(max_size=600), PLACES, st.booleans())
@example(b"\x30\x00", [1], False)
@example(b"\x30\x01\x00", [], True)
@example(b"\x30\xff\xff\xff\xff\x01", [2, 4], True)
@example(b"\x32\x05\x00\x01a\x00\x01", [], True)
def test_any_bytes_cut_anywhere_end_alike(stream: bytes, places: list[int], five: bool) -> None:
    assert split(cut(stream, places), five) == split([stream], five)


@given(st.binary(max_size=300), st.integers(0, 299), st.binary(min_size=1, max_size=1), PLACES)
@example(b"\x00", 15, b"5", [71])
def test_one_wrong_byte_in_good_packets_ends_alike(
    payload: bytes, place: int, byte: bytes, places: list[int]
) -> None:
    stream = b"".join(publish(b"plant/a", payload[:i], 1, 0, i + 1, b"") for i in range(0, 200, 20))
    spoiled = stream[:place] + byte + stream[place + 1 :]
    assert split(cut(spoiled, places), True) == split([spoiled], True)


def test_a_payload_over_the_limit_is_stepped_over_without_being_held() -> None:
    splitter, messages = Splitter(True, 1000), Messages()
    large = publish(b"big", b"x" * 10_000_000, qos=1, packet_id=7, properties=b"")
    stream = publish(b"a", b"1", properties=b"") + large + publish(b"b", b"2", properties=b"")
    for start in range(0, len(stream), 65_536):
        splitter.feed(stream[start : start + 65_536])
        splitter.take(messages, 100)
        assert len(splitter._data) < 300_000
        assert len(messages) < 2 or start + 65_536 >= len(stream)
    assert messages.topics == [b"a", b"big", b"b"]
    assert messages.payloads == [b"1", b"x" * KEPT_OF_OVERSIZE, b"2"]
    assert messages.ids == [b"", b"\x00\x07", b""]
    assert messages.oversize == {1: 10_000_000}


@pytest.mark.parametrize("most", [1, 100, 126, 127, 128, 1000, 16_383, 16_384, 20_000])
@pytest.mark.parametrize("over", [-1, 0, 1, 300])
def test_every_limit_of_a_payload_holds(most: int, over: int) -> None:
    payload = b"x" * (most + over)
    found, _, _ = split([publish(b"a", payload)], most=most)
    kept = payload if over <= 0 else payload[:KEPT_OF_OVERSIZE]
    assert found == [(b"a", kept, b"", False, False, most + over if over > 0 else None)]


def test_packets_beyond_the_limit_wait() -> None:
    splitter, first, second = Splitter(False, 100), Messages(), Messages()
    splitter.feed(b"".join(publish(b"a", b"%d" % i) for i in range(5)))
    splitter.take(first, 3)
    splitter.take(second, 3)
    assert (first.payloads, second.payloads) == ([b"0", b"1", b"2"], [b"3", b"4"])


@pytest.mark.parametrize(
    ("stream", "reason"),
    [
        (b"\x30\xff\xff\xff\xff\x01", "a packet whose length has more than four bytes"),
        (b"\x30\x03\x00\x00x", "a message without a topic"),
        (b"\x30\x01\x00", "a malformed PUBLISH of 1 bytes"),
        (b"\x30\x03\x00\x09a", "a malformed PUBLISH of 3 bytes"),
        (b"\x34\x05\x00\x01a\x00\x01", "a message with QoS 2, which was not subscribed to"),
        (b"\x00\x00", "a packet of type 0 with 0 bytes"),
        (b"\x90\xff\xff\xff\x7f", "a packet of type 9 with 268435455 bytes"),
    ],
)
def test_what_is_not_mqtt_ends_the_connection_with_a_reason(stream: bytes, reason: str) -> None:
    found, others, error = split([publish(b"good", b"1"), stream])
    assert len(found) == 1
    assert others == []
    assert error is not None
    assert reason in error


def test_acknowledgements_are_puback_packets() -> None:
    assert acknowledgement([b"\x00\x01", b"\xff\xff"]) == b"@\x02\x00\x01@\x02\xff\xff"
    assert acknowledgement([]) == b""
