"""What a publisher makes of each answer a broker can give, from brokers that follow a script."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest

from edge.errors import LinkDown
from edge.mqtt import Endpoint, Session
from edge.mqtt import publisher as published
from edge.mqtt.publisher import BLAMED, DENIED, Message, Publisher
from tests.loop import in_loop
from tests.mqtt.wire import CONNACK, scripted

DISCONNECT = b"\xe0\x01"


def connack(*properties: bytes) -> bytes:
    """Of MQTT 5: accepted, no session, with these properties."""
    body = b"".join(properties)
    return bytes([0x20, 3 + len(body), 0, 0, len(body)]) + body


def messages(count: int) -> list[Message]:
    return [Message(b"t/%d" % number, b"x" * 10) for number in range(count)]


async def packet(reader: asyncio.StreamReader) -> tuple[int, bytes]:
    """The first byte of a packet and what follows its length (below 128)."""
    head, length = await reader.readexactly(2)
    return head, await reader.readexactly(length)


def puback(body: bytes, reason: int | None = None) -> bytes:
    """The answer to the PUBLISH with this body."""
    at = 2 + int.from_bytes(body[:2], "big")
    if reason is None:
        return b"\x40\x02" + body[at : at + 2]
    return b"\x40\x03" + body[at : at + 2] + bytes([reason])


def publisher(url: str, **options: object) -> Publisher:
    given = {"protocol": "5", "in_flight": 100, "retain": False, **options}
    endpoint = Endpoint(url=url, protocol=given.pop("protocol"))
    session = Session("edge-test", {}, 0, 1, 0, 1024, clean=True)
    return Publisher(endpoint, session, Path(), **given)  # type: ignore[arg-type]


@asynccontextmanager
async def answering(*reasons: int | None, greeting: bytes = CONNACK) -> AsyncIterator[str]:
    """A broker that answers the messages of every connection with these reasons, in order."""

    async def script(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(greeting)
        for reason in reasons:
            _, body = await packet(reader)
            writer.write(puback(body, reason))
        await reader.read()

    async with scripted(script) as url:
        yield url


@in_loop
async def test_every_message_gets_its_own_answer() -> None:
    answers: dict[int, int] = {}
    async with answering(None, 0x10, 0x97, 0x90, 0x99, 0x80, 0x87) as url:
        made = publisher(url)
        await made.publish(messages(7), answers)
        await made.close()
    assert answers == {0: 0, 1: 0x10, 2: 0x97, 3: 0x90, 4: 0x99, 5: 0x80, 6: 0x87}


@in_loop
async def test_an_answer_with_a_long_reason_text_is_understood() -> None:
    async def script(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(CONNACK)
        _, body = await packet(reader)
        at = 2 + int.from_bytes(body[:2], "big")
        why = b"\x1f" + (200).to_bytes(2, "big") + b"q" * 200
        tail = body[at : at + 2] + b"\x97" + bytes([203 & 127 | 128, 1]) + why
        writer.write(b"\x40" + bytes([len(tail) & 127 | 128, 1]) + tail)
        await reader.read()

    answers: dict[int, int] = {}
    async with scripted(script) as url:
        made = publisher(url)
        await made.publish(messages(1), answers)
        await made.close()
    assert answers == {0: 0x97}


@in_loop
async def test_no_more_is_in_flight_than_the_broker_allows() -> None:
    most = 0

    async def script(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        nonlocal most
        writer.write(connack(b"\x21\x00\x03"))  # Receive Maximum
        waiting: list[bytes] = []
        left = 10
        while left:
            try:
                async with asyncio.timeout(0.05):
                    waiting.append((await packet(reader))[1])
                most = max(most, len(waiting))
            except TimeoutError:
                left -= len(waiting)
                writer.write(b"".join(map(puback, waiting)))
                waiting.clear()

    answers: dict[int, int] = {}
    async with scripted(script) as url:
        made = publisher(url)
        await made.publish(messages(10), answers)
        await made.close()
    assert answers == dict.fromkeys(range(10), 0)
    assert most == 3


@in_loop
async def test_a_denied_topic_at_which_the_broker_hangs_up_keeps_no_other_back() -> None:
    async def script(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(CONNACK)
        while True:
            _, body = await packet(reader)
            denied = body.startswith(b"\x00\x03t/1")
            writer.write(puback(body, DENIED if denied else 0))
            if denied:
                return

    answers: dict[int, int] = {}
    async with scripted(script) as url:
        made = publisher(url)
        await made.publish([*messages(5), *messages(5)], answers)
        await made.close()
    assert answers == {n: DENIED if n % 5 == 1 else 0 for n in range(10)}


@pytest.mark.parametrize("reason", [0x90, 0x95, 0x99])
@in_loop
async def test_a_message_over_which_the_broker_ends_the_connection_is_told_apart(
    reason: int,
) -> None:
    async def script(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(CONNACK)
        while True:
            _, body = await packet(reader)
            if body.startswith(b"\x00\x03t/1"):
                writer.write(DISCONNECT + bytes([reason]))
                return
            writer.write(puback(body))

    answers: dict[int, int] = {}
    async with scripted(script) as url:
        made = publisher(url)
        for _ in range(2):  # with others in flight, then alone
            with pytest.raises(LinkDown, match="the broker ended the connection"):
                await made.publish(messages(3), answers)
        await made.publish(messages(3), answers)
        await made.close()
    assert answers == {0: 0, 1: reason, 2: 0}


@in_loop
async def test_a_message_is_blamed_only_after_many_connections_ended_over_it() -> None:
    async def script(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(b"\x20\x02\x00\x00")
        await packet(reader)

    answers: dict[int, int] = {}
    async with scripted(script) as url:
        made = publisher(url, protocol="3.1.1")
        for _ in range(published.STRIKES):
            assert answers == {}
            with pytest.raises(LinkDown):
                await made.publish(messages(1), answers)
    assert answers == {0: BLAMED}


@in_loop
async def test_what_the_broker_cannot_do_is_said() -> None:
    async with answering(greeting=connack(b"\x24\x00")) as url:
        with pytest.raises(LinkDown, match="takes no messages of QoS 1"):
            await publisher(url).publish(messages(1), {})
    async with answering(greeting=connack(b"\x25\x00")) as url:
        with pytest.raises(LinkDown, match="keeps no retained messages; set retain: false"):
            await publisher(url, retain=True).publish(messages(1), {})


@in_loop
async def test_an_answer_to_nothing_ends_the_connection() -> None:
    async def script(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(CONNACK)
        await packet(reader)
        writer.write(b"\x40\x02\xff\xff")
        await reader.read()

    answers: dict[int, int] = {}
    async with scripted(script) as url:
        with pytest.raises(LinkDown, match="acknowledged packet 65535, which was not sent"):
            await publisher(url).publish(messages(1), answers)
    assert answers == {}
