"""`edge test --watch`: the tests again whenever a file near them changes."""

import subprocess
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

from edge.cli.screen import say

EVERY = 0.3  # seconds between two looks
_ENDINGS = (".yaml", ".yml", ".py", ".csv", ".json", ".ndjson")  # tests, and what they lean on
_MOST = 2_000  # files that are looked at

Seen = Mapping[Path, tuple[int, int]]


def watch_tests(paths: Sequence[Path], only: str) -> None:
    """Run the tests, and again after each change, until Ctrl-C.

    Each run is a process of its own: a function that was changed is imported anew.
    """
    command = [sys.executable, "-m", "edge", "test", *map(str, paths), "-k", only]
    try:
        while True:
            seen = look(paths)
            subprocess.run(command, check=False)
            say("waits for a change; Ctrl-C ends", style="dim")
            while look(paths) == seen:
                time.sleep(EVERY)
    except KeyboardInterrupt:
        say("stopped")


def look(paths: Sequence[Path]) -> Seen:
    """Time of change and size of every file near the tests."""
    found: dict[Path, tuple[int, int]] = {}
    for file in _near(paths):
        if len(found) >= _MOST:
            break
        try:
            state = file.stat()
        except OSError:  # it was just replaced
            continue
        found[file] = state.st_mtime_ns, state.st_size
    return found


def _near(paths: Sequence[Path]) -> Iterator[Path]:
    from edge.examples.files import visible

    for path in paths:
        inside = visible(path) if path.is_dir() else path.parent.glob("[!.]*")
        yield from (file for file in inside if file.suffix in _ENDINGS)
