"""What the SQS sink promises: every row arrives, in its order where the queue keeps one."""

import asyncio
import json
from collections.abc import Iterator, Sequence
from itertools import pairwise
from typing import Any

import polars as pl
import pytest
from hypothesis import given
from hypothesis import strategies as st

from edge.errors import DefinitionError, LinkDown
from edge.outbox.model import Parcel
from edge.sinks import Receipt
from edge.sinks.sqs import COMMON_LIMIT, SqsSink
from tests.cloud import Cloud, Failure
from tests.proxy import Proxy
from tests.sinks.places import OUTBOX, PATH, bound, numbered, rows

ACCOUNT = "123456789012"


@pytest.fixture
def proxy(cloud: Cloud) -> Iterator[Proxy]:
    with Proxy(("127.0.0.1", cloud.port)) as made:
        yield made


def sink(url: str | None = None, queue: str = "q", **settings: Any) -> SqsSink:
    choices = {name: settings.pop(name) for name in ("order", "identity") if name in settings}
    made = bound(SqsSink(queue=queue, endpoint_url=url, **settings), **choices)
    assert isinstance(made, SqsSink)
    return made


def send(sink: SqsSink, parcels: Sequence[Parcel]) -> Receipt:
    async def go() -> Receipt:
        try:
            return await sink.send(parcels)
        finally:
            await sink.close()

    return asyncio.run(go())


def parcels_of(sink: SqsSink, count: int) -> list[Parcel]:
    return numbered(sink.encode(rows(count)).parcels)


def texts(values: Sequence[str]) -> pl.DataFrame:
    ids = [f"{PATH}/{OUTBOX}-{number}" for number in range(1, len(values) + 1)]
    return pl.DataFrame({"edge_id": ids, "text": values})


def ids(parcels: Sequence[Parcel]) -> set[int]:
    return {parcel.id for parcel in parcels}


def test_a_message_is_one_row_as_json_with_its_id(cloud: Cloud) -> None:
    cloud.make_queue("q")
    sqs = sink(cloud.url)
    assert send(sqs, parcels_of(sqs, 1)).delivered == (1,)
    (message,) = cloud.messages("q")
    assert json.loads(message["Body"]) == {
        "edge_id": f"{PATH}/{OUTBOX}-1",
        "ts": "1970-01-01T00:00:01.000000Z",
        "line": "l1",
        "value": 0.25,
    }
    assert message["MessageAttributes"]["edge_id"]["StringValue"] == f"{PATH}/{OUTBOX}-1"


def test_without_identity_a_message_is_only_the_row(cloud: Cloud) -> None:
    cloud.make_queue("q")
    sqs = sink(cloud.url, identity=False)
    send(sqs, parcels_of(sqs, 1))
    (message,) = cloud.messages("q")
    assert "edge_id" not in json.loads(message["Body"])
    assert "MessageAttributes" not in message


def test_packed_messages_are_arrays_up_to_their_size(cloud: Cloud) -> None:
    cloud.make_queue("q")
    sqs = sink(cloud.url, pack="1KiB")
    parcels = parcels_of(sqs, 100)
    assert max(sqs._size(parcel) for parcel in parcels) <= 1024
    send(sqs, parcels)
    bodies = [json.loads(message["Body"]) for message in cloud.messages("q")]
    assert sorted(row["value"] for body in bodies for row in body) == [n / 4 for n in range(1, 101)]
    assert len(bodies) == len(parcels) < 20


def test_packing_leaves_no_room_for_another_row() -> None:
    sqs = sink(pack="1KiB")
    parcels = parcels_of(sqs, 100)
    for parcel, after in pairwise(parcels):
        row = json.dumps(json.loads(after.body)[0], separators=(",", ":"))
        assert sqs._size(parcel) + 1 + len(row) > 1024 - 4  # an id may be some digits shorter


@pytest.mark.parametrize("name", ["q", "URL", f"arn:aws:sqs:eu-west-1:{ACCOUNT}:q"])
def test_a_queue_has_a_name_a_url_or_an_arn(cloud: Cloud, name: str) -> None:
    url = cloud.make_queue("q")
    sqs = sink(cloud.url, url if name == "URL" else name)
    assert send(sqs, parcels_of(sqs, 1)).delivered


