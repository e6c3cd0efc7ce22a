"""Rows in an outbox, a sink of one kind, and everything between it and the cloud."""

import asyncio
import json
import random
import socket
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from datetime import timedelta
from pathlib import Path
from typing import Any, Self

import polars as pl
import pytest

from edge.aws import service as aws
from edge.codec import pack
from edge.link import Link
from edge.outbox import Outbox
from edge.outbox.inspection import status
from edge.outbox.model import Commit, Limits, NewEntry, SinkLimits
from edge.sinks import Roll
from edge.sinks.s3 import S3Sink
from edge.sinks.sqs import SqsSink
from tests.agent import Agent
from tests.certificates import Certificates
from tests.cloud import REGION, Cloud, Failure
from tests.proxy import Proxy
from tests.scripted import HandClock
from tests.sinks.places import bound

BUCKET, QUEUE = "lake", "alarms"
DOMAIN = f".{REGION}.amazonaws.com"
"""Looked up in these tests it is 127.0.0.1, or what no name server knows."""
ROWS, TEXT = 10, "x" * 20_000


class Tunnel(Proxy):
    """An HTTP proxy: leads every CONNECT to one target, or answers `refusal`."""

    refusal = b""

    def _serve(self, near: socket.socket) -> None:
        head = b""
        while not head.endswith(b"\r\n\r\n") and (part := near.recv(4096)):
            head += part
        assert head.startswith(b"CONNECT "), head
        if self.refusal:
            near.sendall(self.refusal)
            near.close()
            return
        near.sendall(b"HTTP/1.1 200 Connection established\r\n\r\n")
        super()._serve(near)


class Deaf:
    """A port on which nobody takes connections: once the queue is full the kernel drops SYNs."""

    def __init__(self, port: int) -> None:
        self._listener = socket.socket()
        self._listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        self._listener.bind(("127.0.0.1", port))
        self._listener.listen(0)
        self._queue = [socket.socket() for _ in range(3)]
        for each in self._queue:
            each.setblocking(False)
            each.connect_ex(("127.0.0.1", port))

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        for each in [*self._queue, self._listener]:
            each.close()


