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
_PATIENCE = 5.0  # seconds that tests may take to put their outboxes away

Seen = Mapping[Path, tuple[int, int]]


def watch_tests(paths: Sequence[Path], only: str) -> None:
    """Run the tests, and again after each change, until Ctrl-C.

    Each run is a process of its own: a function that was changed is imported anew.
    """
    command = [sys.executable, "-m", "edge", "test", "--watched", "-k", only, *map(str, paths)]
    try:
        while True:
            seen = look(paths)
            _run(command)
            say("waits for a change; Ctrl-C ends", style="dim")
            while look(paths) == seen:
                time.sleep(EVERY)
    except KeyboardInterrupt:
        say("stopped")


def _run(command: Sequence[str]) -> None:
    """Run the tests once. Ctrl-C reaches them too: they end without a word, and we after them."""
    with subprocess.Popen(command) as tests:
        try:
            tests.wait()
        except KeyboardInterrupt:
            try:
                tests.wait(_PATIENCE)
            except subprocess.TimeoutExpired:
                tests.kill()
            raise


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