def test_a_url_or_arn_tells_the_region() -> None:
    assert sink(queue=f"https://sqs.eu-west-3.amazonaws.com/{ACCOUNT}/q")._region() == "eu-west-3"
    assert sink(queue=f"arn:aws:sqs:us-east-2:{ACCOUNT}:q")._region() == "us-east-2"
    assert sink(queue="q")._region() is None


@pytest.mark.parametrize("queue", ["", "a b", "q.txt", "sqs://x", "x" * 81])
def test_what_names_no_queue_is_refused(queue: str) -> None:
    with pytest.raises(ValueError, match="must be the name, URL or ARN of a queue"):
        SqsSink(queue=queue)


def test_a_call_holds_ten_messages(cloud: Cloud) -> None:
    cloud.make_queue("q")
    sqs = sink(cloud.url)
    assert len(send(sqs, parcels_of(sqs, 95)).delivered) == 95
    assert cloud.calls["SendMessageBatch"] == 10


def test_a_call_stays_below_the_limit_of_the_queue(cloud: Cloud) -> None:
    cloud.make_queue("q", MaximumMessageSize="2048")
    sqs = sink(cloud.url)
    parcels = numbered(sqs.encode(texts(["x" * 500] * 12)).parcels)
    assert len(send(sqs, parcels).delivered) == 12
    assert cloud.calls["SendMessageBatch"] == 5  # three to a call, in a lane of ten and one of two


def test_a_limit_that_was_lowered_is_asked_for_again(cloud: Cloud) -> None:
    url = cloud.make_queue("q")
    sqs = sink(cloud.url)
    frame = texts(["x" * 500] * 10)
    assert len(send(sqs, numbered(sqs.encode(frame).parcels)).delivered) == 10
    lowered = {"MaximumMessageSize": "2048"}
    cloud.client("sqs").set_queue_attributes(QueueUrl=url, Attributes=lowered)
    assert len(send(sqs, numbered(sqs.encode(frame).parcels)).delivered) == 10
    assert sqs._limit() == 2048


def test_a_queue_that_may_not_be_asked_is_taken_for_an_old_one(cloud: Cloud) -> None:
    cloud.make_queue("q")
    cloud.fail("GetQueueAttributes", always=Failure("AccessDenied", 403))
    sqs = sink(cloud.url)
    assert send(sqs, parcels_of(sqs, 3)).delivered == (1, 2, 3)
    assert sqs._limit() == COMMON_LIMIT


def test_a_row_that_no_queue_takes_is_refused_when_encoded() -> None:
    encoded = sink().encode(texts(["x", "y" * 2**20, "z"]))
    assert [parcel.first for parcel in encoded.parcels] == [1, 3]
    (refusal,) = encoded.refused
    assert (refusal.first, refusal.last, refusal.rows) == (2, 2, 1)
    assert refusal.reason.startswith("message of 1048")


def test_a_message_that_this_queue_does_not_take_is_refused_alone(cloud: Cloud) -> None:
    cloud.make_queue("q", MaximumMessageSize="1024")
    sqs = sink(cloud.url)
    parcels = numbered(sqs.encode(texts(["x", "y" * 2000, "z"])).parcels)
    receipt = send(sqs, parcels)
    assert receipt.delivered == (1, 3)
    assert "raise its MaximumMessageSize" in receipt.refused[2]


def test_illegal_characters_come_back(cloud: Cloud) -> None:
    cloud.make_queue("q")
    sqs = sink(cloud.url)
    values = ["\x00\x08\x0b\x1f", "\ufffe", "\uffff", "\ufffd", "\x7f", "\U0001f600", 'a"\\\n']
    parcels = numbered(sqs.encode(texts(values)).parcels)
    assert len(send(sqs, parcels).delivered) == len(values)
    found = [json.loads(message["Body"])["text"] for message in cloud.messages("q")]
    assert sorted(found) == sorted(values)


