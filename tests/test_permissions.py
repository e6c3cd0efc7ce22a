"""What a part says it asks of AWS is what it asks, and names nothing beside it."""

import asyncio

import pytest

from edge.component import Permission
from edge.pipeline.parts import KINDS
from edge.sinks.claim import Claim
from edge.sinks.s3 import S3Sink
from edge.sinks.sqs import SqsSink
from edge.sources.sqs import SqsSource
from tests.cloud import ACCOUNT, REGION, Cloud
from tests.loop import until
from tests.sinks.places import PATH, bound, numbered, rows
from tests.sources.reading import Reading

ACTIONS = {
    "PutObject": "s3:PutObject",
    "HeadObject": "s3:GetObject",
    "SendMessageBatch": "sqs:SendMessage",
    "GetQueueUrl": "sqs:GetQueueUrl",
    "GetObject": "s3:GetObject",
    "ReceiveMessage": "sqs:ReceiveMessage",
    "DeleteMessageBatch": "sqs:DeleteMessage",
    "ChangeMessageVisibilityBatch": "sqs:ChangeMessageVisibility",
    "GetQueueAttributes": "sqs:GetQueueAttributes",
}
HERE = "arn:{partition}:sqs:{region}:{account}"


def asked(cloud: Cloud) -> set[str]:
    return {ACTIONS[operation] for operation in cloud.calls}


def allowed(permissions: object) -> set[str]:
    assert isinstance(permissions, list | tuple)
    return {action for permission in permissions for action in permission.actions}


def test_the_s3_sink_asks_what_it_says(cloud: Cloud, monkeypatch: pytest.MonkeyPatch) -> None:
    cloud.make_bucket("lake")
    monkeypatch.setenv("AWS_ENDPOINT_URL", cloud.url)
    sink = bound(S3Sink(bucket="lake", prefix="readings/"))
    cloud.calls.clear()

    parcels = numbered(sink.encode(rows(3)).parcels)
    for _ in range(2):  # the second time the key is taken and looked at
        asyncio.run(sink.send(parcels))

    (permission,) = sink.permissions(PATH)
    assert asked(cloud) == set(permission.actions)
    assert permission.resource == f"arn:{{partition}}:s3:::lake/readings/{PATH}/*"
    assert all(key.startswith(f"readings/{PATH}/") for key in cloud.objects("lake"))


def test_the_sqs_sink_asks_what_it_says(cloud: Cloud, monkeypatch: pytest.MonkeyPatch) -> None:
    cloud.make_bucket("claims")
    cloud.make_queue("alarms", MaximumMessageSize="1024")
    monkeypatch.setenv("AWS_ENDPOINT_URL", cloud.url)
    claim = Claim(bucket="claims", prefix="big/")
    sink = bound(SqsSink(queue="alarms", pack="20KiB", claim=claim))
    cloud.calls.clear()

    parcels = numbered(sink.encode(rows(50)).parcels)
    for _ in range(2):
        asyncio.run(sink.send(parcels))

    queue, bucket = sink.permissions(PATH)
    assert asked(cloud) == allowed([queue, bucket])
    assert queue.resource == f"{HERE}:alarms"
    assert bucket.resource == f"arn:{{partition}}:s3:::claims/big/{PATH}/*"
    assert all(key.startswith(f"big/{PATH}/") for key in cloud.objects("claims"))


def test_the_sqs_source_asks_what_it_says(cloud: Cloud) -> None:
    cloud.make_bucket("claims")
    cloud.make_queue("plant", MaximumMessageSize="1024")
    claim = Claim(bucket="claims", prefix="big/", endpoint_url=cloud.url)
    sink = bound(SqsSink(queue="plant", pack="20KiB", claim=claim, endpoint_url=cloud.url))
    asyncio.run(sink.send(numbered(sink.encode(rows(50)).parcels)))
    cloud.calls.clear()
    place = {"bucket": "claims", "prefix": "big/"}

    async def read() -> None:
        reading = Reading(cloud, claim={**place, "endpoint_url": cloud.url}, visibility="2s")
        async with reading.running():
            while "ChangeMessageVisibilityBatch" not in cloud.calls:
                await reading.step(acknowledge=False)
            for arrival in reading.owed:
                await arrival.acknowledge()
            await until(lambda: "DeleteMessageBatch" in cloud.calls)

    asyncio.run(read())
    queue, bucket = SqsSource(queue="plant", claim=place).permissions(PATH)
    assert asked(cloud) == allowed([queue, bucket])
    assert queue.resource == f"{HERE}:plant"
    assert bucket.resource == "arn:{partition}:s3:::claims/big/*"


@pytest.mark.parametrize(
    ("queue", "arn"),
    [
        ("alarms", f"{HERE}:alarms"),
        (f"arn:aws:sqs:{REGION}:{ACCOUNT}:alarms", f"arn:aws:sqs:{REGION}:{ACCOUNT}:alarms"),
        (
            f"https://sqs.{REGION}.amazonaws.com/{ACCOUNT}/alarms",
            f"arn:{{partition}}:sqs:{REGION}:{ACCOUNT}:alarms",
        ),
    ],
)
def test_a_queue_is_the_same_however_it_is_named(queue: str, arn: str) -> None:
    (permission,) = SqsSink(queue=queue).permissions(PATH)
    assert permission.resource == arn
    assert ("sqs:GetQueueUrl" in permission.actions) is not queue.startswith("http")


def test_options_of_a_bucket_take_what_they_take() -> None:
    sink = S3Sink(bucket="lake", prefix="a*b/", kms_key="alias/lake", tags={"plant": "osaka"})
    objects, key = sink.permissions(PATH)
    assert objects == Permission(
        ("s3:PutObject", "s3:GetObject", "s3:PutObjectTagging"),
        f"arn:{{partition}}:s3:::lake/a${{*}}b/{PATH}/*",
    )
    assert key == Permission(
        ("kms:GenerateDataKey", "kms:Decrypt"),
        "arn:{partition}:kms:{region}:{account}:key/*",
        {"ForAnyValue:StringEquals": {"kms:ResourceAliases": "alias/lake"}},
    )
    (point,) = S3Sink(bucket="arn:aws:s3:eu-west-1:1:accesspoint/lake").permissions(PATH)
    assert point.resource == f"arn:aws:s3:eu-west-1:1:accesspoint/lake/object/{PATH}/*"


def test_who_assumes_a_role_needs_only_that() -> None:
    role = "arn:aws:iam::123456789012:role/lake"
    only = [Permission(("sts:AssumeRole",), role)]
    assert S3Sink(bucket="lake", role_arn=role).permissions(PATH) == only
    assert SqsSink(queue="q", role_arn=role).permissions(PATH) == only


def test_what_is_no_service_of_aws_needs_nothing() -> None:
    assert S3Sink(bucket="lake", endpoint_url="http://minio:9000").permissions(PATH) == ()
    silent = {"mqtt", "dataset", "file", "console"}
    for kind in KINDS:
        for name in kind.table:
            if kind.word == "operator" or name in silent:
                assert kind.find(name).permissions.__qualname__ == "Component.permissions", name
