"""Rows shown while they flow: those who look name a stage and get a sample of it, or nothing."""

import asyncio
import contextlib
import json
import logging
import os
import random
import socket
import time
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from difflib import get_close_matches
from pathlib import Path
from typing import Self

import polars as pl

from edge.codec import rows_as_json
from edge.pipeline import Pipeline
from edge.pipeline.binding import names_of

log = logging.getLogger("edge.tap")

SOCKET = "tap"
"""The name of the socket in the outbox folder; whoever may open that file may look."""
MOST_RATE = 1_000
"""Rows a second that one who looks can be shown."""

REJECTED = "rejected"
_PER_BATCH = 100  # rows taken of one batch, so that none is held up for longer than a millisecond
_WAITING = 8  # samples that wait for one who looks; more are dropped
_UNREAD = 2**18  # bytes that one who looks has not read yet; beyond that samples are dropped
_SAMPLE = 2**20  # bytes of one sample
_MOST_LOOKING = 8
_PATIENCE = 5.0  # seconds in which to say what one wants to see
_UNSAID = (TimeoutError, asyncio.LimitOverrunError)  # no wish came, or one without an end


def stages_of(pipeline: Pipeline) -> list[str]:
    """Every place at which rows can be seen, in the order in which they come by."""
    stages = ["source", *(f"common/{name}" for name in names_of(pipeline.operators))]
    for sink, branch in pipeline.sinks.items():
        stages += [f"{sink}/{name}" for name in names_of(branch.operators)]
        stages += [f"{sink}/when"] if branch.when is not None else []
        stages.append(f"sink:{sink}")
    return [*stages, REJECTED]


class Look:
    """One who looks at one stage: takes at most `rate` rows a second, and never waits."""

    def __init__(self, rate: float, wake: Callable[[], None]) -> None:
        self._rate = rate
        self._wake = wake
        self._seen = 0
        self._credit, self._credited = float(_PER_BATCH), time.monotonic()
        self._samples: deque[pl.DataFrame] = deque()

    def offer(self, frame: pl.DataFrame) -> None:
        """Rows come by; called from the thread that works on them, 50 us where some are taken."""
        self._seen += frame.height
        now = time.monotonic()
        most = min(_PER_BATCH, max(1.0, self._rate))
        self._credit = min(most, self._credit + (now - self._credited) * self._rate)
        self._credited = now
        if len(self._samples) >= _WAITING or (count := min(frame.height, int(self._credit))) < 1:
            return
        self._credit -= count
        self._samples.append(_sample(frame, count))
        self._wake()

    def take(self) -> bytes:
        """What is to be sent: `#` and how many rows came by, then a row on each line."""
        lines = [b"#%d" % self._seen]
        while self._samples:
            lines += rows_as_json(self._samples.popleft())
        return b"\n".join(lines) + b"\n"


