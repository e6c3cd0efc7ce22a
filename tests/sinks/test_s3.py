"""What the S3 sink promises: one object per parcel, whatever became of the answers."""

import asyncio
from collections.abc import Iterator
from typing import Any

import pytest

from edge.aws import service as aws
from edge.codec import encode as encode_rows
from edge.errors import DefinitionError, LinkDown
from edge.outbox.model import Parcel
from edge.sinks import Receipt
from edge.sinks.file import FileSink
from edge.sinks.s3 import S3Sink
from tests.cloud import Cloud, Failure
from tests.proxy import Proxy
from tests.sinks.places import OUTBOX, PATH, bound, numbered, rows


@pytest.fixture
def lake(cloud: Cloud) -> Cloud:
    cloud.make_bucket("lake")
    return cloud


@pytest.fixture
def proxy(lake: Cloud) -> Iterator[Proxy]:
    with Proxy(("127.0.0.1", lake.port)) as made:
        yield made


def sink(url: str, **options: Any) -> S3Sink:
    made = bound(S3Sink(bucket="lake", endpoint_url=url, **options))
    assert isinstance(made, S3Sink)
    return made


def send(sink: S3Sink, parcels: list[Parcel]) -> Receipt:
    async def go() -> Receipt:
        try:
            return await sink.send(parcels)
        finally:
            await sink.close()

    return asyncio.run(go())


def parcels_of(sink: S3Sink, count: int = 12) -> list[Parcel]:
    return numbered(sink.encode(rows(count)).parcels)


def test_a_key_says_where_the_rows_come_from(lake: Cloud) -> None:
    s3 = sink(lake.url, prefix="readings/", partition=["date", "line"], format="parquet")
    parcels = parcels_of(s3)
    assert parcels[0].key == f"readings/{PATH}/date=1970-01-01/line=l1/{OUTBOX}-1-10.parquet"
    send(s3, parcels)
    assert lake.objects("lake") == {parcel.key: parcel.body for parcel in parcels}


@pytest.mark.parametrize(
    ("options", "kind"),
    [
        ({}, "application/zstd"),
        ({"compression": "gzip"}, "application/gzip"),
        ({"compression": "none"}, "application/x-ndjson"),
        ({"format": "csv", "compression": "none"}, "text/csv; charset=utf-8"),
        ({"format": "json", "compression": "none"}, "application/json"),
        ({"format": "parquet"}, "application/vnd.apache.parquet"),
    ],
)
def test_an_object_says_what_it_holds(lake: Cloud, options: dict[str, str], kind: str) -> None:
    s3 = sink(lake.url, **options)
    parcels = parcels_of(s3)
    send(s3, parcels)
    head = lake.client("s3").head_object(Bucket="lake", Key=parcels[0].key)
    assert head["ContentType"] == kind
    assert not head.get("ContentEncoding")
    assert len(head["Metadata"]["sha256"]) == 64


def test_a_backlog_of_another_sink_is_put_as_it_is(lake: Cloud) -> None:
    message = Parcel(f"{PATH}/{OUTBOX}-1", 1, 1, 1, b'{"v":1}', {}, 1)
    (file,) = bound(FileSink(path="out")).encode(rows(3)).parcels
    assert send(sink(lake.url), [message, file._replace(id=2)]).delivered == (1, 2)
    assert lake.objects("lake") == {
        message.key: message.body,
        file.key: encode_rows(rows(3), "ndjson", "none"),
    }


def test_storage_class_tags_and_key_reach_the_object(lake: Cloud) -> None:
    s3 = sink(
        lake.url, storage_class="STANDARD_IA", tags={"site": "osaka + co"}, kms_key="alias/lake"
    )
    parcels = parcels_of(s3)
    send(s3, parcels)
    client = lake.client("s3")
    head = client.head_object(Bucket="lake", Key=parcels[0].key)
    tags = client.get_object_tagging(Bucket="lake", Key=parcels[0].key)["TagSet"]
    assert head["StorageClass"] == "STANDARD_IA"
    assert head["SSEKMSKeyId"] == "alias/lake"
    assert tags == [{"Key": "site", "Value": "osaka + co"}]


def test_a_lost_answer_leaves_one_object(lake: Cloud, proxy: Proxy) -> None:
    s3 = sink(proxy.url)
    parcels = parcels_of(s3)
    proxy.set("lose_answer")
    with pytest.raises(LinkDown):
        send(s3, parcels)
    proxy.set("up")
    assert send(s3, parcels).delivered == (1,)
    assert lake.objects("lake") == {parcels[0].key: parcels[0].body}


