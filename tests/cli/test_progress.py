"""On a terminal a run says how far it is; anywhere else it only logs."""

import os
import pty
import subprocess
import sys
from pathlib import Path

DEFINITION = """
name: climb
source:
  dataset: {path: rows.ndjson}
record:
  fields: {n: int}
operators:
  - python: {function: slow.py:slow}
sinks:
  copy:
    file: {path: copies}
outbox: {path: outbox}
batch: {rows: 1000}
"""
SLOW = "import time\n\ndef slow(frame):\n    time.sleep(0.7)\n    return frame\n"


def prepare(folder: Path) -> list[str]:
    (folder / "rows.ndjson").write_text("".join(f'{{"n":{n}}}\n' for n in range(1500)))
    (folder / "climb.yaml").write_text(DEFINITION)
    (folder / "slow.py").write_text(SLOW)
    return [sys.executable, "-m", "edge", "run", "--once", str(folder / "climb.yaml")]


def test_a_terminal_shows_how_far_the_source_is_and_what_waits(tmp_path: Path) -> None:
    command = prepare(tmp_path)
    ours, theirs = pty.openpty()
    environment = {**os.environ, "TERM": "xterm"}
    with subprocess.Popen(command, stderr=theirs, env=environment) as process:
        os.close(theirs)
        shown = b""
        while piece := _read(ours):
            shown += piece
    os.close(ours)
    assert process.returncode == 0, shown.decode()
    assert b"climb   " in shown
    assert b"read   copy: " in shown
    assert b" waiting" in shown
    assert b" info edge.runner: pipeline 'climb': stopped" in shown


def _read(terminal: int) -> bytes:
    try:
        return os.read(terminal, 4096)
    except OSError:  # the other side is closed
        return b""


def test_without_a_terminal_nothing_moves(tmp_path: Path) -> None:
    done = subprocess.run(prepare(tmp_path), capture_output=True, timeout=60, check=True)
    assert b"waiting" not in done.stderr
    assert b"\x1b" not in done.stderr
