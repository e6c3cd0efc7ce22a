"""The processor killed at random moments, compared row for row with what it was given.

`python -m tests.kills [dataset|mqtt|sqs] --kills 200 --seed 7` runs it for longer than the suite
does; a seed that fails fails again.
"""

import argparse
import json
import logging
import random
import signal
import sys
import tempfile
import threading
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any, NamedTuple

import polars as pl
from paho.mqtt.client import Client
from paho.mqtt.enums import CallbackAPIVersion

from edge.outbox.inspection import status
from tests.broker import Broker
from tests.cloud import Cloud
from tests.processor import Processor, until
from tests.proxy import Proxy

BUCKET, QUEUE = "lake", "alarms"
FIFO = "plant.fifo"
PACK = 50
"""Readings of one message of a queue."""
CLOUD = "<cloud>"
"""Where a source is to have the URL of the cloud."""
DEVICES = 7
BAND = 0.5
KEEPING = "allow_anonymous true\nmax_queued_messages 0"
"""A broker that keeps every message of a session while nobody is there, as ours does."""
FLAPS = ("up", "up", "up", "refuse", "reset", "lose_answer", "slow")

DEFINITION = """
name: killed
site: osaka
{source}
record:
  time: ts
  key: device
  fields: {{ts: timestamp_ms, device: str, n: int, value: float}}
operators:
  - python: {{function: steady.py:steady}}
  - filter: value >= 10
sinks:
  all:
    s3: {{bucket: lake, prefix: all/, partition: [date], endpoint_url: {cloud}}}
    roll: {{size: 256KiB, every: 300ms}}
  changed:
    operators:
      - deadband: {{column: value, change: 0.5}}
    s3: {{bucket: lake, prefix: changed/, endpoint_url: {cloud}, format: parquet}}
    roll: {{size: 64KiB, every: 500ms}}
  folded:
    operators:
      - window: {{size: 1s, aggregate: {{n: SUM(n), rows: COUNT(*), middle: MEDIAN(value)}}}}
    s3: {{bucket: lake, prefix: folded/, endpoint_url: {cloud}, format: parquet}}
    roll: {{size: 64KiB, every: 500ms}}
  joined:
    operators:
      - join:
          series: device = 'd0'
          by: []
          columns: {{newest: n}}
          tolerance: 1h
          missing: drop
      - filter: value > 95
      - derive: {{n: n + newest}}
    s3: {{bucket: lake, prefix: joined/, endpoint_url: {cloud}}}
    roll: {{size: 64KiB, every: 500ms}}
  alarms:
    when: value > 99
    sqs: {{queue: alarms, endpoint_url: {cloud}}}
batch: {{rows: 500}}
outbox: {{path: outbox}}
"""

STEADY = """
import time

def steady(frame):
    time.sleep({pause})  # so that there is still something to do after the last kill
    return frame
"""

Row = dict[str, Any]


class Verdict(NamedTuple):
    """What arrived, against what had to arrive."""

    kills: int
    rows: int
    repeats: int
    faults: list[str]


def readings(number: int, chance: random.Random) -> list[Row]:
    """Random walks of several devices, each reading unlike every other."""
    values = [50.0] * DEVICES
    found = []
    for n in range(number):
        device = chance.randrange(DEVICES)
        step = chance.choice((0.0, 0.1, 0.4, 3.0, 9.0)) * chance.choice((-1, 1))
        values[device] = min(100.0, max(0.0, values[device] + step))
        ts = 1_700_000_000_000 + n
        found.append({"ts": ts, "device": f"d{device}", "n": n, "value": round(values[device], 1)})
    return found


def expected(given: list[Row], ended: bool) -> dict[str, list[int]]:
    """Numbers that must arrive at each sink: the definition in plain Python.

    ended: windows that are open at the end come out.
    """
    kept = [row for row in given if row["value"] >= 10]
    last: dict[str, float] = {}
    changed = []
    for row in kept:
        before = last.get(row["device"])
        if before is None or abs(row["value"] - before) > BAND:
            last[row["device"]] = row["value"]
            changed.append(row["n"])
    alarms = [row["n"] for row in kept if row["value"] > 99]
    return {
        "all": [row["n"] for row in kept],
        "changed": changed,
        "alarms": alarms,
        "folded": sorted(_folded(kept, ended)),
        "joined": sorted(_joined(kept)),
    }


def _folded(kept: list[Row], ended: bool) -> list[int]:
    sums: dict[tuple[str, int], int] = {}
    newest: dict[str, int] = {}
    for row in kept:
        second = row["ts"] // 1000
        newest[row["device"]] = second
        place = row["device"], second
        sums[place] = sums.get(place, 0) + row["n"]
    return [total for (device, at), total in sums.items() if ended or at < newest[device]]


