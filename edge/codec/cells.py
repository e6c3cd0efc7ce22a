"""CSV text -> columns of text, a payload or a line at a time in doubt, all together otherwise."""

import csv
import io
from collections.abc import Mapping, Sequence

import polars as pl

from edge.codec.rows import Raw, not_utf8

_FAILURES = (pl.exceptions.PolarsError, pl.exceptions.PanicException, OSError)
_ZLIB = (b"x\x01", b"x\x5e")  # what else begins like compressed data is not UTF-8


class CellReader:
    """Reads lines of CSV (RFC 4180: commas, double quotes) into one text column per field.

    fields: the column of each field, by the field's name.
    """

    def __init__(self, fields: Mapping[str, str]) -> None:
        self._fields = fields

    def read(self, payloads: Sequence[bytes], header: bool) -> Raw:
        """One row for each line of each payload. header: each payload's first line names columns.

        Without a header every line has one cell for each field, in the order of the fields.
        """
        columns = list(self._fields.values())
        if not header:
            frame = self.read_lines(b"\n".join(payloads), columns)
            if frame is not None and frame.height == len(payloads):
                return Raw(frame)
        return self.read_singly(payloads, None if header else columns)

    def read_lines(self, block: bytes, columns: Sequence[str]) -> pl.DataFrame | None:
        """Lines at once, blank ones skipped; None where one of them has to be rejected."""
        if b'"' in block or b"\r" in block or block.startswith(_ZLIB):
            return self._read_quoted(block, columns)
        try:
            frame = pl.read_csv(
                block,
                has_header=False,
                schema=dict.fromkeys(map(str, range(len(columns))), pl.String),
                quote_char=None,
                empty_string_is_null=False,
            )
        except _FAILURES:
            return None
        lines = block.count(b"\n") + (not block.endswith(b"\n"))
        # A line that is too short ends in null, an empty cell is "".
        if frame.height != lines or (columns and frame.to_series(-1).null_count()):
            return self._read_quoted(block, columns)
        place = {name: str(number) for number, name in enumerate(columns)}
        found = {
            name: frame[place[column]] if column in place else _nothing(frame.height)
            for name, column in self._fields.items()
        }
        return _nulled(pl.DataFrame(found))

    def _read_quoted(self, block: bytes, columns: Sequence[str]) -> pl.DataFrame | None:
        try:
            reader = csv.reader(io.StringIO(block.decode(), newline=""), strict=True)
            lines = [line for line in reader if line]
        except (UnicodeDecodeError, csv.Error):
            return None
        if any(len(line) != len(columns) for line in lines):
            return None
        cells = dict(zip(columns, zip(*lines, strict=True), strict=False))
        found = {
            name: pl.Series(cells[column], dtype=pl.String)
            if column in cells
            else _nothing(len(lines))
            for name, column in self._fields.items()
        }
        return _nulled(pl.DataFrame(found))

    def read_singly(self, payloads: Sequence[bytes], columns: Sequence[str] | None) -> Raw:
        """One row for each line of each payload.

        columns: those of every line; None if each payload's first line names its own.
        """
        rows: list[list[str | None]] = []
        origin: list[int] = []
        rejects: dict[int, str] = {}
        for index, payload in enumerate(payloads):
            try:
                found = self._lines(payload, columns)
            except (ValueError, csv.Error) as error:
                rejects[index] = str(error)
                continue
            rows += found
            origin += [index] * len(found)
        schema = dict.fromkeys(self._fields, pl.String)
        frame = pl.DataFrame(rows, schema=schema, orient="row")
        return Raw(_nulled(frame), pl.Series(origin, dtype=pl.UInt32), rejects)

    def _lines(self, payload: bytes, columns: Sequence[str] | None) -> list[list[str | None]]:
        """The cells of each line, in the order of the fields. Raises ValueError and csv.Error."""
        if reason := not_utf8(payload):
            raise ValueError(reason)
        text = payload.decode()
        lines = [line for line in csv.reader(text.splitlines(True), strict=True) if line]
        if columns is None and lines:
            columns = lines.pop(0)
        if not lines or columns is None:
            raise ValueError("payload has no line of CSV")
        for cells in lines:
            if len(cells) != len(columns):
                raise ValueError(f"line must have {len(columns)} cells, got {len(cells)}")
        place = {name: number for number, name in enumerate(columns)}
        return [
            [cells[place[column]] if column in place else None for column in self._fields.values()]
            for cells in lines
        ]


def _nothing(rows: int) -> pl.Series:
    return pl.repeat(None, rows, dtype=pl.String, eager=True)


def _nulled(frame: pl.DataFrame) -> pl.DataFrame:
    """`frame` with null for every empty cell."""
    empty = [name for name in frame.columns if (frame[name] == "").any()]
    return frame.with_columns(
        pl.when(pl.col(name) != "").then(pl.col(name)).alias(name) for name in empty
    )
