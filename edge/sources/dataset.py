"""Files on a disk: CSV, NDJSON and Parquet, plain or compressed."""

import json
import logging
import math
from collections.abc import AsyncGenerator, Generator, Iterator, Mapping, Sequence
from contextlib import aclosing
from datetime import timedelta
from functools import partial
from pathlib import Path

import polars as pl
from pydantic import Field, PrivateAttr, model_validator

from edge.clock import Clock
from edge.codec import TIMESTAMP, FieldSpec, Record
from edge.component import PositiveDuration, Stream
from edge.dataset.find import Finder, Found
from edge.dataset.follow import Follower, Idle, Together
from edge.dataset.identity import is_same, trace_at
from edge.dataset.place import Place, first_bytes, without_first
from edge.dataset.replay import Pace, Replay
from edge.dataset.rows import FORMATS, PACKED, FileFormat, RowReader, Rows, format_of, joined
from edge.dataset.steps import BEAT, in_steps
from edge.dataset.traces import Traces
from edge.dataset.watch import Names, Patience
from edge.errors import DefinitionError, Fault
from edge.sources import Arrival, Batch, Source

_log = logging.getLogger("edge.dataset")
_FOLLOWED = {"follow": True}  # the position is in what is remembered of each file
_SILENT = 5.0  # seconds without an answer of the file system before `status` says so


