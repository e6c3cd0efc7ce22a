"""Every message the broker kept becomes a row once, whatever happens on either side."""

import asyncio
import time
from pathlib import Path
from typing import Any

import pytest

from edge.codec import Record
from edge.component import Stream
from edge.errors import DefinitionError
from edge.sources import Batch, nothing
from edge.sources.mqtt import MqttSource
from tests.broker import Broker
from tests.loop import in_loop
from tests.mqtt.intake import KEPT, OPEN, RECORD, Intake, reading, send
from tests.mqtt.wire import HastyClock, scripted
from tests.mqtt.wire import publish as published


@pytest.fixture
def broker(tmp_path: Path) -> Any:
    with Broker(tmp_path / "broker", OPEN) as found:
        yield found


@in_loop
@pytest.mark.parametrize("protocol", ["5", "3.1.1"])
@pytest.mark.parametrize("qos", [0, 1])
async def test_messages_become_rows_with_captures(broker: Broker, protocol: str, qos: int) -> None:
    intake = Intake(broker.url, protocol=protocol, qos=qos)
    async with intake.running(topics=["plant/{line}/{device}", "hall/{hall}"]):
        await intake.connected()
        await send(broker, [1, 2], "plant/7/a", qos)
        await send(broker, [3], "hall/x", qos)
        total = await intake.read(3)
    assert total.frame.sort("n").drop("ts", "edge_received").rows() == [
        (1, "7", "a", None),
        (2, "7", "a", None),
        (3, None, None, "x"),
    ]
    assert total.frame["edge_received"].null_count() == 0
    assert all((each.acknowledge is nothing) == (qos == 0) for each in total.arrivals)
    assert intake.status == {"connected": False}


@in_loop
async def test_what_is_not_acknowledged_comes_again(broker: Broker) -> None:
    intake = Intake(broker.url)
    async with intake.running():
        await intake.connected()
        committed = list(intake.memory)
        await send(broker, range(50))
        await intake.read(50, acknowledge=False)
        intake.memory = committed  # the commits never happened
    async with intake.running():
        total = await intake.read(50)
        assert intake.status["session"] == "kept"
    assert sorted(total.numbers) == list(range(50))
    assert total.redelivered == 0


@in_loop
async def test_what_was_committed_is_not_taken_again(broker: Broker) -> None:
    intake = Intake(broker.url)
    async with intake.running():
        await intake.connected()
        await send(broker, range(50))
        await intake.read(50, acknowledge=False)
    await send(broker, range(50, 60))
    async with intake.running():
        total = await intake.read(60)
    assert sorted(total.numbers) == list(range(50, 60))
    assert total.redelivered == 50


@in_loop
async def test_repeats_are_taken_when_the_payload_has_no_time(broker: Broker) -> None:
    record = Record(fields={"n": "int"})  # type: ignore[dict-item]
    for options, repeats in (({}, 0), ({"recognise": True}, 5)):
        intake = Intake(broker.url, record=record, client_id=f"c{repeats}", **options)
        async with intake.running():
            await intake.connected()
            await send(broker, range(5))
            await intake.read(5, acknowledge=False)
        async with intake.running():
            assert (await intake.read(5)).redelivered == repeats


@in_loop
async def test_a_broker_that_restarts_with_its_session_repeats_nothing(tmp_path: Path) -> None:
    with Broker(tmp_path, KEPT) as broker:
        intake = Intake(broker.url)
        async with intake.running():
            await intake.connected()
            await send(broker, range(40))
            await intake.read(40, acknowledge=False)
            await asyncio.to_thread(broker.restart)
            total = await intake.read(40)
            assert intake.status["session"] == "kept"
            await send(broker, [100])
            assert (await intake.read(1)).numbers == [100]
    assert total.redelivered == 40


@in_loop
async def test_a_broker_that_forgot_us_is_subscribed_to_again(broker: Broker) -> None:
    intake = Intake(broker.url)
    async with intake.running():
        await intake.connected()
        await send(broker, range(5))
        await intake.read(5)
        await asyncio.to_thread(broker.restart)
        forgetting = await intake.next()
        assert forgetting.read == 0, "the ids are forgotten in a commit of its own"
        intake.commit()
        assert b'"forget":true' in intake.memory[-1]
        await intake.connected()
        await send(broker, range(5))
        assert (await intake.read(5)).numbers == list(range(5))


@in_loop
async def test_a_session_lost_while_we_were_away_is_forgotten_too(broker: Broker) -> None:
    intake = Intake(broker.url)
    async with intake.running():
        await intake.connected()
        await send(broker, range(5))
        await intake.read(5)
    await asyncio.to_thread(broker.restart)
    async with intake.running():
        await intake.next()
        intake.commit()
        assert b'"forget":true' in intake.memory[-1]


