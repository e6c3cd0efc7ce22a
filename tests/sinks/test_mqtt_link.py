"""Nothing is missing at the broker, however often process, broker or connection end in between."""

import random
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from edge.clock import Clock
from edge.codec import pack
from edge.outbox import Commit, Limits, NewEntry, Outbox, SinkLimits
from tests.broker import Broker
from tests.mqtt.listener import Listener
from tests.proxy import Proxy
from tests.sinks.places import PATH, rows
from tests.sinks.test_mqtt import KEPT

ROWS = 6000


def outbox_at(folder: Path) -> Outbox:
    outbox = Outbox(folder, limits=Limits(), sinks={"lake": SinkLimits()}, clock=Clock())
    outbox.open()
    return outbox


@contextmanager
def draining(folder: Path, url: str) -> Iterator[subprocess.Popen[bytes]]:
    """The draining process, once it drains; it has ended afterwards."""
    command = [sys.executable, "-m", "tests.sinks.drain", str(folder), url]
    with subprocess.Popen(command, stdout=subprocess.PIPE) as process:
        assert process.stdout
        assert process.stdout.readline() == b"draining\n"
        yield process


def wait_until(condition: Callable[[], bool]) -> None:
    deadline = time.monotonic() + 60
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.005)


def test_nothing_is_missing_and_every_repeat_is_known(tmp_path: Path) -> None:
    chance = random.Random(3)
    outbox = outbox_at(tmp_path / "outbox")
    frame = rows(ROWS).drop("edge_id")
    outbox.commit(Commit([NewEntry("lake", ROWS, 10 * ROWS, pack(frame))]))
    stem = f"{PATH}/{outbox.id}-"
    outbox.close()
    with (
        Broker(tmp_path / "broker", KEPT) as broker,
        Proxy(("127.0.0.1", broker.port)) as proxy,
    ):
        listener = Listener(broker.port)
        url = f"mqtt://127.0.0.1:{proxy.port}"
        for mode in ("reset", "lose_answer", "up"):
            with draining(tmp_path / "outbox", url) as process:
                before = proxy.taken
                proxy.set(mode, after=chance.randrange(50_000, 200_000))
                proxy.cut()
                wait_until(
                    lambda before=before, process=process: (
                        proxy.taken > before or process.poll() is not None
                    )
                )
                threading.Event().wait(chance.uniform(0, 0.1))
                process.kill()
        broker.restart()
        with draining(tmp_path / "outbox", url) as process:
            assert process.wait(60) == 0
        assert set(listener.by_id()) == {f"{stem}{number}" for number in range(1, ROWS + 1)}
    outbox = outbox_at(tmp_path / "outbox")
    assert outbox.status()["imbalances"] == []
    assert outbox.status()["ledger"]["sink:lake"]["delivered"] == ROWS
    outbox.close()