def _joined(kept: list[Row]) -> list[int]:
    found = []
    newest = None
    for row in kept:
        if row["device"] == "d0":
            newest = row["n"]
        elif newest is not None and row["value"] > 95:
            found.append(row["n"] + newest)
    return found


@contextmanager
def flapping(proxy: Proxy, chance: random.Random) -> Iterator[None]:
    """The link comes and goes; up again at the end."""
    over = threading.Event()

    def flap() -> None:
        while not over.wait(chance.uniform(0.05, 0.5)):
            proxy.set(chance.choice(FLAPS), after=chance.randrange(1, 100_000), rate=200_000)
        proxy.set("up")

    thread = threading.Thread(target=flap)
    thread.start()
    try:
        yield
    finally:
        over.set()
        thread.join()


def kill_again_and_again(processor: Processor, kills: int, chance: random.Random) -> None:
    """So many lives, each ended by SIGKILL within its first second of work."""
    for _ in range(kills):
        with processor.running() as process:
            time.sleep(chance.uniform(0.0, 0.7))
            if process.poll() not in (None, 0):
                raise AssertionError(f"ended with {process.returncode}: {processor.tail()}")


def run_dataset(folder: Path, cloud: Cloud, kills: int, seed: int) -> Verdict:
    """A file of readings; the position in it is committed with the rows."""
    chance = random.Random(seed)
    given = readings(kills * 15_000, chance)
    lines = "".join(json.dumps(row) + "\n" for row in given)
    (folder / "readings.ndjson").write_text(lines)
    with _furnished(folder, cloud, "source: {dataset: {path: readings.ndjson}}", 0.005) as proxy:
        processor = Processor(folder / "killed.yaml", "--once")
        with flapping(proxy, chance):
            kill_again_and_again(processor, kills, chance)
        with processor.running() as process:
            assert process.wait(300) == 0, processor.tail()
    return _verdict(cloud, kills, given, ended=True)


def run_mqtt(folder: Path, cloud: Cloud, kills: int, seed: int) -> Verdict:
    """A publisher at QoS 1 through a broker that keeps the session while nobody is there."""
    chance = random.Random(seed)
    given = readings(kills * 1_500, chance)
    with ExitStack() as stack:
        broker = stack.enter_context(Broker(folder / "broker", KEEPING))
        source = f"source: {{mqtt: {{url: 'mqtt://127.0.0.1:{broker.port}', topics: 'p/+'}}}}"
        proxy = stack.enter_context(_furnished(folder, cloud, source, 0.0))
        processor = Processor(folder / "killed.yaml")
        with processor.running(b"connected to mqtt"):
            pass  # the broker keeps a session for it from now on
        publisher = threading.Thread(target=_publish, args=(broker.port, given, kills * 0.8))
        with flapping(proxy, chance):
            publisher.start()
            kill_again_and_again(processor, kills, chance)
            publisher.join()
        with processor.running() as process:
            until(lambda: _drained(folder, len(given)), 300)
            process.send_signal(signal.SIGTERM)
            assert process.wait(60) == 0, processor.tail()
    return _verdict(cloud, kills, given, ended=False)


def _publish(port: int, given: list[Row], seconds: float) -> None:
    client = Client(CallbackAPIVersion.VERSION2)
    client.max_queued_messages_set(0)
    client.connect("127.0.0.1", port)
    client.loop_start()
    for number, row in enumerate(given):
        info = client.publish(f"p/{row['device']}", json.dumps(row), qos=1)
        if number % 100 == 0:
            time.sleep(seconds * 100 / len(given))
    info.wait_for_publish(600)
    client.disconnect()
    client.loop_stop()


def run_sqs(folder: Path, cloud: Cloud, kills: int, seed: int) -> Verdict:
    """A FIFO queue of one group: what was received and not deleted comes again, in its order."""
    chance = random.Random(seed)
    given = readings(kills * 1_500, chance)
    cloud.make_queue(FIFO)
    source = f"source: {{sqs: {{queue: {FIFO}, visibility: 1s, endpoint_url: '{CLOUD}'}}}}"
    with _furnished(folder, cloud, source, 0.0) as proxy:
        processor = Processor(folder / "killed.yaml")
        sender = threading.Thread(target=_fill, args=(cloud, given, kills * 0.8))
        with flapping(proxy, chance):
            sender.start()
            kill_again_and_again(processor, kills, chance)
            sender.join()
        with processor.running() as process:
            # One group: ten messages at a time, and the most of them are left to this life.
            until(lambda: not cloud.waiting(FIFO) and _drained(folder, len(given)), 300 + 6 * kills)
            process.send_signal(signal.SIGTERM)
            assert process.wait(60) == 0, processor.tail()
    return _verdict(cloud, kills, given, ended=False)


