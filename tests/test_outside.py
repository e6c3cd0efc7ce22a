"""Parts in a package of their own: installed as users do, found by name, tested by our promises."""

import json
import os
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

EXAMPLE = Path(__file__).parents[1] / "docs" / "extending"
DEFINITION = """\
name: shop
source:
  sine: {every: 1ms, rows: 50}
record: {time: time}
operators:
  - rate: value
sinks:
  site: {file: {path: out, format: ndjson}}
"""

Python = Callable[..., str]


@pytest.fixture(scope="module")
def python(tmp_path_factory: pytest.TempPathFactory) -> Python:
    """`python("-m", "edge", ...)` in a folder where the example is installed, beside a copy."""
    folder = tmp_path_factory.mktemp("outside")
    shutil.copytree(EXAMPLE, folder / "example")
    environment = {**os.environ, "PYTHONPATH": str(folder / "installed")}

    def run(*words: str) -> str:
        done = subprocess.run(
            [sys.executable, *words], cwd=folder, env=environment, capture_output=True, text=True
        )
        assert done.returncode == 0, done.stdout + done.stderr
        return done.stdout

    where = ["--target", "installed", "--no-deps", "--no-index", "--no-build-isolation"]
    run("-m", "pip", "install", "--quiet", *where, "./example")
    (folder / "shop.yaml").write_text(DEFINITION)
    return run


def test_the_example_keeps_the_promises_of_every_part(python: Python) -> None:
    said = python("-m", "pytest", "-q", "-p", "no:cacheprovider", "--rootdir=example", "example")
    assert "16 passed" in said


def test_parts_of_another_package_run_and_describe_themselves(python: Python) -> None:
    rows = python("-c", RUN_AND_READ)
    assert [round(row, 3) for row in json.loads(rows)[:2]] == [0.021, 0.021]
    assert "How much" not in python("-m", "edge", "describe", "rate")
    assert "Column whose change is measured." in python("-m", "edge", "describe", "rate")
    schema = json.loads(python("-m", "edge", "schema"))
    assert "sine" in schema["properties"]["source"]["properties"]


RUN_AND_READ = """
import json, pathlib, edge
edge.run(edge.load("shop.yaml"), once=True)
files = sorted(pathlib.Path("out").glob("**/*.ndjson"))
rows = sorted((json.loads(line) for file in files for line in file.read_text().splitlines()),
              key=lambda row: row["reading"])
assert [row["reading"] for row in rows] == list(range(50)), rows
print([row["rate"] for row in rows if row["rate"] is not None])
"""
