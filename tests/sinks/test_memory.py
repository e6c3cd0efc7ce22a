"""What a failed try leaves in memory: nothing of the parcels, also before Python tidies up."""

import asyncio
import contextlib
import gc
import sys
import threading
import time
from collections.abc import Callable, Iterator

import pytest

from edge.errors import LinkDown
from edge.outbox.model import Parcel
from edge.sinks import Sink
from edge.sinks.claim import Claim
from edge.sinks.s3 import S3Sink
from edge.sinks.sqs import SqsSink
from tests.cloud import Cloud, Failure
from tests.proxy import Proxy
from tests.sinks.places import bound

MANY = 1_500_000
"""Characters that no queue takes."""


def s3(url: str) -> Sink:
    return bound(S3Sink(bucket="lake", endpoint_url=url))


def s3_in_order(url: str) -> Sink:
    return bound(S3Sink(bucket="lake", endpoint_url=url), order="all")


def sqs(url: str) -> Sink:
    return bound(SqsSink(queue="alarms", endpoint_url=url))


def claim(url: str) -> Sink:
    place = Claim(bucket="lake", endpoint_url=url)
    return bound(SqsSink(queue="alarms", endpoint_url=url, claim=place))


def refuse(cloud: Cloud, proxy: Proxy) -> None:
    proxy.set("refuse")


def reset(cloud: Cloud, proxy: Proxy) -> None:
    proxy.set("reset")


def forbid(cloud: Cloud, proxy: Proxy) -> None:
    for operation in ("PutObject", "SendMessageBatch"):
        cloud.fail(operation, always=Failure("AccessDenied", 403))


@pytest.fixture
def proxy(cloud: Cloud) -> Iterator[Proxy]:
    cloud.make_bucket("lake")
    cloud.make_queue("alarms")
    with Proxy(("127.0.0.1", cloud.port)) as made:
        yield made


@pytest.mark.parametrize("fault", [refuse, reset, forbid])
@pytest.mark.parametrize("make", [s3, s3_in_order, sqs, claim])
def test_a_failed_try_holds_no_parcel(
    make: Callable[[str], Sink],
    fault: Callable[[Cloud, Proxy], None],
    cloud: Cloud,
    proxy: Proxy,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(time, "sleep", lambda _: None)  # between the two tries of one call
    fault(cloud, proxy)
    sink = make(proxy.url)
    parcels = parcels_of("x" * (MANY if make is claim else 1))
    counts = [sys.getrefcount(parcel.body) for parcel in parcels]
    with uncollected():
        asyncio.run(fail(sink, parcels))
        left = [sys.getrefcount(parcel.body) for parcel in parcels]
    assert left == counts


def parcels_of(text: str) -> list[Parcel]:
    ids = [f"osaka/press/lake/12ab34cd-{n}" for n in (1, 2)]
    body = '{"text":"%s","n":%d}'
    return [Parcel(key, n, n, 1, (body % (text, n)).encode(), id=n) for n, key in enumerate(ids, 1)]


@contextlib.contextmanager
def uncollected() -> Iterator[None]:
    """What only the collector would undo stays."""
    gc.collect()
    gc.disable()
    try:
        yield
    finally:
        gc.enable()


async def fail(sink: Sink, parcels: list[Parcel]) -> None:
    with contextlib.suppress(LinkDown):
        receipt = await sink.send(parcels)
        assert not receipt.delivered
    await sink.close()
    for thread in threading.enumerate():
        if thread.name == "edge-work":
            thread.join()
