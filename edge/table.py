"""A file of rows that are found by their key: read whole and well, or not at all."""

import csv
import io
from collections.abc import Mapping, Sequence
from difflib import get_close_matches
from pathlib import Path
from typing import Any, Literal, NamedTuple

import orjson
import polars as pl
from polars.exceptions import PolarsError
from pydantic import ValidationError

from edge.codec import Decoded, Decoder, FieldSpec, Record
from edge.component import format_size
from edge.errors import DefinitionError, FileFault
from edge.lines import split_lines

TableFormat = Literal["csv", "json", "ndjson", "parquet"]
ENDINGS: Mapping[str, TableFormat] = {
    ".csv": "csv",
    ".json": "json",
    ".ndjson": "ndjson",
    ".jsonl": "ndjson",
    ".parquet": "parquet",
}
_BOM = b"\xef\xbb\xbf"

Mark = tuple[int, int, int]
"""Inode, size and time of change of a file: with another mark it may have other content."""


class Table(NamedTuple):
    """rows: the number of the row of each key (`keys_of`). values: the columns besides the keys."""

    rows: Mapping[Any, int]
    values: pl.DataFrame


class _Content(NamedTuple):
    """What was read. names: the columns there are, where the format says so. first: line of the
    first row, 0 where rows are not lines."""

    decoded: Decoded
    names: Sequence[str] | None = None
    first: int = 0


class TableFile(NamedTuple):
    """Where a table lies, what is read of it under which name, and how large it may be."""

    path: Path
    form: TableFormat
    keys: Mapping[str, FieldSpec]
    columns: Mapping[str, FieldSpec]
    max_rows: int
    max_size: int

    def mark(self) -> Mark | None:
        """None while there is no file."""
        try:
            found = self.path.stat()
        except OSError:
            return None
        return found.st_ino, found.st_size, found.st_mtime_ns

    def fields(self) -> Mapping[str, FieldSpec]:
        """All columns of the file with the types that its first rows show. Raises as `read`."""
        decoder = self._decoder(None)
        content = self._content(decoder)
        if not decoder.fields:
            raise self._fault(_first_reason(content) or "no rows are there")
        return decoder.fields

    def read(self) -> Table:
        """The whole file.

        Raises FileFault when it is not there, too large, lacks a column, has no row, a row that
        does not fit the types, or two rows of one key; DefinitionError for a folder.
        """
        content = self._content(self._decoder({**self.keys, **self.columns}))
        frame = content.decoded.frame
        self._require_columns(content.names, frame)
        if content.decoded.rejects:
            raise self._fault(_first_reason(content))
        if not frame.height:
            raise self._fault("no rows are there")
        if frame.height > self.max_rows:
            raise self._fault(f"must have at most max_rows {self.max_rows}, got {frame.height}")
        keys = keys_of(frame, list(self.keys))
        rows = {key: number for number, key in enumerate(keys)}
        if len(rows) < len(keys):
            twice = next(key for number, key in enumerate(keys) if rows[key] != number)
            raise self._fault(f"must have one row for each key, got two for {twice!r}")
        return Table(rows, frame.select(list(self.columns)))

    def _decoder(self, fields: Mapping[str, FieldSpec] | None) -> Decoder:
        options = {"format": "csv", "header": True} if self.form == "csv" else {}
        try:
            return Record(fields=fields, **options).decoder()
        except ValidationError as error:  # such as two columns read from one
            reasons = (each["msg"].removeprefix("Value error, ") for each in error.errors())
            raise DefinitionError(f"{self._where}: {'; '.join(reasons)}") from error

    def _content(self, decoder: Decoder) -> _Content:
        data = self._bytes()
        try:
            return _READERS[self.form](data, decoder)
        except (PolarsError, orjson.JSONDecodeError, csv.Error, ValueError) as error:
            raise self._fault(f"must be {self.form}: {error}") from error

    def _bytes(self) -> bytes:
        try:
            size = self.path.stat().st_size
            if size > self.max_size:
                most, got = format_size(self.max_size), format_size(size)
                raise self._fault(f"must have at most max_size {most}, got {got}")
            return self.path.read_bytes()
        except IsADirectoryError as error:
            raise DefinitionError(f"{self._where}: must be a file, got a folder") from error
        except OSError as error:
            raise self._fault(
                f"cannot be read: {error.strerror}; relative paths start at the definition"
            ) from error

    def _require_columns(self, names: Sequence[str] | None, frame: pl.DataFrame) -> None:
        """A column that is nowhere is a mistake, not a null for everybody."""
        for name, field in {**self.keys, **self.columns}.items():
            column = field.path or name
            if names is None:
                there = frame[name].null_count() < frame.height or not frame.height
            else:
                there = column in names
            if not there:
                raise self.no_column(column, names)

    def no_column(self, name: str, names: Sequence[str] | None) -> FileFault:
        """What to say of a column that is not among `names`; None: in none of the rows."""
        has = " in any row" if names is None else f", which has {', '.join(names)}"
        near = get_close_matches(name, names or (), 1)
        hint = f"; did you mean {near[0]!r}?" if near else ""
        return self._fault(f"no column {name!r} is in the file{has}{hint}")

    def _fault(self, what: str) -> FileFault:
        return FileFault(f"{self._where}: {what}")

    @property
    def _where(self) -> str:
        return f"lookup {str(self.path)!r}"


def keys_of(frame: pl.DataFrame, names: Sequence[str]) -> list[Any]:
    """What a row is found by: its value, or a tuple where the key has several columns."""
    columns = [frame[name].to_physical().to_list() for name in names]
    return columns[0] if len(columns) == 1 else list(zip(*columns, strict=True))


def _first_reason(content: _Content) -> str:
    if not content.decoded.rejects:
        return ""
    index, reason = content.decoded.rejects[0]
    place = f"line {content.first + index}" if content.first else f"row {index + 1}"
    others = len(content.decoded.rejects) - 1
    return f"{place}: {reason}" + (f", and {others} more" if others else "")


def _read_csv(data: bytes, decoder: Decoder) -> _Content:
    text = data.removeprefix(_BOM).replace(b"\r\n", b"\n")
    head, _, rows = text.partition(b"\n")
    header = next(csv.reader([head.decode()]), [])
    return _Content(_lines(rows, decoder, header), header, 2)


def _read_ndjson(data: bytes, decoder: Decoder) -> _Content:
    return _Content(_lines(data.removeprefix(_BOM), decoder, ()), None, 1)


def _lines(text: bytes, decoder: Decoder, header: Sequence[str]) -> Decoded:
    quick = decoder.decode_lines(text, None, header) if text.strip() else None
    if quick is not None:
        return quick
    lines = [line for line in split_lines(text, bool(header)) if line.strip()]
    slow = decoder.decode_lines(text, lines, header) if decoder.fields is not None else None
    return slow or decoder.decode(lines)


def _read_json(data: bytes, decoder: Decoder) -> _Content:
    rows = orjson.loads(data)
    if not isinstance(rows, list):
        raise ValueError(f"must be an array of objects, got {type(rows).__name__}")
    return _Content(decoder.decode([orjson.dumps(row) for row in rows]))


def _read_parquet(data: bytes, decoder: Decoder) -> _Content:
    frame = pl.read_parquet(io.BytesIO(data))
    return _Content(decoder.decode_frame(frame), frame.columns)


_READERS = {
    "csv": _read_csv,
    "json": _read_json,
    "ndjson": _read_ndjson,
    "parquet": _read_parquet,
}
