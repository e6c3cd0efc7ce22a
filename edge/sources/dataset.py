"""Files on a disk: CSV, NDJSON and Parquet, plain or compressed."""

import asyncio
import csv
import json
import logging
import time
import zlib
from collections.abc import AsyncGenerator, Callable, Generator, Iterator, Mapping, Sequence
from pathlib import Path
from typing import ClassVar, Literal, NamedTuple, ParamSpec, TypeVar

import aiofiles
import polars as pl
from pydantic import Field, PrivateAttr, ValidationError

from edge.clock import Clock
from edge.codec import TIMESTAMP, Decoded, Decoder, FieldSpec, Record, Reject
from edge.component import Stream
from edge.errors import DefinitionError, Fault
from edge.lines import DAMAGE, LONGEST, Block, LineFile, split_lines
from edge.sources import Arrival, Batch, Source

_log = logging.getLogger("edge.dataset")
_FORMATS = {".csv": "csv", ".ndjson": "ndjson", ".jsonl": "ndjson", ".parquet": "parquet"}
_PACKED = (".gz", ".zst")
_PARQUET_ROWS = 50_000
_HEAD = 4096  # bytes that tell one file from another
_BOM = b"\xef\xbb\xbf"
_KEPT = 4096  # bytes kept of a line that is too long

_BEAT = 0.5  # seconds between signs of life while nothing is ready

FileFormat = Literal["csv", "ndjson", "parquet"]
_P = ParamSpec("_P")
_T = TypeVar("_T")