@given(st.lists(st.text(st.characters(exclude_categories=["Cs"])), min_size=1, max_size=5))
def test_any_text_makes_legal_bodies(values: list[str]) -> None:
    illegal = {*map(chr, range(32)), "\ufffe", "\uffff"} - set("\t\n\r")
    parcels = sink().encode(texts(values)).parcels
    assert [json.loads(parcel.body)["text"] for parcel in parcels] == values
    assert not any(illegal & set(parcel.body.decode()) for parcel in parcels)


def test_one_refused_message_leaves_its_neighbours(cloud: Cloud) -> None:
    cloud.make_queue("q")
    sqs = sink(cloud.url)
    parcels = parcels_of(sqs, 10)
    bad = parcels[4].body.decode()
    cloud.refuse_entry = lambda body: Failure("InvalidAttributeValue") if body == bad else None
    receipt = send(sqs, parcels)
    assert set(receipt.delivered) == ids(parcels) - {5}
    assert list(receipt.refused) == [5]
    assert "InvalidAttributeValue" in receipt.refused[5]


@pytest.mark.parametrize("code", ["KmsAccessDenied", "AccessDenied", "KmsThrottled"])
def test_an_entry_refused_for_a_setting_is_kept(cloud: Cloud, code: str) -> None:
    cloud.make_queue("q")
    sqs = sink(cloud.url)
    cloud.refuse_entry = lambda body: Failure(code)
    receipt = send(sqs, parcels_of(sqs, 3))
    assert not receipt.delivered
    assert not receipt.refused
    assert receipt.problem is not None
    assert code in receipt.problem


@pytest.mark.parametrize("code", ["InvalidMessageContents", "InvalidParameterValue"])
def test_a_call_refused_for_one_message_is_halved_until_it_stands_alone(
    cloud: Cloud, code: str
) -> None:
    cloud.make_queue("q")
    cloud.illegal_fails_call = Failure(code)
    sqs = sink(cloud.url)
    parcels = parcels_of(sqs, 10)
    parcels[6] = parcels[6]._replace(body=b"\x01")
    receipt = send(sqs, parcels)
    assert set(receipt.delivered) == ids(parcels) - {7}
    # A code that may also come of a wrong option never sets a message aside.
    assert list(receipt.refused) == ([7] if code == "InvalidMessageContents" else [])
    assert bool(receipt.problem) == (code == "InvalidParameterValue")


def test_a_missing_queue_keeps_everything(cloud: Cloud) -> None:
    sqs = sink(cloud.url, "nowhere")
    assert send(sqs, parcels_of(sqs, 3)) == Receipt(
        problem="SQS has no queue 'nowhere' (NonExistentQueue);"
        " create it, or correct its name, region or account"
    )
    cloud.make_queue("nowhere")
    assert send(sqs, parcels_of(sqs, 3)).delivered == (1, 2, 3)


def test_a_busy_service_is_link_down(cloud: Cloud) -> None:
    cloud.make_queue("q")
    cloud.fail("SendMessageBatch", always=Failure("ThrottlingException"))
    sqs = sink(cloud.url)
    with pytest.raises(LinkDown, match="ThrottlingException"):
        send(sqs, parcels_of(sqs, 3))


def test_what_was_settled_before_the_line_broke_stays_settled(cloud: Cloud) -> None:
    cloud.make_queue("q")
    cloud.fail("SendMessageBatch", None, always=Failure("SlowDown", 503))
    sqs = sink(cloud.url, order="all")
    parcels = parcels_of(sqs, 30)
    receipt = send(sqs, parcels)
    assert receipt.delivered == tuple(range(1, 11))
    assert "SlowDown" in str(receipt.problem)
    cloud.mend()
    assert send(sqs, parcels[10:]).delivered == tuple(range(11, 31))


def test_fifo_messages_keep_the_order_of_their_key(cloud: Cloud) -> None:
    cloud.make_queue("q.fifo")
    sqs = sink(cloud.url, "q.fifo")
    parcels = parcels_of(sqs, 100)
    assert set(send(sqs, parcels).delivered) == ids(parcels)
    seen: dict[str, list[float]] = {}
    for message in cloud.messages("q.fifo"):
        row = json.loads(message["Body"])
        assert message["Attributes"]["MessageGroupId"] == row["line"]
        seen.setdefault(row["line"], []).append(row["value"])
    assert len(seen) == 3
    assert all(values == sorted(values) for values in seen.values())


