"""The way to a channel that can be used: connected, introduced and let in."""

import asyncio
from pathlib import Path
from socket import socket

from edge.mqtt.channel import Channel
from edge.mqtt.endpoint import Endpoint
from edge.mqtt.protocol import Session
from edge.threads import in_thread


async def dial(endpoint: Endpoint, session: Session, folder: Path) -> tuple[Channel, bool]:
    """A new channel, and whether the broker had kept the session. Raises OSError or LinkDown."""
    opening = asyncio.ensure_future(in_thread(endpoint.connect, folder))
    try:
        sock = await asyncio.shield(opening)
    except asyncio.CancelledError:
        opening.add_done_callback(_close_late)
        raise
    channel = Channel(sock, endpoint, session)
    try:
        return channel, await channel.greet()
    except BaseException:
        channel.close()
        raise


def _close_late(opening: "asyncio.Future[socket]") -> None:
    if not opening.cancelled() and opening.exception() is None:
        opening.result().close()
