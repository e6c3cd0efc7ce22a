"""Whatever writers do and wherever it crashes, each line that can be read is read once."""

import gzip
import logging
import shutil
import tempfile
from pathlib import Path
from typing import NamedTuple

from hypothesis import given
from hypothesis import strategies as st

from edge.sources import Batch
from tests.search import examples
from tests.sources.following import Following, lines

FILES = st.sampled_from(["a", "b", "deep/c"])
ENOUGH = 1024 + 500
"""Bytes of a file that is sure to be known by its content: 1 KiB, and lines not yet read."""


class Writer:
    """Writes numbered lines, in pieces that end anywhere, and does to its files what people do."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._half: dict[Path, bytes] = {}  # what is still to be written of the last line
        self.written = 0
        self._archives = 0

    def file(self, name: str) -> Path:
        file = self._folder / f"{name}.ndjson"
        file.parent.mkdir(exist_ok=True)
        return file

    def append(self, file: Path, count: int, cut: int) -> None:
        """So many lines, and the last one without its last `cut` bytes."""
        text = self._half.pop(file, b"") + lines(*range(self.written, self.written + count))
        self.written += count
        whole = max(0, len(text) - cut)
        with file.open("ab") as opened:
            opened.write(text[:whole])
        if whole < len(text):
            self._half[file] = text[whole:]

    def finish(self, file: Path) -> None:
        """The rest of the last line."""
        self.append(file, 0, 0)

    def rotate(self, file: Path) -> None:
        """Rename it and those rotated before it; what is still to be written goes behind."""
        self.finish(file)
        for number in range(8, 0, -1):
            older = Path(f"{file}.{number}")
            if older.exists():
                older.rename(f"{file}.{number + 1}")
        if file.exists():
            file.rename(f"{file}.1")

    def copy_and_cut(self, file: Path) -> None:
        """As logrotate's copytruncate."""
        if file.exists() and file.stat().st_size >= ENOUGH:
            self._archives += 1
            shutil.copy(file, f"{file}.{100 + self._archives}")
            file.write_bytes(b"")

    def pack(self, file: Path) -> None:
        """Compress what was rotated last."""
        rotated = Path(f"{file}.1")
        if rotated.exists() and rotated.stat().st_size >= ENOUGH:
            self._archives += 1
            packed = file.with_name(f"{self._archives}-{file.name}.gz")
            packed.write_bytes(gzip.compress(rotated.read_bytes()))
            rotated.unlink()

    def remove(self, file: Path) -> None:
        self._half.pop(file, None)
        file.unlink(missing_ok=True)


class Do(NamedTuple):
    what: str
    name: str = "a"
    count: int = 0
    cut: int = 0


SCRIPT = st.lists(
    st.one_of(
        st.builds(Do, st.just("append"), FILES, st.integers(0, 40), st.integers(0, 90)),
        st.builds(Do, st.sampled_from(["rotate", "copy", "pack", "replace", "remove"]), FILES),
        st.builds(Do, st.sampled_from(["look", "look", "crash", "crash uncommitted"])),
    ),
    max_size=25,
)


def play(script: list[Do], folder: Path, rows: int) -> tuple[Following, Writer]:
    following, writer = Following(folder), Writer(folder)
    following.batch = Batch(rows=rows)
    following.crash()
    for do in script:
        file = writer.file(do.name)
        match do.what:
            case "append":
                writer.append(file, do.count, do.cut)
            case "rotate":
                writer.rotate(file)
            case "copy":
                following.read(10)  # of what was not seen yet nobody can know it again
                writer.append(file, 3, 0)
                writer.copy_and_cut(file)
            case "pack":
                following.read(10)
                writer.pack(file)
            case "replace":
                writer.finish(file)
                following.read(10)
                new = file.with_suffix(".new")
                writer.append(new, 3, 0)
                new.rename(file)
            case "remove":
                writer.finish(file)
                following.read(10)
                writer.remove(file)
            case "look":
                following.read(1.1)
            case "crash":
                following.crash()
            case "crash uncommitted":
                for _ in range(5):
                    if following.take() is not None:
                        break
                following.crash()
    for name in ("a", "b", "deep/c"):
        if writer.file(name).exists():
            writer.finish(writer.file(name))
    following.read(20)
    return following, writer


@examples(40)
@given(SCRIPT, st.sampled_from([1, 20, 10_000]))
def test_each_line_is_read_once(script: list[Do], rows: int) -> None:
    told: list[str] = []
    handler = logging.Handler(logging.WARNING)
    handler.emit = lambda record: told.append(record.getMessage())  # type: ignore[method-assign]
    logging.getLogger("edge.dataset").addHandler(handler)
    with tempfile.TemporaryDirectory() as folder:
        following, writer = play(script, Path(folder), rows)
        following.close()
        assert sorted(following.rows) == list(range(writer.written))
        assert not following.rejects
    logging.getLogger("edge.dataset").removeHandler(handler)
    assert told == []  # no false alarm
