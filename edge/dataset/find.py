"""Which files are there: one look through folders that may change, hang or fail at any time."""

import fnmatch
import os
import re
import stat
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import NamedTuple


class Found(NamedTuple):
    """How a file was found; any change of it is taken as a sign that it was written or replaced."""

    device: int
    inode: int
    size: int
    mtime: int

    @classmethod
    def of(cls, stat: os.stat_result) -> "Found":
        """From what the system says of a file; `mtime` in nanoseconds."""
        return cls(stat.st_dev, stat.st_ino, stat.st_size, stat.st_mtime_ns)


class Listing(NamedTuple):
    """What one look found.

    files: by name, relative to the folder of the definition where they lie below it. unread:
    folders and files that could not be looked at, with the reason; nothing is known of what is
    below them. passed_over: the name of a file whose format is not known.
    """

    files: Mapping[str, Found]
    unread: Mapping[str, str]
    passed_over: str | None

    def is_gone(self, name: str) -> bool:
        """Whether the file is certainly not there any more."""
        if name in self.files:
            return False
        return not any(name == each or name.startswith(_join(each, "")) for each in self.unread)


class Finder:
    """Looks for the files of a pattern. Names that begin with a dot are found by such a pattern."""

    def __init__(self, folder: Path, pattern: str, wanted: Callable[[str], bool]) -> None:
        """wanted: whether a file of that name can be read."""
        self._folder, self._wanted = str(folder), wanted
        path = Path(pattern)
        if path.is_relative_to(folder):
            path = path.relative_to(folder)
        self._root = path.anchor
        self._parts = path.parts[1:] if path.anchor else path.parts
        self._exact = not any(_is_magic(part) for part in self._parts)

    def look(self) -> Listing:
        """What is there now; takes what the file system takes, which may be for ever."""
        self._files: dict[str, Found] = {}
        self._unread: dict[str, str] = {}
        self._passed_over: str | None = None
        self._links: dict[str, Found] = {}
        self._scanned: dict[str, list[os.DirEntry[str]]] = {}
        place = self._root + "/".join(self._parts)
        if not self._exact:
            self._walk(self._root, self._parts, True)
        elif os.path.isdir(self._path(place)):
            self._walk(place, ("**", "*"), True)
            self._passed_over = None  # a folder may hold anything beside the data
        else:
            self._stat(place, True)
        self._leave_out_second_names()
        self._scanned = {}
        return Listing(self._files, self._unread, self._passed_over)

    def stat(self, name: str) -> Found | None:
        """One file; None when it is gone. Raises OSError where that cannot be told."""
        try:
            found = os.stat(self._path(name))
        except FileNotFoundError:
            return None
        return Found.of(found) if stat.S_ISREG(found.st_mode) else None

    def siblings(self, name: str) -> Iterator[str]:
        """Names of all files in the folder of a file."""
        folder = os.path.dirname(name)
        with os.scandir(self._path(folder)) as entries:
            for each in entries:
                if _is_text(each.name) and each.is_file():
                    yield _join(folder, each.name)

    def _path(self, name: str) -> str:
        return os.path.join(self._folder, name)

    def _walk(self, place: str, parts: tuple[str, ...], expected: bool) -> None:
        """Everything below `place` that matches `parts`. expected: it must be there."""
        part, rest = parts[0], parts[1:]
        if not _is_magic(part):
            inner = _join(place, part)
            if rest:
                self._walk(inner, rest, expected)
            else:
                self._stat(inner, False)
            return
        if part == "**":
            self._walk(place, rest or ("*",), expected)
        matches = re.compile(fnmatch.translate("*" if part == "**" else part)).match
        hidden = part.startswith(".")
        before = _join(place, "")
        for entry in self._scan(place, expected):
            if not matches(entry.name) or (entry.name.startswith(".") and not hidden):
                continue
            inner = before + entry.name
            try:
                if part == "**":
                    if entry.is_dir(follow_symlinks=False):
                        self._walk(inner, parts, False)
                elif not rest:
                    self._take(inner, entry)
                elif entry.is_dir():
                    self._walk(inner, rest, False)
            except FileNotFoundError:
                continue
            except OSError as error:
                self._unread[inner] = error.strerror or str(error)

    def _scan(self, place: str, expected: bool) -> list["os.DirEntry[str]"]:
        if place in self._scanned:  # by `**` once for files and once for folders
            return self._scanned[place]
        try:
            with os.scandir(self._path(place)) as entries:
                self._scanned[place] = list(entries)
            return self._scanned[place]
        except OSError as error:
            if expected or not isinstance(error, FileNotFoundError | NotADirectoryError):
                self._unread[place] = error.strerror or str(error)
            return []

    def _take(self, name: str, entry: "os.DirEntry[str]") -> None:
        if not _is_text(name):
            readable = os.fsencode(name).decode(errors="backslashreplace")
            self._unread[readable] = "its name is not UTF-8; rename it"
            return
        if not entry.is_file():
            return
        if not self._wanted(entry.name):
            self._passed_over = self._passed_over or name
            return
        found = Found.of(entry.stat())
        if entry.is_symlink():
            self._links[name] = found
        else:
            self._files[name] = found

    def _stat(self, name: str, expected: bool) -> None:
        try:
            found = self.stat(name)
        except OSError as error:
            self._unread[name] = error.strerror or str(error)
            return
        if found is not None and not self._wanted(name):
            self._passed_over = self._passed_over or name
        elif found is not None:
            self._files[name] = found
        elif expected and not (self._wanted(name) and self._has_folder(name)):
            self._unread[name] = "No such file or directory"

    def _has_folder(self, name: str) -> bool:
        """Whether it is only the file that is missing, and not the share it lies on."""
        return os.path.isdir(self._path(os.path.dirname(name)))

    def _leave_out_second_names(self) -> None:
        """A file that also has a link to it is read once."""
        if self._links:
            known = {(found.device, found.inode) for found in self._files.values()}
            for name, found in sorted(self._links.items()):
                if (found.device, found.inode) not in known:
                    known.add((found.device, found.inode))
                    self._files[name] = found


def _is_magic(part: str) -> bool:
    return any(sign in part for sign in "*?[")


def _join(folder: str, name: str) -> str:
    return os.path.join(folder, name) if folder else name


def _is_text(name: str) -> bool:
    try:
        name.encode()
    except UnicodeEncodeError:
        return False
    return True
