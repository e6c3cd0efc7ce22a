"""Files on a disk: CSV, NDJSON and Parquet, plain or compressed."""

import json
import logging
import zlib
from collections.abc import AsyncGenerator, Generator, Iterator, Mapping, Sequence
from contextlib import aclosing
from pathlib import Path
from typing import ClassVar, NamedTuple

import polars as pl
from pydantic import Field, PrivateAttr

from edge.clock import Clock
from edge.codec import TIMESTAMP, FieldSpec, Record
from edge.component import Stream, in_thread
from edge.dataset.replay import Pace, Replay
from edge.dataset.rows import FORMATS, PACKED, FileFormat, RowReader, Rows, format_of
from edge.dataset.steps import in_steps
from edge.errors import DefinitionError, Fault
from edge.sources import Arrival, Batch, Source

_log = logging.getLogger("edge.dataset")
_HEAD = 4096  # bytes that tell one file from another


class _Place(NamedTuple):
    """How far a file was read. offset: bytes of the uncompressed text, or rows of Parquet.

    size, head: length of the file and CRC-32 of its first bytes, which tell whether it is still
    the same file. done: the rest of it is damaged. path: the option that led to it. skip: so many
    rows behind offset were handed over too.
    """

    file: str
    offset: int
    line: int
    size: int
    head: int
    done: bool = False
    path: str = ""
    skip: int = 0


