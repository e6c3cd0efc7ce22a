"""The destinations of the sinks under test: what they hold, how their way is cut and mended."""

import contextlib
import json
import os
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Protocol

import polars as pl

from edge.component import Stream
from edge.promises.sink import OUTBOX, PATH, numbered, rows
from edge.sinks import Sink, console, datum, publication
from edge.sinks.cloudwatch import CloudwatchSink
from edge.sinks.console import ConsoleSink
from edge.sinks.file import FileSink
from edge.sinks.mqtt import MqttSink
from edge.sinks.s3 import S3Sink
from edge.sinks.sqs import SqsSink
from tests.broker import Broker
from tests.cloud import Cloud, Failure
from tests.mqtt.listener import Listener
from tests.proxy import Proxy
from tests.scripted import HandClock

__all__ = ["OUTBOX", "PATH", "numbered", "rows"]

STREAM = Stream("ts", ("line",))


def bound(sink: Sink, columns: pl.Schema | None = None, **settings: object) -> Sink:
    """The sink as a pipeline binds it; settings: stream, identity, order."""
    choices = {"stream": STREAM, "identity": True, "order": "none"} | settings
    sink.bind(columns or rows(1).schema, **choices)  # type: ignore[arg-type]
    return sink


class Place(Protocol):
    """A sink and the world around it."""

    sink: Sink

    def holds(self) -> Mapping[str, object]:
        """What was delivered, by a name that repeats share."""

    def cut(self) -> None:
        """From now on the destination cannot be reached."""

    def fail_one(self) -> None:
        """The destination takes all but one of what comes next."""

    def mend(self) -> None:
        """All is well again."""

    def close(self) -> None:
        """End what was started for it."""


class FilePlace:
    def __init__(self, folder: Path, sink: Sink) -> None:
        self.sink = sink
        self._root = folder / "out"
        self._blocked: Path | None = None

    def holds(self) -> Mapping[str, object]:
        places = [place for place in self._root.rglob("*") if place.is_file()]
        return {str(place): place.read_bytes() for place in places if place != self._blocked}

    def cut(self) -> None:
        self._block(self._root)

    def fail_one(self) -> None:
        self._block(self._root / PATH / "line=l1")

    def mend(self) -> None:
        if self._blocked:
            self._blocked.unlink()
        self._blocked = None

    def close(self) -> None:
        pass

    def _block(self, folder: Path) -> None:
        """A file where a folder should be, which also stops root."""
        folder.parent.mkdir(parents=True, exist_ok=True)
        folder.touch()
        self._blocked = folder


class ConsolePlace:
    """Standard output is a file; cut: a pipe whose reader has gone."""

    def __init__(self, folder: Path, sink: Sink) -> None:
        self.sink = sink
        self._file = folder / "stdout"
        self.mend()

    def holds(self) -> Mapping[str, object]:
        lines = self._file.read_bytes().splitlines()
        return {json.loads(line)["edge_id"]: line for line in lines}

    def cut(self) -> None:
        reader, writer = os.pipe()
        os.close(reader)
        self._connect(writer)

    def fail_one(self) -> None:
        raise NotImplementedError("standard output takes all or nothing")

    def mend(self) -> None:
        self._connect(os.open(self._file, os.O_WRONLY | os.O_APPEND | os.O_CREAT))

    def close(self) -> None:
        if console.STDOUT != 1:
            os.close(console.STDOUT)
        console.STDOUT = 1

    def _connect(self, descriptor: int) -> None:
        # pytest moves the real one about between the phases of a test
        if console.STDOUT != 1:
            os.close(console.STDOUT)
        console.STDOUT = descriptor


class MqttPlace:
    """What a subscriber keeps that drops repeats by `edge_id`; one message in flight."""

    def __init__(self, folder: Path) -> None:
        self._messages, publication.MESSAGES = publication.MESSAGES, 1
        config = "allow_anonymous true\nmax_queued_messages 0"
        self._broker = Broker(folder / "broker", config).start()
        self._listener = Listener(self._broker.port)
        self._proxy = Proxy(("127.0.0.1", self._broker.port))
        url = f"mqtt://127.0.0.1:{self._proxy.port}"
        self.sink: Sink = bound(MqttSink(url=url, topic="plant/{line}", max_inflight=1))

    def holds(self) -> Mapping[str, object]:
        return dict(self._listener.by_id())

    def cut(self) -> None:
        self._proxy.set("refuse")

    def fail_one(self) -> None:
        self._proxy.set("reset", after=3000)

    def mend(self) -> None:
        self._proxy.set("up")

    def close(self) -> None:
        self._proxy.close()
        self._broker.kill()
        publication.MESSAGES = self._messages


