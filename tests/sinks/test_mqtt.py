"""What the MQTT sink promises: acknowledged or tried again, in order, and every repeat known."""

import asyncio
import json
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import polars as pl
import pytest

from edge.clock import Clock
from edge.errors import DefinitionError, LinkDown
from edge.mqtt import publisher
from edge.outbox.model import Parcel
from edge.pipeline import loads
from edge.sinks import Receipt, publication
from edge.sinks.mqtt import MqttSink
from edge.sinks.sqs import SqsSink
from tests.broker import Broker
from tests.certificates import Certificates
from tests.loop import in_loop, until
from tests.mqtt.listener import Listener
from tests.ports import free_port
from tests.proxy import Proxy
from tests.sinks.places import OUTBOX, PATH, bound, numbered, rows

OPEN = "allow_anonymous true\nmax_queued_messages 0"
KEPT = f"{OPEN}\npersistence true\npersistence_location {{folder}}/"


@pytest.fixture
def broker(tmp_path: Path) -> Iterator[Broker]:
    with Broker(tmp_path / "broker", OPEN) as made:
        yield made


def sink(url: str, **settings: Any) -> MqttSink:
    choices = {name: settings.pop(name) for name in ("order", "identity") if name in settings}
    made = bound(MqttSink(url=url, **{"topic": "plant/{line}/clean", **settings}), **choices)
    assert isinstance(made, MqttSink)
    return made


async def send(sink: MqttSink, parcels: Sequence[Parcel]) -> Receipt:
    """Send them over a connection of their own."""
    try:
        return await sink.send(parcels)
    finally:
        await sink.close()


def parcels_of(sink: MqttSink, frame: pl.DataFrame) -> list[Parcel]:
    return numbered(sink.encode(frame).parcels)


def texts(*values: str | None) -> pl.DataFrame:
    ids = [f"{PATH}/{OUTBOX}-{number}" for number in range(1, len(values) + 1)]
    return pl.DataFrame({"edge_id": ids, "line": "l1", "value": pl.Series(values, dtype=pl.String)})


def ids(numbers: Sequence[int]) -> list[str]:
    return [f"{PATH}/{OUTBOX}-{number}" for number in numbers]


@pytest.mark.parametrize("protocol", ["5", "3.1.1"])
@in_loop
async def test_a_message_is_one_row_as_json_with_its_id(broker: Broker, protocol: str) -> None:
    listener = Listener(broker.port)
    mqtt = sink(broker.url, protocol=protocol)
    assert (await send(mqtt, parcels_of(mqtt, rows(1)))).delivered == [1]
    (message,) = listener.heard()
    assert message.topic == "plant/l1/clean"
    assert json.loads(message.payload) == {
        "edge_id": f"{PATH}/{OUTBOX}-1",
        "ts": "1970-01-01T00:00:01.000000Z",
        "line": "l1",
        "value": 0.25,
    }
    assert message.edge_id == (f"{PATH}/{OUTBOX}-1" if protocol == "5" else None)
    assert not message.retain


@in_loop
async def test_without_identity_a_message_is_only_the_row(broker: Broker) -> None:
    listener = Listener(broker.port)
    mqtt = sink(broker.url, identity=False)
    await send(mqtt, parcels_of(mqtt, rows(1)))
    (message,) = listener.heard()
    assert "edge_id" not in json.loads(message.payload)
    assert message.edge_id is None


@in_loop
async def test_a_value_goes_as_plain_text(broker: Broker) -> None:
    listener = Listener(broker.port)
    mqtt = sink(broker.url, format="value")
    frame = texts("on", 'a "b"\nc', None)
    await send(mqtt, parcels_of(mqtt, frame))
    numbers = frame.with_columns(value=pl.Series([21.5, 1e-7, None]))
    await send(mqtt, parcels_of(mqtt, numbers))
    payloads = [message.payload for message in listener.heard()]
    assert payloads == [b"on", b'a "b"\nc', b"null", b"21.5", b"1e-7", b"null"]


@pytest.mark.parametrize("protocol", ["5", "3.1.1"])
@in_loop
async def test_many_rows_arrive_in_their_order(broker: Broker, protocol: str) -> None:
    listener = Listener(broker.port)
    mqtt = sink(broker.url, protocol=protocol)
    parcels = parcels_of(mqtt, rows(5000))
    assert [parcel.rows for parcel in parcels] == [1000] * 5
    receipt = await send(mqtt, parcels)
    assert receipt.delivered == [1, 2, 3, 4, 5]
    assert receipt.problem is None
    arrived = [json.loads(message.payload)["edge_id"] for message in listener.heard()]
    assert arrived == ids(range(1, 5001))


