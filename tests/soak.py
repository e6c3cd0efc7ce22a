"""Everything at once and at random: a real processor, broker and cloud, and faults by a plan.

`python -m tests.soak --minutes 10 --seed 7` plays the plan of one seed, `--seeds 50` those of 50
seeds from there on; a seed always gives the same plan. At the end the equations must hold, and what
lies in S3 and SQS must be what was published.
"""

import argparse
import base64
import json
import logging
import random
import signal
import sys
import tempfile
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any, NamedTuple, get_args

import polars as pl
from paho.mqtt.client import Client
from paho.mqtt.enums import CallbackAPIVersion

from edge.outbox.inspection import books, disk_use, status, verify
from edge.outbox.model import WhenFull
from tests.broker import Broker
from tests.cloud import Cloud
from tests.kills import BUCKET, KEEPING, QUEUE, Row, expected, readings
from tests.processor import Processor, until
from tests.proxy import Mode, Proxy

MOST = 240_000
"""Readings of one soak at most; the cloud keeps them all in memory."""
PAD = 900
"""Bytes of noise in each reading, which no compression makes smaller: the outbox shall get full."""
CAP = 32 * 2**20
GRACE = 60.0
PATIENCE = 300.0
"""Seconds in which something must be taken or delivered, once all is well."""
PERSISTENT = f"{KEEPING}\npersistence true\npersistence_location {{folder}}/"
FAKE_TIME = sorted(Path("/usr/lib").glob("*/faketime/libfaketimeMT.so.1"))

DEFINITION = """
name: soaked
site: osaka
source: {{mqtt: {{url: 'mqtt://127.0.0.1:{broker}', topics: 'p/+'}}}}
record:
  time: ts
  key: device
  fields: {{ts: timestamp_ms, device: str, n: int, value: float, pad: optional str}}
operators:
  - filter: value >= 10
sinks:
  all:
    operators: {more}
    s3:
      bucket: lake
      prefix: all/
      format: {form}
      partition: {partition}
      endpoint_url: {cloud}
    roll: {{size: {size}, every: {every}}}
    priority: low
  changed:
    operators:
      - drop: [pad]
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
      - drop: [pad]
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
    operators:
      - drop: [pad]
    when: value > 99
    sqs: {{queue: alarms, endpoint_url: {cloud}}}
    priority: high
batch: {{rows: {rows}}}
link: {{live_share: {share}}}
outbox: {{path: outbox, max_size: 32MiB, when_full: {when_full}}}
"""
CHANGES = {
    "form": ("ndjson", "parquet"),
    "partition": ("[date]", "[]", "[device]"),
    "size": ("64KiB", "1MiB"),
    "every": ("200ms", "2s"),
    "more": ("[]", "[{derive: {twice: value * 2}}]"),
    "rows": ("100", "5000"),
    "share": ("0.3", "0.7"),
}


class Step(NamedTuple):
    """At so many seconds: what happens, and what it happens with."""

    at: float
    fault: str
    value: Any = None


class Plan(NamedTuple):
    """What one seed stands for."""

    seed: int
    seconds: float
    when_full: str
    steps: list[Step]


def make_plan(seed: int, seconds: float) -> Plan:
    """A fault every other second, a long outage, and all of them at random."""
    chance = random.Random(seed)
    when_full = chance.choice(get_args(WhenFull))
    outage = chance.uniform(0.1, 0.4) * seconds
    steps = [Step(outage, "link", "refuse"), Step(outage + 0.4 * seconds, "link", "up")]
    at = 0.0
    while (at := at + chance.uniform(0.5, 2.5)) < seconds:
        fault = chance.choice(tuple(_FAULTS))
        if fault == "link" and outage <= at <= outage + 0.4 * seconds:
            fault = "kill"
        value = _FAULTS[fault](chance)
        steps.append(Step(at, fault, value))
        if fault in ("link", "line"):
            steps.append(Step(at + chance.uniform(0.2, 2.0), fault, "up"))
    return Plan(seed, seconds, when_full, sorted(steps, key=lambda step: step.at))


_FAULTS: dict[str, Callable[[random.Random], Any]] = {
    "kill": lambda chance: None,
    "term": lambda chance: None,
    "link": lambda chance: chance.choice([mode for mode in get_args(Mode) if mode != "up"]),
    "line": lambda chance: chance.choice(("refuse", "reset", "black_hole", "lose_answer")),
    "broker": lambda chance: None,
    "rubbish": lambda chance: chance.randrange(1, 50),
    "clock": lambda chance: chance.choice((-86_400, -3_600, -1, 0, 1, 3_600, 86_400)),
    "change": lambda chance: {name: chance.choice(ways) for name, ways in CHANGES.items()},
}
"""link: to the cloud; line: to the broker; clock: offset of the processor's, seconds."""


class Verdict(NamedTuple):
    """What arrived, against what had to arrive."""

    seed: int
    when_full: str
    faults_made: int
    rows: int
    dropped: int
    repeats: int
    faults: list[str]


