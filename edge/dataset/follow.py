"""Files that others write, read as they grow, are rotated, replaced and removed."""

import logging
import math
import os
from collections.abc import Callable, Generator, Mapping, Sequence
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

import orjson

from edge.clock import Clock
from edge.dataset.find import Found
from edge.dataset.identity import beginning, is_packed, is_same, trace_of_columns, trace_of_text
from edge.dataset.rows import FileFormat, RowReader, Rows, joined
from edge.dataset.traces import SURE, Trace, Traces
from edge.dataset.watch import EVERY, File, Lost, Names, Patience, Watch, warn_of_loss

log = logging.getLogger("edge.dataset")

_TURN = 256 * 2**20  # bytes of one file before the others are looked at again
_DOUBT = 12  # times `settle`: a file that is taken whole and seems damaged may still be written

Inherit = Callable[[Traces, Mapping[str, Found]], None]


@dataclass(frozen=True, slots=True)
class Idle:
    """Nothing to read for `pause` seconds."""

    pause: float


class Together(NamedTuple):
    """How many rows are handed over together at least, and for how many seconds they are held.

    bytes: of rows, from which on they are not held either.
    """

    rows: int
    seconds: float
    bytes: int


class _Later(Exception):
    """Not yet clear what a file is."""


class Follower:
    """Reads files as they come and grow, for ever. One thread at a time."""

    def __init__(
        self,
        names: Names,
        patience: Patience,
        reader: RowReader,
        traces: Traces,
        together: Together,
        clock: Clock,
    ) -> None:
        self._together = together
        self._names, self._patience, self._reader = names, patience, reader
        self._traces, self._clock = traces, clock
        self._watch = Watch(names, patience, traces, clock)

    def status(self) -> Mapping[str, object]:
        """How the last look found things. May be asked from another thread."""
        return self._watch.status

    def steps(self, inherit: Inherit | None = None) -> Generator[Rows | Idle, None, None]:
        """Rows, for ever; when they are given the traces stand behind them.

        inherit: makes traces of what was read of the files before they were followed.
        """
        while inherit is not None:
            listing = self._watch.list()
            try:
                if listing.files and not listing.unread:
                    inherit(self._traces, listing.files)
                    inherit = None
                    yield self._reader.nothing()
            except OSError as error:
                log.warning("what was read before cannot be found, tried again: %s", error)
            yield Idle(EVERY)
        try:
            yield from self._gathered(self._turns())
        finally:
            self._watch.close()

    def _gathered(
        self, steps: Generator[Rows | Idle, None, None]
    ) -> Generator[Rows | Idle, None, None]:
        """Small pieces together: to commit one row costs what thousands do.

        The traces stand behind all pieces that were taken, so none is ever held back.
        """
        held: list[Rows] = []
        until = 0.0
        for step in steps:
            if isinstance(step, Rows):
                now = self._clock.steady()
                until = until if held else now + self._together.seconds
                held.append(step)
                if now < until and self._is_little(held):
                    continue
            if held:
                yield joined(held)
                held = []
            if isinstance(step, Idle):
                yield step

    def _is_little(self, held: Sequence[Rows]) -> bool:
        rows = sum(each.frame.height + len(each.rejects) for each in held)
        size = sum(each.frame.estimated_size() for each in held)
        return rows < self._together.rows and size < self._together.bytes

    def _turns(self) -> Generator[Rows | Idle, None, None]:
        while True:
            found = self._watch.next()
            if found is not None:
                yield from self._turn(*found)
                continue
            for lost, trace in self._watch.orphans():
                yield from self._rest_of(lost, trace)
            yield Idle(self._watch.pause())

    def _turn(self, name: str, file: File) -> Generator[Rows | Idle, None, None]:
        """Read one file as far as it goes now, or as far as one turn goes."""
        try:
            trace = self._trace_of(name, file)
            if self._names.has_columns(name):
                yield from self._columns(name, file, trace)
            else:
                yield from self._lines(name, file, trace)
            self._watch.went_well(name, file)
        except (_Later, FileNotFoundError):
            self._watch.look_again()
            self._watch.put_off(name, file, self._clock.steady() + EVERY)
        except OSError as error:
            self._watch.failed(name, file, error)

    def _trace_of(self, name: str, file: File) -> Trace | None:
        """How far the file was read, under whatever name; None for a new one.

        Raises _Later while it may be a copy that is about to take the place of another.
        """
        path, columns = self._names.path(name), self._names.has_columns(name)
        trace = self._traces.files.get(name)
        if trace is not None:
            if trace.is_as(file.found) or is_same(path, trace, columns):
                return trace
            self._watch.replaced(name, trace, None)
        for other in self._traces.begin_alike(beginning(path, columns)):
            candidate = self._traces.files[other]
            sure = candidate.known >= SURE
            if candidate.gone is not None:
                likely = candidate.may_be(file.found, same_name=False)
                if likely and is_same(path, candidate, columns):
                    log.info("%s: is what %s was, read on", name, other.partition("\0")[0])
                    self._traces.drop(other)
                    candidate = candidate._replace(gone=None, over=False)
                    self._traces.put(name, candidate)
                    return candidate
            elif sure and self._clock.steady() - file.since < self._patience.settle:
                raise _Later  # copied and then cut short, as logrotate's copytruncate does?
        return None

    def _lines(
        self, name: str, file: File, trace: Trace | None
    ) -> Generator[Rows | Idle, None, None]:
        path, form = self._names.path(name), self._names.format_of(name) or "ndjson"
        packed, away = is_packed(path), trace is not None and trace.away
        text = self._reader.open(path, form, whole=packed)
        found = Found.of(text.stat())
        start, line = (trace.offset, trace.line) if trace else (0, 0)
        if found.inode != file.found.inode or (found.size < start and not packed):
            text.close()
            raise _Later  # it was replaced this moment
        quiet = self._clock.steady() - file.since if found == file.found else 0.0

        def is_over(rest: bytes) -> bool:
            return self._is_over(rest, form, quiet, away)

        with closing(self._reader.text(text, name, form, start, line, is_over)) as steps:
            for rows in steps:
                if rows is not None and rows.damaged and self._is_doubtful(name, file, quiet):
                    return
                if rows is not None:
                    reached = trace_of_text(text, found, over=rows.damaged)
                    self._traces.put(name, reached._replace(away=away))
                yield rows or Idle(0.0)
                if not packed and text.offset - start > _TURN:
                    self._watch.put_off(name, file, self._clock.steady())
                    return
        self._at_end(name, file, quiet, trace_of_text(text, found), bool(text.rest))

    def _rest_of(self, lost: Lost, trace: Trace) -> Generator[Rows | Idle, None, None]:
        """What was not read of a file that is gone, if it was held open."""
        unread, form = lost.unread, self._names.format_of(lost.name) or "ndjson"
        if lost.held is not None:
            path, start = Path(f"/proc/self/fd/{lost.held}"), (trace.offset, trace.line)
            try:
                if is_same(path, trace, columns=False):
                    text = self._reader.open(path, form, whole=False)
                    found = Found.of(text.stat())
                    with closing(
                        self._reader.text(text, lost.name, form, *start, _is_object)
                    ) as steps:
                        for rows in steps:
                            if rows is not None:
                                reached = trace_of_text(text, found)._replace(gone=trace.gone)
                                self._traces.put(lost.trace, reached)
                            yield rows or Idle(0.0)
                    unread = max(0, found.size - text.offset)
            except OSError as error:
                log.debug("%s: %s", lost.name, error)
            finally:
                os.close(lost.held)
        if unread:
            warn_of_loss(lost.name, "was removed or cut short before all was read", unread)

    def _at_end(self, name: str, file: File, quiet: float, trace: Trace, rest: bool) -> None:
        """A file was read to its end. rest: but for a line that is not whole."""
        known = self._traces.files.get(name)
        away = known is not None and known.away
        if away and quiet >= self._patience.finished:
            self._watch.leave(name)
            return
        over = trace._replace(over=not rest, away=away)
        if known is not None and over != known:
            self._traces.put(name, over)
        if not away and not is_packed(self._names.path(name)):
            self._watch.hold(name, trace.inode)
        waits = self._patience[:2] if rest or away else ()
        due = min((file.since + wait for wait in waits if wait > quiet), default=math.inf)
        self._watch.put_off(name, file, due)

    def _is_over(self, rest: bytes, form: FileFormat, quiet: float, away: bool) -> bool:
        """Whether a last line without a line break is whole: half a number looks like a number,
        but half an object of JSON is none."""
        settled = quiet >= self._patience.settle
        if quiet >= self._patience.finished or (away and settled):
            return True
        return form == "ndjson" and settled and _is_object(rest)

    def _columns(
        self, name: str, file: File, trace: Trace | None
    ) -> Generator[Rows | Idle, None, None]:
        path, quiet = self._names.path(name), self._clock.steady() - file.since
        with closing(self._reader.parquet(path, name, trace.offset if trace else 0)) as steps:
            for rows in steps:
                if rows.damaged and self._is_doubtful(name, file, quiet):
                    return
                self._traces.put(name, trace_of_columns(path, rows.offset, file.found))
                yield rows
        known = self._traces.files.get(name)
        if known is not None:
            over = trace_of_columns(path, known.offset, file.found)._replace(over=True)
            self._traces.put(name, over)

    def _is_doubtful(self, name: str, file: File, quiet: float) -> bool:
        """Whether a file that seems damaged is given more time, in case it is still written."""
        doubt = _DOUBT * self._patience.settle
        if quiet < doubt:
            self._watch.put_off(name, file, file.since + doubt)
        return quiet < doubt


def _is_object(text: bytes) -> bool:
    try:
        return isinstance(orjson.loads(text), dict)
    except orjson.JSONDecodeError:
        return False
