"""How far a reading came that takes files once, in the order of their names."""

import zlib
from pathlib import Path
from typing import NamedTuple

from edge.dataset.rows import Rows

_HEAD = 4096  # bytes that tell one file from another


class Place(NamedTuple):
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

    @classmethod
    def at_start(cls, file: str, size: int, begin: bytes, path: str) -> "Place":
        """Nothing of the file is read; it begins with `begin`."""
        return cls(file, 0, 0, size, zlib.crc32(begin), path=path)

    def is_in(self, size: int, begin: bytes) -> bool:
        """Whether a file of that size, which begins so, is the one that was read."""
        return size >= self.size and zlib.crc32(begin[: self.size]) == self.head

    def behind(self, rows: Rows) -> "Place":
        """The place where the next rows begin."""
        return self._replace(offset=rows.offset, line=rows.line, done=rows.damaged, skip=0)

    def as_json(self) -> dict[str, object]:
        """What `Place(**...)` takes."""
        return {name: value for name, value in self._asdict().items() if value or name != "skip"}


def first_bytes(path: Path) -> bytes:
    """What `Place` compares."""
    with path.open("rb") as file:
        return file.read(_HEAD)


def without_first(rows: Rows, skip: int, place: Place) -> tuple[Rows, Place]:
    """Without rows, and the rejects among them, that were handed over; the rest of `skip` stays."""
    if not skip:
        return rows, place
    left = max(0, skip - rows.frame.height)
    return rows._replace(frame=rows.frame[skip:], rejects=[]), place._replace(skip=left)
