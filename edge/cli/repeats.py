"""Complaints that a log has already: counted, and said once a minute instead of each time."""

import logging
import threading
import time
from collections.abc import Callable
from typing import NamedTuple

EVERY = 60.0  # seconds until what is said again and again is written again, with how often
_MOST = 1_000  # kinds remembered; beyond that the oldest is forgotten


class _Kind(NamedTuple):
    logger: str
    words: str
    arguments: tuple[str, ...]
    error: str


class _Said:
    """What was said of one kind since it was last written."""

    def __init__(self, written: float) -> None:
        self.written = written
        self.times = 0
        self.since = 0.0  # Unix time
        self.last: logging.LogRecord | None = None

    def add(self, record: logging.LogRecord) -> None:
        self.since = self.since if self.times else record.created
        self.times, self.last = self.times + 1, record


class Repeats(logging.Handler):
    """Hands on to `lines` what is new, at once; of a complaint that comes again, how often.

    A complaint is a warning or worse. It comes again when the same logger says the same words about
    the same thing, numbers apart, within a minute of the line that is written. Good news from a
    logger, a line of level info, makes its complaints new again: no change of state is held back. A
    record that stands for several has their number as `said` and the time of the first as `since`.
    """

    def __init__(
        self, lines: logging.Handler, steady: Callable[[], float] = time.monotonic
    ) -> None:
        super().__init__()
        self._lines = lines
        self._steady = steady
        self._kinds: dict[_Kind, _Said] = {}
        self._timer: threading.Timer | None = None

    def emit(self, record: logging.LogRecord) -> None:
        """One event."""
        if record.levelno < logging.WARNING:
            if record.levelno >= logging.INFO:
                self._forget(record.name)
            self._lines.handle(record)
            return
        self.tell()
        kind = _kind_of(record)
        if kind in self._kinds:
            self._kinds[kind].add(record)
            self._tell_later()
            return
        self._lines.handle(record)
        self._remember(kind)

    def tell(self) -> None:
        """Write what came again and for which it is time."""
        self.acquire()
        try:
            now = self._steady()
            for kind in [k for k, said in self._kinds.items() if now - said.written >= EVERY]:
                if self._write(self._kinds.pop(kind)):
                    self._remember(kind)
        finally:
            self.release()

    def close(self) -> None:
        """Write what came again, and end."""
        self.acquire()
        try:
            self._forget(*{kind.logger for kind in self._kinds})
            if self._timer is not None:
                self._timer.cancel()
        finally:
            self.release()
        self._lines.close()
        super().close()

    def _remember(self, kind: _Kind) -> None:
        if len(self._kinds) >= _MOST:
            self._write(self._kinds.pop(next(iter(self._kinds))))
        self._kinds[kind] = _Said(self._steady())

    def _forget(self, *loggers: str) -> None:
        for kind in [kind for kind in self._kinds if kind.logger in loggers]:
            self._write(self._kinds.pop(kind))

    def _write(self, said: _Said) -> bool:
        """The last of several for all of them; False if there was none."""
        if said.last is None:
            return False
        if said.times > 1:
            vars(said.last).update(said=said.times, since=said.since)
        self._lines.handle(said.last)
        return True

    def _tell_later(self) -> None:
        """Also when nothing more is logged what was held back comes out."""
        if self._timer is None:
            self._timer = threading.Timer(EVERY, self._tell_now)
            self._timer.daemon = True
            self._timer.start()

    def _tell_now(self) -> None:
        self.acquire()
        try:
            self._timer = None
            self.tell()
            if any(said.times for said in self._kinds.values()):
                self._tell_later()
        finally:
            self.release()


def _kind_of(record: logging.LogRecord) -> _Kind:
    given = record.args if isinstance(record.args, tuple) else (record.args,)
    arguments = tuple("" if _is_number(each) else str(each) for each in given)
    error = repr(record.exc_info[1]) if record.exc_info else ""
    return _Kind(record.name, str(record.msg), arguments, error)


def _is_number(value: object) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)
