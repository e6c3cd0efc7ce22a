"""Which files are to be read now: found anew, grown, settled, renamed or come back."""

import logging
import math
import os
import time
from collections import deque
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

from edge.clock import Clock
from edge.component import format_size
from edge.dataset.find import Finder, Found, Listing
from edge.dataset.identity import is_packed, is_same
from edge.dataset.rows import FileFormat
from edge.dataset.traces import SURE, Trace, Traces

log = logging.getLogger("edge.dataset")

EVERY = 1.0  # seconds between two looks at least
_COST = 250  # times the processor time of a look go by before the next one
_HOT = 60.0  # seconds for which a file that changed is looked at every time
_MOST_HELD = 64  # of them are held open
_RETRY_CAP = 60.0  # seconds, longest pause after an error
_MOST_TOLD = 20  # files whose errors are told in the log as warnings at a time


class Patience(NamedTuple):
    """Seconds of quiet after which a file that is taken whole is, after which the last line of any
    is taken without its line break, and after which one that is gone is forgotten."""

    settle: float
    finished: float
    forget: float


class Names(NamedTuple):
    """What is followed: names found by `finder`, below `folder`, and what their files are."""

    folder: Path
    finder: Finder
    format_of: Callable[[str], FileFormat | None]

    def path(self, name: str) -> Path:
        """Where the file lies."""
        return self.folder / name

    def has_columns(self, name: str) -> bool:
        """Whether it is Parquet."""
        return self.format_of(name) == "parquet"

    def is_taken_whole(self, name: str) -> bool:
        """Whether it is of no use while it is still written."""
        return self.has_columns(name) or is_packed(Path(name))


@dataclass(slots=True)
class File:
    """A file that is there. found: at the last look, and `since` when it is so. due: when it is to
    be read; both on the steady clock. failures: errors in a row."""

    found: Found
    since: float
    due: float = math.inf
    failures: int = 0


class Lost(NamedTuple):
    """A trace whose file left its name: where it lies, that name, bytes seen but not read, and a
    descriptor of the file, if it was held open."""

    trace: str
    name: str
    unread: int
    held: int | None


