"""S3 and SQS on this machine: moto's server as a child, and what arrived there, by real reads."""

import contextlib
import importlib.util
import json
import sys
from collections.abc import Iterator
from datetime import datetime
from io import BytesIO
from pathlib import Path
from typing import Any, NamedTuple

import boto3
import polars as pl
from botocore.config import Config

from edge.demo.children import Child, DemoError, free_port
from edge.demo.expected import Row

BUCKET = "plant-lake"
QUEUE = "machine-alarms"
REGION = "us-east-1"
KEYS = {"AWS_ACCESS_KEY_ID": "demo", "AWS_SECRET_ACCESS_KEY": "demo"}


class Arrived(NamedTuple):
    """What one sink's destination holds: objects or messages, and their rows with `edge_id`."""

    parcels: int
    rows: list[tuple[str, Row]]


class Cloud:
    """moto's server with one bucket and one queue."""

    def __init__(self, child: Child, port: int) -> None:
        self.port = port
        self._child = child
        settings = {
            "endpoint_url": f"http://127.0.0.1:{port}",
            "region_name": REGION,
            "aws_access_key_id": KEYS["AWS_ACCESS_KEY_ID"],
            "aws_secret_access_key": KEYS["AWS_SECRET_ACCESS_KEY"],
            "config": Config(proxies={}, s3={"addressing_style": "path"}),
        }
        self._s3: Any = boto3.client("s3", **settings)
        self._sqs: Any = boto3.client("sqs", **settings)

    @classmethod
    async def start(cls, log: Path) -> "Cloud":
        """Raises DemoError when moto is not installed."""
        if not (importlib.util.find_spec("moto") and importlib.util.find_spec("flask")):
            raise DemoError(
                "demo: needs moto's server for S3 and SQS on this machine, which is not installed; "
                "run pip install 'PATH-OF-THE-CLONE[demo]'"
            )
        port = free_port()
        command = [sys.executable, "-m", "moto.server", "-H", "127.0.0.1", "-p", str(port)]
        child = await Child.start("moto", command, log)
        try:
            await child.listening(port)
        except BaseException:
            await child.kill()
            raise
        return cls(child, port)

    def furnish(self) -> None:
        """Make the bucket and the queue, which a pipeline never does by itself."""
        self._s3.create_bucket(Bucket=BUCKET)
        self._sqs.create_queue(QueueName=QUEUE)

    async def close(self) -> None:
        await self._child.kill()

    def lake(self, copies: Path) -> Arrived:
        """Every object of the bucket, copied below `copies`, and its rows."""
        objects = [*self._objects()]
        found: list[tuple[str, Row]] = []
        for key, body in objects:
            target = copies / BUCKET / key
            target.parent.mkdir(parents=True, exist_ok=True)
            target.write_bytes(body)
            found += [_row(row) for row in pl.read_parquet(BytesIO(body)).iter_rows(named=True)]
        return Arrived(len(objects), found)

    def alarms(self, copies: Path) -> Arrived:
        """Every message of the queue, in the order received, copied to one NDJSON file."""
        bodies = [*self._messages()]
        copies.mkdir(parents=True, exist_ok=True)
        copies.joinpath(f"{QUEUE}.ndjson").write_text("".join(f"{body}\n" for body in bodies))
        return Arrived(len(bodies), [_row(json.loads(body)) for body in bodies])

    def _objects(self) -> Iterator[tuple[str, bytes]]:
        for page in self._s3.get_paginator("list_objects_v2").paginate(Bucket=BUCKET):
            for item in page.get("Contents", []):
                body = self._s3.get_object(Bucket=BUCKET, Key=item["Key"])["Body"]
                with contextlib.closing(body):
                    yield item["Key"], body.read()

    def _messages(self) -> Iterator[str]:
        url = self._sqs.get_queue_url(QueueName=QUEUE)["QueueUrl"]
        while True:
            answer = self._sqs.receive_message(QueueUrl=url, MaxNumberOfMessages=10)
            messages = answer.get("Messages", [])
            if not messages:
                return
            yield from (message["Body"] for message in messages)
            entries = [
                {"Id": str(n), "ReceiptHandle": message["ReceiptHandle"]}
                for n, message in enumerate(messages)
            ]
            self._sqs.delete_message_batch(QueueUrl=url, Entries=entries)


def _row(found: dict[str, Any]) -> tuple[str, Row]:
    when = found.pop("ts")
    ts = when if isinstance(when, datetime) else datetime.fromisoformat(when)
    edge_id = found.pop("edge_id")
    found.pop("date", None)  # Hive readers may add the partition back as a column
    return edge_id, Row(ts=ts, **found)