class S3Place:
    def __init__(self, cloud: Cloud, proxy: Proxy, sink: Sink) -> None:
        self.sink = sink
        self._cloud, self._proxy = cloud, proxy
        cloud.make_bucket("lake")

    def holds(self) -> Mapping[str, object]:
        return self._cloud.objects("lake")

    def cut(self) -> None:
        self._proxy.set("refuse")

    def fail_one(self) -> None:
        self._cloud.fail("PutObject", Failure("AccessDenied", 403))

    def mend(self) -> None:
        self._proxy.set("up")
        self._cloud.mend()

    def close(self) -> None:
        pass


class SqsPlace:
    """What a consumer keeps that drops repeats by `edge_id`."""

    def __init__(self, cloud: Cloud, proxy: Proxy, sink: Sink, queue: str) -> None:
        self.sink = sink
        self._cloud, self._proxy, self._queue = cloud, proxy, queue
        self._kept: dict[str, object] = {}
        cloud.make_queue(queue)

    def holds(self) -> Mapping[str, object]:
        for message in self._cloud.messages(self._queue):
            name = message["MessageAttributes"]["edge_id"]["StringValue"]
            self._kept[name] = message["Body"]
        return self._kept

    def cut(self) -> None:
        self._proxy.set("refuse")

    def fail_one(self) -> None:
        failures = iter([Failure("InternalError", 500)])
        self._cloud.refuse_entry = lambda body: next(failures, None)

    def mend(self) -> None:
        self._proxy.set("up")

    def close(self) -> None:
        pass


class CloudwatchPlace:
    """Points by metric, dimensions and time: what Average, Minimum and Maximum are made of."""

    def __init__(self, cloud: Cloud, proxy: Proxy) -> None:
        sink = CloudwatchSink(endpoint_url=proxy.url, namespace="plant", dimensions="line")
        # The rows here are of the first minute of 1970, and one is a call of its own.
        sink._clock, cloud.metrics_clock = HandClock(60_000_000), lambda: 60.0
        self._data, datum.DATA = datum.DATA, 1
        self.sink: Sink = bound(sink)
        self._cloud, self._proxy = cloud, proxy

    def holds(self) -> Mapping[str, object]:
        return {
            f"{name} {sorted(dimensions.items())} {time}": value
            for name, dimensions, time, value in self._cloud.points("plant")
        }

    def cut(self) -> None:
        self._proxy.set("refuse")

    def fail_one(self) -> None:
        self._cloud.fail("PutMetricData", Failure("AccessDenied", 403))

    def mend(self) -> None:
        self._proxy.set("up")
        self._cloud.mend()

    def close(self) -> None:
        datum.DATA = self._data


@contextlib.contextmanager
def place(name: str, folder: Path, cloud: Cloud) -> Iterator[Place]:
    """The place called `name` in PLACES."""
    with Proxy(("127.0.0.1", cloud.port)) as proxy:
        made = PLACES[name](folder, cloud, proxy)
        try:
            yield made
        finally:
            made.close()


def _file(folder: Path, cloud: Cloud, proxy: Proxy) -> Place:
    sink = bound(FileSink(path="out", partition=["line"]), stream=STREAM._replace(folder=folder))
    return FilePlace(folder, sink)


def _console(folder: Path, cloud: Cloud, proxy: Proxy) -> Place:
    return ConsolePlace(folder, bound(ConsoleSink()))


def _mqtt(folder: Path, cloud: Cloud, proxy: Proxy) -> Place:
    return MqttPlace(folder)


def _s3(folder: Path, cloud: Cloud, proxy: Proxy) -> Place:
    sink = S3Sink(bucket="lake", partition=["line"], endpoint_url=proxy.url)
    return S3Place(cloud, proxy, bound(sink))


def _sqs(folder: Path, cloud: Cloud, proxy: Proxy) -> Place:
    return SqsPlace(cloud, proxy, bound(SqsSink(queue="q", endpoint_url=proxy.url)), "q")


def _sqs_fifo(folder: Path, cloud: Cloud, proxy: Proxy) -> Place:
    sink = bound(SqsSink(queue="q.fifo", endpoint_url=proxy.url), order="key")
    return SqsPlace(cloud, proxy, sink, "q.fifo")


def _sqs_packed(folder: Path, cloud: Cloud, proxy: Proxy) -> Place:
    sink = bound(SqsSink(queue="q", endpoint_url=proxy.url, pack="1KiB"))
    return SqsPlace(cloud, proxy, sink, "q")


def _cloudwatch(folder: Path, cloud: Cloud, proxy: Proxy) -> Place:
    return CloudwatchPlace(cloud, proxy)


PLACES = {
    "file": _file,
    "console": _console,
    "s3": _s3,
    "sqs": _sqs,
    "sqs-fifo": _sqs_fifo,
    "sqs-packed": _sqs_packed,
    "mqtt": _mqtt,
    "cloudwatch": _cloudwatch,
}
"""One case of every sink; a new sink adds a line, which enrols it in the promises."""