def test_a_parcel_holds_no_more_than_a_mebibyte() -> None:
    mqtt = sink("mqtt://localhost")
    parcels = mqtt.encode(texts(*["x" * 300_000] * 10)).parcels
    assert [parcel.rows for parcel in parcels] == [3, 3, 3, 1]


def test_what_no_packet_has_room_for_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(publication, "_LONGEST_PAYLOAD", 100_000)
    mqtt = sink("mqtt://localhost", topic="t/{line}")
    frame = texts("x", "y" * 100_000, "z").with_columns(line=pl.Series(["a", "b", "c" * 70_000]))
    encoded = mqtt.encode(frame)
    assert sum(parcel.rows for parcel in encoded.parcels) == 1
    assert [refusal.first for refusal in encoded.refused] == [2, 3]
    assert "MQTT has room for 100000" in encoded.refused[0].reason
    assert encoded.refused[1].reason == "topic of 70002 bytes; MQTT has room for 65535"


@in_loop
async def test_the_broker_keeps_the_last_message_of_a_topic(broker: Broker) -> None:
    mqtt = sink(broker.url, retain=True)
    assert mqtt.natural_order() == "all"
    await send(mqtt, parcels_of(mqtt, rows(30)))
    kept = Listener(broker.port).heard()
    assert {message.topic: message.edge_id for message in kept} == {
        "plant/l1/clean": f"{PATH}/{OUTBOX}-28",
        "plant/l2/clean": f"{PATH}/{OUTBOX}-29",
        "plant/l0/clean": f"{PATH}/{OUTBOX}-30",
    }
    assert all(message.retain for message in kept)


@in_loop
async def test_a_broker_that_is_away_is_link_down_and_then_gets_everything(tmp_path: Path) -> None:
    broker = Broker(tmp_path / "broker", OPEN)
    mqtt = sink(broker.url)
    parcels = parcels_of(mqtt, rows(10))
    with pytest.raises(LinkDown, match="Connection refused; is the broker running"):
        await mqtt.send(parcels)
    with broker:
        listener = Listener(broker.port)
        assert (await send(mqtt, parcels)).delivered == [1]
        assert len(listener.by_id()) == 10


@in_loop
async def test_a_broker_that_restarts_in_mid_send_gets_the_rest_again(tmp_path: Path) -> None:
    with Broker(tmp_path / "broker", KEPT) as broker:
        listener = Listener(broker.port)
        with Proxy(("127.0.0.1", broker.port)) as proxy:
            mqtt = sink(f"mqtt://127.0.0.1:{proxy.port}")
            waiting = {parcel.id: parcel for parcel in parcels_of(mqtt, rows(3000))}
            proxy.set("reset", after=200_000)
            receipt = await mqtt.send(list(waiting.values()))
            assert receipt.delivered or receipt.divided
            assert receipt.problem
            rest = [
                waiting[number]._replace(**part.rest._asdict() | {"id": number})
                for number, part in receipt.divided.items()
                if part.rest
            ]
            left = [
                p for n, p in waiting.items() if n not in {*receipt.delivered, *receipt.divided}
            ]
            assert sum(parcel.rows for parcel in (*rest, *left)) < 3000
            broker.restart()
            proxy.set("up")
            assert (await send(mqtt, [*rest, *left])).problem is None
        assert set(listener.by_id()) == set(ids(range(1, 3001)))


class Guarded:
    """A broker with an access list that can be changed."""

    def __init__(self, folder: Path, *denied: str) -> None:
        self._list = folder / "access"
        self._write(denied)
        self.broker = Broker(folder / "broker", f"{OPEN}\nacl_file {self._list}")

    def deny(self, *denied: str) -> None:
        """From now on these topics, and no others."""
        self._write(denied)
        self.broker.reload()

    def _write(self, denied: Sequence[str]) -> None:
        denials = "".join(f"topic deny {topic}\n" for topic in denied)
        self._list.write_text(f"topic readwrite #\n{denials}")
        self._list.chmod(0o600)


async def settled(mqtt: MqttSink, parcels: Sequence[Parcel]) -> Receipt:
    """Mosquitto 2.0.11 hangs up on what it denies; with more in flight its answer can be lost."""
    for _ in range(5):
        try:
            return await mqtt.send(parcels)
        except LinkDown:
            continue
    raise AssertionError("nothing was settled")


def denial(url: str) -> str:
    return (
        f"{url}: the broker does not allow 'edge' to publish to topic 'plant/l1/clean'"
        " (not authorized); grant it in its access list"
    )


