"""Every message of a queue becomes rows once, whatever happens on either side."""

import asyncio
import copy
import time
from itertools import pairwise
from pathlib import Path
from typing import Any

import moto.sqs.models
import polars as pl
import pytest

from edge.aws import receiver
from edge.aws.claims import OLD_PAYLOAD_SIZE
from edge.aws.queue import PAYLOAD_SIZE, POINTER
from edge.aws.taken import Taken
from edge.clock import Clock
from edge.codec import Record
from edge.outbox.inspection import status
from edge.pipeline import Branch, Pipeline
from edge.runner import Runner
from edge.sinks.claim import Claim
from edge.sinks.sqs import SqsSink
from edge.sources.sqs import SqsSource
from tests.cloud import Cloud, Failure
from tests.loop import in_loop, until
from tests.mqtt.wire import HastyClock
from tests.scripted import FlakySink
from tests.sinks.places import bound, rows
from tests.sinks.places import numbered as parcelled
from tests.sources.reading import RECORD, Reading, numbered, send


@pytest.fixture(autouse=True)
def _short_polls(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(receiver, "LONG_POLL", 1)
    monkeypatch.setattr(receiver, "PATIENCE", 0.1)
    monkeypatch.setattr(receiver, "LAST_CALLS", 60.0)  # here a busy machine may take its time


@pytest.fixture
def queue(cloud: Cloud) -> Cloud:
    cloud.make_queue("plant")
    return cloud


def left(cloud: Cloud, queue: str = "plant") -> int:
    """Messages that are in the queue, hidden or not."""
    client = cloud.client("sqs")
    url = client.get_queue_url(QueueName=queue)["QueueUrl"]
    names = ["ApproximateNumberOfMessages", "ApproximateNumberOfMessagesNotVisible"]
    answer = client.get_queue_attributes(QueueUrl=url, AttributeNames=names)
    return sum(map(int, answer["Attributes"].values()))


async def drain(reading: Reading, queue: Cloud) -> None:
    """Steps until the queue is empty; a call that an earlier life left behind may repeat some."""
    async with asyncio.timeout(40):
        while left(queue):
            await reading.step()


@in_loop
async def test_every_message_becomes_a_row_and_is_deleted_after_the_commit(queue: Cloud) -> None:
    send(queue, numbered(range(95)))
    reading = Reading(queue, receivers=4)
    async with reading.running():
        while len(reading.numbers) < 95:
            await reading.step(acknowledge=False)
        assert left(queue) == 95
        for arrival in reading.owed:
            await arrival.acknowledge()
        await until(lambda: left(queue) == 0)
        assert reading.source.status()["connected"] is True
    assert sorted(reading.numbers) == list(range(95))
    assert pl.concat(reading.frames).columns == ["n", "name", "edge_received"]


@in_loop
async def test_closing_waits_until_what_is_committed_is_deleted(queue: Cloud) -> None:
    send(queue, numbered(range(30)))
    reading = Reading(queue)
    async with reading.running():
        await reading.read(30)
    assert left(queue) == 0


@in_loop
async def test_a_crash_before_the_delete_repeats_what_is_recognised(queue: Cloud) -> None:
    send(queue, numbered(range(20)))
    reading = Reading(queue, visibility="2s")
    async with reading.running():
        await reading.read(20, acknowledge=False)
    async with reading.running():
        await drain(reading, queue)
    assert sorted(reading.numbers) == list(range(20))
    assert reading.redelivered >= 20


@in_loop
async def test_a_crash_before_the_commit_repeats_everything_at_once(queue: Cloud) -> None:
    send(queue, numbered(range(20)))
    reading = Reading(queue, visibility="10m", rows=10)
    async with reading.running():
        await reading.step()
        committed, frames = list(reading.memory), list(reading.frames)
        while not await reading.step(acknowledge=False):
            pass
        reading.memory, reading.frames = committed, frames  # it never happened
    async with reading.running():
        await drain(reading, queue)
    assert sorted(reading.numbers) == list(range(20))


@in_loop
async def test_what_is_received_stays_hidden_for_as_long_as_it_takes(queue: Cloud) -> None:
    send(queue, numbered(range(25)))
    reading, other = Reading(queue, visibility="5s"), Reading(queue)
    async with reading.running(), other.running():
        await reading.read(25, acknowledge=False)
        ends = time.monotonic() + 7
        while time.monotonic() < ends:
            await other.step()
        assert other.total == 0
        for arrival in reading.owed:
            await arrival.acknowledge()
        await until(lambda: left(queue) == 0)


@in_loop
async def test_what_others_got_meanwhile_is_deleted_by_them(queue: Cloud) -> None:
    send(queue, numbered(range(10)))
    queue.fail("ChangeMessageVisibilityBatch", always=Failure("AccessDenied", 403))
    reading = Reading(queue, visibility="1s")
    async with reading.running():
        await reading.read(10, acknowledge=False)
        await until(lambda: "ChangeMessageVisibility" in str(reading.source.status()["problem"]))
        await reading.read(20)  # they came again, and are known
        queue.mend()
        for arrival in reading.owed:
            await arrival.acknowledge()
        await until(lambda: left(queue) == 0)
        await until(lambda: reading.source.status()["problem"] is None)
    assert sorted(reading.numbers) == list(range(10))


@in_loop
async def test_a_repeat_of_the_producer_is_dropped_by_its_edge_id(queue: Cloud) -> None:
    ids = [f"osaka/press/out/12ab34cd-{n}" for n in range(5)]
    send(queue, numbered(range(5)), ids=ids)
    send(queue, numbered(range(5)), ids=ids)
    send(queue, numbered(range(5)))  # the same rows, but messages of their own
    reading = Reading(queue)
    async with reading.running():
        await reading.read(15)
    assert sorted(reading.numbers) == sorted([*range(5), *range(5)])
    assert reading.redelivered == 5


@in_loop
async def test_poison_is_rejected_with_its_reason_and_holds_up_nothing(queue: Cloud) -> None:
    send(queue, [{"n": 1}, "oops", {"n": "two"}, [{"n": 3}, {"n": 4.5}, {"n": 5}], "[1", [], {}])
    reading = Reading(queue)
    async with reading.running():
        await reading.read(8)
        await until(lambda: left(queue) == 0)
    assert sorted(reading.numbers) == [1, 3, 5]
    assert sorted(bytes(each.payload) for each in reading.rejects) == [
        b"[1",
        b"oops",
        b'{"n": "two"}',
        b'{"n":4.5}',
        b"{}",
    ]


@in_loop
@pytest.mark.parametrize("pack", [None, "2KiB"])
@pytest.mark.parametrize("fields", [None, RECORD.fields])
async def test_what_our_sink_sends_comes_out_as_it_went_in(
    cloud: Cloud, pack: str | None, fields: Any
) -> None:
    cloud.make_queue("plant", MaximumMessageSize="4096")
    cloud.make_bucket("claims")
    claim = Claim(bucket="claims", prefix="big/", endpoint_url=cloud.url)
    sink = bound(SqsSink(queue="plant", pack=pack, claim=claim, endpoint_url=cloud.url))
    frame = rows(40).with_columns(
        pl.int_range(40).alias("n"),
        pl.when(pl.int_range(40) % 9 == 0)
        .then(pl.lit("ü" * 3000))
        .otherwise(pl.lit("a"))
        .alias("name"),
    )
    parcels = parcelled(sink.encode(frame).parcels)
    for _ in range(2):
        receipt = await sink.send(parcels)
        assert len(receipt.delivered) == len(parcels)
    assert len(cloud.objects("claims")) >= 4

    options = {"claim": {"bucket": "claims", "prefix": "big/", "endpoint_url": cloud.url}}
    reading = Reading(cloud, Record(fields=fields), **options)
    async with reading.running():
        await reading.read(40 + len(parcels))
    assert left(cloud) == 0
    assert reading.rejects == []
    assert reading.redelivered == len(parcels)
    found = pl.concat(reading.frames).sort("n")
    assert found["n"].to_list() == list(range(40))
    assert found["name"].to_list() == frame["name"].to_list()
    assert not {name for name in found.columns if name.startswith("edge_")} - {"edge_received"}


@in_loop
async def test_a_pointer_is_followed_only_into_the_bucket_that_is_named(queue: Cloud) -> None:
    for bucket in ("claims", "secrets"):
        queue.make_bucket(bucket)
        queue.client("s3").put_object(Bucket=bucket, Key="a/1", Body=b'{"n": 1}')
        queue.client("s3").put_object(Bucket=bucket, Key="b/2", Body=b'{"n": 2}' + b" " * 2000)

    def point(bucket: str, key: str, name: str = POINTER) -> Any:
        return [name, {"s3BucketName": bucket, "s3Key": key}]

    legacy = "com.amazon.sqs.javamessaging.MessageS3Pointer"
    send(queue, [point("claims", "a/1", legacy)], attributes={OLD_PAYLOAD_SIZE: "9"})
    pointers = [point("secrets", "a/1"), point("claims", "b/2"), point("claims", "a/3"), {"n": 3}]
    send(queue, pointers, attributes={PAYLOAD_SIZE: "9"})
    claim = {"bucket": "claims", "prefix": "a/", "endpoint_url": queue.url}
    reading = Reading(queue, claim=claim)
    async with reading.running():
        await reading.read(5)
    assert reading.numbers == [1]
    assert sorted(str(each.reason) for each in reading.rejects) == [
        "it says that its body is in a bucket, but is no pointer to it",
        "its body is at s3://claims/b/2, not below s3://claims/a/; correct `claim`",
        "its body is at s3://secrets/a/1, not below s3://claims/a/; correct `claim`",
        "its body s3://claims/a/3 is gone",
    ]


@in_loop
async def test_a_bucket_that_is_away_costs_no_message_a_receive(queue: Cloud) -> None:
    queue.make_bucket("claims")
    queue.client("s3").put_object(Bucket="claims", Key="1", Body=b'{"n": 1}')
    queue.fail("GetObject", always=Failure("AccessDenied", 403))
    send(
        queue, [[POINTER, {"s3BucketName": "claims", "s3Key": "1"}]], attributes={PAYLOAD_SIZE: "9"}
    )
    reading = Reading(queue, claim={"bucket": "claims", "endpoint_url": queue.url})
    async with reading.running(HastyClock()):
        while "s3:GetObject" not in str(reading.source.status().get("problem")):
            await reading.step()
        queue.mend()
        await reading.read(1)
        assert reading.source.status()["received"] == 1
    assert reading.numbers == [1]


@in_loop
async def test_a_fifo_queue_keeps_the_order_of_each_group(cloud: Cloud) -> None:
    cloud.make_queue("plant.fifo")
    send(cloud, numbered(range(60)), "plant.fifo")
    reading = Reading(cloud, queue="plant.fifo")
    async with reading.running():
        await reading.read(60)
        await until(lambda: left(cloud, "plant.fifo") == 0)
    for device in range(3):
        mine = [n for n in reading.numbers if n % 3 == device]
        assert mine == sorted(mine)
    assert sorted(reading.numbers) == list(range(60))


def test_a_fifo_group_that_shows_again_while_the_server_looks_comes_from_its_first(
    cloud: Cloud, monkeypatch: pytest.MonkeyPatch
) -> None:
    url = cloud.make_queue("plant.fifo")
    send(cloud, [{"name": "d0", "n": n} for n in range(12)], "plant.fifo")
    client = cloud.client("sqs")

    def bodies() -> list[str]:
        answer = client.receive_message(
            QueueUrl=url, MaxNumberOfMessages=10, VisibilityTimeout=1, WaitTimeSeconds=20
        )
        return [message["Body"] for message in answer["Messages"]]

    def slowly(value: Any) -> Any:
        if isinstance(value, set):  # the groups in somebody's hands
            time.sleep(1.1)
        return copy.deepcopy(value)

    first = bodies()
    monkeypatch.setattr(moto.sqs.models, "deepcopy", slowly)
    assert bodies() == first


@in_loop
async def test_attributes_become_columns(queue: Cloud) -> None:
    send(queue, [{"n": 1}], attributes={"line": "l1", "other": "x"})
    send(queue, [[{"n": 2}, {"n": 3}]])
    reading = Reading(queue, attributes=["line"])
    async with reading.running():
        await reading.read(3)
    found = pl.concat(reading.frames).sort("n")
    assert found["line"].to_list() == ["l1", None, None]


FAULTS = {
    "access": (Failure("AccessDenied", 403), "grant sqs:ReceiveMessage to the task role"),
    "gone": (Failure("QueueDoesNotExist"), "SQS has no queue 'plant'"),
    "throttled": (Failure("RequestThrottled", 403), "SQS is busy"),
    "expired": (Failure("ExpiredToken", 403), "does not accept the credentials"),
    "5xx": (Failure("InternalError", 500), "trouble of its own"),
}


@in_loop
@pytest.mark.parametrize("fault", FAULTS)
async def test_a_queue_that_cannot_be_read_is_tried_without_haste(
    queue: Cloud, fault: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(receiver.random, "uniform", lambda low, high: (low + high) / 2)
    failure, words = FAULTS[fault]
    queue.fail("ReceiveMessage", always=failure)
    reading = Reading(queue)
    async with reading.running():
        while words not in str(reading.source.status().get("problem")):
            await reading.step()
        for _ in range(10):
            assert not await reading.step()
        assert reading.source.status()["connected"] is False
        assert queue.calls["ReceiveMessage"] + queue.calls["GetQueueUrl"] < 20
    queue.mend()
    send(queue, numbered(range(3)))
    async with reading.running(HastyClock()):
        await reading.read(3)
        assert reading.source.status()["problem"] is None


@in_loop
async def test_a_delete_that_is_refused_is_made_good_later(queue: Cloud) -> None:
    queue.fail("DeleteMessageBatch", always=Failure("AccessDenied", 403))
    send(queue, numbered(range(12)))
    reading = Reading(queue)
    async with reading.running(HastyClock()):
        await reading.read(12)
        await until(lambda: "sqs:DeleteMessage" in str(reading.source.status()["problem"]))
        assert left(queue) == 12
        queue.mend()
        await until(lambda: left(queue) == 0)
        await until(lambda: reading.source.status()["in_flight"] == 0)


@in_loop
async def test_no_more_is_received_than_may_be_in_flight(queue: Cloud) -> None:
    send(queue, numbered(range(60)))
    reading = Reading(queue, in_flight=20, receivers=1)
    async with reading.running():
        await reading.read(20, acknowledge=False)
        for _ in range(12):  # longer than a call takes
            assert not await reading.step()
        assert reading.source.status()["in_flight"] == 20
        while reading.total < 60:
            for arrival in reading.owed:
                await arrival.acknowledge()
            reading.owed.clear()
            await reading.step(acknowledge=False)
    assert sorted(reading.numbers) == list(range(60))


@in_loop
async def test_an_idle_queue_is_asked_now_and_then(queue: Cloud) -> None:
    reading = Reading(queue)
    async with reading.running():
        moments = [time.monotonic()]
        for _ in range(12):
            assert not await reading.step()
            moments.append(time.monotonic())
        waits = sorted(after - before for before, after in pairwise(moments))
        assert waits[6] < 1, "a busy machine may hold up some"
        assert queue.calls["ReceiveMessage"] <= max(5, moments[-1] - moments[0])


def test_memory_of_messages_is_the_same_after_a_start_and_bounded() -> None:
    taken, states = Taken(100), []
    for n in range(250):
        assert taken.take(f"m{n}")
        if n % 7 == 0:
            states.append(taken.snapshot(n % 70 == 0) or b"")
    states.append(taken.snapshot(False) or b"")
    again = Taken(100)
    again.restore(states)
    assert len(again) == 100
    assert not any(again.take(f"m{n}") for n in range(150, 250))
    assert again.take("m149")
    assert again.snapshot(False) is not None
    assert again.snapshot(False) is None


def test_ids_are_hashed_as_ever() -> None:
    taken = Taken(10)
    taken.take("osaka/press/out/12ab34cd-1")
    assert (taken.snapshot(True) or b"").partition(b"\n")[
        2
    ].hex() == "4faf55e4b187534cd9015d6f54ee80e2"


@in_loop
@pytest.mark.parametrize("acknowledge", ["committed", "delivered"])
async def test_a_pipeline_deletes_what_it_may_forget(
    queue: Cloud, tmp_path: Path, acknowledge: str
) -> None:
    send(queue, [*numbered(range(30)), "oops"])
    sink = FlakySink.of("down")
    pipeline = Pipeline(
        name="aggregator",
        site="cloud",
        source=SqsSource(queue="plant", receivers=1, endpoint_url=queue.url),
        acknowledge=acknowledge,
        record=RECORD,
        sinks={"lake": Branch(sink=sink)},
        outbox={"path": tmp_path / "outbox"},
    )
    runner = Runner(pipeline)
    await runner.open()
    stop = asyncio.Event()
    running = asyncio.create_task(runner.run(stop))
    await until(lambda: left(queue) == 0)
    if acknowledge == "delivered":
        assert sorted(row["n"] for row in sink.rows) == list(range(30))
    await until(lambda: len(sink.rows) == 30)
    stop.set()
    await running
    await runner.close()
    counts = status(tmp_path / "outbox", Clock().now())
    assert (counts["rows_read"], counts["rows_rejected"]) == (31, 1)
    assert str(counts["source"]["url"]).endswith("/plant")