class Publisher:
    """Publishes at QoS 1, and rubbish in between; holds still while the broker is restarted."""

    def __init__(self, port: int, given: list[Row], seconds: float, seed: int) -> None:
        self.rubbish = 0
        self._given = given
        self._rate = len(given) / seconds
        self._noise = random.Random(seed)
        self._turn = threading.Lock()
        self._client = Client(CallbackAPIVersion.VERSION2)
        self._client.max_queued_messages_set(0)
        self._client.reconnect_delay_set(0.1, 0.5)
        self._client.connect("127.0.0.1", port)
        self._client.loop_start()
        self._thread = threading.Thread(target=self._publish, daemon=True)

    def start(self) -> None:
        self._thread.start()

    def publish_rubbish(self, number: int) -> None:
        """Payloads that no record takes."""
        with self._turn:
            for count in range(number):
                self._client.publish("p/d0", b'{"ts": %d, "n": "x"' % count, qos=1)
            self.rubbish += number

    @contextmanager
    def silent(self) -> Iterator[None]:
        """Nothing of it is on its way: what it sends again would be a message of its own."""
        with self._turn:
            until(lambda: not self._client._out_messages)
            yield
            until(self._client.is_connected)

    def end(self) -> None:
        """When all is published."""
        self._thread.join()
        with self.silent():
            pass
        self._client.disconnect()
        self._client.loop_stop()

    def _publish(self) -> None:
        begin = time.monotonic()
        for number in range(0, len(self._given), 20):
            time.sleep(max(0.0, number / self._rate - (time.monotonic() - begin)))
            with self._turn:
                for row in self._given[number : number + 20]:
                    pad = base64.b64encode(self._noise.randbytes(PAD)).decode()
                    payload = json.dumps({**row, "pad": pad})
                    self._client.publish(f"p/{row['device']}", payload, qos=1)


