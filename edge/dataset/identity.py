"""Whether a file is one that was read before, whatever it is called now."""

import os
from pathlib import Path

import polars as pl
from xxhash import xxh3_64_intdigest

from edge.dataset.find import Found
from edge.dataset.rows import PACKED
from edge.dataset.traces import Trace
from edge.lines import DAMAGE, HEAD, TAIL, LineFile

_ALL = 2**62  # farther than any file reaches


def is_packed(path: Path) -> bool:
    """Whether the file is compressed as a whole."""
    return path.suffix in PACKED


def beginning(path: Path, columns: bool) -> bytes:
    """The first bytes of the text of a file; columns: of a Parquet file, as they are."""
    if columns:
        with path.open("rb") as raw:
            return raw.read(HEAD)
    file = LineFile(path)
    try:
        return file.head(HEAD)
    except DAMAGE:
        return b""
    finally:
        file.close()


def is_same(path: Path, trace: Trace, columns: bool) -> bool:
    """Whether a file begins with what was read of the one that `trace` is of.

    Reads a few KiB, of a compressed file all before the place. Raises OSError.
    """
    if columns:
        head, tail, size = _ends(path)
        return (size, _hash(head), _hash(tail)) == (trace.size, trace.head, trace.tail)
    begin = beginning(path, False)[: trace.known]
    if len(begin) < trace.known or _hash(begin) != trace.head:
        return False
    file = LineFile(path)
    try:
        _skip(file, trace.offset)
        return file.mark.offset == trace.offset and file.mark.tail == trace.tail
    except DAMAGE:
        return False
    finally:
        file.close()


def trace_of_text(file: LineFile, found: Found, over: bool = False) -> Trace:
    """A file of lines, read to where `file` stands. found: as it was when it was opened."""
    mark = file.mark
    known = min(mark.offset, HEAD)
    line, stat = file.line, (found.inode, found.size, found.mtime)
    return Trace(mark.offset, line, known, mark.head, mark.tail, *stat, over=over)


def trace_of_columns(path: Path, rows: int, found: Found) -> Trace:
    """A Parquet file, of which so many rows are read."""
    head, tail, size = _ends(path)
    stat = (found.inode, size, found.mtime)
    return Trace(rows, rows, len(head), _hash(head), _hash(tail), *stat)


def trace_at(path: Path, found: Found, columns: bool, offset: int | None = None) -> Trace:
    """A file read up to `offset`, or to its end."""
    if columns:
        rows = pl.scan_parquet(path).select(pl.len()).collect().item() if offset is None else offset
        return trace_of_columns(path, rows, found)._replace(over=offset is None)
    file = LineFile(path)
    try:
        _skip(file, offset or (_ALL if is_packed(path) else found.size))
        return trace_of_text(file, found, over=offset is None)
    finally:
        file.close()


def _skip(file: LineFile, offset: int) -> None:
    while file.offset < offset and not file.skip_to(offset, 0):
        pass


def _ends(path: Path) -> tuple[bytes, bytes, int]:
    """The first and the last bytes of a file, and its length."""
    with path.open("rb") as raw:
        head = raw.read(HEAD)
        size = raw.seek(0, os.SEEK_END)
        raw.seek(max(0, size - TAIL))
        return head, raw.read(TAIL), size


def _hash(text: bytes) -> int:
    return xxh3_64_intdigest(text)
