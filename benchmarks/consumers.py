"""The contenders: the product and what it is compared with, behind one small surface."""

import sqlite3
import struct
import sys
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

from benchmarks.broker import Broker
from benchmarks.definitions import Definition
from benchmarks.outbox import Outbox
from benchmarks.processes import Process
from benchmarks.readings import PAYLOAD
from benchmarks.subscribers import TOPICS
from edge.tap import MOST_RATE, SOCKET

SECRETS = {"AWS_ACCESS_KEY_ID": "bench", "AWS_SECRET_ACCESS_KEY": "bench"}
"""What the buckets here take from everybody."""


class Running(NamedTuple):
    """A consumer at work.

    seen: the messages that are safe (or written, or read) so far; results: the rows it made of
    them, None if it makes none; tried: whether it has come to what it does only later, and once.
    """

    process: Process
    seen: Callable[[], int]
    results: Callable[[], int] | None = None
    close: Callable[[], None] = lambda: None
    tried: Callable[[], bool] = lambda: True


class Task(NamedTuple):
    """What a consumer is to do: read from `broker` at `qos`, keep its files in `folder`."""

    broker: Broker
    folder: Path
    qos: int
    messages: int


Consumer = Callable[[Task], Running]


def edge(task: Task) -> Running:
    """The product: record checks, filter, derive, durable outbox, link to a bucket that is away."""
    return start_edge(Definition("bench", task.broker.port, task.qos), task.folder)


def tapped(task: Task) -> Running:
    """The product while somebody looks at what goes to the bucket, as fast as may be."""
    running = edge(task)
    folder = task.folder / "bench"
    running.process.until((folder / SOCKET).exists, 60)
    tap = edge_process(task.folder, "tap", str(folder), "sink:lake", "--rate", str(MOST_RATE))
    tap.until(lambda: b"looking at" in tap.errors.read_bytes(), 60)

    def close() -> None:
        running.close()
        tap.stop()

    return running._replace(close=close)


def start_edge(definition: Definition, folder: Path, *arguments: str) -> Running:
    """`edge run` on a definition, its state in `folder`."""
    outbox = Outbox(folder / definition.name)
    process = edge_process(folder, "run", *arguments, str(definition.write(folder)))
    return Running(process, outbox.read, outbox.appended, outbox.close, outbox.tried)


def edge_process(folder: Path, *arguments: str) -> Process:
    """The command `edge` of this environment, keeping its outboxes in `folder`."""
    command = [str(Path(sys.executable).with_name("edge")), *arguments]
    return Process("edge", command, folder, env={"EDGE_STATE_DIR": str(folder), **SECRETS})


def null(task: Task) -> Running:
    """Reads and counts, nothing else. QoS 0 only: it sends no acknowledgements."""
    counter = task.folder / "count"
    counter.write_bytes(bytes(8))
    process = _subscriber("null", task, str(counter))
    return Running(process, lambda: int(struct.unpack("=q", counter.read_bytes())[0]))


def hand_written(task: Task) -> Running:
    """paho `on_message`, `json.loads`, SQLite with synchronous FULL, committed every 1000."""
    store = task.folder / "readings.sqlite"
    process = _subscriber("hand-written", task, str(task.qos), str(store))
    return Running(
        process,
        lambda: _ask(store, "SELECT seq - 999999 FROM readings ORDER BY rowid DESC LIMIT 1"),
        lambda: _ask(store, "SELECT count(*) FROM readings"),
    )


def mosquitto_sub(task: Task) -> Running:
    """`mosquitto_sub > file`: nothing computed, and nothing safe from a power cut."""
    output = task.folder / "messages"
    command = ["mosquitto_sub", "-h", "127.0.0.1", "-p", str(task.broker.port), "-t", TOPICS]
    command += ["-q", str(task.qos), "-C", str(task.messages)]
    process = Process("mosquitto_sub", command, task.folder, output=output)
    return Running(process, lambda: output.stat().st_size // (PAYLOAD + 1))


def _subscriber(name: str, task: Task, *arguments: str) -> Process:
    root = Path(__file__).parent.parent
    command = [sys.executable, "-m", "benchmarks.subscribers", name, str(task.broker.port)]
    return Process(name, [*command, *arguments], task.folder, env={"PYTHONPATH": str(root)})


def _ask(store: Path, query: str) -> int:
    """The number that `query` finds in what is committed; 0 if it finds none."""
    database = sqlite3.connect(f"file:{store}?mode=ro", uri=True)
    try:
        found = database.execute(query).fetchone()
    finally:
        database.close()
    return int(found[0]) if found else 0