def test_a_fifo_queue_drops_a_repeat_also_after_its_message_was_read(
    cloud: Cloud, proxy: Proxy
) -> None:
    cloud.make_queue("q.fifo")
    sqs = sink(proxy.url, "q.fifo")
    parcels = parcels_of(sqs, 5)
    assert send(sqs, parcels).delivered
    assert len(cloud.messages("q.fifo")) == 5
    assert set(send(sqs, parcels).delivered) == ids(parcels)
    assert cloud.messages("q.fifo") == []
    cloud.later = 301
    send(sqs, parcels)
    assert len(cloud.messages("q.fifo")) == 5


def test_a_group_stops_where_one_of_its_messages_failed(cloud: Cloud) -> None:
    cloud.make_queue("q.fifo")
    sqs = sink(cloud.url, "q.fifo", order="all")
    parcels = parcels_of(sqs, 30)
    bad = parcels[9].body.decode()
    cloud.refuse_entry = lambda body: Failure("InternalError", 500) if body == bad else None
    receipt = send(sqs, parcels)
    assert receipt.delivered == tuple(range(1, 10))
    assert receipt.problem
    cloud.refuse_entry = lambda body: None
    assert send(sqs, parcels[9:]).delivered == tuple(range(10, 31))
    values = [json.loads(message["Body"])["value"] for message in cloud.messages("q.fifo")]
    assert values == sorted(values)


def test_the_other_groups_go_on(cloud: Cloud) -> None:
    cloud.make_queue("q.fifo")
    sqs = sink(cloud.url, "q.fifo")
    parcels = parcels_of(sqs, 60)
    cloud.refuse_entry = lambda body: (
        Failure("InternalError", 500) if json.loads(body)["line"] == "l1" else None
    )
    receipt = send(sqs, parcels)
    others = [parcel for parcel in parcels if parcel.attributes["group"] != "l1"]
    assert set(receipt.delivered) == ids(others)


def test_rows_from_before_a_key_was_declared_are_one_group() -> None:
    parcels = sink(queue="q.fifo").encode(rows(3).drop("line")).parcels
    assert {parcel.attributes["group"] for parcel in parcels} == {"null"}


@pytest.mark.parametrize("queue", ["q", "q.fifo"])
def test_a_backlog_of_another_sink_that_is_no_text_is_set_aside(cloud: Cloud, queue: str) -> None:
    cloud.make_queue(queue)
    made = sink(cloud.url, queue=queue)
    parcels = parcels_of(made, 4)
    parcels[1] = parcels[1]._replace(body=b"\xb5\x2f\xfd", attributes={})
    receipt = send(made, parcels)
    assert list(receipt.refused) == [2]
    assert "no text" in receipt.refused[2]
    assert {*receipt.delivered} == {1, 3, 4}


@pytest.mark.parametrize(
    ("key", "group"),
    [("l1", "l1"), ("a/b", "a/b"), (None, "null")],
)
def test_a_group_is_the_key_where_it_is_legal(key: str | None, group: str) -> None:
    frame = rows(1).with_columns(pl.lit(key, pl.String).alias("line"))
    assert sink(queue="q.fifo").encode(frame).parcels[0].attributes == {"group": group}


@pytest.mark.parametrize("key", ["two words", "größe", "x" * 129, ""])
def test_a_group_is_a_hash_of_the_key_where_it_is_not_legal(key: str) -> None:
    frame = rows(1).with_columns(pl.lit(key).alias("line"))
    group = sink(queue="q.fifo").encode(frame).parcels[0].attributes["group"]
    assert len(group) == 64


def test_a_key_that_does_not_reach_a_fifo_queue_is_named() -> None:
    with pytest.raises(DefinitionError, match=r"queue: .*'line' is not among the columns"):
        bound(SqsSink(queue="q.fifo"), rows(1).drop("line").schema)


@pytest.mark.parametrize("size", ["1B", "2MiB"])
def test_a_pack_that_no_message_can_be_is_refused(size: str) -> None:
    with pytest.raises(ValueError, match="must be between 1KiB and 1MiB"):
        SqsSink(queue="q", pack=size)
