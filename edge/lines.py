"""Whole lines out of a file, plain or compressed, from any offset, in bounded memory."""

import gzip
import os
import sys
import zlib
from io import BufferedReader
from pathlib import Path
from typing import NamedTuple, cast

from xxhash import xxh3_64_intdigest

if sys.version_info >= (3, 14):
    from compression import zstd
else:
    from backports import zstd

BLOCK = 3 * 2**20
_PIECE = 256 * 2**10  # bytes that are unpacked at once, so that few are lost before a damage
LONGEST = 16 * 2**20  # bytes of one line; a longer one is cut off
DAMAGE = (EOFError, gzip.BadGzipFile, zlib.error, zstd.ZstdError)
"""What reading raises when a compressed file is cut off or damaged."""
HEAD = 4096  # bytes at the start of a text that are compared to know it again
TAIL = 1024  # bytes before the place where reading stands, likewise


class Mark(NamedTuple):
    """How a text was as far as it was read: hashes of its first and of its last bytes.

    offset: how far, in bytes. head: of the first HEAD of them. tail: of the last TAIL of them.
    """

    offset: int
    head: int
    tail: int


def mark_of(offset: int, begin: bytes, recent: bytes) -> Mark:
    """The mark of a text read up to `offset`, which begins and there ends with the bytes given."""
    head, tail = begin[: min(offset, HEAD)], recent[-TAIL:]
    return Mark(offset, xxh3_64_intdigest(head), xxh3_64_intdigest(tail))


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
    whole: the end of the file ends its last line; otherwise that line may still be written, and is
    not given.
    """

    def __init__(self, path: Path, quoted: bool = False, whole: bool = True) -> None:
        self._raw: BufferedReader = path.open("rb")
        self._file = _unpacked(self._raw, path.suffix)
        self._quoted = quoted
        self._whole = whole
        self._damage: Exception | None = None
        self._begin()

    def _begin(self) -> None:
        self._rest = b""
        self._ended = False
        self._head = self._tail = b""
        self.offset = 0
        self.line = 0

    def close(self) -> None:
        """Release the file."""
        self._file.close()
        self._raw.close()

    def _read(self, size: int) -> bytes:
        """The next bytes of the text. What comes before a damage is given, then it is raised."""
        if self._file is self._raw:
            return self._file.read(size)
        if self._damage is not None:
            raise self._damage
        pieces: list[bytes] = []
        try:
            while size > 0 and (piece := self._file.read1(min(size, _PIECE))):
                pieces.append(piece)
                size -= len(piece)
        except DAMAGE as error:
            self._damage = error
            if not pieces:
                raise
        return b"".join(pieces)

    def bytes_done(self) -> int:
        """How much of the file, as it lies on the disk, was read."""
        return self._raw.tell()

    def stat(self) -> os.stat_result:
        """Of the file that is open, whatever its name stands for by now."""
        return os.fstat(self._raw.fileno())

    @property
    def mark(self) -> Mark:
        """Of the text up to where the reading stands."""
        return mark_of(self.offset, self._head, self._tail)

    @property
    def inside_line(self) -> bool:
        """Whether the reading stands behind the beginning of a line that had not ended there."""
        return self.offset > 0 and not self._tail.endswith(b"\n")

    @property
    def rest(self) -> bytes:
        """What was read behind the last line given; at the end, of a line that is not whole."""
        return self._rest

    def finish(self) -> None:
        """From now on the end of the file ends its last line."""
        self._whole = True

    def head(self, size: int) -> bytes:
        """The first bytes of the text; afterwards the reading stands at its start."""
        self._file.seek(0)
        self._begin()
        self._rest = self._read(size)
        return self._rest

    def first_line(self) -> bytes:
        """The first line, wherever the reading stands; afterwards it stands behind that line.

        Nothing while that line may still be written.
        """
        for size in (min(HEAD, BLOCK), BLOCK):
            text = self.head(size)
            end = self._end_of_first(text)
            if len(text) < size or (text.endswith(b"\n", 0, end) and self._closed(text[:end])):
                break
        if not self._whole and not text.endswith(b"\n", 0, end):
            return b""
        self._rest = text[end:]
        self._pass(text[:end])
        return text[:end]

    def skip_to(self, offset: int, line: int) -> bool:
        """Move on towards `offset`, whose line number is `line`; True when there.

        A compressed file cannot jump: one call takes it at most 4 blocks further.
        """
        if self._file is self._raw:
            head = self.head(HEAD)
            self._file.seek(max(0, offset - TAIL))
            self._head, self._tail = head, self._file.read(min(offset, TAIL))
            self._rest = b""
            self.offset = offset
        for _ in range(4):
            if self.offset >= offset:
                break
            piece = self._rest or self._read(min(BLOCK, offset - self.offset))
            self._rest = piece[offset - self.offset :]
            self._pass(piece[: len(piece) - len(self._rest)])
            if not piece:
                return True
        self.line = line
        return self.offset >= offset

    def read(self) -> Block | None:
        """The next lines, up to BLOCK bytes of them or one longer; None at the end of the file.

        Where a block ends is told by where it begins, however the reading came there.
        """
        text = self._rest
        end = 0
        while not end:
            if not self._ended:
                piece = self._read(max(0, BLOCK - len(text)) or BLOCK)
                self._ended = not piece
                text += piece
            final = self._ended and self._whole
            whole = final and (self._closed(text) or b"\n" not in text)
            end = len(text) if whole else self._end_of_last(text, final)
            if not end and len(text) > LONGEST:
                return self._too_long(text)
            if not end and self._ended:
                self._rest = text
                return None
        if end > BLOCK:  # a line longer than a block comes alone: its neighbours can do without it
            end = self._end_of_first(text)
        given, self._rest = text[:end], text[end:]
        self._pass(given)
        return Block(given, self.offset, self.line)

    def _pass(self, text: bytes) -> None:
        """The reading stands behind `text`, which is what comes next."""
        if self.offset < HEAD:
            self._head = (self._head[: self.offset] + text[:HEAD])[:HEAD]
        self._tail = (text if len(text) >= TAIL else self._tail + text)[-TAIL:]
        self.offset += len(text)
        self.line += text.count(b"\n")

    def _too_long(self, text: bytes) -> Block | None:
        """Give the beginning of an endless line, and go on behind its line break."""
        before = self.offset, self.line, self._head, self._tail
        self._rest = b""
        self._pass(text)
        while not self._ended:
            piece = self._read(BLOCK)
            self._ended = not piece
            end = piece.find(b"\n") + 1
            self._pass(piece[:end] if end else piece)
            if end:
                self._rest = piece[end:]
                break
        else:
            if not self._whole:
                self.offset, self.line, self._head, self._tail = before
                return None
        return Block(text[:BLOCK], self.offset, self.line, too_long=True)

    def _closed(self, text: bytes) -> bool:
        return not self._quoted or text.count(b'"') % 2 == 0

    def _end_of_first(self, text: bytes) -> int:
        end = text.find(b"\n") + 1
        while self._quoted and end and text.count(b'"', 0, end) % 2:
            end = text.find(b"\n", end) + 1
        return end or text.find(b"\n") + 1 or len(text)

    def _end_of_last(self, text: bytes, final: bool) -> int:
        """Where the last whole line of `text` ends; 0 if none does. final: nothing follows."""
        end = text.rfind(b"\n") + 1
        if not self._quoted or not end:
            return end
        quotes = text.count(b'"', 0, end)
        while quotes % 2 and end:
            before = text.rfind(b"\n", 0, end - 1) + 1
            quotes -= text.count(b'"', before, end)
            end = before
        return end or (text.find(b"\n") + 1 if len(text) >= BLOCK or final else 0)


def _unpacked(raw: BufferedReader, suffix: str) -> BufferedReader:
    if suffix == ".gz":
        return cast(BufferedReader, gzip.open(raw, "rb"))
    return cast(BufferedReader, zstd.open(raw, "rb")) if suffix == ".zst" else raw


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
