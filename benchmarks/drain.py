"""A link that is back: how fast what was buffered arrives on an S3 server of this machine."""

import http.client
import re
import sys
import time
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing, contextmanager
from functools import partial
from operator import attrgetter
from pathlib import Path
from typing import NamedTuple

import polars as pl

from benchmarks.consumers import start_edge
from benchmarks.definitions import AT_ONCE, NEVER, Definition
from benchmarks.outage import NAME, buffer
from benchmarks.outbox import Outbox
from benchmarks.plan import Plan, interleave
from benchmarks.processes import Failed, Process
from benchmarks.table import Bar, Row
from edge.demo.children import free_port

_PATIENCE = 120.0  # seconds
_ANYBODY = "AWS4-HMAC-SHA256 Credential=bench/20260101/us-east-1/s3/aws4_request, Signature=0"
_AT_ONCE = 4  # objects that the product puts side by side


class Drained(NamedTuple):
    """Rows a second: of the product, and of a loop that puts the same bytes and does no more."""

    rate: float
    loop: float

    def __str__(self) -> str:
        return f"{self.rate:,.0f} rows/s, PUT loop {self.loop:,.0f}"


def drain(plan: Plan) -> list[Row]:
    """A million buffered readings, as parcels or still as entries, to moto's S3 server."""
    count = 2 * plan.messages
    contenders = {"parcels": "", "entries": NEVER}
    found = interleave(
        plan, {name: partial(_drain, plan, count, roll) for name, roll in contenders.items()}
    )
    return [
        Row(
            "drain",
            f"buffered as {name}, to S3",
            "rows/s",
            found.values(name, attrgetter("rate")),
            "PUT loop",
            found.values(name, attrgetter("loop")),
            Bar("at least", 200_000.0),
            problem=found.problem(name),
        )
        for name in contenders
    ]


def _drain(plan: Plan, count: int, roll: str) -> Drained:
    """From `started` in the log, boto3 and the first connection included, to the last row."""
    with plan.scratch() as folder, _moto(folder) as port:
        buffer(folder, count, roll=roll)
        outbox = Outbox(folder / NAME)
        rows = outbox.buffered().rows
        definition = Definition(NAME, 1, 1, port, AT_ONCE, max_size="4GiB")
        with start_edge(definition, folder).process as process:
            process.until(lambda: b": started" in process.errors.read_bytes(), _PATIENCE)
            begin = time.monotonic()
            process.until(lambda: not outbox.buffered().rows, _PATIENCE)
            taken = time.monotonic() - begin
            outbox.close()
        return Drained(rows / taken, rows / _put(port, _objects(port, rows)))


@contextmanager
def _moto(folder: Path) -> Iterator[int]:
    """The port of a fresh S3 server with two empty buckets."""
    port = free_port()
    command = [sys.executable, "-m", "moto.server", "-H", "127.0.0.1", "-p", str(port)]
    with Process("moto", command, folder) as process:
        process.until(partial(_answers, port), _PATIENCE)
        with closing(http.client.HTTPConnection("127.0.0.1", port)) as link:
            for bucket in (NAME, "loop"):
                _ask(link, "PUT", f"/{bucket}")
        yield port


def _answers(port: int) -> bool:
    with closing(http.client.HTTPConnection("127.0.0.1", port)) as link:
        try:
            link.connect()
        except OSError:
            return False
    return True


def _ask(link: http.client.HTTPConnection, method: str, path: str, body: bytes = b"") -> bytes:
    link.request(method, path, body, {"Authorization": _ANYBODY})
    answer = link.getresponse()
    found = answer.read()
    if answer.status != 200:
        raise Failed(f"moto: {method} {path} gives {answer.status}: {found[:200]!r}")
    return found


def _objects(port: int, rows: int) -> list[bytes]:
    """What arrived, after counting its rows."""
    with closing(http.client.HTTPConnection("127.0.0.1", port)) as link:
        listed = _ask(link, "GET", f"/{NAME}?list-type=2")
        keys = re.findall(r"<Key>(.*?)</Key>", listed.decode())
        bodies = [_ask(link, "GET", f"/{NAME}/{key}") for key in keys]
    arrived = sum(pl.read_ndjson(body).height for body in bodies)
    if arrived != rows:
        raise Failed(f"edge: {arrived:,} rows arrived of {rows:,}")
    return bodies


def _put(port: int, bodies: Sequence[bytes]) -> float:
    """Seconds to put these as plainly as it can be done, as many side by side."""
    begin = time.monotonic()
    with ThreadPoolExecutor(_AT_ONCE) as threads:
        list(threads.map(partial(_put_each, port, bodies), range(_AT_ONCE)))
    return time.monotonic() - begin


def _put_each(port: int, bodies: Sequence[bytes], first: int) -> None:
    with closing(http.client.HTTPConnection("127.0.0.1", port)) as link:
        for number in range(first, len(bodies), _AT_ONCE):
            _ask(link, "PUT", f"/loop/{number}", bodies[number])
