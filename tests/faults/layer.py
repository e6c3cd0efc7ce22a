"""A file system that notes every write and every sync in their order, and can be slow.

`python -m tests.faults.layer PLACE NOTES` mounts it on PLACE (FUSE) and appends to NOTES what is
done to it, pickled, until it is unmounted. Making a folder whose name starts with `mark ` makes
none: it is noted, and `mark slow 2` lets every sync take two seconds.
"""

import errno
import os
import pickle
import stat
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any, BinaryIO, NamedTuple

import mfusepy

from tests.kills import until

MARK = "mark "
BLOCK = 4096


class Note(NamedTuple):
    """One thing done: `what` it was, to the file or folder numbered `node`, and its details.

    write (offset, bytes), size (bytes), sync (), link (name, node, whether that is a folder),
    unlink (name), rename (name, folder, new name), mark (text).
    """

    what: str
    node: int
    detail: tuple[Any, ...] = ()


class Node:
    """A file (`data`) or a folder (`names`)."""

    def __init__(self, number: int, mode: int) -> None:
        self.number = number
        self.mode = mode
        self.links = 1
        self.data = bytearray()
        self.names: dict[str, Node] = {}
        self.changed = time.time_ns()


class Layer(mfusepy.Operations):
    """Everything lies in memory; the root is node 1."""

    use_ns = True

    def __init__(self, notes: BinaryIO) -> None:
        self._notes = notes
        self._nodes = {1: Node(1, stat.S_IFDIR | 0o755)}
        self._slow = 0.0

    def _note(self, what: str, node: int, *detail: Any) -> None:
        pickle.dump((what, node, detail), self._notes)

    def _find(self, path: str) -> Node:
        node = self._nodes[1]
        for name in path.split("/")[1:]:
            if name:
                if name not in node.names:
                    raise mfusepy.FuseOSError(errno.ENOENT)
                node = node.names[name]
        return node

    def _parent(self, path: str) -> tuple[Node, str]:
        folder, _, name = path.rpartition("/")
        return self._find(folder or "/"), name

    def _new(self, path: str, mode: int) -> Node:
        parent, name = self._parent(path)
        node = Node(len(self._nodes) + 1, mode)
        self._nodes[node.number] = parent.names[name] = node
        self._note("link", parent.number, name, node.number, stat.S_ISDIR(node.mode))
        return node

    # -- looking

    def getattr(self, path: str, fh: int | None = None) -> dict[str, Any]:
        node = self._find(path)
        size = len(node.data)
        times = dict.fromkeys(("st_atime", "st_mtime", "st_ctime"), node.changed)
        owner = {"st_uid": os.getuid(), "st_gid": os.getgid()}
        links = 2 if stat.S_ISDIR(node.mode) else node.links
        shape = {"st_mode": node.mode, "st_nlink": links, "st_ino": node.number}
        return shape | owner | times | {"st_size": size, "st_blocks": -(-size // 512)}

    def readdir(self, path: str, fh: int) -> list[str]:
        return [".", "..", *self._find(path).names]

    def read(self, path: str, size: int, offset: int, fh: int) -> bytes:
        return bytes(self._nodes[fh].data[offset : offset + size])

    def statfs(self, path: str) -> dict[str, int]:
        free = 2**30 // BLOCK
        return {"f_bsize": BLOCK, "f_frsize": BLOCK, "f_bavail": free, "f_bfree": free}

    # -- names

    def mkdir(self, path: str, mode: int) -> int:
        name = path.rpartition("/")[2]
        if name.startswith(MARK):
            text = name.removeprefix(MARK)
            self._note("mark", 0, text)
            self._notes.flush()
            if text.startswith("slow "):
                self._slow = float(text.split()[1])
            raise mfusepy.FuseOSError(errno.EEXIST)
        self._new(path, stat.S_IFDIR | mode)
        return 0

    def create(self, path: str, mode: int, fi: Any = None) -> int:
        return self._new(path, stat.S_IFREG | mode).number

    def open(self, path: str, flags: int) -> int:
        return self._find(path).number

    def opendir(self, path: str) -> int:
        return self._find(path).number

    def link(self, target: str, source: str) -> int:
        node = self._find(source)
        parent, name = self._parent(target)
        parent.names[name] = node
        node.links += 1
        self._note("link", parent.number, name, node.number, stat.S_ISDIR(node.mode))
        return 0

    def unlink(self, path: str) -> int:
        parent, name = self._parent(path)
        self._find(path).links -= 1
        del parent.names[name]
        self._note("unlink", parent.number, name)
        return 0

    rmdir = unlink

    def rename(self, old: str, new: str) -> int:
        (source, before), (target, after) = self._parent(old), self._parent(new)
        target.names[after] = source.names.pop(before)
        self._note("rename", source.number, before, target.number, after)
        return 0

    # -- content

    def write(self, path: str, data: bytes, offset: int, fh: int) -> int:
        node = self._nodes[fh]
        if len(node.data) < offset:
            node.data.extend(bytes(offset - len(node.data)))
        node.data[offset : offset + len(data)] = data
        node.changed = time.time_ns()
        self._note("write", fh, offset, bytes(data))
        return len(data)

    def truncate(self, path: str, length: int, fh: int | None = None) -> int:
        self._resize(self._find(path), length)
        return 0

    def fallocate(self, path: str, mode: int, offset: int, size: int, fh: int) -> int:
        node = self._nodes[fh]
        if mode:
            raise mfusepy.FuseOSError(errno.EOPNOTSUPP)
        if offset + size > len(node.data):
            self._resize(node, offset + size)
        return 0

    def _resize(self, node: Node, length: int) -> None:
        del node.data[length:]
        node.data.extend(bytes(length - len(node.data)))
        node.changed = time.time_ns()
        self._note("size", node.number, length)

    def fsync(self, path: str, datasync: int, fh: int) -> int:
        time.sleep(self._slow)
        self._note("sync", fh)
        return 0

    fsyncdir = fsync


@contextmanager
def mounted(place: Path, notes: Path) -> Iterator[Path]:
    """The layer on `place`, in a process of its own; unmounted at the end."""
    place.mkdir()
    command = [sys.executable, "-m", "tests.faults.layer", str(place), str(notes)]
    process = subprocess.Popen(command, cwd=Path(__file__).parents[2])
    try:
        until(lambda: place.is_mount() or process.poll() is not None)
        assert place.is_mount(), "FUSE is needed: /dev/fuse, and apt-get install fuse3"
        yield place
    finally:
        subprocess.run(["umount", "-l", place], check=False)
        try:
            process.wait(10)
        except subprocess.TimeoutExpired:  # somebody has a file of it open still
            process.kill()
            process.wait()


def mark(place: Path, text: str) -> None:
    """Note something that the program under test has said."""
    with suppress(FileExistsError):
        (place / f"{MARK}{text}").mkdir()


def read_notes(notes: Path) -> list[Note]:
    """What was done, in its order."""
    found = []
    with notes.open("rb") as file:
        try:
            while True:
                found.append(Note(*pickle.load(file)))
        except EOFError:
            return found


if __name__ == "__main__":
    with open(sys.argv[2], "ab") as log:
        mfusepy.FUSE(Layer(log), sys.argv[1], foreground=True, nothreads=True, fsname="layer")
