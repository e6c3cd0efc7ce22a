"""Packets, scripted brokers and patience for tests of MQTT."""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager

from edge.clock import Clock

CONNACK = b"\x20\x03\x00\x00\x00"
"""Of MQTT 5: accepted, no session."""

Script = Callable[[asyncio.StreamReader, asyncio.StreamWriter], Awaitable[None]]


def publish(
    topic: bytes,
    payload: bytes,
    qos: int = 0,
    flags: int = 0,
    packet_id: int = 1,
    properties: bytes | None = None,
) -> bytes:
    """A PUBLISH packet; properties None is MQTT 3.1.1."""
    body = len(topic).to_bytes(2, "big") + topic
    if qos:
        body += packet_id.to_bytes(2, "big")
    if properties is not None:
        body += variable(len(properties)) + properties
    body += payload
    return bytes([0x30 | qos << 1 | flags]) + variable(len(body)) + body


def variable(value: int) -> bytes:
    digits = []
    while True:
        value, digit = divmod(value, 128)
        digits.append(digit | (128 if value else 0))
        if not value:
            return bytes(digits)


class HastyClock(Clock):
    """Real time, but nobody waits long between two attempts."""

    async def sleep(self, seconds: float) -> None:
        await asyncio.sleep(min(seconds, 0.01))


@asynccontextmanager
async def scripted(script: Script) -> AsyncIterator[str]:
    """A server that reads CONNECT and then does what the script says."""

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            await reader.read(1000)
            await script(reader, writer)
        except OSError:
            pass
        finally:
            writer.close()

    server = await asyncio.start_server(serve, "127.0.0.1", 0)
    async with server:
        yield f"mqtt://127.0.0.1:{server.sockets[0].getsockname()[1]}"
