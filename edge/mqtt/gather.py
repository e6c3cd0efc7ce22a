"""Messages of one batch: when to read, how long to nap, and when it is enough."""

from edge.clock import Clock
from edge.mqtt.channel import READ_MOST
from edge.mqtt.connection import Connection
from edge.mqtt.pace import Pace
from edge.mqtt.packets import Messages

_PATIENCE = 0.9  # all three: seconds
_LONG_NAP = 0.01
_LONGER = 0.025


class Gatherer:
    """Gathers what comes within `wait` seconds of the first message, up to `rows` and `size` bytes.

    Of a stream that is read once a batch it takes up to 25 ms (half of a shorter `wait`) longer:
    the larger part of what a small batch costs does not depend on its size.

    A class of its own because attributes of a pydantic model cost ten times as much, at every nap.
    """

    def __init__(self, rows: int, wait: float, size: int, clock: Clock) -> None:
        self.pace = Pace()
        self._rows = rows
        self._wait = wait
        self._size = size
        self._clock = clock
        self._flows = False
        self._last = clock.steady()

    async def gather(self, connection: Connection) -> Messages:
        """The messages of one batch, all of one connection; none if none came for a while."""
        messages, pace, clock = Messages(connection.generation), self.pace, self._clock
        # While it flows, what a read now would bring can as well wait for the next one.
        nap = pace.nap(connection.outstanding)
        waits = self._flows and nap >= _LONG_NAP
        self._flows = False
        if not waits and not self._read(connection, messages):
            await connection.wait(_PATIENCE)
        if messages.generation != connection.generation:
            return messages
        ends = clock.steady() + self._wait
        if waits and nap >= self._wait and not pace.alike:
            ends += min(_LONGER, self._wait / 2)
        while len(messages) < self._rows and messages.size < self._size:
            left = ends - clock.steady()
            if left <= 0 or connection.generation != messages.generation:
                break
            if messages and pace.stalled(connection.outstanding):
                return messages
            await clock.sleep(min(left, pace.nap(connection.outstanding)))
            if not self._read(connection, messages) and not messages:
                return messages
        pace.ended(connection.outstanding)
        self._flows = True
        return messages

    def _read(self, connection: Connection, messages: Messages) -> int:
        unacknowledged, size = connection.outstanding, messages.size
        most = min(READ_MOST, self._size - size)
        count = connection.drain(messages, self._rows, most)
        now, read = self._clock.steady(), messages.size - size
        cut = read >= most or len(messages) >= self._rows
        new = connection.outstanding - unacknowledged
        self.pace.read(new, read, now - self._last, connection.room, cut)
        self._last = now
        return count
