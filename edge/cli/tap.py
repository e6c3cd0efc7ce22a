"""The command that shows rows while they flow: tap."""

import json
import select
import socket
import sys
import time
from collections.abc import Iterator
from datetime import timedelta
from pathlib import Path
from typing import Annotated, Literal, Self

import typer

from edge.cli.screen import printable, put, rows_of, say
from edge.cli.status import Place, outbox_of
from edge.errors import DefinitionError, EdgeError

_WIDEST = 40  # characters of a cell of the table


def add_to(app: typer.Typer) -> None:
    """Register the command of this module."""
    app.command()(tap)


def _span(text: str) -> timedelta:
    from edge.component import parse_duration

    try:
        return parse_duration(text)
    except ValueError as error:
        raise typer.BadParameter(str(error)) from None


def tap(
    file: Place,
    stage: Annotated[
        str, typer.Argument(metavar="STAGE", help="source, common/NAME, SINK/NAME, sink:NAME, ...")
    ] = "source",
    form: Annotated[
        Literal["auto", "ndjson", "table"],
        typer.Option("--format", help="auto: a table on a terminal, else ndjson."),
    ] = "auto",
    rate: Annotated[float, typer.Option(min=0.1, max=1000, help="At most so many a second.")] = 10,
    limit: Annotated[int | None, typer.Option(min=1, help="End after so many rows.")] = None,
    length: Annotated[
        timedelta | None,
        typer.Option("--for", parser=_span, metavar="DURATION", help="End after 30s, 5m, ..."),
    ] = None,
) -> None:
    """Show rows that flow through a running processor.

    A sample of those that leave an operator or `when` (common/NAME, SINK/NAME, SINK/when), go into
    the outbox (sink:NAME), come in (source) or are rejected. Nothing waits for who looks.
    """
    table = form == "table" or (form == "auto" and sys.stdout.isatty())
    show = Columns().show if table else put
    shown = 0
    with Connection(outbox_of(file)) as connection:
        try:
            connection.ask(stage, rate)
            for line in connection.rows(length):
                show(line)
                shown += 1
                if shown == limit:
                    break
        except KeyboardInterrupt:
            pass
        say(f"{rows_of(shown)} shown, {connection.seen:,} came by")


class Connection:
    """To the processor that owns an outbox folder. Raises EdgeError where none can be reached."""

    def __init__(self, folder: Path) -> None:
        self.seen = 0
        self._folder = folder
        self._unread = b""
        self._socket = _connected(folder)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._socket.close()

    def ask(self, stage: str, rate: float) -> None:
        """For a stage. Raises DefinitionError with the nearest ones where there is no such."""
        self._socket.sendall(json.dumps({"stage": stage, "rate": rate}).encode() + b"\n")
        answer = json.loads(next(self._lines(None)))
        if answer["error"]:
            raise DefinitionError(f"outbox {self._folder}: {answer['error']}")
        others = ", ".join(each for each in answer["stages"] if each != stage)
        say(f"looking at {stage}; others are {others}")

    def rows(self, length: timedelta | None) -> Iterator[str]:
        """Rows as JSON, for so long. Raises EdgeError when the processor stops."""
        deadline = None if length is None else time.monotonic() + length.total_seconds()
        for line in self._lines(deadline):
            if line.startswith("#"):
                self.seen = int(line[1:])
            else:
                yield line

    def _lines(self, deadline: float | None) -> Iterator[str]:
        while True:
            *lines, self._unread = self._unread.split(b"\n")
            yield from (line.decode() for line in lines)
            left = None if deadline is None else max(0.0, deadline - time.monotonic())
            if not select.select([self._socket], [], [], left)[0]:
                return
            piece = self._socket.recv(2**16)
            if not piece:
                raise EdgeError(f"outbox {self._folder}: its processor has stopped")
            self._unread += piece


def _connected(folder: Path) -> socket.socket:
    from edge.outbox.owner import is_owned
    from edge.tap import address

    made = socket.socket(socket.AF_UNIX)
    try:
        with address(folder) as name:
            made.connect(name)
    except OSError as error:
        made.close()
        why = "its processor lets nobody look; see its log, and whether it has just started"
        if isinstance(error, PermissionError):
            why = "only the user of its processor may look; be that one, or root"
        elif not is_owned(folder):
            why = "no processor runs on it; start `edge run`"
        raise EdgeError(f"outbox {folder}: {why}") from error
    return made


class Columns:
    """Rows below each other, the names above them; written anew when they are others."""

    def __init__(self) -> None:
        self._names: tuple[str, ...] = ()
        self._widths: list[int] = []

    def show(self, line: str) -> None:
        """One row, given as JSON."""
        row: dict[str, object] = json.loads(line)
        cells = [_cell(value) for value in row.values()]
        if tuple(row) != self._names:
            self._names, self._widths = tuple(row), [0] * len(row)
            self._fit([printable(name) for name in row], cells)
            put(self._line([printable(name) for name in row]))
        self._fit(cells)
        put(self._line(cells))

    def _fit(self, *lines: list[str]) -> None:
        for line in lines:
            self._widths = [max(each) for each in zip(self._widths, map(len, line), strict=True)]

    def _line(self, cells: list[str]) -> str:
        padded = zip(cells, self._widths, strict=True)
        return "  ".join(cell.ljust(width) for cell, width in padded).rstrip()


def _cell(value: object) -> str:
    text = value if isinstance(value, str) else "" if value is None else json.dumps(value)
    text = printable(text)
    return text if len(text) <= _WIDEST else text[: _WIDEST - 1] + "\u2026"
