"""Numbers of rows become points of CloudWatch, each in its time, and none is lost by a bad one."""

import asyncio
import time
from collections.abc import Sequence

import polars as pl
import pytest

from edge.clock import Clock
from edge.component import Permission, Stream
from edge.errors import DefinitionError, LinkDown
from edge.outbox.model import Parcel
from edge.pipeline import loads
from edge.sinks import Receipt
from edge.sinks.cloudwatch import CloudwatchSink
from edge.sinks.datum import rows_of
from tests.cloud import Cloud, Failure
from tests.sinks.places import OUTBOX, PATH, bound, numbered

HOUR, DAY = 3600, 86_400
NOW = int(time.time())


def rows(**columns: Sequence[object]) -> pl.DataFrame:
    """Rows with `ages` (seconds) instead of times, and the columns given."""
    ages = columns.pop("ages")
    moments = [None if age is None else (NOW - age) * 1_000_000 for age in ages]  # type: ignore[operator]
    ids = [f"{PATH}/{OUTBOX}-{number}" for number in range(1, len(ages) + 1)]
    ts = pl.Series(moments, dtype=pl.Int64).cast(pl.Datetime("us", "UTC"))
    return pl.DataFrame({"edge_id": ids, "ts": ts, **columns})


def sink_for(cloud: Cloud, frame: pl.DataFrame, **options: object) -> CloudwatchSink:
    given = {"endpoint_url": cloud.url, "dimensions": ["line"], **options}
    made = bound(CloudwatchSink(**given), frame.schema)  # type: ignore[arg-type]
    assert isinstance(made, CloudwatchSink)
    return made


def send(sink: CloudwatchSink, parcels: Sequence[Parcel]) -> Receipt:
    async def once() -> Receipt:
        try:
            return await sink.send(parcels)
        finally:
            await sink.close()

    return asyncio.run(once())


def test_a_row_is_a_point_of_each_metric_at_its_own_time(cloud: Cloud) -> None:
    frame = rows(ages=[HOUR, 13 * DAY], line=["a", None], hot=[True, False], t_seconds=[1.5, None])
    sink = sink_for(cloud, frame)
    (parcel,) = numbered(sink.encode(frame).parcels)
    assert [*send(sink, [parcel]).delivered] == [1]
    assert sorted(cloud.points("edge"), key=str) == sorted(
        [
            ("hot", {"line": "a"}, NOW - HOUR, 1.0),
            ("t_seconds", {"line": "a"}, NOW - HOUR, 1.5),
            ("hot", {}, NOW - 13 * DAY, 0.0),
        ],
        key=str,
    )
    units = {datum["MetricName"]: datum.get("Unit") for datum in rows_of(parcel)[0].data}
    assert units == {"hot": None, "t_seconds": "Seconds"}


def test_a_row_without_a_number_or_a_time_is_refused(cloud: Cloud) -> None:
    frame = rows(ages=[1, None, 1, 1], line=["a"] * 4, v=[None, 1.0, float("nan"), 2.0])
    encoded = sink_for(cloud, frame).encode(frame)
    assert [(refused.first, refused.reason) for refused in encoded.refused] == [
        (1, "no value in v"),
        (2, "its time, column 'ts', is null"),
        (3, "no value in v"),
    ]
    assert sum(parcel.rows for parcel in encoded.parcels) == 1


def test_no_call_has_more_than_a_thousand_data(cloud: Cloud) -> None:
    frame = rows(ages=[HOUR] * 2500, line=["a"] * 2500, v=range(2500), w=range(2500))
    sink = sink_for(cloud, frame)
    parcels = numbered(sink.encode(frame).parcels)
    assert [parcel.rows for parcel in parcels] == [500] * 5
    assert len(send(sink, parcels).delivered) == 5
    assert len(cloud.points("edge")) == 5000


def test_what_is_older_than_two_weeks_is_refused_and_its_neighbours_go(cloud: Cloud) -> None:
    frame = rows(ages=[HOUR, 15 * DAY, 2], line=["a", "b", "c"], v=[1, 2, 3])
    sink = sink_for(cloud, frame)
    receipt = send(sink, numbered(sink.encode(frame).parcels))
    divided = receipt.divided[1]
    assert divided.delivered == 2
    ((parcel, reason),) = divided.refused
    assert (parcel.first, parcel.last, parcel.rows) == (2, 2, 1)
    assert reason == "it is older than the two weeks that CloudWatch takes"
    assert divided.rest is None
    assert [value for *_, value in cloud.points("edge")] == [1, 3]


