"""How long to wait before the next read, and when a broker waits for our acknowledgements."""

SHORTEST = 0.001
LONGEST = 0.1
_MUCH = 512 * 1024
_FIRST_WINDOW = 20
_SMALLEST_WINDOW = 8
_ALIKE = 3


class Pace:
    """Follows one connection; all counts are of messages at QoS 1, sizes in bytes.

    Reading at once costs a system call for every few messages, on both sides: a nap of 1 ms made a
    subscriber 20 times cheaper and the broker 22 % (README, Architecture). A broker stops after so
    many unacknowledged messages (its window, 20 unless configured), which nobody tells: it is
    learned from where the stream stopped.

    alike: whether the last two batches had as many messages each, as with a broker that waits.
    """

    def __init__(self) -> None:
        self.reset()

    def reset(self, receive_maximum: int = 65_535) -> None:
        """A new connection, which may be to a broker with another configuration."""
        self.window = min(_FIRST_WINDOW, receive_maximum)
        self._limited = True
        self._nap = self._since_stop = SHORTEST
        self._count = 0
        self._empty = 0
        self._ended = (0, 0)
        self.alike = False

    def nap(self, outstanding: int) -> float:
        """Seconds to wait before the next read with `outstanding` messages unacknowledged.

        Where the broker stops, naps begin short again after each stop: how long a window takes to
        fill is not known, for it waits for our acknowledgements too.
        """
        if not self._limited:
            return self._nap
        if self._count and outstanding + self._count >= self.window:
            return SHORTEST
        return min(self._nap, self._since_stop)

    def read(self, count: int, size: int, seconds: float, room: int, cut: bool = False) -> None:
        """A read brought `count` messages at QoS 1 and `size` bytes, `seconds` after the last one.

        cut: it left something, because the batch is full. room: bytes that the kernel allots while
        nobody reads. Linux begins with 128 KiB, and gives more to a stream that fills half of it
        between two reads; about half is for what came, the rest for what that takes (tcp(7)).
        """
        self._since_stop = min(LONGEST, 2 * self._since_stop)
        if not size:
            self._empty += 1
            return
        self._count, self._empty = count, 0
        nearly_full = room * 3 // 8
        much = min(_MUCH, nearly_full)
        during_nap = size / max(seconds, SHORTEST) * self._nap
        # Work takes its time too: what was cut, or filled the room, says nothing of the stream.
        if cut or size > nearly_full or during_nap > much:
            self._nap = max(SHORTEST, self._nap / 2)
        elif during_nap < much / 2:
            self._nap = min(LONGEST, self._nap * 2)

    def stalled(self, outstanding: int) -> bool:
        """Whether the broker sends no more until it gets acknowledgements."""
        if outstanding < self.window or not (self._empty or outstanding == self.window):
            return False
        self.window, self._limited = outstanding, True
        self._since_stop = SHORTEST
        return True

    def ended(self, outstanding: int) -> None:
        """A batch ended with its time or its size, not because the stream stopped.

        A window smaller than expected shows in batches that end alike, each with silence after it.
        """
        self.window = max(self.window, outstanding)
        count, times = self._ended
        self.alike = 0 < outstanding == count
        silent = self._empty > 1 and outstanding >= _SMALLEST_WINDOW
        self._ended = (outstanding, times + 1 if silent and outstanding == count else 1)
        self._limited = silent and self._ended[1] >= _ALIKE
        if self._limited:
            self.window = outstanding
        self._since_stop = SHORTEST