class Soak:
    """One plan being played in a folder."""

    def __init__(self, plan: Plan, folder: Path, cloud: Cloud, stack: ExitStack) -> None:
        number = round(min(1000 * plan.seconds * 0.8, MOST))
        given = readings(number, random.Random(plan.seed))
        self._plan = plan
        self._given = given
        self._folder = folder
        self._cloud = cloud
        self._broker = stack.enter_context(Broker(folder / "broker", PERSISTENT))
        self._line = stack.enter_context(Proxy(("127.0.0.1", self._broker.port)))
        self._link = stack.enter_context(Proxy(("127.0.0.1", cloud.port)))
        self._publisher = Publisher(self._broker.port, given, plan.seconds * 0.8, plan.seed)
        self._life = stack.enter_context(ExitStack())
        self._faults: list[str] = []
        self._make: dict[str, Callable[[Any], None]] = {
            "kill": lambda _: self._restart(signal.SIGKILL),
            "term": lambda _: self._restart(signal.SIGTERM),
            "link": lambda mode: self._link.set(mode, after=50_000, rate=200_000),
            "line": lambda mode: self._line.set(mode),
            "broker": lambda _: self._restart_broker(),
            "rubbish": self._publisher.publish_rubbish,
            "clock": self._set_clock,
            "change": self._change,
        }
        self._change({name: ways[0] for name, ways in CHANGES.items()})
        self._set_clock(0)
        self._processor = Processor(folder / "soaked.yaml", **self._fake_time())

    def play(self) -> Verdict:
        """All of the plan, then the drain."""
        self._start(b"connected to mqtt")  # the broker keeps a session for it from now on
        self._publisher.start()
        begin = time.monotonic()
        for step in self._plan.steps:
            time.sleep(max(0.0, begin + step.at - time.monotonic()))
            self._make[step.fault](step.value)
            self._look()
        self._link.set("up")
        self._line.set("up")
        self._publisher.end()
        self._drain()
        self._end(signal.SIGTERM)
        return self._verdict()

    def _drain(self) -> None:
        """For as long as rows move: a busy machine may need minutes for what is left."""
        moved, before = time.monotonic(), None
        while (now := self._left()) != (0, 0):
            if now != before:
                moved, before = time.monotonic(), now
            elif time.monotonic() > moved + PATIENCE:
                self._faults.append(f"not drained: {self._status()}")
                return
            time.sleep(0.2)

    # -- faults

    def _start(self, word: bytes = b": started") -> None:
        self._process = self._life.enter_context(self._processor.running(word))

    def _end(self, number: signal.Signals) -> None:
        if self._process.poll() is not None:
            raise AssertionError(f"ended with {self._process.returncode}: {self._processor.tail()}")
        self._process.send_signal(number)
        code = self._process.wait(GRACE)
        if code != (-number if number == signal.SIGKILL else 0):
            raise AssertionError(f"ended with {code}: {self._processor.tail()}")

    def _restart(self, number: signal.Signals) -> None:
        self._end(number)
        self._start()

    def _restart_broker(self) -> None:
        with self._publisher.silent():
            self._broker.restart()

    def _set_clock(self, offset: int) -> None:
        fresh = self._folder / "clock.new"
        fresh.write_text(f"{offset:+d}s\n")
        fresh.rename(self._folder / "clock")

    def _fake_time(self) -> dict[str, str]:
        return {
            "LD_PRELOAD": str(FAKE_TIME[0]),
            "FAKETIME_TIMESTAMP_FILE": str(self._folder / "clock"),
            "FAKETIME_NO_CACHE": "1",
            "FAKETIME_DONT_FAKE_MONOTONIC": "1",
            "NO_FAKE_STAT": "1",
        }

    def _change(self, options: dict[str, str]) -> None:
        """The definition of the next start."""
        text = DEFINITION.format(
            broker=self._line.port,
            cloud=self._link.url,
            when_full=self._plan.when_full,
            **options,
        )
        (self._folder / "soaked.yaml").write_text(text)

    # -- what must hold

    def _status(self) -> dict[str, Any]:
        return status(self._folder / "outbox", time.time_ns() // 1000)

    def _look(self) -> None:
        """The equations and the cap, at any moment."""
        self._faults += self._status()["imbalances"]
        if (size := disk_use(self._folder / "outbox")) > CAP:
            self._faults.append(f"the outbox takes {size} bytes of {CAP}")

    def _left(self) -> tuple[int, int]:
        """Readings that are not taken yet, and rows that are not delivered."""
        now = self._status()
        taken = now["ledger"].get("source", {}).get("taken", 0)
        buffered = sum(sink["buffered_rows"] for sink in now["sinks"].values())
        return max(0, len(self._given) - taken), buffered

    def _verdict(self) -> Verdict:
        outbox, plan = self._folder / "outbox", self._plan
        faults = self._faults + verify(outbox)["faults"]
        ledger = books(outbox)["ledger"]
        source = {name: ledger["source"].get(name, 0) for name in ("taken", "rejected")}
        if source != {"taken": len(self._given), "rejected": self._publisher.rubbish}:
            given = f"{len(self._given)} readings and {self._publisher.rubbish} of rubbish"
            faults.append(f"source: {source} of {given}")
        arrived, repeats = self._arrived()
        for sink, must in expected(self._given, ended=False).items():
            dropped = ledger[f"sink:{sink}"].get("dropped", 0)
            faults += _compare(sink, must, arrived[sink], dropped)
        dropped = sum(ledger[f"sink:{sink}"].get("dropped", 0) for sink in arrived)
        if dropped and plan.when_full == "block":
            faults.append(f"{dropped} rows were dropped")
        rows = sum(map(len, arrived.values()))
        count = len(plan.steps)
        return Verdict(plan.seed, plan.when_full, count, rows, dropped, repeats, faults)

    def _arrived(self) -> tuple[dict[str, list[int]], int]:
        """Numbers of the rows at each sink, and how many repeats SQS had of its own."""
        arrived: dict[str, list[int]] = {"all": [], "changed": [], "folded": [], "joined": []}
        for key, body in self._cloud.objects(BUCKET).items():
            if key.endswith(".parquet"):
                rows = pl.read_parquet(body)
            else:
                rows = pl.read_ndjson(body, infer_schema_length=None)  # `pad` may be null for long
            arrived[key.partition("/")[0]] += rows["n"].to_list()
        messages = [json.loads(message["Body"]) for message in self._cloud.messages(QUEUE)]
        told_apart = {row["edge_id"]: row["n"] for row in messages}
        arrived["alarms"] = list(told_apart.values())
        return arrived, len(messages) - len(told_apart)


def _compare(sink: str, must: list[int], arrived: list[int], dropped: int) -> list[str]:
    """What is wrong with the rows that arrived, when so many were dropped by the way."""
    had, right = Counter(arrived), Counter(must)  # two windows may have the same sum
    wrong = len(had.keys() - right.keys())
    doubled = (had - right).total() - wrong
    missing = (right - had).total()
    if doubled or wrong or missing != dropped:
        return [f"{sink}: {missing} missing, {dropped} dropped, {doubled} doubled, {wrong} wrong"]
    return []


def play(plan: Plan, folder: Path, cloud: Cloud) -> Verdict:
    """Play a plan in an empty folder, with an empty cloud."""
    cloud.make_bucket(BUCKET)
    cloud.make_queue(QUEUE)
    with ExitStack() as stack:
        return Soak(plan, folder, cloud, stack).play()


def main() -> int:
    """Play the plans of some seeds and print a line each; 1 if something does not hold."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--minutes", type=float, default=10.0)
    parser.add_argument("--seed", type=int, default=random.randrange(10**6))
    parser.add_argument("--seeds", type=int, default=1)
    arguments = parser.parse_args()
    logging.getLogger("werkzeug").setLevel(logging.ERROR)
    failed = False
    with Cloud() as cloud:
        for seed in range(arguments.seed, arguments.seed + arguments.seeds):
            cloud.reset()
            with tempfile.TemporaryDirectory(dir="/var/tmp") as folder:
                verdict = play(make_plan(seed, arguments.minutes * 60), Path(folder), cloud)
            print(verdict, flush=True)
            failed |= bool(verdict.faults)
    return int(failed)


if __name__ == "__main__":
    sys.exit(main())
