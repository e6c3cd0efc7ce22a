"""How log lines look: text for people, JSON for programs; what is secret is in neither."""

import json
import logging
import time
from typing import TYPE_CHECKING

from edge.secrets import Secrets

if TYPE_CHECKING:
    from rich.console import Console


class TextLines(logging.Formatter):
    """`2026-05-01T12:00:00.123Z warning edge.link: sink 'lake': ...`, in UTC."""

    def __init__(self, secrets: Secrets) -> None:
        super().__init__()
        self._secrets = secrets

    def format(self, record: logging.LogRecord) -> str:
        """One line, and the traceback below it where there is one."""
        line = f"{utc(record.created)} {record.levelname.lower()} {record.name}: "
        line += record.getMessage()
        if said := getattr(record, "said", 0):
            line += f" (said {said:,} times since {utc(record.since)})"  # type: ignore[attr-defined]
        if record.exc_info:
            line += "\n" + self.formatException(record.exc_info)
        return self._secrets.masked(line)


class ConsoleHandler(logging.Handler):
    """Prints on a terminal, above what moves there; a warning is yellow, an error red."""

    def __init__(self, console: "Console") -> None:
        super().__init__()
        self._console = console

    def emit(self, record: logging.LogRecord) -> None:
        """One event."""
        style = {logging.WARNING: "yellow", logging.ERROR: "red"}.get(record.levelno)
        self._console.print(self.format(record), style=style, markup=False)


class JsonLines(logging.Formatter):
    """One object a line with time, level, logger, message and, after an exception, traceback.

    One that stands for several has `said`, how many, and `since`, the time of the first.
    """

    def __init__(self, secrets: Secrets) -> None:
        super().__init__()
        self._secrets = secrets

    def format(self, record: logging.LogRecord) -> str:
        """JSON; text that JSON cannot hold is escaped, so one event is always one line."""
        event: dict[str, object] = {
            "time": utc(record.created),
            "level": record.levelname.lower(),
            "logger": record.name,
            "message": self._secrets.masked(record.getMessage()),
        }
        if said := getattr(record, "said", 0):
            event |= {"said": said, "since": utc(record.since)}  # type: ignore[attr-defined]
        if record.exc_info:
            event["traceback"] = self._secrets.masked(self.formatException(record.exc_info))
        return json.dumps({**event, **getattr(record, "embedded", {})})


def utc(seconds: float) -> str:
    """Unix time as ISO 8601 to the millisecond."""
    clock = time.strftime("%Y-%m-%dT%H:%M:%S", time.gmtime(seconds))
    return f"{clock}.{int(seconds % 1 * 1000):03d}Z"
