"""Rows out of one file, lines or Parquet, decoded and checked, from any place on."""

import csv
import re
from collections.abc import Callable, Generator, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, Literal, NamedTuple

import polars as pl
from pydantic import ValidationError

from edge.clock import Clock
from edge.codec import TIMESTAMP, Decoded, Decoder, FieldSpec, Record, Reject
from edge.errors import DefinitionError, Fault
from edge.lines import DAMAGE, LONGEST, Block, LineFile, split_lines

FileFormat = Literal["csv", "ndjson", "parquet"]
FORMATS: Mapping[str, FileFormat] = {
    ".csv": "csv",
    ".ndjson": "ndjson",
    ".jsonl": "ndjson",
    ".parquet": "parquet",
}
PACKED = (".gz", ".zst")
PARQUET_ROWS = 50_000

_ROTATED = re.compile(r"([.-]\d[\d.:_-]*|\.old)$")  # what logrotate and loggers append
_BOM = b"\xef\xbb\xbf"
_KEPT = 4096  # bytes kept of a line that is too long


class Rows(NamedTuple):
    """What one step in a file gives.

    frame: the rows, with `edge_received`. offset, line: where the next step begins, in bytes and
    lines of the uncompressed text, or in rows of Parquet. damaged: there is no next step.
    """

    frame: pl.DataFrame
    rejects: Sequence[Reject]
    offset: int
    line: int
    damaged: bool = False


def joined(pieces: Sequence[Rows]) -> Rows:
    """One piece of several; where no row is read yet, a frame may have no columns."""
    if len(pieces) == 1:
        return pieces[0]
    frames = [each.frame for each in pieces if each.frame.width] or [pieces[0].frame]
    rejects = [reject for each in pieces for reject in each.rejects]
    return pieces[-1]._replace(frame=pl.concat(frames, how="diagonal_relaxed"), rejects=rejects)


def format_of(name: str, rotated: bool = False) -> FileFormat | None:
    """What the ending of a file's name tells; rotated: also that of `app.csv.1`, `app.csv-2024`."""
    packed = name.endswith(PACKED)
    bare = name[: name.rindex(".")] if packed else name
    form = _format_at_end(bare)
    if form is None and rotated and (match := _ROTATED.search(bare)):
        form = _format_at_end(bare[: match.start()])
    return None if form == "parquet" and packed else form


def _format_at_end(name: str) -> FileFormat | None:
    dot = name.rfind(".")
    return FORMATS.get(name[dot:]) if dot > 0 else None