class _Place(NamedTuple):
    """How far a file was read. offset: bytes of the uncompressed text, or rows of Parquet.

    size, head: length of the file and CRC-32 of its first bytes, which tell whether it is still
    the same file. done: the rest of it is damaged. path: the option that led to it.
    """

    file: str
    offset: int
    line: int
    size: int
    head: int
    done: bool = False
    path: str = ""


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
    """

    finite: ClassVar[bool] = True

    path: str = Field(description="A file, a folder, or a pattern such as data/**/*.csv.gz.")
    format: FileFormat | None = Field(
        None, description="Of all files; left out, each file's ending tells: .csv, .ndjson, ..."
    )

    _record: Record = PrivateAttr()
    _folder: Path = PrivateAttr()
    _clock: Clock = PrivateAttr()
    _decoders: dict[str, Decoder] = PrivateAttr(default_factory=dict)
    _remembered: bool = PrivateAttr(default=False)
    _files: list[tuple[str, int]] = PrivateAttr(default_factory=list)
    _current: tuple[int, int] = PrivateAttr(default=(0, 0))

    def bind(
        self, record: Record, stream: Stream, identity: str, batch: Batch, clock: Clock
    ) -> pl.Schema | None:
        """Prepare to read; touches no file. Batches follow blocks of 2 MiB, not `batch`."""
        del identity, batch
        self._record, self._folder, self._clock = record, stream.folder, clock
        if record.format not in ("json", "csv"):
            raise DefinitionError(
                Fault("record.format", f"a dataset has lines or columns, got {record.format!r}")
            )
        columns = self._decoder(self.format or "ndjson").columns
        return columns and pl.Schema({**columns, "edge_received": TIMESTAMP})

    def _decoder(self, form: str) -> Decoder:
        """The decoder for files of a format; all give the same columns."""
        if form not in self._decoders:
            options = {**dict(self._record), "format": "csv" if form == "csv" else "json"}
            options["header"] = self._record.header is not False if form == "csv" else None
            try:
                decoder = Record(**options).decoder()
            except ValidationError as error:
                reasons = (each["msg"].removeprefix("Value error, ") for each in error.errors())
                raise DefinitionError(*(Fault("record", reason) for reason in reasons)) from error
            decided = self.fields()
            if decided is not None:
                decoder.fields = decided
            self._decoders[form] = decoder
        return self._decoders[form]

    async def arrivals(self, position: bytes | None) -> AsyncGenerator[Arrival | None, None]:
        """Rows from `position`; ends after the last file. Raises DefinitionError for no file."""
        start = _Place(**json.loads(position)) if position else None
        self._files = await asyncio.to_thread(self._find)
        if start and start.path != self.path and start.file not in dict(self._files):
            _log.warning("%s: other files than before, read from the first", self.path)
            start = None
        for number, (name, size) in enumerate(self._files):
            self._current = (number, 0)
            if start is not None and name < start.file:
                continue
            place = await self._start(name, size, start)
            if not place.done:
                async for arrival in self._arrivals_of(place):
                    yield arrival
        self._current = (len(self._files), 0)

    def _find(self) -> list[tuple[str, int]]:
        """Names below the definition's folder (or absolute) and sizes, in order."""
        root = self._folder / self.path
        if root.is_dir():
            found = [each for each in root.rglob("*") if self._form(each)]
        elif root.is_file():
            found = [root]
        else:
            found = [each for each in _glob(self._folder, self.path) if each.is_file()]
        if not found:
            message = f"no file is at {str(root)!r}; relative paths start at the definition"
            raise DefinitionError(Fault("source.dataset.path", message))
        unknown = [each for each in found if not self._form(each)]
        if unknown:
            known = ", ".join([*_FORMATS, *_PACKED])
            message = f"the ending tells no format ({known}), got {unknown[0].name!r}; set format"
            raise DefinitionError(Fault("source.dataset.path", message))
        return sorted((self._name(each), each.stat().st_size) for each in found)

    def _form(self, path: Path) -> str | None:
        if self.format:
            return self.format if path.is_file() else None
        name = path.with_suffix("") if path.suffix in _PACKED else path
        form = _FORMATS.get(name.suffix)
        return None if form == "parquet" and name is not path else form

    def _name(self, path: Path) -> str:
        inside = path.is_relative_to(self._folder)
        return str(path.relative_to(self._folder) if inside else path)

    async def _start(self, name: str, size: int, start: _Place | None) -> _Place:
        """Where to begin in a file, given where an earlier run stood."""
        async with aiofiles.open(self._folder / name, "rb") as file:
            begin = await file.read(_HEAD)
        fresh = _Place(name, 0, 0, size, zlib.crc32(begin))
        if start is None or name > start.file:
            if start is not None and start.file not in dict(self._files):
                _log.warning("%s: is gone, going on with %s", start.file, name)
            return fresh
        same = size >= start.size and zlib.crc32(begin[: start.size]) == start.head
        if not same:
            _log.warning("%s: is not the file it was, reading it from its start", name)
            return fresh
        return fresh._replace(offset=start.offset, line=start.line, done=start.done)

    async def _arrivals_of(self, place: _Place) -> AsyncGenerator[Arrival | None, None]:
        form = self._form(self._folder / place.file) or ""
        batches = self._parquet(place) if form == "parquet" else self._text(place, form)
        yielded = time.monotonic()
        try:
            while not isinstance(arrival := await _in_thread(next, batches, "end"), str):
                if arrival is not None or time.monotonic() - yielded > _BEAT:
                    yielded = time.monotonic()
                    yield arrival
        finally:
            batches.close()

    def _text(self, place: _Place, form: str) -> Generator[Arrival | None, None, None]:
        """Batches of a file of lines; None now and then on the way to `place`."""
        decoder = self._decoder(form)
        file = LineFile(self._folder / place.file, quoted=form == "csv")
        try:
            header = self._header(file) if form == "csv" else ()
            while place.offset > file.offset and not file.skip_to(place.offset, place.line):
                yield None
            line = file.line
            while (block := file.read()) is not None:
                self._current = (self._current[0], file.bytes_done())
                yield self._arrival(place, decoder, block, header, line)
                line = block.line
        except DAMAGE as error:
            yield self._damaged(place, file, error)
        finally:
            file.close()

    def _header(self, file: LineFile) -> Sequence[str]:
        """The columns of a CSV file; the file then stands behind its header."""
        if self._record.header is False:
            return list(self._decoder("csv").fields or ())
        line = file.first_line().removeprefix(_BOM).decode(errors="replace")
        return next(csv.reader([line]), [])

    def _arrival(
        self, place: _Place, decoder: Decoder, block: Block, header: Sequence[str], start: int
    ) -> Arrival:
        """A block as rows. start: line number of its first line, counted from 0."""
        reached = place._replace(offset=block.offset, line=block.line)
        if block.too_long:
            reason = f"line is longer than {LONGEST // 2**20} MiB"
            reject = Reject(reason, block.text[:_KEPT], f"{place.file}:{start + 1}")
            return self._handed(None, [reject], reached)
        text = block.text.replace(b"\r\n", b"\n") if b"\r" in block.text else block.text
        if block.offset == len(block.text):
            text = text.removeprefix(_BOM)
        decoded = decoder.decode_lines(text, None, header)
        if decoded is not None:
            return self._handed(decoded, [], reached)
        numbered = list(_numbered(split_lines(text, bool(header)), start + 1))
        lines = [line for _, line in numbered]
        decoded = decoder.decode_lines(text, lines, header)
        assert decoded is not None
        rejects = [
            Reject(reason, lines[index], f"{place.file}:{numbered[index][0]}")
            for index, reason in decoded.rejects
        ]
        return self._handed(decoded, rejects, reached)

    def _handed(self, decoded: Decoded | None, rejects: Sequence[Reject], place: _Place) -> Arrival:
        frame = decoded.frame if decoded else pl.DataFrame(schema=self._known_columns())
        now = pl.Series("edge_received", [self._clock.now()], dtype=pl.Int64).cast(TIMESTAMP)
        frame = frame.with_columns(now.new_from_index(0, frame.height))
        reached = place._replace(path=self.path)
        position = json.dumps(reached._asdict(), separators=(",", ":")).encode()
        return Arrival(frame, position, read=frame.height + len(rejects), rejects=rejects)

    def _known_columns(self) -> pl.Schema:
        known = (decoder.columns for decoder in self._decoders.values())
        return next((columns for columns in known if columns), pl.Schema())

    def _damaged(self, place: _Place, file: LineFile, error: Exception) -> Arrival:
        """What is left of a damaged file is one reject, and told once."""
        _log.warning("%s: is damaged after %d bytes: %s", place.file, file.offset, error)
        reject = Reject(f"file is damaged: {error}", b"", f"{place.file}:{file.line + 1}")
        reached = place._replace(offset=file.offset, line=file.line, done=True)
        return self._handed(None, [reject], reached)

    def _parquet(self, place: _Place) -> Generator[Arrival | None, None, None]:
        decoder = self._decoder("parquet")
        rows = pl.scan_parquet(self._folder / place.file).slice(place.offset)
        offset = place.offset
        for frame in rows.collect_batches(chunk_size=_PARQUET_ROWS, maintain_order=True):
            decoded = decoder.decode_frame(frame)
            rejects = [
                Reject(
                    reason, repr(frame.row(index)).encode(), f"{place.file}:{offset + index + 1}"
                )
                for index, reason in decoded.rejects
            ]
            offset += frame.height
            yield self._handed(decoded, rejects, place._replace(offset=offset, line=offset))

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
            for decoder in self._decoders.values():
                decoder.fields = json.loads(state)

    def fields(self) -> Mapping[str, FieldSpec] | None:
        """What the first rows decided, or the definition."""
        return next((each.fields for each in self._decoders.values() if each.fields), None)

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


async def _in_thread(call: Callable[_P, _T], *args: _P.args, **kwargs: _P.kwargs) -> _T:
    """`asyncio.to_thread` that is over when it returns: a cancelled caller still waits for it."""
    running = asyncio.ensure_future(asyncio.to_thread(call, *args, **kwargs))
    try:
        return await asyncio.shield(running)
    except asyncio.CancelledError:
        await asyncio.wait([running])
        raise


def _numbered(lines: Sequence[bytes], first: int) -> Iterator[tuple[int, bytes]]:
    """Lines that are not blank, with their numbers; a line may hold line breaks of its own."""
    number = first
    for line in lines:
        if line.strip():
            yield number, line
        number += 1 + line.count(b"\n")


def _glob(folder: Path, pattern: str) -> Iterator[Path]:
    path = Path(pattern)
    if path.is_absolute():
        return Path(path.anchor).glob(str(path.relative_to(path.anchor)))
    return folder.glob(pattern)
