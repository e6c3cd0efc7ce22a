"""What the console sink promises: rows as NDJSON on the real standard output."""

import json
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).parents[2]

PROGRAM = """
import asyncio
from edge.errors import LinkDown
from tests.sinks.places import ConsoleSink, bound, numbered, rows

sink = bound(ConsoleSink(), identity=False)
parcels = numbered(sink.encode(rows(3)).parcels)
try:
    print(asyncio.run(sink.send(parcels)), file=__import__("sys").stderr)
except LinkDown as error:
    print(error, file=__import__("sys").stderr)
"""


def test_rows_come_out_as_lines_of_json() -> None:
    done = subprocess.run(
        [sys.executable, "-c", PROGRAM], capture_output=True, check=True, cwd=ROOT
    )
    assert [json.loads(line)["value"] for line in done.stdout.splitlines()] == [0.25, 0.5, 0.75]
    assert b"edge_id" not in done.stdout


def test_a_full_or_closed_output_keeps_the_rows() -> None:
    with open("/dev/full", "wb") as full:
        done = subprocess.run(
            [sys.executable, "-c", PROGRAM],
            stdout=full,
            stderr=subprocess.PIPE,
            check=True,
            cwd=ROOT,
        )
    assert done.stderr.decode().strip() == (
        "cannot write to standard output: No space left on device; connect it to a reader"
    )