def _fill(cloud: Cloud, given: list[Row], seconds: float) -> None:
    """Ten messages of so many readings each at a time."""
    client = cloud.client("sqs")
    url = client.get_queue_url(QueueName=FIFO)["QueueUrl"]
    for first in range(0, len(given), 10 * PACK):
        starts = range(first, min(first + 10 * PACK, len(given)), PACK)
        entries = [
            {
                "Id": str(at),
                "MessageBody": json.dumps(given[start : start + PACK]),
                "MessageGroupId": "all",
                "MessageDeduplicationId": str(start),
            }
            for at, start in enumerate(starts)
        ]
        client.send_message_batch(QueueUrl=url, Entries=entries)
        time.sleep(seconds * 10 * PACK / len(given))


def _drained(folder: Path, number: int) -> bool:
    now = status(folder / "outbox", 0)
    taken = now["ledger"].get("source", {}).get("taken", 0)
    buffered = sum(sink["buffered_rows"] for sink in now["sinks"].values())
    return bool(taken >= number and buffered == 0)


@contextmanager
def _furnished(folder: Path, cloud: Cloud, source: str, pause: float) -> Iterator[Proxy]:
    """Bucket and queue behind a proxy, and the definition that sends there."""
    cloud.make_bucket(BUCKET)
    cloud.make_queue(QUEUE)
    with Proxy(("127.0.0.1", cloud.port)) as proxy:
        url = f"http://127.0.0.1:{proxy.port}"
        (folder / "killed.yaml").write_text(
            DEFINITION.format(source=source, cloud=url).replace(CLOUD, url)
        )
        (folder / "steady.py").write_text(STEADY.format(pause=pause))
        yield proxy


def _verdict(cloud: Cloud, kills: int, given: list[Row], *, ended: bool) -> Verdict:
    must = expected(given, ended)
    objects = cloud.objects(BUCKET)
    arrived = {sink: _rows(objects, f"{sink}/") for sink in must if sink != "alarms"}
    messages = [json.loads(message["Body"]) for message in cloud.messages(QUEUE)]
    told_apart = {row["edge_id"]: row for row in messages}
    arrived["alarms"] = list(told_apart.values())
    faults = []
    for sink, rows in arrived.items():
        numbers = sorted(row["n"] for row in rows)
        if len({row["edge_id"] for row in rows}) != len(rows):
            faults.append(f"{sink}: an edge_id stands on two rows")
        if numbers != must[sink]:
            missing = len(set(must[sink]) - set(numbers))
            doubled = len(numbers) - len(set(numbers))
            wrong = len(set(numbers) - set(must[sink]))
            faults.append(f"{sink}: {missing} missing, {doubled} doubled, {wrong} not expected")
    rows_arrived = sum(map(len, arrived.values()))
    return Verdict(kills, rows_arrived, len(messages) - len(told_apart), faults)


def _rows(objects: dict[str, bytes], prefix: str) -> list[Row]:
    found: list[Row] = []
    for key, body in objects.items():
        if key.startswith(prefix):
            read = pl.read_parquet if key.endswith(".parquet") else pl.read_ndjson
            found += read(body).select("edge_id", "n").to_dicts()
    return found


SCENARIOS = {"dataset": run_dataset, "mqtt": run_mqtt, "sqs": run_sqs}


def main() -> int:
    """Run scenarios and print a line each; 1 if a row is missing, doubled or not expected."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("scenarios", nargs="*", choices=[*SCENARIOS, []], default=[])
    parser.add_argument("--kills", type=int, default=200)
    parser.add_argument("--seed", type=int, default=random.randrange(10**6))
    arguments = parser.parse_args()
    logging.getLogger("werkzeug").setLevel(logging.CRITICAL)  # it tells of every link that we cut
    failed = False
    with Cloud() as cloud:
        for name in arguments.scenarios or SCENARIOS:
            cloud.reset()
            with tempfile.TemporaryDirectory() as folder:
                verdict = SCENARIOS[name](Path(folder), cloud, arguments.kills, arguments.seed)
            print(f"{name}: seed {arguments.seed}, {verdict}", flush=True)
            failed |= bool(verdict.faults)
    return int(failed)


if __name__ == "__main__":
    sys.exit(main())
