"""The state of the process as one JSON text a second, whoever and however many look."""

import asyncio
import logging
import os
import socket
from collections import deque
from collections.abc import AsyncIterator, Sequence
from secrets import token_hex
from typing import Any

import orjson

from edge import __version__
from edge.clock import Clock
from edge.dashboard.picture import Json, Picture
from edge.newest import Told
from edge.runner import Runner
from edge.secrets import Secrets

log = logging.getLogger("edge.dashboard")

EVERY = 1.0
"""Seconds between two states."""
SOON = 0.1
"""Seconds until a link's change is told; others that come meanwhile are told with it."""
VIEWERS = 20
"""How many may look at the events at once."""

_LINES = 50  # of the log that are kept
_MANY = 1_000  # keys from which on their rows are made in a worker thread
_OPTIONS = orjson.OPT_UTC_Z | orjson.OPT_NON_STR_KEYS


class Warnings(logging.Handler):
    """Keeps the last lines of the log that warn."""

    def __init__(self) -> None:
        super().__init__(logging.WARNING)
        self.lines: deque[Json] = deque(maxlen=_LINES)

    def emit(self, record: logging.LogRecord) -> None:
        """One line, without its traceback; said again it takes the place of the one before."""
        line = {
            "at": record.created,
            "level": record.levelname.lower(),
            "logger": record.name,
            "message": record.getMessage(),
            "times": 1,
        }
        same = next((each for each in self.lines if each["message"] == line["message"]), None)
        if same is not None:
            self.lines.remove(same)
            line["times"] = same["times"] + 1
        self.lines.append(line)


class Hub:
    """Looks at every runner, once a second and when a link changes; never queues for a reader."""

    def __init__(
        self, runners: Sequence[Runner], secrets: Secrets, clock: Clock | None = None
    ) -> None:
        """secrets: what no text of the state may show."""
        self._clock = clock or Clock()
        self._secrets = secrets
        self.pictures = [Picture(runner, self._clock, secrets) for runner in runners]
        self.viewers = 0
        self.warnings = Warnings()
        self._started = self._clock.now() / 1e6
        self._epoch = token_hex(4)
        self._number = 0  # of the state
        self._looked: float | None = None
        self._stale = False  # a link has changed since
        self._soon: asyncio.TimerHandle | None = None
        self._lock = asyncio.Lock()
        self._next = asyncio.Event()
        self._closed = False
        self._texts: dict[int | None, tuple[int, bytes]] = {}
        self._values: Json = {}
        self._drawn = False  # the state shows what was seen last
        self._told: list[Told] = []

    async def run(self) -> None:
        """Sample once a second until cancelled; then every reader is let go."""
        logging.getLogger("edge").addHandler(self.warnings)
        for picture in self.pictures:
            for link in picture.runner.links.values():
                link.timeline.tell = self._changed
        try:
            while True:
                try:
                    for picture in self.pictures:
                        await picture.sample()
                except Exception:  # the pictures become poorer, nothing else
                    log.warning("http: cannot look at the pipelines", exc_info=True)
                self._tell()
                await self._clock.sleep(EVERY)
        finally:
            logging.getLogger("edge").removeHandler(self.warnings)
            self._closed = True
            self._tell()

    def _changed(self) -> None:
        """A link went up or down: whoever looks hears of it before the second is over."""
        if self._soon is None and self.viewers:
            self._soon = asyncio.get_running_loop().call_later(SOON, self._tell_change)

    def _tell_change(self) -> None:
        self._soon, self._stale = None, True
        self._tell()

    def _tell(self) -> None:
        told, self._next = self._next, asyncio.Event()
        told.set()

    async def look(self) -> None:
        """Look at everything, unless that was done within the last second and no link changed."""
        async with self._lock:
            now = self._clock.steady()
            recent = self._looked is not None and now - self._looked < 0.9 * EVERY
            if recent and not self._stale:
                return
            self._stale = False
            await asyncio.gather(*(picture.look() for picture in self.pictures))
            self._looked = now
            self._drawn = False

    def _draw(self) -> None:
        """Make the state of what was seen last; metrics do without it."""
        if self._drawn:
            return
        self._drawn = True
        self._number += 1
        self._told = [each.observation.newest.tell(self._number) for each in self.pictures]
        self._texts = {}
        self._values = self._masked(self._all())

    async def state(self) -> bytes:
        """The whole state, at most a second old."""
        await self.look()
        self._draw()
        return (await self._text(None))[1]

    async def events(self, last: str | None) -> AsyncIterator[bytes]:
        """Server-sent events: one state a second, the newest there is when the reader can take it.

        last: the id of the event that the reader saw last. After it, only what is new of rows.
        """
        since = self._since(last)
        self.viewers += 1
        try:
            yield b"retry: 1000\n\n"
            while not self._closed:
                await self.look()
                self._draw()
                since, text = await self._text(since)
                id = f"{self._epoch}-{since}".encode()
                yield b"id: " + id + b"\nevent: state\ndata: " + text + b"\n\n"
                await self._next.wait()
        finally:
            self.viewers -= 1

    def _since(self, last: str | None) -> int | None:
        epoch, _, number = (last or "").partition("-")
        return int(number) if epoch == self._epoch and number.isdecimal() else None

    async def _text(self, since: int | None) -> tuple[int, bytes]:
        """The number of the state, and the state as JSON with the rows that came after `since`."""
        if since in self._texts:
            return self._texts[since]
        number, texts, values, told = self._number, self._texts, self._values, self._told
        if sum(newest.total for newest in told) > _MANY:
            text = await asyncio.to_thread(self._encode, values, told, since)
        else:
            text = self._encode(values, told, since)
        texts[since] = number, text
        return texts[since]

    def _encode(self, values: Json, told: Sequence[Told], since: int | None) -> bytes:
        pipelines = []
        for picture, pipeline, newest in zip(self.pictures, values["pipelines"], told, strict=True):
            whole = {"definition": picture.definition} if since is None else {}
            pipelines.append(pipeline | whole | {"newest": _newest(newest, since)})
        made = values | {"partial": since is not None, "pipelines": pipelines}
        return orjson.dumps(made, default=_plain, option=_OPTIONS)

    def _masked(self, value: Any) -> Any:
        """The words of parts and of what they talk to may hold what they were given."""
        if isinstance(value, str):
            return self._secrets.masked(value)
        if isinstance(value, dict):
            return {name: self._masked(inner) for name, inner in value.items()}
        return [self._masked(inner) for inner in value] if isinstance(value, list) else value

    def _all(self) -> Json:
        return {
            "process": {
                "version": __version__,
                "started": self._started,
                "now": self._clock.now() / 1e6,
                "pid": os.getpid(),
                "host": socket.gethostname(),
            },
            "log": list(self.warnings.lines),
            "pipelines": [picture.values() for picture in self.pictures],
        }


def _newest(told: Told, since: int | None) -> Json:
    """The newest row of each key; since: only what is new of it after that state."""
    return {
        "key": told.key,
        "time": told.time,
        "spark": told.number,
        "total": told.total,
        "rows": told.rows(since),
    }


def _plain(value: Any) -> str:
    """What JSON does not know, as text."""
    return value.decode(errors="replace") if isinstance(value, bytes) else str(value)
