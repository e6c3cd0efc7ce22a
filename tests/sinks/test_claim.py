"""A message above the limit of its queue goes by a bucket, and every retry leaves one object."""

import asyncio
import json
from collections.abc import Sequence
from typing import Any

import pytest

from edge.errors import LinkDown
from edge.outbox.model import Parcel
from edge.sinks import Receipt
from edge.sinks.claim import Claim
from edge.sinks.sqs import SqsSink
from tests.cloud import Cloud, Failure
from tests.proxy import Proxy
from tests.sinks.places import OUTBOX, PATH, bound, numbered
from tests.sinks.test_sqs import send, texts

POINTER = "software.amazon.payloadoffloading.PayloadS3Pointer"
PREFIX = "alarms/"


def sink(cloud: Cloud, queue: str = "q", s3: str | None = None, **settings: Any) -> SqsSink:
    claim = Claim(bucket="claims", prefix=PREFIX, endpoint_url=s3 or cloud.url)
    url = settings.pop("url", cloud.url)
    order = settings.pop("order", "none")
    made = bound(SqsSink(queue=queue, endpoint_url=url, claim=claim, **settings), order=order)
    assert isinstance(made, SqsSink)
    return made


@pytest.fixture
def cloud(cloud: Cloud) -> Cloud:
    cloud.make_bucket("claims")
    cloud.make_queue("q", MaximumMessageSize="2048")
    cloud.make_queue("q.fifo", MaximumMessageSize="2048")
    return cloud


def parcels_of(sqs: SqsSink, *values: str) -> list[Parcel]:
    return numbered(sqs.encode(texts(values)).parcels)


def received(cloud: Cloud, queue: str = "q") -> list[tuple[str, str]]:
    """Id and text of every message, fetched as a consumer does who knows the pointer."""
    objects = cloud.objects("claims")
    found = []
    for message in cloud.messages(queue):
        attributes, body = message["MessageAttributes"], message["Body"]
        if size := attributes.get("ExtendedPayloadSize"):
            name, place = json.loads(body)
            assert (name, place["s3BucketName"]) == (POINTER, "claims")
            body = objects[place["s3Key"]].decode()
            assert size == {"DataType": "Number", "StringValue": str(len(body.encode()))}
        row = json.loads(body)
        assert row["edge_id"] == attributes["edge_id"]["StringValue"]
        found.append((row["edge_id"], row["text"]))
    return found


def ids(*numbers: int) -> list[str]:
    return [f"{PATH}/{OUTBOX}-{number}" for number in numbers]


def test_only_what_is_too_large_goes_by_the_bucket(cloud: Cloud) -> None:
    sqs = sink(cloud)
    receipt = send(sqs, parcels_of(sqs, "x", "ü" * 2000, "z"))
    assert (sorted(receipt.delivered), receipt.problem) == ([1, 2, 3], None)
    assert list(cloud.objects("claims")) == [f"{PREFIX}{PATH}/{OUTBOX}-2"]
    assert sorted(received(cloud)) == list(zip(ids(1, 2, 3), ["x", "ü" * 2000, "z"], strict=True))


def test_the_pointer_is_the_one_that_the_extended_clients_write(cloud: Cloud) -> None:
    sqs = sink(cloud)
    send(sqs, parcels_of(sqs, "y" * 3000))
    (message,) = cloud.messages("q")
    key = f"{PREFIX}{PATH}/{OUTBOX}-1"
    assert message["Body"] == f'["{POINTER}",{{"s3BucketName":"claims","s3Key":"{key}"}}]'


def test_a_row_that_no_queue_takes_is_no_longer_refused(cloud: Cloud) -> None:
    sqs = sink(cloud)
    encoded = sqs.encode(texts(["x", "y" * 3_000_000]))
    assert not encoded.refused
    assert sorted(send(sqs, numbered(encoded.parcels)).delivered) == [1, 2]
    assert dict(received(cloud))[ids(2)[0]] == "y" * 3_000_000


def test_parcels_rolled_and_refused_before_go_when_a_bucket_is_named(cloud: Cloud) -> None:
    before = bound(SqsSink(queue="q", endpoint_url=cloud.url))
    assert isinstance(before, SqsSink)
    parcels = parcels_of(before, "y" * 3000)
    assert "set `claim`, and retry" in send(before, parcels).refused[1]
    assert send(sink(cloud), parcels).delivered == (1,)
    assert received(cloud) == [(ids(1)[0], "y" * 3000)]


@pytest.mark.parametrize("queue", ["q", "q.fifo"])
def test_a_crash_between_body_and_pointer_leaves_one_object_and_one_message(
    cloud: Cloud, queue: str
) -> None:
    order = "key" if queue == "q.fifo" else "none"
    parcels = parcels_of(sink(cloud, queue, order="all" if order == "key" else order), "y" * 3000)
    cloud.fail("SendMessageBatch", always=Failure("ServiceUnavailable", 503))
    with pytest.raises(LinkDown):
        send(sink(cloud, queue), parcels)  # as far as a process gets that is killed now
    assert len(cloud.objects("claims")) == 1
    assert received(cloud, queue) == []
    cloud.mend()
    assert send(sink(cloud, queue), parcels).delivered == (1,)
    assert len(cloud.objects("claims")) == 1
    assert received(cloud, queue) == [(ids(1)[0], "y" * 3000)]


