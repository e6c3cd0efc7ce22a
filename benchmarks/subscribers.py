"""What the product is compared with, each run as a process of its own."""

import json
import mmap
import socket
import sqlite3
import struct
import sys
import time
from pathlib import Path
from typing import Any

TOPICS = "plant/+/+/values"
PUBLISH = 145
"""Bytes of one QoS 0 PUBLISH of the flood, by which the null subscriber counts."""


def null(port: int, counter: Path) -> None:
    """Naps 1 ms, reads all there is into a large buffer, counts messages by their bytes.

    It stands in for a C program that does the same: Python only adds up and divides once per read.
    Whoever watches finds the count in the first 8 bytes of the file `counter`.
    """
    link = socket.create_connection(("127.0.0.1", port))
    link.sendall(b"\x10\x10\x00\x04MQTT\x04\x02\x00\x00\x00\x04null")
    link.recv(4)
    name = TOPICS.encode()
    link.sendall(bytes([0x82, len(name) + 5, 0, 1, 0, len(name)]) + name + b"\x00")
    link.recv(5)
    buffer = bytearray(4 * 2**20)
    with counter.open("r+b") as file, mmap.mmap(file.fileno(), 8) as shared:
        read = 0
        while size := link.recv_into(buffer):
            read += size
            struct.pack_into("=q", shared, 0, read // PUBLISH)
            time.sleep(0.001)


def hand_written(port: int, qos: int, store: Path) -> None:
    """The loop one writes by hand: paho, `json.loads`, filter, derive, SQLite FULL every 1000."""
    import paho.mqtt.client as mqtt
    from paho.mqtt.enums import CallbackAPIVersion

    database = sqlite3.connect(store, check_same_thread=False, isolation_level=None)
    database.execute("PRAGMA journal_mode=WAL")
    database.execute("PRAGMA synchronous=FULL")
    database.execute("CREATE TABLE readings (seq INTEGER, body TEXT)")
    database.execute("BEGIN")
    waiting = 0

    def on_message(client: mqtt.Client, _: Any, message: mqtt.MQTTMessage) -> None:
        nonlocal waiting
        row = json.loads(message.payload)
        if row["status"] == "ok" and row["temperature"] > 15:
            _, row["line"], row["device"], _ = message.topic.split("/")
            row["fahrenheit"] = round(row["temperature"] * 1.8 + 32, 2)
            database.execute("INSERT INTO readings VALUES (?, ?)", (row["seq"], json.dumps(row)))
        waiting += 1
        if waiting == 1000:
            database.execute("COMMIT")
            database.execute("BEGIN")
            waiting = 0

    client = mqtt.Client(CallbackAPIVersion.VERSION2)
    client.on_message = on_message
    client.on_connect = lambda client, *_: client.subscribe(TOPICS, qos)
    client.connect("127.0.0.1", port)
    client.loop_forever()


def polars_query(rows: Path, results: Path, windows: bool) -> None:
    """One lazy polars query over the whole file: filter and derive, or windows per device."""
    import polars as pl

    passed = pl.scan_ndjson(rows).filter((pl.col("status") == "ok") & (pl.col("temperature") > 15))
    timed = passed.with_columns(ts=pl.from_epoch("ts", "ms").dt.replace_time_zone("UTC"))
    if windows:
        window = pl.col("ts").dt.truncate("10s")
        query = timed.group_by("device", window).agg(
            peak=pl.col("temperature").max(), mean=pl.col("temperature").mean(), n=pl.len()
        )
    else:
        query = timed.with_columns(fahrenheit=(pl.col("temperature") * 1.8 + 32).round(2))
    query.sink_ndjson(results)


def main(name: str, *rest: str) -> None:
    """Run the one called `name` until it is stopped."""
    match name:
        case "null":
            null(int(rest[0]), Path(rest[1]))
        case "hand-written":
            hand_written(int(rest[0]), int(rest[1]), Path(rest[2]))
        case "polars":
            polars_query(Path(rest[0]), Path(rest[1]), rest[2] == "windows")


if __name__ == "__main__":
    main(*sys.argv[1:])