class RowReader:
    """Reads files of one record; all formats give the same columns. One thread at a time."""

    def __init__(
        self,
        record: Record,
        clock: Clock,
        fields: Mapping[str, FieldSpec] | None = None,
        most: int = 16 * 2**20,
    ) -> None:
        """fields: what an earlier reader found the first rows to consist of.

        most: bytes of Parquet rows, as they are in memory, that are given together.
        """
        self._record, self._clock, self._decided, self._most = record, clock, fields, most
        self._decoders: dict[str, Decoder] = {}

    def decoder(self, form: FileFormat) -> Decoder:
        """The decoder for files of a format. Raises DefinitionError where the record forbids it."""
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

    def fields(self) -> Mapping[str, FieldSpec] | None:
        """What the first rows decided, or the definition."""
        return next((each.fields for each in self._decoders.values() if each.fields), self._decided)

    def decide(self, fields: Mapping[str, Any]) -> None:
        """Take what an earlier run found: FieldSpec objects or what their `model_dump` gave."""
        self._decided = {name: FieldSpec.model_validate(field) for name, field in fields.items()}
        for decoder in self._decoders.values():
            decoder.fields = self._decided

    def nothing(self) -> Rows:
        """No rows, where something else is to be committed."""
        return self._rows(None, [], 0, 0)

    def open(self, path: Path, form: FileFormat, whole: bool = True) -> LineFile:
        """A file of lines; `whole` as in LineFile."""
        return LineFile(path, quoted=form == "csv", whole=whole)

    def text(
        self,
        file: LineFile,
        name: str,
        form: FileFormat,
        offset: int,
        line: int,
        is_over: Callable[[bytes], bool] = bool,
    ) -> Generator[Rows | None, None, None]:
        """Rows from `offset` on, whose line number is `line`; None now and then on the way there.

        name: of the file, for rejects. is_over: asked at the end of a file that is not `whole`,
        whether what stands there without a line break is a line all the same. Closes the file.
        """
        decoder = self.decoder(form)
        try:
            header = self._header(file) if form == "csv" else ()
            if form == "csv" and self._record.header is not False and not file.offset:
                return  # its first line is still written
            while offset > file.offset and not file.skip_to(offset, line):
                yield None
            line, inside = file.line, file.inside_line
            while (block := file.read() or _last(file, is_over)) is not None:
                rejects: list[Reject] = []
                if inside:
                    block, rejects = _without_rest(block, name, line)
                yield self._rows_of(block, decoder, name, header, line, rejects)
                line, inside = block.line, False
        except DAMAGE as error:
            yield self._damaged(name, error, file.offset, file.line)
        finally:
            file.close()

    def _header(self, file: LineFile) -> Sequence[str]:
        """The columns of a CSV file; the file then stands behind its header."""
        if self._record.header is False:
            return list(self.decoder("csv").fields or ())
        line = file.first_line().removeprefix(_BOM).decode(errors="replace")
        return next(csv.reader([line]), [])

    def _rows_of(
        self,
        block: Block,
        decoder: Decoder,
        name: str,
        header: Sequence[str],
        start: int,
        rejects: list[Reject],
    ) -> Rows:
        """A block as rows. start: line number of its first line, counted from 0."""
        if block.too_long:
            reason = f"line is longer than {LONGEST // 2**20} MiB"
            rejects.append(Reject(reason, block.text[:_KEPT], f"{name}:{start + 1}"))
            return self._rows(None, rejects, block.offset, block.line)
        text = block.text.replace(b"\r\n", b"\n") if b"\r" in block.text else block.text
        if block.offset == len(block.text):
            text = text.removeprefix(_BOM)
        if not text:
            return self._rows(None, rejects, block.offset, block.line)
        decoded = decoder.decode_lines(text, None, header)
        if decoded is None:
            numbered = list(_numbered(split_lines(text, bool(header)), start + 1))
            lines = [line for _, line in numbered]
            decoded = decoder.decode_lines(text, lines, header)
            assert decoded is not None
            rejects += [
                Reject(reason, lines[index], f"{name}:{numbered[index][0]}")
                for index, reason in decoded.rejects
            ]
        return self._rows(decoded, rejects, block.offset, block.line)

    def _rows(
        self, decoded: Decoded | None, rejects: Sequence[Reject], offset: int, line: int
    ) -> Rows:
        frame = decoded.frame if decoded else pl.DataFrame(schema=self._known_columns())
        now = pl.Series("edge_received", [self._clock.now()], dtype=pl.Int64).cast(TIMESTAMP)
        frame = frame.with_columns(now.new_from_index(0, frame.height))
        return Rows(frame, rejects, offset, line)

    def _known_columns(self) -> pl.Schema:
        known = (decoder.columns for decoder in self._decoders.values())
        return next((columns for columns in known if columns), pl.Schema())

    def _damaged(self, name: str, error: Exception, offset: int, line: int) -> Rows:
        """What is left of a damaged file is one reject, and told once."""
        reject = Reject(f"file is damaged: {error}", b"", f"{name}:{line + 1}")
        return self._rows(None, [reject], offset, line)._replace(damaged=True)

    def parquet(self, path: Path, name: str, offset: int) -> Generator[Rows, None, None]:
        """Rows of a Parquet file from the row `offset` on."""
        decoder = self.decoder("parquet")
        try:
            rows = pl.scan_parquet(path).slice(offset)
            batches = rows.collect_batches(chunk_size=PARQUET_ROWS, maintain_order=True)
            for frame in (part for batch in batches for part in _parts(batch, self._most)):
                decoded = decoder.decode_frame(frame)
                rejects = [
                    Reject(reason, repr(frame.row(index)).encode(), f"{name}:{offset + index + 1}")
                    for index, reason in decoded.rejects
                ]
                offset += frame.height
                yield self._rows(decoded, rejects, offset, offset)
        except pl.exceptions.PolarsError as error:
            yield self._damaged(name, error, offset, offset)


def _parts(frame: pl.DataFrame, most: int) -> Iterator[pl.DataFrame]:
    """Rows of at most about `most` bytes each time."""
    number = -(-int(frame.estimated_size()) // most)
    return frame.iter_slices(max(1, frame.height // max(1, number)))


def _last(file: LineFile, is_over: Callable[[bytes], bool]) -> Block | None:
    if not file.rest or not is_over(file.rest):
        return None
    file.finish()
    return file.read()


def _numbered(lines: Sequence[bytes], first: int) -> Iterator[tuple[int, bytes]]:
    """Lines that are not blank, with their numbers; a line may hold line breaks of its own."""
    number = first
    for line in lines:
        if line.strip():
            yield number, line
        number += 1 + line.count(b"\n")


def _without_rest(block: Block, name: str, line: int) -> tuple[Block, list[Reject]]:
    """A block without the rest of a line whose beginning was taken before it was whole."""
    rest, end, others = block.text.partition(b"\n")
    if not rest.strip():
        return block, []
    reason = "continues a line that was taken when it had long stayed without its end"
    reject = Reject(reason, rest[:_KEPT], f"{name}:{line + 1}")
    return block._replace(text=others if end else b"", too_long=False), [reject]
