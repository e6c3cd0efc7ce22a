"""Whole lines out of a file, plain or compressed, from any offset, in bounded memory."""

import gzip
import sys
import zlib
from pathlib import Path
from typing import IO, NamedTuple, cast

if sys.version_info >= (3, 14):
    from compression import zstd
else:
    from backports import zstd

BLOCK = 3 * 2**20
LONGEST = 16 * 2**20  # bytes of one line; a longer one is cut off
DAMAGE = (EOFError, gzip.BadGzipFile, zlib.error, zstd.ZstdError)
"""What reading raises when a compressed file is cut off or damaged."""


class Block(NamedTuple):
    """Lines as they stand in the file, line breaks included; the last of a file may lack its own.

    offset, line: where the next block starts, in bytes and lines of the uncompressed file.
    too_long: the block is the beginning of a line longer than LONGEST, the rest of it is skipped.
    """

    text: bytes
    offset: int
    line: int
    too_long: bool = False


class LineFile:
    """A file read forwards, block by block. All calls block; one thread at a time.

    quoted: a line break inside double quotes does not end a line (CSV). A quote that is never
    closed would swallow the file: when no line ends within BLOCK bytes, the first line break does.
    """

    def __init__(self, path: Path, quoted: bool = False) -> None:
        self._raw: IO[bytes] = path.open("rb")
        self._file = _unpacked(self._raw, path.suffix)
        self._quoted = quoted
        self._rest = b""
        self._ended = False
        self.offset = 0
        self.line = 0

    def close(self) -> None:
        """Release the file."""
        self._file.close()
        self._raw.close()

    def bytes_done(self) -> int:
        """How much of the file, as it lies on the disk, was read."""
        return self._raw.tell()

    def first_line(self) -> bytes:
        """The first line, wherever the reading stands; afterwards it stands behind that line."""
        self._file.seek(0)
        self._rest, self._ended = b"", False
        self.offset, self.line = 0, 0
        text = self._file.read(BLOCK)
        end = self._end_of_first(text)
        self._rest, self._ended = text[end:], len(text) < BLOCK
        self.offset, self.line = end, text.count(b"\n", 0, end)
        return text[:end]

    def skip_to(self, offset: int, line: int) -> bool:
        """Move on towards `offset`, whose line number is `line`; True when there.

        A compressed file cannot jump: one call takes it at most 4 blocks further.
        """
        if self._file is self._raw:
            self._file.seek(offset)
            self._rest, self._ended = b"", False
            self.offset = offset
        for _ in range(4):
            if self.offset >= offset:
                break
            piece = self._rest or self._file.read(min(BLOCK, offset - self.offset))
            self._rest = piece[offset - self.offset :]
            self.offset += len(piece) - len(self._rest)
            if not piece:
                return True
        self.line = line
        return self.offset >= offset

    def read(self) -> Block | None:
        """The next lines, about BLOCK bytes of them; None at the end of the file."""
        text = self._rest
        end = 0
        while not end:
            if not self._ended:
                piece = self._file.read(BLOCK)
                self._ended = not piece
                text += piece
            end = len(text) if self._ended and self._closed(text) else self._end_of_last(text)
            if not end and self._ended and not text:
                return None
            if not end and len(text) > LONGEST:
                return self._too_long(text)
        self._rest = text[end:]
        return self._taken(text[:end], end)

    def _taken(self, text: bytes, length: int, too_long: bool = False) -> Block:
        self.offset += length
        self.line += text.count(b"\n") + too_long
        return Block(text, self.offset, self.line, too_long)

    def _too_long(self, text: bytes) -> Block:
        """Give the beginning of an endless line, and go on behind its line break."""
        length, rest = len(text), b""
        while not self._ended:
            piece = self._file.read(BLOCK)
            self._ended = not piece
            end = piece.find(b"\n") + 1
            length += end or len(piece)
            if end:
                rest = piece[end:]
                break
        self._rest = rest
        return self._taken(text[:BLOCK], length, too_long=True)

    def _closed(self, text: bytes) -> bool:
        return not self._quoted or text.count(b'"') % 2 == 0

    def _end_of_first(self, text: bytes) -> int:
        end = text.find(b"\n") + 1
        while self._quoted and end and text.count(b'"', 0, end) % 2:
            end = text.find(b"\n", end) + 1
        return end or text.find(b"\n") + 1 or len(text)

    def _end_of_last(self, text: bytes) -> int:
        """Where the last whole line of `text` ends; 0 if none does."""
        end = text.rfind(b"\n") + 1
        if not self._quoted or not end:
            return end
        quotes = text.count(b'"', 0, end)
        while quotes % 2 and end:
            before = text.rfind(b"\n", 0, end - 1) + 1
            quotes -= text.count(b'"', before, end)
            end = before
        return end or (text.find(b"\n") + 1 if len(text) >= BLOCK or self._ended else 0)


def _unpacked(raw: IO[bytes], suffix: str) -> IO[bytes]:
    if suffix == ".gz":
        return cast(IO[bytes], gzip.open(raw, "rb"))
    return cast(IO[bytes], zstd.open(raw, "rb")) if suffix == ".zst" else raw


def split_lines(text: bytes, quoted: bool) -> list[bytes]:
    """The lines of a block, without their line breaks; with `quoted` as in `LineFile`."""
    lines = text.split(b"\n")
    if text.endswith(b"\n"):
        lines.pop()
    if not quoted or b'"' not in text:
        return lines
    joined: list[bytes] = []
    open_quote = False
    for line in lines:
        if open_quote:
            joined[-1] += b"\n" + line
        else:
            joined.append(line)
        open_quote ^= line.count(b'"') % 2 == 1
    return joined
