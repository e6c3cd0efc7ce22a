"""An outbox that is full lets out what is in it, whatever filled it and however often killed."""

import asyncio
import json
import os
import sqlite3
from contextlib import closing
from pathlib import Path
from typing import Any

from tests.broker import Broker
from tests.faults.test_process import status
from tests.mqtt.intake import send
from tests.mqtt.listener import Listener
from tests.processor import Processor, until
from tests.proxy import Proxy

WIDE = """
name: press
site: osaka
source:
  dataset: {path: in/*.ndjson, follow: true, settle: 100ms}
record: {fields: {n: int, note: str}}
outbox: {path: outbox, max_size: 32MiB}
sinks:
  there:
    mqtt: {url: 'THERE', topic: there}
    roll: {size: 1KiB, every: 100ms}
  here:
    file: {path: here}
    roll: {size: 1KiB, every: 100ms}
"""


def of_sink(folder: Path, name: str) -> dict[str, Any]:
    found: dict[str, Any] = status(folder)["sinks"].get(name, {})
    return found


def numbers(folder: Path) -> list[int]:
    lines = [line for file in folder.rglob("*.ndjson") for line in file.read_text().splitlines()]
    return sorted(json.loads(line)["n"] for line in lines)


def test_what_large_rows_filled_goes_out_where_it_can_and_all_of_it_in_the_end(
    tmp_path: Path,
) -> None:
    given = list(range(80))
    rows = [json.dumps({"n": n, "note": os.urandom(2**18).hex()}) for n in given]
    (tmp_path / "in").mkdir()
    (tmp_path / "in" / "rows.ndjson").write_text("".join(f"{row}\n" for row in rows))
    processor = Processor(tmp_path / "press.yaml")
    with Broker(tmp_path / "broker") as broker, Proxy(("127.0.0.1", broker.port)) as way:
        (tmp_path / "press.yaml").write_text(WIDE.replace("THERE", f"mqtt://127.0.0.1:{way.port}"))
        way.set("refuse")
        with processor.running(b": full at"):  # and killed
            until(lambda: of_sink(tmp_path, "there").get("link") == "down")
            until(lambda: of_sink(tmp_path, "here")["buffered_rows"] == 0)
            assert of_sink(tmp_path, "there")["buffered_rows"] > 0
        way.set("up")
        with processor.running():
            until(lambda: of_sink(tmp_path, "there")["delivered_rows"] == 80)
            until(lambda: of_sink(tmp_path, "here")["delivered_rows"] == 80)
            assert status(tmp_path)["imbalances"] == []
    assert numbers(tmp_path / "here") == given


SWELLING = """
name: press
site: osaka
source:
  mqtt: {url: 'URL', topics: plant/+}
  acknowledge: delivered
record:
  time: ts
  fields: {ts: timestamp_ms, n: int}
operators:
  - python: {function: swell.py:swell, columns: {ts: timestamp, n: int, text: str}}
batch: {rows: 10000, wait: 1s}
outbox: {path: outbox, max_size: 32MiB}
sinks:
  there:
    mqtt: {url: 'URL', topic: there}
    roll: {size: 1MiB, every: 100ms}
  here:
    file: {path: here}
    roll: {size: 1MiB, every: 100ms}
"""
SWELL = """
import os
from base64 import b64encode
import polars as pl

def swell(frame):
    text = [b64encode(os.urandom(12_500)).decode() for _ in range(frame.height)]
    return frame.with_columns(pl.Series("text", text, dtype=pl.String))
"""
"""What comes of 600 readings is 7.5 MiB, of which one commit takes a quarter."""
DEEP = "allow_anonymous true\nmax_queued_messages 0\nmax_inflight_messages 0"


def some_wait(folder: Path) -> bool:
    """Whether rows wait to be worked off, seen from outside."""
    with closing(sqlite3.connect(f"file:{folder}/outbox/outbox.sqlite?mode=ro", uri=True)) as db:
        query = "SELECT count(*) FROM memory WHERE name = 'waiting' AND length(body) > 0"
        return bool(db.execute(query).fetchone()[0])


def all_delivered(folder: Path) -> bool:
    sinks = "there", "here"
    return all(of_sink(folder, sink).get("delivered_rows") == 600 for sink in sinks)


def test_a_batch_too_large_for_a_commit_reaches_two_sinks_once(tmp_path: Path) -> None:
    """Killed while its rows wait, and again: the broker, not yet told, repeats all of it."""
    (tmp_path / "swell.py").write_text(SWELL)
    processor = Processor(tmp_path / "press.yaml")
    with Broker(tmp_path / "broker", DEEP) as broker:
        (tmp_path / "press.yaml").write_text(SWELLING.replace("URL", broker.url))
        with processor.running(b"connected to mqtt"):
            pass  # the broker keeps a session for it from now on
        heard = Listener(broker.port)
        asyncio.run(send(broker, range(600)))
        for _ in range(2):
            with processor.running():
                # A busy machine may look too late for some to wait: then it is killed idle.
                until(lambda: some_wait(tmp_path) or all_delivered(tmp_path))
        with processor.running():
            until(lambda: all_delivered(tmp_path))
            assert status(tmp_path)["ledger"]["source"]["taken"] == 600
            assert status(tmp_path)["imbalances"] == []
        there = {each.edge_id: each.payload for each in heard.heard() if each.topic == "there"}
    assert (
        sorted(json.loads(body)["n"] for body in there.values())
        == numbers(tmp_path / "here")
        == list(range(600))
    )
