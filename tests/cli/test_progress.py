"""On a terminal a run says how far it is; anywhere else it only logs."""

import subprocess
import sys
from pathlib import Path

from tests.cli.terminal import on_a_terminal

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
    shown = on_a_terminal(*command)
    assert b"climb   " in shown
    assert b"read   copy: " in shown
    assert b" waiting" in shown
    assert b" info edge.runner: pipeline 'climb': stopped" in shown


def test_without_a_terminal_nothing_moves(tmp_path: Path) -> None:
    done = subprocess.run(prepare(tmp_path), capture_output=True, timeout=60, check=True)
    assert b"waiting" not in done.stderr
    assert b"\x1b" not in done.stderr
