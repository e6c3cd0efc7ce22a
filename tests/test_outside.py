"""Parts in a package of their own: installed as users do, found by name, tested by our promises."""

import json
import os
import shutil
import subprocess
import sys
from collections.abc import Callable, Sequence
from pathlib import Path

import polars as pl
import pytest

from edge.component import Stream
from edge.operators.filter import Filter
from edge.outbox.model import Parcel
from edge.promises.operator import splits
from edge.promises.sink import numbered, rows, says_that_the_link_is_down, takes_repeats
from edge.sinks import Receipt
from tests.scripted import FlakySink

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
    rates = json.loads(python("-c", RUN_AND_READ))
    assert [round(rate, 3) for rate in rates[:2]] == [0.021, 0.021]
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


class Numbered(Filter):
    """Breaks the promise of operators: what a row gets depends on its place in the batch."""

    def process(self, frame: pl.DataFrame) -> pl.DataFrame:
        return frame.with_row_index("n").filter(pl.col("n") != 1).drop("n")


class Boastful(FlakySink):
    """Breaks the promise of sinks: all is delivered, it says, whatever happened."""

    async def send(self, parcels: Sequence[Parcel]) -> Receipt:
        return Receipt([parcel.id for parcel in parcels])


def test_the_promises_find_who_breaks_them() -> None:
    frame = pl.DataFrame({"v": [1, 2, 3]})

    def make() -> tuple[Numbered, pl.Schema]:
        operator = Numbered(where="v > 0")
        return operator, operator.bind(frame.schema, Stream())

    with pytest.raises(AssertionError):
        splits(make, frame, [1])
    parcels = numbered(Boastful().encode(rows(3)).parcels)
    with pytest.raises(AssertionError, match="must raise LinkDown"):
        says_that_the_link_is_down(Boastful(), parcels, lambda: None, lambda: None)
    with pytest.raises(AssertionError):
        takes_repeats(Boastful(), parcels, dict)