class DatasetSource(Source):
    """Reads files of rows: once, in the order of their names, or for ever as they grow.

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

    With `follow: true` it never ends: lines are taken as they are appended, new files as they come,
    compressed files and Parquet once they did not change for `settle`. Rotated files are read to
    their end; a file is known again by what it begins with and what precedes the place where
    reading stands, not by its name or inode. A share that is away, hangs or gives errors is tried
    again for ever. What happens in which kind of rotation: docs/definition.md. Remembered are some
    200 bytes for each file that is there, and for `forget` of each that is gone. Looking at 5,000
    files costs under 1 % of a core.

    With `replay: {speed: 60}` an hour of event time (`record.time`) takes a minute: the same rows
    at another pace. `max_gap` shortens the nights. After a stop the clock starts again with the
    first row that is left.
    """

    path: str = Field(description="A file, a folder, or a pattern such as data/**/*.csv.gz.")
    format: FileFormat | None = Field(
        None, description="Of all files; left out, each file's ending tells: .csv, .ndjson, ..."
    )

    follow: bool = Field(
        False, description="Go on with what is appended, and with new files, and never end."
    )
    settle: PositiveDuration = Field(
        timedelta(seconds=5),
        description="Parquet and compressed files are read once they did not change for so long.",
    )
    finished: PositiveDuration = Field(
        timedelta(hours=1),
        description="A last line without a line break is taken when its file did not change for so "
        "long; one of NDJSON that is whole JSON after `settle`.",
    )
    forget: PositiveDuration = Field(
        timedelta(days=7),
        description="How long a file that is gone is remembered, should it come back.",
    )
    replay: Replay | None = Field(
        None,
        description="Hand rows over at a multiple of the pace of their event time, not at once.",
    )

    _record: Record = PrivateAttr()
    _stream: Stream = PrivateAttr()
    _batch: Batch = PrivateAttr()
    _clock: Clock = PrivateAttr()
    _reader: RowReader = PrivateAttr()
    _remembered: bool = PrivateAttr(default=False)
    _files: list[tuple[str, int]] = PrivateAttr(default_factory=list)
    _current: tuple[int, int] = PrivateAttr(default=(0, 0))
    _traces: Traces = PrivateAttr(default_factory=Traces)
    _follower: Follower | None = PrivateAttr(default=None)
    _silent: float | None = PrivateAttr(default=None)  # since when the file system gives no answer

    @property
    def finite(self) -> bool:
        return not self.follow

    @model_validator(mode="after")
    def _agree(self) -> "DatasetSource":
        if self.follow and self.replay:
            raise ValueError(
                "follow and replay exclude each other: rows of now have a pace of their own"
            )
        alone = sorted(self.model_fields_set & {"settle", "finished", "forget"})
        if alone and not self.follow:
            raise ValueError(f"{alone[0]} means something only with follow: true")
        return self

    def bind(
        self, record: Record, stream: Stream, identity: str, batch: Batch, clock: Clock
    ) -> pl.Schema | None:
        """Prepare to read; touches no file.

        Batches consist of blocks of 3 MiB, as many as make a parcel; small pieces of files that are
        followed go together as `batch` says.
        """
        del identity
        self._record, self._stream, self._batch, self._clock = record, stream, batch, clock
        if record.format not in ("json", "csv"):
            raise DefinitionError(
                Fault("record.format", f"a dataset has lines or columns, got {record.format!r}")
            )
        if self.replay and record.time is None:
            message = "needs record.time, the column with the event time that sets the pace"
            raise DefinitionError(Fault("source.dataset.replay", message))
        self._reader = RowReader(record, clock, most=batch.bytes)
        columns = self._reader.decoder(self.format or "ndjson").columns
        return columns and pl.Schema({**columns, "edge_received": TIMESTAMP})

    async def arrivals(self, position: bytes | None) -> AsyncGenerator[Arrival | None, None]:
        """Rows from `position`; ends after the last file. Raises DefinitionError for no file."""
        # A step that an earlier iteration left hanging keeps the reader it has.
        decided, most = self._reader.fields(), self._batch.bytes
        self._reader = RowReader(self._record, self._clock, decided, most)
        place = json.loads(position) if position else _FOLLOWED
        start = Place(**place) if place != _FOLLOWED else None
        if self.follow:
            async with aclosing(self._followed(start)) as arrivals:
                async for arrival in arrivals:
                    yield arrival
            return
        pace = Pace(self.replay, self._stream.time, self._clock) if self.replay else None
        async with aclosing(self._read_once(start, pace)) as arrivals:
            async for arrival in arrivals:
                yield arrival

    async def _followed(self, start: Place | None) -> AsyncGenerator[Arrival | None, None]:
        """Rows for ever. start: where a run that did not follow came to."""
        waits = (self.settle, self.finished, self.forget)
        patience = Patience(*(each.total_seconds() for each in waits))
        folder = self._stream.folder
        finder = Finder(folder, self.path, lambda name: self._form_of(name) is not None)
        names = Names(folder, finder, self._form_of)
        # Half: a whole block may come behind what is held.
        rows, wait, size, _ = self._batch
        together = Together(rows, wait, size // 2)
        self._follower = Follower(
            names, patience, self._reader, self._traces, together, self._clock
        )
        inherit = partial(self._inherit, start) if start else None
        steps: AsyncGenerator[Rows | Idle | None, None] = in_steps(self._follower.steps(inherit))
        async with aclosing(steps):
            async for step in steps:
                if step is None:
                    self._silent = self._silent or self._clock.steady()
                    yield None
                    continue
                self._silent = None
                if isinstance(step, Rows):
                    yield _arrival(step, _FOLLOWED)
                    continue
                pauses = max(1, math.ceil(step.pause / BEAT))
                for _ in range(pauses):
                    await self._clock.sleep(step.pause / pauses)
                    yield None

    def _inherit(self, start: Place, traces: Traces, files: Mapping[str, Found]) -> None:
        """Traces of what was read before files were followed, up to `start`."""
        if start.path != self.path and start.file not in files:
            return
        for name, found in files.items():
            path, columns = self._stream.folder / name, self._form_of(name) == "parquet"
            if name < start.file:
                traces.put(name, trace_at(path, found, columns))
            elif name == start.file and start.is_in(found.size, first_bytes(path)):
                trace = trace_at(path, found, columns, start.offset) if start.offset else None
                if trace is not None:
                    traces.put(name, trace._replace(line=start.line, over=start.done))

    def _form_of(self, name: str) -> FileFormat | None:
        return self.format or format_of(name, rotated=True)

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

    async def _read_once(
        self, start: Place | None, pace: Pace | None
    ) -> AsyncGenerator[Arrival | None, None]:
        """Rows from `start` to the end of the last file."""
        place = start
        held: list[Rows] = []
        steps: AsyncGenerator[Rows | Place | None, None] = in_steps(self._steps(start))
        async with aclosing(steps):
            async for step in steps:
                if held and place and (pace or not self._go_together(held, step)):
                    yield _arrival(joined(held), place.as_json())
                    held = []
                if step is None:
                    yield None
                elif isinstance(step, Place):
                    place = step
                elif place is not None:
                    before, place = place, place.behind(step)
                    rows, place = without_first(step, before.skip, place)
                    if pace is None or not rows.frame.height:
                        held.append(rows)
                        continue
                    async with aclosing(self._paced(rows, before, place, pace)) as parts:
                        async for part in parts:
                            yield part
        if held and place:
            yield _arrival(joined(held), place.as_json())

    def _go_together(self, held: Sequence[Rows], step: Rows | Place | None) -> bool:
        """Whether what comes next still belongs to what is held: together they fill a parcel."""
        if not isinstance(step, Rows):
            return False
        pieces = (*held, step)
        size = sum(each.frame.estimated_size() for each in pieces)
        size += sum(len(reject.payload) for each in pieces for reject in each.rejects)
        return size <= self._batch.parcel

    def _steps(self, start: Place | None) -> Generator[Rows | Place | None, None, None]:
        """The rows of all files, those of each behind the place where they begin."""
        self._files = self._find()
        if start and start.path != self.path and start.file not in dict(self._files):
            _log.warning("%s: other files than before, read from the first", self.path)
            start = None
        for number, (name, size) in enumerate(self._files):
            self._current = (number, 0)
            if start is not None and name < start.file:
                continue
            place = self._start(name, size, start)
            yield place
            if not place.done:
                yield from self._rows_from(place)
        self._current = (len(self._files), 0)

    def _start(self, name: str, size: int, start: Place | None) -> Place:
        """Where to begin in a file, given where an earlier run stood."""
        path = self._stream.folder / name
        begin = first_bytes(path)
        place = Place.at_start(name, size, begin, self.path)
        if start is not None and name > start.file and start.file not in dict(self._files):
            _log.warning("%s: is gone, going on with %s", start.file, name)
        elif start is not None and name == start.file and start.is_in(size, begin):
            place = place._replace(
                offset=start.offset, line=start.line, done=start.done, skip=start.skip
            )
        elif start is not None and name == start.file:
            _log.warning("%s: is not the file it was, reading it from its start", name)
        trace = self._traces.files.get(name)
        if trace is None or trace.offset <= place.offset:
            return place
        if not is_same(path, trace, self._form(path) == "parquet"):
            return place
        return place._replace(offset=trace.offset, line=trace.line, skip=0)

    def _rows_from(self, place: Place) -> Generator[Rows | None, None, None]:
        """The rest of a file."""
        path = self._stream.folder / place.file
        form = self._form(path) or "ndjson"
        if form == "parquet":
            yield from self._reader.parquet(path, place.file, place.offset)
            return
        file = self._reader.open(path, form)
        for rows in self._reader.text(file, place.file, form, place.offset, place.line):
            self._current = (self._current[0], file.bytes_done())
            if rows is not None and rows.damaged:
                _log.warning("%s: %s", place.file, rows.rejects[-1].reason)
            yield rows

    async def _paced(
        self, rows: Rows, before: Place, place: Place, pace: Pace
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
            rejects = [] if first else rows.rejects
            yield _arrival(rows._replace(frame=frame, rejects=rejects), reached.as_json())

    def snapshot(self, whole: bool) -> bytes | None:
        """The fields that the first rows decided, unless the definition names them all; and what
        is to be known of files that are followed."""
        decided = self.fields()
        declared = self._record.fields is not None and self._record.extra == "drop"
        if declared:
            decided = None
        if self.follow or self._traces.files:
            if decided is not None:
                self._traces.learn_fields(decided)
            return self._traces.snapshot(whole)
        if decided is None or (self._remembered and not whole):
            return None
        self._remembered = True
        fields = {name: field.model_dump() for name, field in decided.items()}
        return json.dumps(fields).encode()

    def restore(self, states: Sequence[bytes]) -> None:
        """Take back what `snapshot` gave."""
        self._traces = Traces()
        self._traces.restore([state for state in states if state.startswith(b"[")])
        fields = [json.loads(state) for state in states if state.startswith(b"{")]
        if found := self._traces.fields or (fields[-1] if fields else None):
            self._reader.decide(found)

    def fields(self) -> Mapping[str, FieldSpec] | None:
        """What the first rows decided, or the definition."""
        return self._reader.fields()

    def status(self) -> Mapping[str, object]:
        """Progress: `bytes_done` of `bytes_total` as they lie on the disk, and the file at hand.

        With `follow` how many files there are and wait to settle, and how many bytes are to read.
        """
        if self._follower is not None:
            silent = self._silent is not None and self._clock.steady() - self._silent > _SILENT
            problem = {"problem": "the file system does not answer"} if silent else {}
            return {**self._follower.status(), **problem}
        number, inside = self._current
        sizes = [size for _, size in self._files]
        return {
            "file": self._files[number][0] if number < len(self._files) else None,
            "files": len(sizes),
            "files_done": number,
            "bytes_done": min(sum(sizes[:number]) + inside, sum(sizes)),
            "bytes_total": sum(sizes),
        }


def _arrival(rows: Rows, position: Mapping[str, object]) -> Arrival:
    text = json.dumps(position, separators=(",", ":")).encode()
    read = rows.frame.height + len(rows.rejects)
    return Arrival(rows.frame, text, read=read, rejects=rows.rejects)


def _glob(folder: Path, pattern: str) -> Iterator[Path]:
    path = Path(pattern)
    if path.is_absolute():
        return Path(path.anchor).glob(str(path.relative_to(path.anchor)))
    return folder.glob(pattern)