class DatasetSource(Source):
    """Reads files once, from the first row to the last, in the order of their names.

    ```yaml
    dataset:
      path: data/*.csv
    ```

    After a stop or a crash it goes on at the exact row after the last committed one. A compressed
    file is read from its start to get there, without being decoded. What happened to the files in
    the meantime:

    - A file that grew is read on; new files whose names sort later are read, others are not.
    - A file that is shorter than it was read, or begins differently, is another file: it is read
      from its start, with a warning.
    - A file that is gone is passed over, with a warning.

    A line that cannot be read is rejected with `file:line`; blank lines are no rows. Lines may be
    16 MiB long. A quoted cell of CSV may hold line breaks, all within 2 MiB. A compressed file that
    ends early or is damaged gives the rows before the damage and one reject. When nothing matches
    `path` at the start the run ends with a message: a finite input that is not there is a mistake.

    With `replay: {speed: 60}` an hour of event time (`record.time`) takes a minute: the same rows
    at another pace. `max_gap` shortens the nights. After a stop the clock starts again with the
    first row that is left.
    """

    finite: ClassVar[bool] = True

    path: str = Field(description="A file, a folder, or a pattern such as data/**/*.csv.gz.")
    format: FileFormat | None = Field(
        None, description="Of all files; left out, each file's ending tells: .csv, .ndjson, ..."
    )

    replay: Replay | None = Field(
        None,
        description="Hand rows over at a multiple of the pace of their event time, not at once.",
    )

    _record: Record = PrivateAttr()
    _stream: Stream = PrivateAttr()
    _clock: Clock = PrivateAttr()
    _reader: RowReader = PrivateAttr()
    _remembered: bool = PrivateAttr(default=False)
    _files: list[tuple[str, int]] = PrivateAttr(default_factory=list)
    _current: tuple[int, int] = PrivateAttr(default=(0, 0))

    def bind(
        self, record: Record, stream: Stream, identity: str, batch: Batch, clock: Clock
    ) -> pl.Schema | None:
        """Prepare to read; touches no file. Batches follow blocks of 2 MiB, not `batch`."""
        del identity, batch
        self._record, self._stream, self._clock = record, stream, clock
        if record.format not in ("json", "csv"):
            raise DefinitionError(
                Fault("record.format", f"a dataset has lines or columns, got {record.format!r}")
            )
        if self.replay and record.time is None:
            message = "needs record.time, the column with the event time that sets the pace"
            raise DefinitionError(Fault("source.dataset.replay", message))
        self._reader = RowReader(record, clock)
        columns = self._reader.decoder(self.format or "ndjson").columns
        return columns and pl.Schema({**columns, "edge_received": TIMESTAMP})

    async def arrivals(self, position: bytes | None) -> AsyncGenerator[Arrival | None, None]:
        """Rows from `position`; ends after the last file. Raises DefinitionError for no file."""
        # A step that an earlier iteration left hanging keeps the reader it has.
        self._reader = RowReader(self._record, self._clock, self._reader.fields())
        start = _Place(**json.loads(position)) if position else None
        self._files = await in_thread(self._find)
        if start and start.path != self.path and start.file not in dict(self._files):
            _log.warning("%s: other files than before, read from the first", self.path)
            start = None
        pace = Pace(self.replay, self._stream.time, self._clock) if self.replay else None
        for number, (name, size) in enumerate(self._files):
            self._current = (number, 0)
            if start is not None and name < start.file:
                continue
            place = await self._start(name, size, start)
            if not place.done:
                async with aclosing(self._arrivals_of(place, pace)) as arrivals:
                    async for arrival in arrivals:
                        yield arrival
        self._current = (len(self._files), 0)

    def _find(self) -> list[tuple[str, int]]:
        """Names below the definition's folder (or absolute) and sizes, in order."""
        folder = self._stream.folder
        root = folder / self.path
        if root.is_dir():
            found = [each for each in root.rglob("*") if self._form(each)]
        elif root.is_file():
            found = [root]
        else:
            found = [each for each in _glob(folder, self.path) if each.is_file()]
        if not found:
            message = f"no file is at {str(root)!r}; relative paths start at the definition"
            raise DefinitionError(Fault("source.dataset.path", message))
        unknown = [each for each in found if not self._form(each)]
        if unknown:
            known = ", ".join([*FORMATS, *PACKED])
            message = f"the ending tells no format ({known}), got {unknown[0].name!r}; set format"
            raise DefinitionError(Fault("source.dataset.path", message))
        return sorted((self._name(each), each.stat().st_size) for each in found)

    def _form(self, path: Path) -> FileFormat | None:
        if self.format:
            return self.format if path.is_file() else None
        return format_of(path.name)

    def _name(self, path: Path) -> str:
        folder = self._stream.folder
        return str(path.relative_to(folder) if path.is_relative_to(folder) else path)

    async def _start(self, name: str, size: int, start: _Place | None) -> _Place:
        """Where to begin in a file, given where an earlier run stood."""
        begin = await in_thread(_first_bytes, self._stream.folder / name)
        fresh = _Place(name, 0, 0, size, zlib.crc32(begin), path=self.path)
        if start is None or name > start.file:
            if start is not None and start.file not in dict(self._files):
                _log.warning("%s: is gone, going on with %s", start.file, name)
            return fresh
        same = size >= start.size and zlib.crc32(begin[: start.size]) == start.head
        if not same:
            _log.warning("%s: is not the file it was, reading it from its start", name)
            return fresh
        return fresh._replace(
            offset=start.offset, line=start.line, done=start.done, skip=start.skip
        )

    async def _arrivals_of(
        self, place: _Place, pace: Pace | None
    ) -> AsyncGenerator[Arrival | None, None]:
        async with aclosing(in_steps(self._steps(place))) as steps:
            async for rows in steps:
                if rows is None:
                    yield None
                    continue
                before, place = place, _behind(place, rows)
                if before.skip:
                    rows, place = _without_first(rows, before.skip, place)
                    if not (rows.frame.height or rows.rejects):
                        continue
                if pace is None or not rows.frame.height:
                    yield _arrival(rows, place)
                    continue
                async with aclosing(self._paced(rows, before, place, pace)) as parts:
                    async for part in parts:
                        yield part

    def _steps(self, place: _Place) -> Generator[Rows | None, None, None]:
        """The rows of a file from `place` on."""
        path = self._stream.folder / place.file
        form = self._form(path) or "ndjson"
        if form == "parquet":
            yield from self._reader.parquet(path, place.file, place.offset)
            return
        file = self._reader.open(path, form)
        for rows in self._reader.text(file, place.file, form, place.offset, place.line):
            self._current = (self._current[0], file.bytes_done())
            yield rows

    async def _paced(
        self, rows: Rows, before: _Place, place: _Place, pace: Pace
    ) -> AsyncGenerator[Arrival | None, None]:
        """Rows from `before` to `place`, in parts that are handed over when due."""
        async for part in pace.parts(rows.frame):
            if part is None:
                yield None
                continue
            first, count = part
            now = pl.lit(self._clock.now(), dtype=pl.Int64).cast(TIMESTAMP)
            frame = rows.frame.slice(first, count).with_columns(edge_received=now)
            last = first + count == rows.frame.height
            reached = place if last else before._replace(skip=before.skip + first + count)
            yield _arrival(
                rows._replace(frame=frame, rejects=[] if first else rows.rejects), reached
            )

    def snapshot(self, whole: bool) -> bytes | None:
        """The fields that the first rows decided; nothing when the definition names them all."""
        decided = self.fields()
        declared = self._record.fields is not None and self._record.extra == "drop"
        if declared or decided is None or (self._remembered and not whole):
            return None
        self._remembered = True
        fields = {name: field.model_dump() for name, field in decided.items()}
        return json.dumps(fields).encode()

    def restore(self, states: Sequence[bytes]) -> None:
        """Take the fields that earlier rows decided."""
        for state in states:
            self._reader.decide(json.loads(state))

    def fields(self) -> Mapping[str, FieldSpec] | None:
        """What the first rows decided, or the definition."""
        return self._reader.fields()

    def status(self) -> Mapping[str, object]:
        """Progress: `bytes_done` of `bytes_total` as they lie on the disk, and the file at hand."""
        number, inside = self._current
        sizes = [size for _, size in self._files]
        return {
            "file": self._files[number][0] if number < len(self._files) else None,
            "files": len(sizes),
            "files_done": number,
            "bytes_done": min(sum(sizes[:number]) + inside, sum(sizes)),
            "bytes_total": sum(sizes),
        }


def _first_bytes(path: Path) -> bytes:
    with path.open("rb") as file:
        return file.read(_HEAD)


def _behind(place: _Place, rows: Rows) -> _Place:
    return place._replace(offset=rows.offset, line=rows.line, done=rows.damaged, skip=0)


def _without_first(rows: Rows, skip: int, place: _Place) -> tuple[Rows, _Place]:
    """Without rows, and the rejects among them, that were handed over; the rest of `skip` stays."""
    left = max(0, skip - rows.frame.height)
    return rows._replace(frame=rows.frame[skip:], rejects=[]), place._replace(skip=left)


def _arrival(rows: Rows, place: _Place) -> Arrival:
    given = {name: value for name, value in place._asdict().items() if value or name != "skip"}
    position = json.dumps(given, separators=(",", ":")).encode()
    read = rows.frame.height + len(rows.rejects)
    return Arrival(rows.frame, position, read=read, rejects=rows.rejects)


def _glob(folder: Path, pattern: str) -> Iterator[Path]:
    path = Path(pattern)
    if path.is_absolute():
        return Path(path.anchor).glob(str(path.relative_to(path.anchor)))
    return folder.glob(pattern)
