"""Small real file systems; who may not mount any is told so, and nothing is skipped."""

import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

MIB = 2**20


def run(*command: object) -> None:
    """A command that must succeed; its words are in the failure."""
    done = subprocess.run([*map(str, command)], capture_output=True, text=True, check=False)
    assert done.returncode == 0, f"{command} needs root: {done.stderr}"


@contextmanager
def tmpfs(place: Path, options: str) -> Iterator[Path]:
    """A file system in memory, such as `size=48m` or `nr_inodes=20`."""
    place.mkdir(exist_ok=True)
    run("mount", "-t", "tmpfs", "-o", options, "tmpfs", place)
    try:
        yield place
    finally:
        run("umount", "-l", place)


@contextmanager
def ext4(image: Path, place: Path, size: int = 64 * MIB) -> Iterator[Path]:
    """The file system in `image`, made when there is none."""
    place.mkdir(exist_ok=True)
    if not image.exists():
        with image.open("wb") as file:
            file.truncate(size)
        run("mkfs.ext4", "-q", "-m", "0", image)
    run("mount", "-o", "loop,errors=remount-ro", image, place)
    try:
        yield place
    finally:
        run("umount", place)


def remount(place: Path, options: str) -> None:
    """Change a mounted file system: `ro`, `rw`."""
    run("mount", "-o", f"remount,{options}", place)