def test_a_point_that_cloudwatch_refuses_is_found_among_many(cloud: Cloud) -> None:
    ages = [HOUR] * 40
    ages[17] = -3 * HOUR
    frame = rows(ages=ages, line=["a"] * 40, v=range(40))
    sink = sink_for(cloud, frame)
    receipt = send(sink, numbered(sink.encode(frame).parcels))
    ((parcel, reason),) = receipt.divided[1].refused
    assert (parcel.first, parcel.rows, receipt.divided[1].delivered) == (18, 1, 39)
    assert "two hours" in reason
    assert len(cloud.points("edge")) == 39


def test_what_was_taken_before_the_link_went_is_not_sent_again(cloud: Cloud) -> None:
    ages = [HOUR] * 4
    ages[3] = -3 * HOUR
    frame = rows(ages=ages, line=["a"] * 4, v=range(4))
    sink = sink_for(cloud, frame)
    # The whole call and then its second half are answered; the last two calls fail.
    away = Failure("AccessDenied", 403)
    cloud.fail("PutMetricData", None, None, always=away)
    receipt = send(sink, numbered(sink.encode(frame).parcels))
    divided = receipt.divided[1]
    assert (divided.delivered, divided.rest and divided.rest.rows) == (2, 2)
    assert "grant cloudwatch:PutMetricData" in str(receipt.problem)


def test_text_that_is_no_ascii_is_escaped(cloud: Cloud) -> None:
    frame = rows(ages=[HOUR] * 4, line=["Süd", ":x", "a b", "\t"], v=[1, 2, 3, 4])
    sink = sink_for(cloud, frame)
    assert send(sink, numbered(sink.encode(frame).parcels)).delivered
    named = [dimensions["line"] for _, dimensions, _, _ in cloud.points("edge")]
    assert named == ["S\\xfcd", "\\x3ax", "a b", "\\x09"]


def test_refused_access_keeps_the_rows_and_says_what_to_grant(cloud: Cloud) -> None:
    frame = rows(ages=[HOUR], line=["a"], v=[1])
    sink = sink_for(cloud, frame)
    cloud.fail("PutMetricData", always=Failure("AccessDenied", 403))
    receipt = send(sink, numbered(sink.encode(frame).parcels))
    assert receipt == Receipt(problem=receipt.problem)
    assert receipt.problem == (
        "CloudWatch refused access to namespace 'edge' (AccessDenied);"
        " grant cloudwatch:PutMetricData to the task role"
    )
    cloud.fail("PutMetricData", always=Failure("InternalFailure", 500))
    with pytest.raises(LinkDown, match="has trouble of its own"):
        send(sink, numbered(sink.encode(frame).parcels))


def test_a_parcel_of_another_kind_is_refused(cloud: Cloud) -> None:
    frame = rows(ages=[HOUR], line=["a"], v=[1])
    other = Parcel("k", 1, 1, 1, b'{"a": 1}', id=7)
    assert send(sink_for(cloud, frame), [other]).refused == {
        7: "the parcel holds no data of CloudWatch"
    }


def test_it_may_only_put_into_its_namespace() -> None:
    only = {"StringEquals": {"cloudwatch:namespace": "plant"}}
    wanted = [Permission(("cloudwatch:PutMetricData",), "*", only)]
    assert list(CloudwatchSink(namespace="plant").permissions(PATH)) == wanted


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ("namespace: AWS/EC2", "not below AWS/"),
        ("metrics: [tmp]", "did you mean 'temp'"),
        ("dimensions: [lane]", "did you mean 'line'"),
        ("metrics: []\n      dimensions: [temp]", "must be 1 to 1000, got 0"),
        ("units: {temp: Degrees}", "Seconds"),
    ],
)
def test_a_wrong_option_is_found_before_anything_opens(options: str, message: str) -> None:
    text = (
        "name: a\nsource: {mqtt: {url: mqtt://h, topics: ['a/{line}']}}\n"
        "record: {fields: {temp: float}}\n"
        f"sinks:\n  out:\n    cloudwatch:\n      {options}\n"
    )
    with pytest.raises(DefinitionError, match=message):
        loads(text, "a.yaml", {}).bind(Clock())


def test_the_key_of_the_record_tells_series_apart(cloud: Cloud) -> None:
    frame = rows(ages=[HOUR], line=["a"], v=[1])
    sink = CloudwatchSink(endpoint_url=cloud.url)
    sink.bind(frame.schema, Stream("ts", ("line",)), True, "none")
    assert send(sink, numbered(sink.encode(frame).parcels)).delivered
    assert [dimensions for _, dimensions, _, _ in cloud.points("edge")] == [{"line": "a"}]