@in_loop
async def test_a_topic_that_is_not_allowed_does_not_keep_back_the_others(tmp_path: Path) -> None:
    guarded = Guarded(tmp_path, "plant/l1/clean")
    with guarded.broker as broker:
        listener = Listener(broker.port)
        mqtt = sink(broker.url)
        receipt = await settled(mqtt, parcels_of(mqtt, rows(300)))
        ((piece, reason),) = receipt.divided[1].refused
        assert (receipt.divided[1].delivered, receipt.divided[1].rest, piece.rows) == (
            200,
            None,
            100,
        )
        assert reason == f"{denial(broker.url)} and retry"
        guarded.deny()
        assert (await send(mqtt, numbered([piece]))).delivered == [1]
        assert len(listener.by_id()) == 300


@in_loop
async def test_while_nothing_is_allowed_all_rows_wait(tmp_path: Path) -> None:
    guarded = Guarded(tmp_path, "#")
    with guarded.broker as broker:
        mqtt = sink(broker.url)
        parcels = parcels_of(mqtt, rows(300))
        for _ in range(publisher.STRIKES + 2):
            receipt = await settled(mqtt, parcels)
            assert receipt == Receipt([], problem=denial(broker.url))
        guarded.deny()
        listener = Listener(broker.port)
        assert (await send(mqtt, parcels)).delivered == [1]
        assert len(listener.by_id()) == 300


@in_loop
async def test_a_broker_of_3_1_1_acknowledges_what_it_throws_away(tmp_path: Path) -> None:
    with Guarded(tmp_path, "plant/l1/clean").broker as broker:
        listener = Listener(broker.port)
        mqtt = sink(broker.url, protocol="3.1.1")
        assert (await send(mqtt, parcels_of(mqtt, rows(1)))).delivered == [1]
        assert listener.heard() == []


@in_loop
async def test_a_message_larger_than_the_broker_takes_is_refused_alone(tmp_path: Path) -> None:
    with Broker(tmp_path / "broker", f"{OPEN}\nmax_packet_size 5000") as broker:
        listener = Listener(broker.port)
        mqtt = sink(broker.url)
        parcels = parcels_of(mqtt, texts("a", "x" * 6000, "c"))
        receipt = await send(mqtt, parcels)
        divided = receipt.divided[1]
        ((piece, reason),) = divided.refused
        assert (divided.delivered, divided.rest, piece.rows, piece.first) == (2, None, 1, 2)
        assert "larger than the broker takes; raise its limit and retry" in reason
        assert set(listener.by_id()) == set(ids([1, 3]))
    with Broker(tmp_path / "larger", OPEN) as broker:
        listener = Listener(broker.port)
        mqtt = sink(broker.url)
        assert (await send(mqtt, numbered([piece]))).delivered == [1]
        assert set(listener.by_id()) == set(ids([2]))


