"""The command line as a function, and a small pipeline from file to file."""

from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

import pytest
from typer.testing import CliRunner

from edge.cli import application

Edge = Callable[..., "Done"]


class Done(NamedTuple):
    """What a command left: exit code, data, words for people."""

    code: int
    out: str
    err: str


@pytest.fixture
def edge() -> Edge:
    """`edge("check", file)` runs a command in this process."""
    runner, app = CliRunner(), application()

    def run(*words: object) -> Done:
        result = runner.invoke(app, [str(word) for word in words])
        if result.exception and not isinstance(result.exception, SystemExit):
            raise result.exception
        return Done(result.exit_code, result.stdout, result.stderr)

    return run


DEFINITION = """\
edge: 1
name: press
source:
  dataset: {path: readings.ndjson}
record:
  time: ts
  key: device
  fields:
    ts: timestamp_ms
    device: str
    temperature: float
operators:
  - filter: temperature > 0
    name: sane
  - derive:
      fahrenheit: temperature * 1.8 + 32
sinks:
  lake:
    file: {path: out}
  hot:
    when: temperature > 80
    operators:
      - select: [ts, temperature]
    file: {path: hot}
"""
READINGS = """\
{"ts": 1700000000000, "device": "a", "temperature": 20.5}
{"ts": 1700000001000, "device": "b", "temperature": "hot"}
{"ts": 1700000002000, "device": "a", "temperature": -3.0}
{"ts": 1700000003000, "device": "a", "temperature": 90.0}
"""


@pytest.fixture
def press(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A definition with its readings; state and results go below the same folder."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("EDGE_STATE_DIR", str(tmp_path / "state"))
    (tmp_path / "readings.ndjson").write_text(READINGS)
    file = tmp_path / "press.yaml"
    file.write_text(DEFINITION)
    return file