@in_loop
async def test_a_late_acknowledgement_erases_nothing(broker: Broker) -> None:
    intake = Intake(broker.url)
    async with intake.running():
        await intake.connected()
        await send(broker, [1])
        late = await intake.next()
        await asyncio.to_thread(broker.restart)
        await intake.connected()
        await send(broker, [2])
        assert (await intake.next()).frame["n"].to_list() == [2]
        await late.acknowledge()
    intake.memory.clear()
    async with intake.running():
        assert (await intake.read(1)).numbers == [2]


@in_loop
async def test_a_changed_topic_list_leaves_what_is_gone(broker: Broker) -> None:
    intake = Intake(broker.url)
    async with intake.running(topics=["plant/{device}", "old/{device}"]):
        await intake.connected()
    async with intake.running():
        await intake.connected()
        await send(broker, [1], "old/x")
        await send(broker, [2])
        total = await intake.read(1)
    assert (total.numbers, total.rejects) == ([2], [])


@in_loop
async def test_messages_kept_for_a_topic_that_is_gone_are_rejected(broker: Broker) -> None:
    intake = Intake(broker.url)
    async with intake.running(topics=["plant/{device}", "old/{device}"]):
        await intake.connected()
    await send(broker, [1], "old/x")
    async with intake.running():
        total = await intake.read(1)
    assert total.rejects == [("old/x", "topic matches none of the topics of this source")]


@in_loop
async def test_the_window_of_a_default_mosquitto_does_not_stall(tmp_path: Path) -> None:
    with Broker(tmp_path, "allow_anonymous true") as broker:
        intake = Intake(broker.url, protocol="3.1.1", batch=Batch(10_000, 90.0))
        async with intake.running():
            await intake.connected()
            await send(broker, range(400))
            total = await intake.read(400)
    assert sorted(total.numbers) == list(range(400))


