"""The one source of time: wall clock, steady clock and sleep, so that tests can turn the hands."""

import asyncio
import time


class Clock:
    """Real time. Tests pass a subclass whose hands are moved by the test."""

    def now(self) -> int:
        """Wall clock: microseconds since 1970 in UTC. May jump; never used to measure a wait."""
        return time.time_ns() // 1000

    def steady(self) -> float:
        """Seconds on a clock that never goes backwards, from an arbitrary start."""
        return time.monotonic()

    async def sleep(self, seconds: float) -> None:
        """Let other tasks run for `seconds`."""
        await asyncio.sleep(seconds)

    def pause(self, seconds: float) -> None:
        """Block for `seconds`: for commands that wait for AWS, never inside the event loop."""
        time.sleep(seconds)
