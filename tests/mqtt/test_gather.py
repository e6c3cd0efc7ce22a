"""When a batch of messages ends, by a clock that the test moves and a broker that keeps time."""

from typing import cast

import pytest

from edge.mqtt.connection import Connection
from edge.mqtt.gather import Gatherer
from edge.mqtt.packets import Messages
from tests.loop import in_loop
from tests.scripted import HandClock

_SIZE = 145  # bytes of a message


class LateClock(HandClock):
    """Wakes a little late, as every real one does."""

    async def sleep(self, seconds: float) -> None:
        await super().sleep(seconds + 1e-6)


class Line:
    """A connection on which `rate` messages a second arrive, at QoS 0 if there is no `window`."""

    generation = outstanding = 0
    room = 8 * 2**20

    def __init__(self, clock: HandClock, rate: int, window: int = 0) -> None:
        self.clock, self.rate, self.window = clock, rate, window
        self.reads = 0
        self.due = clock.steady()

    async def wait(self, patience: float) -> None:
        self.clock.advance(min(patience, max(0.0, self.due - self.clock.steady())))

    def drain(self, messages: Messages, limit: int, most: int) -> int:
        count = 0
        while self.due <= self.clock.steady() and len(messages) < limit:
            if self.window and self.outstanding == self.window:
                break
            self.outstanding += bool(self.window)
            messages.add(0x30, b"t", b"", bytes(_SIZE))
            messages.size += _SIZE
            self.due += 1 / self.rate
            count += 1
        self.reads += 1
        return count


async def batches(line: Line, wait: float, count: int) -> list[tuple[float, int]]:
    """How many seconds each batch takes, and how many reads; the next one begins at once."""
    gatherer = Gatherer(10_000, wait, 2**26, line.clock)
    found = []
    for _ in range(count):
        began, line.reads = line.clock.steady(), 0
        assert await gatherer.gather(cast(Connection, line))
        found.append((line.clock.steady() - began, line.reads))
    return found


@in_loop
async def test_the_first_message_after_silence_waits_no_longer_than_it_was_told() -> None:
    line = Line(LateClock(), 5000)
    line.due += 0.5
    [(span, _)] = await batches(line, 0.05, 1)
    assert span == pytest.approx(0.55, abs=1e-4)


@in_loop
@pytest.mark.parametrize(("wait", "longest"), [(0.05, 0.075), (0.02, 0.03), (2.0, 2.0)])
async def test_a_stream_that_flows_may_take_a_moment_longer(wait: float, longest: float) -> None:
    for span, _ in (await batches(Line(LateClock(), 1000), wait, 20))[10:]:
        assert span == pytest.approx(longest, abs=1e-4)


@in_loop
async def test_a_stream_that_flows_is_read_once_a_batch() -> None:
    found = await batches(Line(LateClock(), 5000), 0.05, 20)
    assert [reads for _, reads in found[10:]] == [1] * 10


@in_loop
@pytest.mark.parametrize("rate", [80_000, 200_000])
async def test_a_fast_stream_takes_no_longer(rate: int) -> None:
    found = await batches(Line(LateClock(), rate), 0.05, 20)
    assert found[-1][0] == pytest.approx(0.05, abs=1e-4)


@in_loop
@pytest.mark.parametrize(("window", "rate"), [(1, 18), (10, 180), (19, 340)])
async def test_a_broker_that_waits_for_us_is_not_slowed_down(window: int, rate: int) -> None:
    line = Line(LateClock(), rate, window)
    gatherer = Gatherer(10_000, 0.05, 2**26, line.clock)
    began, taken = line.clock.steady(), 0
    while line.clock.steady() < began + 30:
        taken += len(await gatherer.gather(cast(Connection, line)))
        line.clock.advance(0.003)  # to work on them
        line.outstanding = 0
    assert taken > 29.5 * rate


@in_loop
@pytest.mark.parametrize(("window", "burst"), [(100, 5), (1000, 5), (3000, 15)])
async def test_a_window_is_read_as_soon_as_it_is_full(window: int, burst: int) -> None:
    """Of a broker that needs `burst` ms to send a window, and whose consumer needs 15 for it."""
    line = Line(LateClock(), window * 1000 // burst, window)
    gatherer = Gatherer(10_000, 0.05, 2**26, line.clock)
    began, taken = line.clock.steady(), 0
    while line.clock.steady() < began + 10:
        taken += len(await gatherer.gather(cast(Connection, line)))
        line.clock.advance(0.015)
        line.outstanding, line.due = 0, line.clock.steady()
    assert taken > 0.6 * 10 * window / (0.015 + burst / 1000)


@in_loop
async def test_a_host_that_cannot_keep_up_does_not_nap() -> None:
    line = Line(LateClock(), 100_000)
    gatherer = Gatherer(10_000, 0.05, 2**26, line.clock)
    took = []
    for _ in range(20):
        began = line.clock.steady()
        assert await gatherer.gather(cast(Connection, line))
        took.append(line.clock.steady() - began)
        line.clock.advance(0.25)
    assert max(took[5:]) < 0.001