@in_loop
@pytest.mark.parametrize(("window", "wait"), [(20, 90.0), (100, 90.0), (10, 1.0)])
async def test_a_strict_window_does_not_stall(window: int, wait: float) -> None:
    """Mosquitto 2.0.11 sends up to 20 more for each acknowledgement; others keep to the window."""

    async def strict(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(b"\x20\x02\x00\x00")
        subscribe = await reader.read(1000)
        writer.write(b"\x90\x03" + subscribe[2:4] + b"\x01")
        for sent in range(1000):
            if sent >= window:
                await reader.readexactly(4)
            writer.write(published(b"plant/a", reading(sent), qos=1, packet_id=sent + 1))
        await reader.read()

    async with scripted(strict) as url:
        intake = Intake(url, protocol="3.1.1", batch=Batch(10_000, wait))
        async with intake.running(), asyncio.timeout(50):
            assert (await intake.read(1000)).numbers == list(range(1000))


@in_loop
async def test_a_batch_ends_at_its_rows(broker: Broker) -> None:
    intake = Intake(broker.url, batch=Batch(100, 10.0))
    async with intake.running():
        await intake.connected()
        await send(broker, range(250), qos=0)
        assert [(await intake.next()).read for _ in range(2)] == [100, 100]


@in_loop
async def test_a_batch_ends_at_its_bytes(broker: Broker) -> None:
    intake = Intake(broker.url, qos=0, batch=Batch(10_000, 2.0, 2**20))
    async with intake.running():
        await intake.connected()
        await send(broker, [bytes(50_000)] * 200, qos=0)
        total = await intake.read(200)
    # What one read takes, and the rest of a message, may come on top.
    assert max(arrival.read for arrival in total.arrivals) * 50_000 < 2**20 + 2**18 + 50_000


@in_loop
async def test_bad_payloads_leave_their_neighbours_alone(broker: Broker) -> None:
    intake = Intake(broker.url)
    async with intake.running(max_payload="100kB"):
        await intake.connected()
        bad = [b"\xff\xfe", b"oops", b'{"ts": 1700000000000, "n": 1.5}', b"x" * 150_000, b""]
        await send(broker, [1, *bad, 2])
        total = await intake.read(7)
    assert sorted(total.numbers) == [1, 2]
    assert [topic for topic, _ in total.rejects] == ["plant/a"] * 5
    reasons = [reason for _, reason in total.rejects]
    assert any(
        reason == "payload has 146.5 KiB, the limit is 97.7 KiB (max_payload); "
        "its first 1024 bytes are kept"
        for reason in reasons
    )
    kept = [len(each.payload) for one in total.arrivals for each in one.rejects]
    assert max(kept) == 1024
    async with intake.running():
        await intake.connected()
        await send(broker, [3])
        assert (await intake.read(1)).numbers == [3], "the rejected ones were acknowledged"


@in_loop
@pytest.mark.parametrize("protocol", ["5", "3.1.1"])
async def test_retained_messages_are_taken_once_or_kept(broker: Broker, protocol: str) -> None:
    await send(broker, [1], "plant/a", retain=True)
    await send(broker, [2], "plant/b", retain=True)
    for mode, second in (("once", [3]), ("keep", [1, 3])):
        intake = Intake(broker.url, protocol=protocol, retained=mode)
        async with intake.running(client_id=mode):
            assert sorted((await intake.read(2)).numbers) == [1, 2]
        await send(broker, [3], "plant/b", retain=True)
        async with intake.running(client_id=f"{mode} anew"):
            total = await intake.read(2)
        assert sorted(total.numbers) == second
        assert total.retained == 2 - len(second)
        await send(broker, [2], "plant/b", retain=True)


@in_loop
async def test_retained_messages_can_be_skipped(broker: Broker) -> None:
    await send(broker, [1], "plant/a", retain=True)
    for protocol, retained in (("5", 0), ("3.1.1", 1)):  # MQTT 5 does not even send them
        intake = Intake(broker.url, protocol=protocol, client_id=protocol, retained="skip")
        async with intake.running():
            first = await intake.read(retained)
            await intake.connected()
            await send(broker, [4], "plant/c")
            total = await intake.read(1)
        assert (first.retained, total.numbers) == (retained, [4])


@in_loop
async def test_shared_topics_are_split_between_replicas(broker: Broker) -> None:
    one, two = (Intake(broker.url, share="lines", client_id=name) for name in "ab")
    async with one.running(), two.running():
        await one.connected()
        await two.connected()
        await send(broker, range(40))
        first, second = await one.read(20), await two.read(20)
    assert sorted(first.numbers + second.numbers) == list(range(40))


@in_loop
async def test_nothing_is_said_once_a_second_while_nobody_answers(tmp_path: Path) -> None:
    intake = Intake(Broker(tmp_path).url)
    async with intake.running():
        await intake.next()
        waits = []
        for _ in range(4):
            begin = time.monotonic()
            assert await anext(intake.arrivals) is None
            waits.append(time.monotonic() - begin)
    assert min(waits) < 1.2, "the shortest, for the others may be the fault of a busy machine"


@in_loop
async def test_a_blocked_outbox_keeps_the_connection(broker: Broker) -> None:
    intake = Intake(broker.url, keepalive="2s", qos=0)
    async with intake.running():
        await intake.connected()
        await send(broker, [bytes(200_000)] * 100, qos=0)
        await asyncio.sleep(5)  # more than twice the keepalive; the broker allows 3 s
        await send(broker, range(5), qos=0)
        total = await intake.read(105)
        assert (intake.status["connections"], intake.status["connected"]) == (1, True)
    assert total.numbers == list(range(5))


@in_loop
async def test_fields_that_the_first_rows_decided_are_remembered(broker: Broker) -> None:
    intake = Intake(broker.url, record=Record())
    async with intake.running():
        await intake.connected()
        await send(broker, [b'{"x": 1.5, "s": "a"}'])
        assert (await intake.read(1)).frame.columns == ["x", "s", "device", "edge_received"]
    async with intake.running():
        await intake.connected()
        await send(broker, [b'{"s": "b"}'])
        assert (await intake.read(1)).frame.drop("edge_received").rows() == [(None, "b", "a")]


def test_a_capture_that_is_a_field_is_refused() -> None:
    with pytest.raises(DefinitionError, match=r"\{n\}"):
        MqttSource(url="mqtt://x", topics="plant/{n}").bind(
            RECORD, Stream(), "edge-test", Batch(), HastyClock()
        )


@pytest.mark.parametrize(
    ("options", "reason"),
    [
        (
            {"qos": 2},
            "must be 0 or 1, got 2: in its four-way handshake the broker is told to forget",
        ),
        ({"topics": []}, "at least 1 item"),
        ({"topics": "a/#/b"}, "must have # only as the whole last level, got 'a/#/b'"),
        ({"share": "a/b"}, "must be a name without /, + and #, got 'a/b'"),
        ({"max_payload": "1GiB"}, "must be between 1B and 16MiB, got 1GiB"),
        ({"receive_maximum": 0}, "greater than or equal to 1"),
        ({"retained": "sometimes"}, "'skip', 'once' or 'keep'"),
    ],
)
def test_options_that_cannot_work_are_refused(options: dict[str, Any], reason: str) -> None:
    with pytest.raises(ValueError) as caught:
        MqttSource(**{"url": "mqtt://x", "topics": "a", **options})
    assert reason in str(caught.value)