@in_loop
async def test_a_message_at_which_the_broker_hangs_up_does_not_block_the_way(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(publisher, "STRIKES", 3)
    with Broker(tmp_path / "broker", f"{OPEN}\nmax_packet_size 5000") as broker:
        listener = Listener(broker.port)
        mqtt = sink(broker.url, protocol="3.1.1")
        waiting = parcels_of(mqtt, texts("a", "x" * 6000, "c"))
        refused: list[Parcel] = []
        for _ in range(10):
            if not waiting:
                break
            try:
                receipt = await mqtt.send(waiting)
            except LinkDown:
                continue
            divided = receipt.divided.get(1)
            refused += [piece for piece, _ in divided.refused] if divided else []
            waiting = numbered([divided.rest] if divided and divided.rest else [])
        await mqtt.close()
        assert not waiting
        assert [piece.first for piece in refused] == [2]
        assert {json.loads(message.payload)["value"] for message in listener.heard()} == {"a", "c"}


@in_loop
async def test_a_twin_with_the_same_client_id_costs_no_message(broker: Broker) -> None:
    listener = Listener(broker.port)
    one, two = (sink(broker.url, client_id="twin") for _ in range(2))
    first = parcels_of(one, rows(3000))
    second = parcels_of(two, rows(3000, 3001))

    async def deliver(mqtt: MqttSink, waiting: list[Parcel]) -> None:
        while waiting:
            try:
                receipt = await mqtt.send(waiting)
            except LinkDown:
                continue
            pieces = [part.rest for part in receipt.divided.values() if part.rest]
            gone = {*receipt.delivered, *receipt.divided}
            waiting = numbered([*pieces, *(p for p in waiting if p.id not in gone)])
        await mqtt.close()

    await asyncio.gather(deliver(one, first), deliver(two, second))
    assert set(listener.by_id()) == set(ids(range(1, 6001)))


@in_loop
async def test_an_idle_connection_is_kept(tmp_path: Path) -> None:
    with Broker(tmp_path / "broker", f"{OPEN}\nlog_type all") as broker:
        mqtt = sink(broker.url, keepalive="2s")
        await mqtt.send(parcels_of(mqtt, rows(1)))
        await until(lambda: broker.log().count("Received PINGREQ") >= 2)
        await mqtt.send(parcels_of(mqtt, rows(1)))
        await mqtt.close()
        assert broker.log().count("as edge") == 1


@in_loop
async def test_an_idle_connection_that_ended_is_made_anew_without_a_failure(
    broker: Broker,
) -> None:
    mqtt = sink(broker.url)
    await mqtt.send(parcels_of(mqtt, rows(1)))
    broker.restart()
    await until(lambda: mqtt._connection()._channel is None)
    assert (await send(mqtt, parcels_of(mqtt, rows(1)))).delivered == [1]


@in_loop
async def test_a_broker_that_acknowledges_nothing_is_given_up(
    broker: Broker, monkeypatch: pytest.MonkeyPatch
) -> None:
    mqtt = sink(broker.url)
    await mqtt.send(parcels_of(mqtt, rows(1)))
    broker.pause()
    try:
        with monkeypatch.context() as patch:
            patch.setattr(publisher, "PATIENCE", 0.4)
            with pytest.raises(LinkDown, match="acknowledged nothing"):
                await mqtt.send(parcels_of(mqtt, rows(1)))
    finally:
        broker.resume()
    assert (await send(mqtt, parcels_of(mqtt, rows(1)))).delivered == [1]


@in_loop
async def test_a_slow_line_gets_the_time_it_needs(
    broker: Broker, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(publisher, "PATIENCE", 1.5)
    with Proxy(("127.0.0.1", broker.port), thin=True) as proxy:
        mqtt = sink(f"mqtt://127.0.0.1:{proxy.port}")
        parcels = parcels_of(mqtt, texts("x" * 400_000))
        proxy.set("slow", rate=160_000)
        assert (await send(mqtt, parcels)).delivered == [1]


def test_a_parcel_of_another_sink_is_refused() -> None:
    sqs = bound(SqsSink(queue="q"))
    mqtt = sink("mqtt://127.0.0.1:1")
    receipt = asyncio.run(send(mqtt, numbered(sqs.encode(rows(1)).parcels)))
    assert "made for a sink of another kind" in receipt.refused[1]


@pytest.mark.parametrize(
    ("settings", "reason"),
    [
        ({"topic": "t/{gone}"}, "column 'gone' is not among the columns, which are edge_id, line"),
        ({"topic": "t/{many}"}, "column 'many' cannot be part of a topic, got type List"),
        ({"format": "value"}, "column 'value' is not among the columns"),
    ],
)
def test_columns_that_are_not_there_are_said_before_anything_starts(
    settings: dict[str, str], reason: str
) -> None:
    columns = pl.Schema({"edge_id": pl.String(), "line": pl.String(), "many": pl.List(pl.Int64)})
    mqtt = MqttSink(url="mqtt://x", **{"topic": "t", **settings})  # type: ignore[arg-type]
    with pytest.raises(DefinitionError, match=reason):
        bound(mqtt, columns)


def test_the_client_id_names_site_pipeline_replica_and_sink() -> None:
    text = """
name: press
site: osaka
source: {mqtt: {url: mqtt://localhost, topics: [a]}}
record: {fields: {line: str}}
sinks:
  clean: {mqtt: {url: mqtt://localhost, topic: 't/{line}'}}
  mine: {mqtt: {url: mqtt://localhost, topic: t, client_id: me}}
"""
    found = loads(text, "p.yaml", {}).bind(Clock()).branches
    names = {name: branch.sink._client_id for name, branch in found.items()}  # type: ignore[attr-defined]
    assert names == {"clean": "edge-osaka-press-0-clean", "mine": "me"}


@in_loop
async def test_tls_with_a_client_certificate(tmp_path: Path) -> None:
    pem, plain = Certificates(tmp_path), free_port()
    config = f"{OPEN}\nlistener {plain} 127.0.0.1\nlistener {{port}} 127.0.0.1\n{pem.mosquitto}"
    with Broker(tmp_path / "broker", config) as broker:
        listener = Listener(plain)
        paths = {"ca": pem.ca, "certificate": pem.client, "key": pem.client_key}
        mqtt = sink(f"mqtts://localhost:{broker.port}", **paths)
        assert (await send(mqtt, parcels_of(mqtt, rows(3000)))).delivered == [1, 2, 3]
        assert len(listener.by_id()) == 3000


def test_a_wrong_port_is_link_down() -> None:
    mqtt = sink(f"mqtt://127.0.0.1:{free_port()}")
    with pytest.raises(LinkDown):
        asyncio.run(send(mqtt, parcels_of(mqtt, rows(1))))
