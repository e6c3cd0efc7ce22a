"""CSV text -> columns of text, a payload or a line at a time in doubt, all together otherwise."""

import csv
from collections.abc import Sequence

import polars as pl

from edge.codec.rows import Raw

_FAILURES = (pl.exceptions.PolarsError, pl.exceptions.PanicException, OSError)
_ZLIB = (b"x\x01", b"x\x5e")  # what else begins like compressed data is not UTF-8


class CellReader:
    """Reads lines of CSV (RFC 4180: commas, double quotes) into one text column per field."""

    def __init__(self, names: Sequence[str]) -> None:
        self._names = list(names)

    def read(self, payloads: Sequence[bytes], header: bool) -> Raw:
        """One row for each line of each payload. header: each payload's first line names columns.

        Without a header every line has one cell for each field, in the order of the fields.
        """
        if not header:
            frame = self.read_lines(b"\n".join(payloads), self._names, len(payloads))
            if frame is not None:
                return Raw(frame)
        return self.read_singly(payloads, None if header else self._names)

    def read_lines(self, block: bytes, columns: Sequence[str], count: int) -> pl.DataFrame | None:
        """`count` lines at once; None where quotes, blank lines or misfits want a closer look."""
        if b'"' in block or b"\r" in block or block.startswith((b"\n", *_ZLIB)):
            return None
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
        # A line that is too short ends in null, an empty cell is "".
        if frame.height != count or (columns and frame.to_series(-1).null_count()):
            return None
        return self._named(frame, columns)

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
        schema = dict.fromkeys(self._names, pl.String)
        frame = pl.DataFrame(rows, schema=schema, orient="row")
        return Raw(_nulled(frame), pl.Series(origin, dtype=pl.UInt32), rejects)

    def _lines(self, payload: bytes, columns: Sequence[str] | None) -> list[list[str | None]]:
        """The cells of each line, in the order of the fields. Raises ValueError and csv.Error."""
        try:
            text = payload.decode()
        except UnicodeDecodeError as error:
            raise ValueError(
                f"payload is not UTF-8: {error.reason} at byte {error.start}"
            ) from None
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
            [cells[place[name]] if name in place else None for name in self._names]
            for cells in lines
        ]

    def _named(self, frame: pl.DataFrame, columns: Sequence[str]) -> pl.DataFrame:
        place = {name: str(number) for number, name in enumerate(columns)}
        return _nulled(
            frame.select(
                (pl.col(place[name]) if name in place else pl.lit(None, pl.String)).alias(name)
                for name in self._names
            )
        )


def _nulled(frame: pl.DataFrame) -> pl.DataFrame:
    """`frame` with null for every empty cell."""
    empty = [name for name in frame.columns if (frame[name] == "").any()]
    return frame.with_columns(
        pl.when(pl.col(name) != "").then(pl.col(name)).alias(name) for name in empty
    )