def test_a_connection_reset_in_the_body_leaves_no_object(lake: Cloud, proxy: Proxy) -> None:
    s3 = sink(proxy.url)
    big = [Parcel(f"{PATH}/{OUTBOX}-1-9.ndjson", 1, 9, 9, b"x" * 300_000, id=1)]
    proxy.set("reset", after=100_000)
    with pytest.raises(LinkDown):
        send(s3, big)
    assert lake.objects("lake") == {}
    proxy.set("up")
    assert send(s3, big).delivered == (1,)


def test_a_taken_key_that_cannot_be_read_is_ours(lake: Cloud) -> None:
    s3 = sink(lake.url)
    parcels = parcels_of(s3)
    send(s3, parcels)
    lake.fail("HeadObject", Failure("AccessDenied", 403))
    assert send(s3, parcels) == Receipt((1,))


def test_other_bytes_under_the_key_ask_for_a_new_one(lake: Cloud) -> None:
    s3 = sink(lake.url)
    parcels = parcels_of(s3)
    send(s3, parcels)
    others = [parcels[0]._replace(body=b"other")]
    assert send(s3, others) == Receipt(rekey=(1,))
    assert lake.objects("lake") == {parcels[0].key: parcels[0].body}


def test_a_store_without_conditions_is_written_over(lake: Cloud) -> None:
    s3 = sink(lake.url, conditional=False, checksum="when_required")
    parcels = parcels_of(s3)
    assert send(s3, parcels) == send(s3, parcels) == Receipt((1,))
    assert lake.calls["HeadObject"] == 0


@pytest.mark.parametrize(
    "failure", [Failure("SlowDown", 503), Failure("ConditionalRequestConflict", 409)], ids=str
)
def test_a_busy_store_is_tried_again(lake: Cloud, failure: Failure) -> None:
    s3 = sink(lake.url)
    lake.fail("PutObject", always=failure)
    with pytest.raises(LinkDown, match=failure.code):
        send(s3, parcels_of(s3))


@pytest.mark.parametrize(
    ("failure", "problem"),
    [
        (
            Failure("AccessDenied", 403),
            "S3 refused access to bucket 'lake' (AccessDenied);"
            " grant s3:PutObject to the task role",
        ),
        (
            Failure("NoSuchBucket", 404),
            "S3 has no bucket 'lake' (NoSuchBucket);"
            " create it, or correct its name, region or account",
        ),
    ],
)
def test_a_wrong_setting_keeps_the_parcel(lake: Cloud, failure: Failure, problem: str) -> None:
    s3 = sink(lake.url)
    lake.fail("PutObject", always=failure)
    assert send(s3, parcels_of(s3)) == Receipt(problem=problem)


def test_what_s3_never_takes_is_refused(lake: Cloud) -> None:
    s3 = sink(lake.url)
    lake.fail("PutObject", always=Failure("EntityTooLarge"))
    assert "EntityTooLarge" in send(s3, parcels_of(s3)).refused[1]


def test_a_web_page_is_no_receipt(lake: Cloud) -> None:
    s3 = sink(lake.url)
    lake.fail("PutObject", always=Failure("a captive portal", 200))
    with pytest.raises(LinkDown, match="captive portal"):
        send(s3, parcels_of(s3))


def test_a_black_hole_does_not_hold_the_loop(proxy: Proxy, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(aws, "READ_TIMEOUT", 0.2)
    proxy.set("black_hole")
    s3 = sink(proxy.url)

    async def go() -> int:
        turns = 0
        task = asyncio.create_task(s3.send(parcels_of(s3)))
        while not task.done():
            await asyncio.sleep(0)
            turns += 1
        with pytest.raises(LinkDown):
            await task
        await s3.close()
        return turns

    assert asyncio.run(go()) > 100


def test_four_parcels_travel_side_by_side(lake: Cloud) -> None:
    s3 = sink(lake.url, partition=["line"])
    parcels = numbered(s3.encode(rows(40, lines=4)).parcels)
    assert len(parcels) == 4
    assert send(s3, parcels).delivered == (1, 2, 3, 4)


def test_a_bucket_name_is_checked_at_once() -> None:
    with pytest.raises(ValueError, match="bucket"):
        S3Sink(bucket="s3://lake")


def test_a_partition_column_that_is_missing_is_named() -> None:
    with pytest.raises(DefinitionError) as caught:
        bound(S3Sink(bucket="lake", partition=["lin", "value"]))
    assert str(caught.value) == (
        "partition.0: column 'lin' is not among the columns, which are edge_id, ts, line, value"
    )
