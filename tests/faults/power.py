"""What a power cut may leave of a disk: every state that the notes of a `layer` allow.

`python -m tests.faults.power --cuts 5000 --seed 7` tries more than the suite does, `--every` cuts
behind every write; a cut that fails is named, and fails again.

A write is safe once its file was synced, a name once its folder was. What was not synced may be
there, in part, torn at sectors of 512 bytes, without what was written before it, or not at all.
Names of one folder come in their order, as journalling file systems keep them.
"""

import argparse
import os
import random
import shutil
import sys
import tempfile
from collections.abc import Iterator, Sequence
from functools import partial
from pathlib import Path
from typing import Literal, NamedTuple

from tests.faults import work
from tests.faults.layer import Note, mark, mounted, read_notes

SECTOR = 512
Kept = Literal["nothing", "everything", "some"]


class Cut(NamedTuple):
    """A power cut behind `after` notes: what had been said, and the disk it left in `image`."""

    after: int
    kept: Kept
    said: Sequence[str]
    image: Path


class Content:
    """The bytes of one file; zeros at its end take no memory."""

    def __init__(self, data: bytes = b"", size: int = 0) -> None:
        self.data, self.size = bytearray(data), size

    def change(self, note: Note) -> None:
        """Do what was noted."""
        if note.what == "size":
            (self.size,) = note.detail
            del self.data[self.size :]
        else:
            self.write(*note.detail)

    def write(self, offset: int, data: bytes) -> None:
        """Put bytes somewhere."""
        self.data.extend(bytes(max(0, offset - len(self.data))))
        self.data[offset : offset + len(data)] = data
        self.size = max(self.size, len(self.data))

    def tear(self, note: Note, chance: random.Random) -> None:
        """Do it for some of the sectors that it touches."""
        if note.what == "size":
            return
        offset, data = note.detail
        start = 0
        while start < len(data):
            end = start + SECTOR - (offset + start) % SECTOR
            if chance.random() < 0.5:
                self.write(offset + start, data[start:end])
            start = end


class Disk:
    """What is safe, and what was done since the last sync, by file and folder."""

    def __init__(self) -> None:
        self._safe: dict[int, Content] = {}
        self._names: dict[int, dict[str, int]] = {1: {}}
        self._since: dict[int, list[Note]] = {}

    def play(self, note: Note) -> None:
        """One note further."""
        if note.what == "link" and note.detail[2]:
            self._names[note.detail[1]] = {}
        if note.what != "sync":
            self._since.setdefault(note.node, []).append(note)
            return
        pending = self._since.pop(note.node, [])
        if note.node in self._names:
            _rename(self._names[note.node], pending)
        else:
            content = self._safe.setdefault(note.node, Content())
            for each in pending:
                content.change(each)

    def leave(self, place: Path, kept: Kept, chance: random.Random) -> None:
        """Lay out below `place` what is there after a cut in this moment."""
        self._leave_folder(1, place, kept, chance, {})

    def _leave_folder(
        self, node: int, place: Path, kept: Kept, chance: random.Random, made: dict[int, Path]
    ) -> None:
        place.mkdir()
        pending = self._since.get(node, [])
        number = {"nothing": 0, "everything": len(pending)}.get(kept)
        names = dict(self._names[node])
        _rename(names, pending[: chance.randint(0, len(pending)) if number is None else number])
        for name, child in names.items():
            if child in self._names:
                self._leave_folder(child, place / name, kept, chance, made)
            elif child in made:
                (place / name).hardlink_to(made[child])
            else:
                made[child] = place / name
                content = self._left_of(child, kept, chance)
                made[child].write_bytes(content.data)
                os.truncate(made[child], content.size)

    def _left_of(self, node: int, kept: Kept, chance: random.Random) -> Content:
        safe = self._safe.get(node, Content())
        if kept == "nothing":
            return safe
        left = Content(safe.data, safe.size)
        share = chance.random()
        for note in self._since.get(node, []):
            if kept == "everything" or chance.random() < share:
                left.change(note)
            elif chance.random() < 0.5:
                left.tear(note, chance)
        return left


def _rename(names: dict[str, int], notes: Sequence[Note]) -> None:
    """Do to the names of a folder what was noted."""
    for note in notes:
        if note.what == "link":
            names[note.detail[0]] = note.detail[1]
        elif note.what == "unlink":
            names.pop(note.detail[0], None)
        elif note.what == "rename":
            before, folder, after = note.detail
            assert folder == note.node, "no name moves from one folder to another"
            names[after] = names.pop(before)


def cuts(
    notes: Sequence[Note], place: Path, number: int | None, chance: random.Random
) -> Iterator[Cut]:
    """Power cuts behind `number` of the notes (None: behind each), and the disks they leave.

    Behind each: nothing kept that was not synced, everything, and some. A disk is there until the
    next one is asked for.
    """
    disk, said = Disk(), list[str]()
    points = [at for at, note in enumerate(notes, 1) if note.what != "mark"]
    chosen = set(points if number is None else chance.sample(points, min(number, len(points))))
    for after, note in enumerate(notes, 1):
        if note.what == "mark":
            said.append(note.detail[0])
        else:
            disk.play(note)
        if after not in chosen:
            continue
        kinds: Sequence[Kept] = ("nothing", "everything", "some")
        for kept in kinds if number is None else (chance.choice(kinds[:2]), "some"):
            image = place / f"{after}-{kept}"
            disk.leave(image, kept, random.Random(f"{after} {kept}"))
            yield Cut(after, kept, tuple(said), image)


def record(folder: Path, seed: int) -> list[Note]:
    """What the work does to its disk: each thing once, then at random."""
    with mounted(folder / "mount", folder / "notes") as place:
        work.everything(place, partial(mark, place))
        work.at_random(place, partial(mark, place), seed)
    return read_notes(folder / "notes")


def pull(seed: int, number: int | None) -> tuple[int, list[str]]:
    """Pull the plug so often, start on each disk that is left; gives how many, and the faults."""
    faults, tried = [], 0
    with tempfile.TemporaryDirectory(dir=work.scratch()) as name:
        folder = Path(name)
        notes = record(folder, seed)
        for cut in cuts(notes, folder, number, random.Random(seed)):
            tried += 1
            try:
                work.check(cut.image, cut.said)
            except Exception as error:
                last = cut.said[-1] if cut.said else "nothing"
                faults.append(
                    f"seed {seed}: cut behind note {cut.after}, {cut.kept} kept that was not "
                    f"synced, said {last!r}: {error!r}"
                )
            shutil.rmtree(cut.image)
    return tried, faults


def main() -> int:
    """Exit code 1 if a cut lost, doubled or stopped something."""
    parser = argparse.ArgumentParser(description=__doc__, prog="python -m tests.faults.power")
    parser.add_argument("--cuts", type=int, default=1000)
    parser.add_argument("--every", action="store_true", help="behind every write")
    parser.add_argument("--seed", type=int, default=7)
    options = parser.parse_args()
    tried, faults = pull(options.seed, None if options.every else options.cuts)
    print(*faults, f"{tried} disks, {len(faults)} faults, seed {options.seed}", sep="\n")
    return 1 if faults else 0


if __name__ == "__main__":
    sys.exit(main())
