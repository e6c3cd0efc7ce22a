"""The steps of a generator that reads files, each in a thread: a share may hang for ever."""

import asyncio
import contextlib
from collections.abc import AsyncGenerator, Generator
from typing import TypeVar

from edge.threads import in_thread

BEAT = 0.5  # seconds between signs of life while a step takes its time
_PATIENCE = 1.0  # seconds that a step gets to end when nobody wants its result any more

_T = TypeVar("_T")


async def in_steps(steps: Generator[_T | None, None, None]) -> AsyncGenerator[_T | None, None]:
    """What `steps` gives; None also while a step takes longer than BEAT.

    A step that still hangs when this is closed is left behind; its generator is closed when it
    ends.
    """
    running: asyncio.Future[_T | str | None] | None = None
    try:
        while True:
            running = asyncio.ensure_future(in_thread(next, steps, "end"))
            while not (await asyncio.wait({running}, timeout=BEAT))[0]:
                yield None
            found = running.result()
            if isinstance(found, str):
                return
            yield found
    finally:
        if running is not None and not running.done():
            await asyncio.wait({running}, timeout=_PATIENCE)
        if running is None or running.done():
            steps.close()
        else:
            running.add_done_callback(lambda _: _close(steps))


def _close(steps: Generator[object, None, None]) -> None:
    with contextlib.suppress(ValueError):  # the loop has ended before the step
        steps.close()
