"""A connection that comes back by itself, and reads only when it is told to."""

import asyncio
import logging
import random
from collections.abc import Mapping, Sequence
from pathlib import Path

from edge.clock import Clock
from edge.errors import LinkDown
from edge.mqtt.channel import CLOSED, READ_MOST, Channel
from edge.mqtt.dial import dial
from edge.mqtt.endpoint import Endpoint
from edge.mqtt.failure import explain
from edge.mqtt.packets import Messages
from edge.mqtt.protocol import Session

log = logging.getLogger("edge.mqtt")

LONGEST_BACKOFF = 60.0
ASK_AGAIN = 60.0
_STEADY = 30.0
_BRIEF = 2 * LONGEST_BACKOFF  # a twin takes the session from us as often as it backs off
_MOST_TOLD = 20


class Connection:
    """Keeps a session with a broker, for ever, whatever the network does.

    Connects, pings and reconnects by itself in a task of its own; messages are read only when
    `drain` is called. `generation` counts the connections; an acknowledgement belongs to one.
    `kept` says whether the broker had kept the session when this generation began.
    """

    def __init__(self, endpoint: Endpoint, session: Session, folder: Path, clock: Clock) -> None:
        self.generation = 0
        self.kept = False
        self.outstanding = 0
        self._known: Sequence[str] = ()
        self._endpoint = endpoint
        self._session = session
        self._folder = folder
        self._clock = clock
        self._channel: Channel | None = None
        self._problem: str | None = "not connected yet"
        self._told: set[str] = set()  # problems in the log since the last steady connection
        self._since = 0.0
        self._brief = 0  # connections in a row that ended soon
        self._up = asyncio.Event()
        self._down = asyncio.Event()
        self._task: asyncio.Task[None] | None = None

    def start(self, known: Sequence[str]) -> None:
        """Begin to connect; `known` are the filters that a kept session may be subscribed to."""
        self._known = known
        self._task = asyncio.create_task(self._run(), name="mqtt connection")

    async def close(self) -> None:
        """Leave the broker; it keeps the session."""
        if self._task is not None:
            self._task.cancel()
            await asyncio.gather(self._task, return_exceptions=True)
        if self._channel is not None:
            channel, self._channel = self._channel, None
            await channel.leave()

    async def wait(self, patience: float) -> None:
        """Wait until there may be something to `drain`, at most `patience` seconds."""
        if self._task is not None and self._task.done():
            self._task.result()
        if self._channel is not None:
            await self._channel.readable(patience)
        else:
            await _wait_for(self._up, patience)

    def drain(self, messages: Messages, limit: int, most: int = READ_MOST) -> int:
        """Read what is there until `messages` holds `limit`; returns how many were added.

        most: bytes that are read at most, about.
        Reads nothing where `messages` belongs to an earlier connection.
        """
        if self._channel is None or messages.generation != self.generation:
            return 0
        before = len(messages)
        try:
            self._channel.drain(messages, limit, most)
        except LinkDown as error:
            self._lose(error)
        if count := len(messages) - before:
            messages.arrivals.append((count, self._clock.now()))
            self.outstanding += len(list(filter(None, messages.ids[before:])))
        return count

    @property
    def room(self) -> int:
        """Bytes that the kernel holds for us while nobody reads; 0 without a connection."""
        return self._channel.room if self._channel else 0

    @property
    def settled(self) -> bool:
        """Whether the broker has answered every subscription of this generation."""
        return self._channel is not None and self._channel.settled

    def acknowledge(self, generation: int, ids: Sequence[bytes]) -> None:
        """Tell the broker to forget messages; nothing if they came on an earlier connection.

        A late acknowledgement would erase another message that has the same packet id by now.
        """
        if self._channel is None or generation != self.generation:
            return
        self.outstanding -= len(ids)
        try:
            self._channel.acknowledge(ids)
        except LinkDown as error:
            self._lose(error)

    def status(self) -> Mapping[str, object]:
        """Connected or not and why, and what became of every subscription. JSON values."""
        granted = self._channel.granted if self._channel else {}
        return {
            "url": self._endpoint.url,
            "client_id": self._session.client_id,
            "connected": self._channel is not None,
            "problem": self._problem,
            "connections": self.generation,
            "session": "kept" if self.kept else "new",
            "subscriptions": {
                each: f"QoS {answer}" if isinstance(answer, int) else f"refused: {answer}"
                for each, answer in granted.items()
            },
        }

    async def _run(self) -> None:
        failures = 0
        while True:
            started = self._clock.steady()
            try:
                await self._open()
                await self._serve()
            except (LinkDown, OSError) as error:
                self._lose(error)
            # A connection that ends at once (a twin with our client id) must not be tried at once.
            failures = 0 if self._clock.steady() - started > _STEADY else failures + 1
            longest = min(LONGEST_BACKOFF, 0.5 * 2 ** min(failures, 10))
            await self._clock.sleep(random.uniform(0, longest))

    async def _open(self) -> None:
        channel, self.kept = await dial(self._endpoint, self._session, self._folder)
        self._channel = channel
        self._subscribe(channel)
        self.generation += 1
        self._since = self._clock.steady()
        self.outstanding = 0
        self._down.clear()
        self._up.set()
        log.info(
            "connected to %s as %r, session %s",
            self._endpoint.url,
            self._session.client_id,
            "kept" if self.kept else "new",
        )
        self._problem = None

    def _subscribe(self, channel: Channel) -> None:
        # Also with a kept session: the broker may have been restored, or the QoS been changed.
        wanted = self._session.filters
        if gone := sorted(set(self._known) - set(wanted)):
            channel.unsubscribe(gone)
        if wanted:
            channel.subscribe(wanted)

    async def _serve(self) -> None:
        tick = max(0.2, min(self._endpoint.keepalive.total_seconds() / 4, 15.0))
        asked = self._clock.steady()
        while self._channel is not None:
            await _wait_for(self._down, tick)
            if (channel := self._channel) is None:
                return
            channel.keep_alive()
            if self._clock.steady() - asked >= ASK_AGAIN:
                asked = self._clock.steady()
                self._ask_again(channel)

    def _ask_again(self, channel: Channel) -> None:
        refused = [each for each, answer in channel.granted.items() if isinstance(answer, str)]
        if refused:
            channel.subscribe({each: self._session.filters[each] for each in refused})

    def _lose(self, error: Exception) -> None:
        channel, self._channel = self._channel, None
        if channel is not None:
            channel.close()
            self._count_brief()
        secure = self._endpoint.secure
        why = explain(error, secure) if isinstance(error, OSError) else str(error)
        if why == CLOSED and self._brief > 1:
            why += (
                ", again soon after it was made; is there another client with the client id "
                f"{self._session.client_id!r}? give every replica its own number or client_id"
            )
        problem = f"{self._endpoint.url}: {why}"
        known = problem in self._told or len(self._told) >= _MOST_TOLD
        log.log(logging.DEBUG if known else logging.WARNING, "%s; trying again", problem)
        if not known:
            self._told.add(problem)
        self._problem = problem
        self._up.clear()
        self._down.set()

    def _count_brief(self) -> None:
        if self._clock.steady() - self._since > _BRIEF:
            self._brief = 0
            self._told.clear()
        else:
            self._brief += 1


async def _wait_for(event: asyncio.Event, patience: float) -> None:
    try:
        # Not asyncio.wait_for: in Python 3.11 it can swallow a cancellation.
        async with asyncio.timeout(patience):
            await event.wait()
    except TimeoutError:
        return