class Way:
    """One sink with rows for it; `tries` moves the clock on, a fault is begun and ended."""

    def __init__(
        self, kind: str, folder: Path, cloud: Cloud, patch: pytest.MonkeyPatch, by: str = "http"
    ) -> None:
        """by: how the cloud is reached: `http`; `name`, by the host name that AWS has; `tls`;
        `tunnel`, TLS through HTTPS_PROXY; `agent`, with the credentials of an ECS agent; `file`,
        with those of a file.
        """
        self.kind, self.cloud, self.folder, self.patch = kind, cloud, folder, patch
        self.dns = True
        self._stack = ExitStack()
        self._read = 0
        self._arrived: dict[str, int] = {}
        self._begin_world()
        self.clock = HandClock()
        self.url = self._url(by)
        self.sink = bound(self._sink(self.url))
        self.outbox = Outbox(
            folder / "outbox", limits=Limits(), sinks={"away": SinkLimits()}, clock=self.clock
        )
        self.outbox.open()
        self._stack.callback(self.outbox.close)
        self.link = Link(
            "away",
            self.sink,
            self.outbox,
            path="osaka/press/away",
            roll=Roll(8 * 2**20, timedelta(0)),
            clock=self.clock,
            chance=random.Random(1),
        )
        self.sends = 0
        self._count_sends()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        asyncio.run(self.sink.close())
        self._stack.close()

    def _begin_world(self) -> None:
        enter = self._stack.enter_context
        self.home = ("127.0.0.1", self.cloud.port)
        self.proxy = enter(Proxy(self.home))
        real = socket.getaddrinfo

        def look_up(host: Any, *args: Any, **options: Any) -> Any:
            if str(host).endswith(DOMAIN):
                host = "127.0.0.1" if self.dns else f"{host}.invalid"
            return real(host, *args, **options)

        self.patch.setattr(socket, "getaddrinfo", look_up)
        self.make()

    def make(self) -> None:
        """The bucket, or the queue."""
        if self.kind == "s3":
            self.cloud.make_bucket(BUCKET)
        else:
            self.cloud.make_queue(QUEUE)

    def destroy(self) -> None:
        """Empty it and delete it."""
        self.arrived()
        if self.kind == "s3":
            client = self.cloud.client("s3")
            for key in self.cloud.objects(BUCKET):
                client.delete_object(Bucket=BUCKET, Key=key)
            client.delete_bucket(Bucket=BUCKET)
        else:
            client = self.cloud.client("sqs")
            client.delete_queue(QueueUrl=client.get_queue_url(QueueName=QUEUE)["QueueUrl"])

    def fail(self, s3: Failure, sqs: Failure) -> None:
        """Whatever puts data there is answered so from now on."""
        self.cloud.fail("PutObject", always=s3)
        self.cloud.fail("SendMessageBatch", always=sqs)

    @contextmanager
    def led_to(self, target: tuple[str, int]) -> Iterator[None]:
        """What asks for the cloud reaches `target` instead."""
        self.proxy.lead_to(target)
        try:
            yield
        finally:
            self.proxy.lead_to(self.home)

    def write_key(self, key: str | None) -> None:
        """What the file of credentials holds."""
        lines = f"[default]\naws_access_key_id={key}\naws_secret_access_key=test\n" if key else ""
        (self.folder / "credentials").write_text(lines)

    def forget_credentials(self) -> None:
        """As after a start of the process."""
        asyncio.run(self.sink.close())
        aws._new_session.cache_clear()

    def _url(self, by: str) -> str:
        if by in ("agent", "file"):
            for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"):
                self.patch.delenv(name)
        if by == "agent":
            self.agent = self._stack.enter_context(Agent())
            self.patch.setenv("AWS_CONTAINER_CREDENTIALS_FULL_URI", self.agent.url)
        if by == "file":
            self.patch.setenv("AWS_SHARED_CREDENTIALS_FILE", str(self.folder / "credentials"))
            self.write_key("test")
        if by in ("http", "agent", "file"):
            return self.proxy.url
        host = self.kind + DOMAIN
        if by == "name":
            return f"http://{host}:{self.proxy.port}"
        self.pem = Certificates(self.folder)
        self.patch.setenv("AWS_CA_BUNDLE", str(self.pem.ca))
        self.home = self._stack.enter_context(self.certified(self.pem))
        if by == "tls":
            self.proxy.lead_to(self.home)
            return f"https://{host}:{self.proxy.port}"
        self.tunnel = self._stack.enter_context(Tunnel(self.home))
        self.patch.setenv("HTTPS_PROXY", f"http://user:secret@127.0.0.1:{self.tunnel.port}")
        return f"https://{host}"

    @contextmanager
    def certified(
        self, pem: Certificates, host: str | None = None, since: float = -0.1
    ) -> Iterator[tuple[str, int]]:
        """The cloud with a certificate for `host`, of `pem`'s authority and that day."""
        files = pem.folder / "cloud.pem", pem.folder / "cloud.key"
        pem.issue(host or self.kind + DOMAIN, *files, since=since)
        with self.cloud.tls(*files) as port:
            yield "127.0.0.1", port

    def _sink(self, url: str) -> Any:
        if self.kind == "s3":
            return S3Sink(bucket=BUCKET, endpoint_url=url, format="ndjson", compression="none")
        return SqsSink(queue=QUEUE, endpoint_url=url)

    def _count_sends(self) -> None:
        real = type(self.sink).send

        async def send(sink: Any, parcels: Any) -> Any:
            self.sends += 1
            return await real(sink, parcels)

        self.patch.setattr(type(self.sink), "send", send)

    def append(self) -> None:
        """Some more rows are committed."""
        numbers = range(self._read, self._read + ROWS)
        frame = pl.DataFrame({"n": numbers, "text": [TEXT] * ROWS})
        self.outbox.commit(
            Commit([NewEntry("away", ROWS, int(frame.estimated_size()), pack(frame))])
        )
        self._read += ROWS

    def step(self) -> float:
        """One step of the link; the seconds until the next."""
        return asyncio.run(self.link.step())

    def drain(self) -> None:
        """Let time pass until nothing waits; the longest pause of a link is a minute."""
        for _ in range(60):
            self.clock.advance(61)
            self.step()
            if not self.status()["buffered_rows"]:
                return
        raise AssertionError(f"not delivered within an hour: {self.status()['link_reason']}")

    def status(self) -> dict[str, Any]:
        """What `edge status` shows of the sink."""
        found: dict[str, Any] = status(self.folder / "outbox", self.clock.now())["sinks"]["away"]
        return found

    def arrived(self) -> list[int]:
        """Numbers of all rows that ever arrived; of repeats with the same id only one."""
        if self.kind == "s3":
            bodies = self.cloud.objects(BUCKET).values()
            rows = [json.loads(line) for body in bodies for line in body.splitlines()]
            assert len({row["edge_id"] for row in rows}) == len(rows)
        else:
            rows = [json.loads(each["Body"]) for each in self.cloud.messages(QUEUE)]
        self._arrived |= {row["edge_id"]: row["n"] for row in rows}
        return sorted(self._arrived.values())