def test_a_lost_answer_of_the_bucket_costs_nothing(cloud: Cloud) -> None:
    with Proxy(("127.0.0.1", cloud.port)) as proxy:
        sqs = sink(cloud, s3=proxy.url)
        parcels = parcels_of(sqs, "y" * 3000)
        proxy.set("lose_answer")
        assert send(sqs, parcels).delivered == ()
        proxy.set("up")
        assert send(sqs, parcels).delivered == (1,)
    assert received(cloud) == [(ids(1)[0], "y" * 3000)]


def test_while_the_bucket_is_away_small_messages_go(cloud: Cloud) -> None:
    with Proxy(("127.0.0.1", cloud.port)) as proxy:
        sqs = sink(cloud, s3=proxy.url)
        parcels = parcels_of(sqs, "a", "y" * 3000, *"bcdefghijklm")
        proxy.set("refuse")
        receipt = send(sqs, parcels)
        assert sorted(receipt.delivered) == [1, *range(3, 15)]
        assert receipt.problem
        assert receipt.problem.startswith("S3 cannot be reached for bucket 'claims'")
        proxy.set("up")
        assert send(sqs, [parcels[1]]).delivered == (2,)
    assert len(received(cloud)) == 14


def test_while_the_queue_is_away_nothing_is_settled_and_all_goes_later(cloud: Cloud) -> None:
    with Proxy(("127.0.0.1", cloud.port)) as proxy:
        sqs = sink(cloud, url=proxy.url)
        parcels = parcels_of(sqs, "a", "y" * 3000)
        send(sqs, parcels[:1])  # so that the queue is known
        proxy.set("refuse")
        with pytest.raises(LinkDown):
            send(sqs, parcels)
        proxy.set("up")
        assert sorted(send(sqs, parcels).delivered) == [1, 2]
    assert sorted(set(received(cloud))) == list(zip(ids(1, 2), ["a", "y" * 3000], strict=True))


def test_in_a_fifo_queue_a_group_waits_for_its_large_message_and_others_do_not(
    cloud: Cloud,
) -> None:
    sqs = sink(cloud, "q.fifo")
    frame = texts(["a", "y" * 3000, "c", "d"])
    parcels = [
        parcel._replace(attributes={"group": group})
        for parcel, group in zip(numbered(sqs.encode(frame).parcels), "1112", strict=True)
    ]
    cloud.fail("PutObject", always=Failure("AccessDenied", 403))
    receipt = send(sqs, parcels)
    assert sorted(receipt.delivered) == [1, 4]
    assert receipt.problem == (
        "S3 refused access to bucket 'claims' (AccessDenied); grant s3:PutObject to the task role"
    )
    cloud.mend()
    assert sorted(send(sqs, [parcels[1], parcels[2]]).delivered) == [2, 3]
    groups = [row for _, row in received(cloud, "q.fifo") if row != "d"]
    assert groups == ["a", "y" * 3000, "c"]


def test_a_key_that_other_bytes_hold_is_drawn_anew(cloud: Cloud) -> None:
    sqs = sink(cloud)
    parcels = parcels_of(sqs, "y" * 3000)
    key = f"{PREFIX}{PATH}/{OUTBOX}-1"
    cloud.client("s3").put_object(Bucket="claims", Key=key, Body=b"another")
    assert send(sqs, parcels) == Receipt(rekey=(1,))
    assert received(cloud) == []


def test_a_limit_that_was_lowered_since_it_was_asked_sends_by_the_bucket(cloud: Cloud) -> None:
    sqs = sink(cloud)

    async def go(parcels: Sequence[Parcel]) -> list[Receipt]:
        first = await sqs.send(parcels[:1])
        lowered = {"MaximumMessageSize": "1024"}
        client = cloud.client("sqs")
        url = client.get_queue_url(QueueName="q")["QueueUrl"]
        client.set_queue_attributes(QueueUrl=url, Attributes=lowered)
        second = await sqs.send(parcels[1:])
        await sqs.close()
        return [first, second]

    receipts = asyncio.run(go(parcels_of(sqs, "a", "y" * 1500)))
    assert [receipt.delivered for receipt in receipts] == [(1,), (2,)]
    assert dict(received(cloud))[ids(2)[0]] == "y" * 1500


def test_a_large_parcel_of_another_sink_does_not_reach_the_bucket(cloud: Cloud) -> None:
    sqs = sink(cloud)
    parcel = Parcel(f"{PATH}/{OUTBOX}-1", 1, 9, 9, b"PAR1\xff" * 1000, {}, 1)
    assert "made for a sink of another kind" in send(sqs, [parcel]).refused[1]
    assert cloud.objects("claims") == {}


def test_the_bucket_takes_account_and_region_of_the_queue_where_it_names_none() -> None:
    arn = "arn:aws:sqs:eu-west-3:123456789012:q"
    role = "arn:aws:iam::123456789012:role/edge"
    sqs = SqsSink(queue=arn, role_arn=role, claim=Claim(bucket="claims"))
    assert (store := sqs._bucket()) is not None
    assert (store.role_arn, store._region()) == (role, "eu-west-3")
    own = SqsSink(queue=arn, role_arn=role, claim=Claim(bucket="claims", profile="me", region="x"))
    assert (store := own._bucket()) is not None
    assert (store.role_arn, store.profile, store._region()) == (None, "me", "x")
