"""What is remembered of files: how far each was read, and what tells it from others."""

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, NamedTuple

import orjson
from xxhash import xxh3_64_intdigest

from edge.codec import FieldSpec
from edge.dataset.find import Found

MOST_GONE = 100_000  # files that are gone and still remembered
SURE = 1024  # bytes at the start of a text that are enough to know it by


class Trace(NamedTuple):
    """One file.

    offset, line: where reading goes on, in bytes and lines of the uncompressed text (Parquet:
    rows). known: how many bytes at the start `head` is the hash of. tail: hash as in Mark; of a
    Parquet file both are of the bytes on the disk. inode, size, mtime: as the file was when it
    was last opened. over: as it was then, it is read to its end. away: it left the names that are
    followed and is read to its end. gone: since when it is not there, on the clock of
    `Traces.age`.
    """

    offset: int
    line: int
    known: int
    head: int
    tail: int
    inode: int
    size: int
    mtime: int
    over: bool = False
    away: bool = False
    gone: float | None = None

    def may_be(self, found: Found, same_name: bool) -> bool:
        """Whether a file that is gone may be back as `found`; if so its content decides.

        A few bytes may well be written again, and a new file may get the inode of an old one; but
        what was renamed, or comes back with its share, has its time of change, or more in it.
        """
        untouched = found.size > self.size or found.mtime == self.mtime
        return self.known >= SURE or (untouched and (same_name or found.inode == self.inode))

    def is_as(self, found: Found) -> bool:
        """Whether nothing shows that the file was touched since it was opened."""
        return (self.inode, self.size, self.mtime) == (found.inode, found.size, found.mtime)


class Traces:
    """A trace for each file, by name; snapshots carry what changed since the last one.

    age counts the seconds in which files were followed, over all starts: unlike the time of day it
    does not jump.
    """

    def __init__(self) -> None:
        self.files: dict[str, Trace] = {}
        self.age = 0.0
        self.fields: Mapping[str, Any] | None = None
        self._changed: dict[str, None] = {}
        self._learned = False
        self._beginnings: dict[tuple[int, int], dict[str, None]] = {}
        self._lengths: Counter[int] = Counter()
        self._gone: dict[str, None] = {}

    def put(self, name: str, trace: Trace) -> None:
        """Remember `trace` under `name`, in place of what was there."""
        self._unlist(name)
        self.files[name] = trace
        self._changed[name] = None
        if trace.known:
            self._beginnings.setdefault((trace.known, trace.head), {})[name] = None
            self._lengths[trace.known] += 1
        if trace.gone is not None:
            self._gone[name] = None

    def drop(self, name: str) -> None:
        """Forget a file."""
        self._unlist(name)
        del self.files[name]
        self._changed[name] = None

    def _unlist(self, name: str) -> None:
        trace = self.files.get(name)
        if trace is None:
            return
        if trace.known:
            alike = self._beginnings[(trace.known, trace.head)]
            del alike[name]
            if not alike:
                del self._beginnings[(trace.known, trace.head)]
            self._lengths[trace.known] -= 1
            if not self._lengths[trace.known]:
                del self._lengths[trace.known]
        self._gone.pop(name, None)

    def lose(self, name: str, replaced: bool = False) -> str:
        """The file is not there any more; returns the name of its trace from now on.

        replaced: its name belongs to another file.
        """
        trace = self.files[name]._replace(gone=self.age, away=False)
        if replaced:
            self.drop(name)
            name = f"{name}\0{self.age}"  # no file has such a name
        self.put(name, trace)
        return name

    def begin_alike(self, begin: bytes) -> list[str]:
        """Names of files whose text began as `begin` does, those that are gone first."""
        names = [
            name
            for length in self._lengths
            if length <= len(begin)
            for name in self._beginnings.get((length, xxh3_64_intdigest(begin[:length])), ())
        ]
        return sorted(names, key=lambda name: self.files[name].gone is None)

    def forget(self, seconds: float) -> None:
        """Drop what has been gone for so long, and the longest gone of more than MOST_GONE."""
        while self._gone:
            name = next(iter(self._gone))
            gone = self.files[name].gone or 0.0
            if len(self._gone) <= MOST_GONE and self.age - gone < seconds:
                break
            self.drop(name)

    def learn_fields(self, fields: Mapping[str, FieldSpec]) -> None:
        """Note the fields that the first rows decided."""
        if self.fields is None:
            self.fields = {name: field.model_dump() for name, field in fields.items()}
            self._learned = True

    def snapshot(self, whole: bool) -> bytes | None:
        """What changed since the last call, or everything; None if nothing did."""
        names: Sequence[str] = [*(self.files if whole else self._changed)]
        learned = self.fields if whole or self._learned else None
        if not (whole or names or learned):
            return None
        traces = ((name, self.files.get(name)) for name in names)
        kept = {name: trace and tuple(trace) for name, trace in traces}
        self._changed, self._learned = {}, False
        return orjson.dumps([round(self.age, 3), kept, learned])

    def restore(self, states: Sequence[bytes]) -> None:
        """Take back what `snapshot` gave: one whole, then changes."""
        for age, kept, learned in map(orjson.loads, states):
            self.age = age
            self.fields = learned or self.fields
            for name, given in kept.items():
                if given is not None:
                    self.put(name, Trace(*given))
                elif name in self.files:
                    self.drop(name)
        self._gone = dict.fromkeys(sorted(self._gone, key=lambda name: self.files[name].gone or 0))
        self._changed, self._learned = {}, False

    def present(self) -> Iterator[str]:
        """Names of the files that are there, as far as is known."""
        return (name for name, trace in self.files.items() if trace.gone is None)