class Tap:
    """Where the rows of one pipeline can be looked at, through a socket in its outbox folder.

    As a context manager it can be reached. It does nothing until somebody does, and nothing is left
    of one who goes, or is killed.
    """

    def __init__(self, pipeline: Pipeline) -> None:
        self._stages = stages_of(pipeline)
        self._folder = pipeline.outbox_folder()
        self._server: asyncio.Server | None = None
        self._looks: dict[str, tuple[Look, ...]] = {}
        self._writers: set[asyncio.StreamWriter] = set()

    def wants(self, stage: str) -> bool:
        """Whether somebody looks at a stage."""
        return stage in self._looks

    def see(self, stage: str, frame: pl.DataFrame) -> None:
        """Rows come by a stage. Costs 0.2 us where nobody looks."""
        for look in self._looks.get(stage, ()):
            look.offer(frame)

    async def __aenter__(self) -> Self:
        """Listen. A folder that takes no sockets is told in the log; then nobody can look."""
        try:
            self._server = await asyncio.start_server(self._serve, sock=self._listening())
        except OSError as error:
            path = self._folder / SOCKET
            log.warning("%s: no socket can be made, `edge tap` cannot look: %s", path, error)
        return self

    async def __aexit__(self, *_: object) -> None:
        """Listen no more; who looks is told by the end of the stream."""
        if self._server is None:
            return
        self._server.close()
        for writer in self._writers:
            writer.close()
        with contextlib.suppress(OSError):
            (self._folder / SOCKET).unlink(missing_ok=True)

    def _listening(self) -> socket.socket:
        """Only the owner of the processor may connect, from the first moment on."""
        path = self._folder / SOCKET
        path.unlink(missing_ok=True)  # of a processor that was killed: we own the folder
        made = socket.socket(socket.AF_UNIX)
        try:
            with address(self._folder) as name:
                made.bind(name)
            path.chmod(0o600)  # nobody can connect before `listen`
            made.listen()
        except BaseException:
            made.close()
            raise
        return made

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._writers.add(writer)
        try:
            async with asyncio.timeout(_PATIENCE):
                wish = json.loads(await reader.readuntil(b"\n"))
            stage, rate = str(wish["stage"]), min(float(wish["rate"]), MOST_RATE)
            refusal = self._refusal(stage)
            answer = {"stages": self._stages, "error": refusal}
            writer.write(json.dumps(answer).encode() + b"\n")
            if refusal is None:
                await self._show(stage, rate, reader, writer)
        except (OSError, EOFError, ValueError, LookupError, TypeError, *_UNSAID) as error:
            log.debug("tap: left: %r", error)
        finally:
            self._writers.discard(writer)
            writer.close()

    def _refusal(self, stage: str) -> str | None:
        if stage not in self._stages:
            near = get_close_matches(stage, self._stages, 3, 0.5) or self._stages
            return f"no stage is called {stage!r}; there {_are(near)}"
        if len(self._writers) > _MOST_LOOKING:
            return f"{_MOST_LOOKING} others look already; end one of them"
        return None

    async def _show(
        self, stage: str, rate: float, reader: asyncio.StreamReader, writer: asyncio.StreamWriter
    ) -> None:
        """Until the other side goes, which shows as the end of what it sends."""
        work, loop = asyncio.Event(), asyncio.get_running_loop()

        def wake() -> None:
            with contextlib.suppress(RuntimeError):  # the loop is closed: nobody looks any more
                loop.call_soon_threadsafe(work.set)

        look = Look(rate, wake)
        self._looks[stage] = (*self._looks.get(stage, ()), look)
        gone = asyncio.create_task(reader.read())
        sending = asyncio.create_task(_send(look, work, writer))
        try:
            await asyncio.wait({gone, sending}, return_when=asyncio.FIRST_COMPLETED)
        finally:
            self._forget(stage, look)
            for task in (gone, sending):
                task.cancel()
            await asyncio.gather(gone, sending, return_exceptions=True)

    def _forget(self, stage: str, look: Look) -> None:
        left = tuple(each for each in self._looks[stage] if each is not look)
        if left:
            self._looks[stage] = left
        else:
            del self._looks[stage]


async def _send(look: Look, work: asyncio.Event, writer: asyncio.StreamWriter) -> None:
    while True:
        with contextlib.suppress(TimeoutError):  # then only how many rows came by is told
            async with asyncio.timeout(1.0):
                await work.wait()
        work.clear()
        if writer.transport.get_write_buffer_size() < _UNREAD:
            writer.write(look.take())


def _sample(frame: pl.DataFrame, count: int) -> pl.DataFrame:
    """So many rows, spread over the frame; fewer where they are large."""
    step = frame.height // count
    places = range(random.randrange(step), frame.height, step)[:count]
    rows = frame[pl.Series(places, dtype=pl.UInt32)]  # a twentieth of the time of gather_every
    while rows.height and rows.estimated_size() > _SAMPLE:
        rows = rows.head(rows.height // 2)
    return rows


def _are(names: Sequence[str]) -> str:
    return f"{'is' if len(names) == 1 else 'are'} {', '.join(names)}"


@contextlib.contextmanager
def address(folder: Path) -> Iterator[str]:
    """The name of the socket in `folder`, short enough: 108 bytes are the most (unix(7))."""
    handle = os.open(folder, os.O_PATH | os.O_DIRECTORY)
    try:
        yield f"/proc/self/fd/{handle}/{SOCKET}"
    finally:
        os.close(handle)
