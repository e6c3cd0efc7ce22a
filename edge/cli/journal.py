"""How log lines look: text for people, JSON for programs."""

import json
import logging
import time
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from rich.console import Console


class TextLines(logging.Formatter):
    """`2026-05-01T12:00:00.123Z warning edge.link: sink 'lake': ...`, in UTC."""

    def format(self, record: logging.LogRecord) -> str:
        """One line, and the traceback below it where there is one."""
        line = f"{utc(record)} {record.levelname.lower()} {record.name}: {record.getMessage()}"
        if record.exc_info:
            line += "\n" + self.formatException(record.exc_info)
        return line


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
    """One object a line with time, level, logger, message and, after an exception, traceback."""

    def format(self, record: logging.LogRecord) -> str:
        """JSON; text that JSON cannot hold is escaped, so one event is always one line."""
        event = {
            "time": utc(record),
            "level": record.levelname.lower(),
            "logger": record.name,
            "message": record.getMessage(),
        }
        if record.exc_info:
            event["traceback"] = self.formatException(record.exc_info)
        return json.dumps(event)


def utc(record: logging.LogRecord) -> str:
    """When it was logged, ISO 8601 to the millisecond."""
    clock = time.strftime("%Y-%m-%dT%H:%M:%S", time.gmtime(record.created))
    return f"{clock}.{int(record.msecs):03d}Z"