class Watch:
    """Looks at files again and again, and knows which to read next. One thread at a time."""

    def __init__(self, names: Names, patience: Patience, traces: Traces, clock: Clock) -> None:
        self._names, self._patience, self._traces, self._clock = names, patience, traces, clock
        self._files: dict[str, File] = {}
        self._pending: set[str] = set()  # names of files that are to be read at some time
        self._ready: deque[str] = deque()  # now
        self._hot: dict[str, float] = {}  # until when a file is looked at every time
        self._lost: list[Lost] = []
        self._held: dict[str, int] = {}  # descriptors of hot files, which may be moved away unread
        self._problems: dict[str, str] = {}
        self._listing = Listing({}, {}, None)
        self._aged = clock.steady()
        self._next_look = self._next_glance = -math.inf
        self.status: Mapping[str, object] = {"following": True, "files": 0}

    def next(self) -> tuple[str, File] | None:
        """The file to read now, the one that changed longest ago; looks again when it is time."""
        now = self._clock.steady()
        if now >= min(self._next_glance, self._next_look):
            self._glance(now)
        while self._ready:
            name = self._ready.popleft()
            if name in self._files:
                self._pending.discard(name)
                file = self._files[name]
                file.due = math.inf
                return name, file
        return None

    def pause(self) -> float:
        """Seconds until it is worth asking again."""
        return max(0.0, min(self._next_look, self._next_glance) - self._clock.steady())

    def look_again(self) -> None:
        """Names stand for other files than at the last look."""
        self._next_look = -math.inf

    def put_off(self, name: str, file: File, due: float) -> None:
        """Read the file again at `due`; never, if that is infinite."""
        file.due = due
        if due < math.inf and self._files.get(name) is file:
            self._pending.add(name)
            if due <= self._clock.steady():
                self._ready.append(name)

    def failed(self, name: str, file: File, error: OSError) -> None:
        """It cannot be read now."""
        file.failures += 1
        pause = min(_RETRY_CAP, 2.0 ** min(file.failures, 10))
        self.put_off(name, file, self._clock.steady() + pause)
        reason = error.strerror or str(error)
        if self._problems.get(name) != reason:
            self._tell(name, reason)
        self._problems[name] = reason

    def went_well(self, name: str, file: File) -> None:
        """It can be read."""
        file.failures = 0
        if self._problems.pop(name, None):
            log.info("%s: can be read again", name)

    def leave(self, name: str) -> None:
        """A file that left the names that are followed is read to its end."""
        self._traces.lose(name)
        self._files.pop(name, None)
        self._hot.pop(name, None)
        self._let_go(name)

    def replaced(self, name: str, trace: Trace, file: File | None) -> None:
        """The name belongs to another file now; what it stood for may lie elsewhere."""
        log.info("%s: is not the file it was, read from its start", name)
        unread = max(0, file.found.size - trace.offset) if file else 0
        lost = self._traces.lose(name, replaced=True)
        self._lost.append(Lost(lost, name, unread, self._held.pop(name, None)))

    def hold(self, name: str, inode: int) -> None:
        """Keep a file open that was read to its end and changes often, should it be moved away."""
        if name in self._held and os.fstat(self._held[name]).st_ino != inode:
            self._let_go(name)
        if name not in self._hot or name in self._held or len(self._held) >= _MOST_HELD:
            return
        held = os.open(self._names.path(name), os.O_RDONLY)
        if os.fstat(held).st_ino == inode:
            self._held[name] = held
        else:
            os.close(held)

    def close(self) -> None:
        """Let go of all files."""
        for held in [*self._held.values(), *(each.held for each in self._lost)]:
            if held is not None:
                os.close(held)
        self._held, self._lost = {}, []

    def list(self) -> Listing:
        """One look."""
        listing, before = self._with_away(self._names.finder.look()), self._listing.unread
        for name, reason in listing.unread.items():
            if before.get(name) != reason:
                self._tell(name, reason)
        for name in before.keys() - listing.unread.keys():
            log.info("%s: can be read again", name or ".")
        self._listing = listing
        return listing

    # -- looking

    def _glance(self, now: float) -> None:
        """Look at all files, or only at those that changed lately."""
        self._traces.age += now - self._aged
        self._aged = now
        if now >= self._next_look:
            started = time.thread_time()
            self._look()
            now = self._clock.steady()
            self._next_look = now + max(EVERY, _COST * (time.thread_time() - started))
        else:
            self._look_at_hot(now)
        self._next_glance = now + EVERY
        due = [name for name in self._pending if self._files[name].due <= now]
        self._ready = deque(sorted(due, key=lambda name: (self._files[name].found.mtime, name)))
        self._note_status()

    def _look(self) -> None:
        listing = self.list()
        files = listing.files
        for name, found in files.items():
            file = self._files.get(name)
            if file is None or file.found != found:
                self._notice(name, found)
        for name in {*(self._files.keys() - files.keys()), *self._traces.present()}:
            if listing.is_gone(name):
                self._miss(name)
        self._traces.forget(self._patience.forget)

    def _with_away(self, listing: Listing) -> Listing:
        """Also the files that left the names that are followed, and are still read."""
        files, unread = dict(listing.files), dict(listing.unread)
        for name in self._traces.present():
            if self._traces.files[name].away and name not in files:
                try:
                    found = self._names.finder.stat(name)
                except OSError as error:
                    unread[name] = error.strerror or str(error)
                    continue
                if found is not None:
                    files[name] = found
        return listing._replace(files=files, unread=unread)

    def _look_at_hot(self, now: float) -> None:
        for name, until in list(self._hot.items()):
            if until < now:
                del self._hot[name]
                self._let_go(name)
                continue
            try:
                found = self._names.finder.stat(name)
            except OSError:
                continue
            if found is None:
                self._next_look = now  # gone or renamed: who is where now?
            elif found != self._files[name].found:
                self._notice(name, found)

    def _notice(self, name: str, found: Found) -> None:
        """A file is there, or is not as it was."""
        now, before = self._clock.steady(), self._files.get(name)
        file = self._files[name] = File(found, now)
        if before is not None:
            self._hot[name] = now + _HOT
        trace = self._traces.files.get(name)
        if trace is not None and trace.gone is not None:
            if trace.may_be(found, same_name=True):
                trace = trace._replace(gone=None)
                self._traces.put(name, trace)
            else:
                self._traces.lose(name, replaced=True)
                trace = None
        if trace is not None and (trace.inode != found.inode or found.size < trace.size):
            trace = self._still(name, trace, before)
        if trace is not None and trace.is_as(found) and self._is_read(name, trace):
            self._pending.discard(name)
            return
        file.due = now + self._patience.settle if self._names.is_taken_whole(name) else now
        self._pending.add(name)

    def _still(self, name: str, trace: Trace, before: File | None) -> Trace | None:
        """The trace, if the file of that name is still its; None if it is another."""
        try:
            if is_same(self._names.path(name), trace, self._names.has_columns(name)):
                return trace
        except OSError:
            return trace  # it is looked at again before it is read
        self.replaced(name, trace, before)
        return None

    def _is_read(self, name: str, trace: Trace) -> bool:
        """Whether the file, as it was when it was opened, was read to its end."""
        return trace.over or (not self._names.is_taken_whole(name) and trace.offset >= trace.size)

    # -- losing

    def _miss(self, name: str) -> None:
        """A file is gone."""
        file = self._files.pop(name, None)
        waited = name in self._pending
        self._pending.discard(name)
        self._hot.pop(name, None)
        self._problems.pop(name, None)
        trace = self._traces.files.get(name)
        if trace is None and file and waited and file.found.size:
            if all(found.inode != file.found.inode for found in self._listing.files.values()):
                warn_of_loss(name, "was removed before it was read", file.found.size)
        elif trace is not None and trace.gone is None:
            unread = max(0, file.found.size - trace.offset) if file and not trace.over else 0
            self._traces.lose(name)
            if not trace.away:
                self._lost.append(Lost(name, name, unread, self._held.pop(name, None)))
        self._let_go(name)

    def _let_go(self, name: str) -> None:
        held = self._held.pop(name, None)
        if held is not None:
            os.close(held)

    def orphans(self) -> Iterator[tuple[Lost, Trace]]:
        """Files that have no name any more under which they will be read; to be closed.

        What has a new name that is followed was found when that was read; what lies beside its
        old name will be.
        """
        if not self._lost:
            return
        soon = self._clock.steady() + self._patience.settle
        pending = (name for name in self._pending if self._files[name].due <= soon)
        undecided = {Path(name).parent for name in pending if name not in self._traces.files}
        lost, self._lost = self._lost, []
        for each in lost:
            trace = self._traces.files.get(each.trace)
            if trace is not None and trace.gone is not None:
                if Path(each.name).parent in undecided:
                    self._lost.append(each)
                    continue
                if not self._is_beside(each, trace):
                    yield each, trace
                    continue
            if each.held is not None:
                os.close(each.held)

    def _is_beside(self, lost: Lost, trace: Trace) -> bool:
        """Whether the file has another name in its folder; if so it is read there to its end."""
        names = self._names
        if names.is_taken_whole(lost.name):
            return False
        try:
            for name in list(names.finder.siblings(lost.name)):
                if name in self._listing.files or not names.format_of(name):
                    continue
                found = names.finder.stat(name)
                rotated = name.startswith(lost.name) and trace.known >= SURE
                if found is None or not (found.inode == trace.inode or rotated):
                    continue
                if trace.may_be(found, same_name=False) and is_same(
                    names.path(name), trace, columns=False
                ):
                    log.info("%s: goes on as %s, which is read to its end", lost.name, name)
                    self._traces.drop(lost.trace)
                    self._traces.put(name, trace._replace(gone=None, away=True, over=False))
                    self.look_again()
                    return True
        except OSError as error:
            log.debug("beside %s: %s", lost.name, error)
        return False

    # -- saying

    def _tell(self, name: str, reason: str) -> None:
        many = len(self._problems) + len(self._listing.unread) > _MOST_TOLD
        level = logging.DEBUG if many else logging.WARNING
        log.log(level, "%s: cannot be read, tried again: %s", name or ".", reason)

    def _note_status(self) -> None:
        behind = settling = 0
        for name in self._pending:
            file, trace = self._files[name], self._traces.files.get(name)
            if self._names.is_taken_whole(name):
                settling += file.due > self._aged
                behind += file.found.size
            else:
                behind += max(0, file.found.size - (trace.offset if trace else 0))
        problems = {**self._listing.unread, **self._problems}
        problem = next((f"{name or '.'}: {why}" for name, why in problems.items()), None)
        if problem is None and not self._listing.files:
            problem = "no file is there"
        if problem is None and self._listing.passed_over:
            problem = f"{self._listing.passed_over}: the ending tells no format; set format"
        self.status = {
            "following": True,
            "files": len(self._listing.files),
            "settling": settling,
            "unreadable": len(problems),
            "bytes_behind": behind,
            "problem": problem,
        }


def warn_of_loss(name: str, how: str, size: int) -> None:
    """Say that bytes of a file are gone that nobody has read."""
    log.warning("%s: %s, %s are lost", name, how, format_size(size))
