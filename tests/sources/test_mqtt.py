"""Every message the broker kept becomes a row once, whatever happens on either side."""

import asyncio
import json
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import polars as pl
import pytest
from paho.mqtt import publish
from paho.mqtt.enums import MQTTProtocolVersion

from edge.codec import Record
from edge.component import Stream
from edge.errors import DefinitionError
from edge.mqtt import connection
from edge.sources import Arrival, Batch
from edge.sources.mqtt import MqttSource
from tests.broker import Broker
from tests.certificates import Certificates
from tests.loop import in_loop
from tests.mqtt.wire import HastyClock, scripted
from tests.mqtt.wire import publish as published

OPEN = "allow_anonymous true\nmax_queued_messages 0"
KEPT = f"{OPEN}\npersistence true\npersistence_location {{folder}}/\nautosave_interval 1"
RECORD = Record(
    time="ts",
    key=("device",),
    fields={"ts": "timestamp_ms", "n": "int"},  # type: ignore[arg-type]
)


class Intake:
    """A source driven by hand, with the memory that an outbox would hold."""

    def __init__(
        self, url: str, *, record: Record = RECORD, batch: Batch | None = None, **options: Any
    ):
        self.url, self.record, self.options = url, record, options
        self.batch = batch or Batch(10_000, 0.05)
        self.memory: list[bytes] = []
        self.nones = 0

    @asynccontextmanager
    async def running(self, **changes: Any) -> AsyncIterator["Intake"]:
        """A process with this source, ended in order."""
        options = {"topics": "plant/{device}", **self.options, **changes}
        self.source = MqttSource(url=self.url, **options)
        self.schema = self.source.bind(self.record, Stream(), "edge-test", self.batch, HastyClock())
        self.source.restore(self.memory)
        self.arrivals = self.source.arrivals(None)
        try:
            yield self
        finally:
            await self.arrivals.aclose()
            await self.source.close()

    async def next(self) -> Arrival:
        """The next arrival, even an empty one, not yet committed."""
        async for arrival in self.arrivals:
            if arrival is not None:
                if self.schema is not None:
                    assert arrival.frame.schema == self.schema
                lost = len(arrival.rejects) + arrival.redelivered + arrival.retained
                assert arrival.read == arrival.frame.height + lost
                return arrival
            self.nones += 1
        raise AssertionError("the source ended")

    def commit(self) -> None:
        """Keep what the source wants remembered."""
        change = self.source.snapshot(False)
        self.memory += [change] if change else []

    async def connected(self) -> None:
        """Read on until the broker has answered the subscriptions."""

        async def read() -> None:
            async for arrival in self.arrivals:
                self.commit()
                assert arrival is None or not arrival.read
                answers = self.status["subscriptions"]
                if arrival is None and self.status["connected"] and answers:
                    return

        await asyncio.wait_for(read(), 20)

    async def read(self, count: int, acknowledge: bool = True) -> "Total":
        """Read and commit until `count` messages were read."""
        total = Total()
        async with asyncio.timeout(20):
            while total.read < count:
                arrival = await self.next()
                self.commit()
                if acknowledge:
                    await arrival.acknowledge()
                total.add(arrival)
        return total

    @property
    def status(self) -> dict[str, Any]:
        return dict(self.source.status())


class Total:
    """What several arrivals brought."""

    def __init__(self) -> None:
        self.arrivals: list[Arrival] = []
        self.read = self.redelivered = self.retained = 0

    def add(self, arrival: Arrival) -> None:
        self.arrivals.append(arrival)
        self.read += arrival.read
        self.redelivered += arrival.redelivered
        self.retained += arrival.retained

    @property
    def frame(self) -> pl.DataFrame:
        return pl.concat(arrival.frame for arrival in self.arrivals)

    @property
    def numbers(self) -> list[int]:
        return self.frame["n"].to_list()

    @property
    def rejects(self) -> list[tuple[str | None, str]]:
        return [(each.topic, each.reason) for one in self.arrivals for each in one.rejects]


def reading(number: int) -> bytes:
    return json.dumps({"ts": 1_700_000_000_000 + number, "n": number}).encode()


async def send(
    broker: Broker,
    numbers: Sequence[int | bytes],
    topic: str = "plant/a",
    qos: int = 1,
    **options: Any,
) -> None:
    """Publish readings with these numbers, or these payloads."""
    payloads = [each if isinstance(each, bytes) else reading(each) for each in numbers]
    messages = [
        {"topic": topic, "payload": each, "qos": qos, "retain": options.get("retain", False)}
        for each in payloads
    ]
    await asyncio.to_thread(
        publish.multiple, messages, hostname="127.0.0.1", port=broker.port, client_id="publisher",
        auth=options.get("auth"), protocol=MQTTProtocolVersion.MQTTv311,
    )  # fmt: skip


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
    assert intake.status == {"connected": False}


@in_loop
async def test_what_is_not_acknowledged_comes_again(broker: Broker) -> None:
    intake = Intake(broker.url)
    async with intake.running():
        await intake.connected()
        await send(broker, range(50))
        await intake.read(50, acknowledge=False)
        intake.memory.pop()  # the commit never happened
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
        intake = Intake(broker.url, protocol="3.1.1", batch=Batch(10_000, 15.0))
        async with intake.running():
            await intake.connected()
            await send(broker, range(400))
            total = await intake.read(400)
    assert sorted(total.numbers) == list(range(400))


@in_loop
@pytest.mark.parametrize(("window", "wait"), [(20, 15.0), (100, 15.0), (10, 0.2)])
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
        async with intake.running(), asyncio.timeout(12):
            assert (await intake.read(1000)).numbers == list(range(1000))


@in_loop
async def test_a_batch_ends_at_its_rows(broker: Broker) -> None:
    intake = Intake(broker.url, batch=Batch(100, 10.0))
    async with intake.running():
        await intake.connected()
        await send(broker, range(250), qos=0)
        assert [(await intake.next()).read for _ in range(2)] == [100, 100]


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
        for _ in range(2):
            assert await asyncio.wait_for(anext(intake.arrivals), 1.2) is None


@in_loop
async def test_a_blocked_outbox_keeps_the_connection(broker: Broker) -> None:
    intake = Intake(broker.url, keepalive="1s", qos=0)
    async with intake.running():
        await intake.connected()
        await send(broker, [bytes(200_000)] * 100, qos=0)
        await asyncio.sleep(3.5)  # three times the keepalive, twice what the broker allows
        await send(broker, range(5), qos=0)
        total = await intake.read(105)
        assert (intake.status["connections"], intake.status["connected"]) == (1, True)
    assert total.numbers == list(range(5))


@in_loop
async def test_a_twin_that_the_broker_says_nothing_of_is_guessed(
    broker: Broker, caplog: pytest.LogCaptureFixture
) -> None:
    """Mosquitto 2.0.11 closes the first connection without a reason."""
    one, two = Intake(broker.url), Intake(broker.url)
    async with one.running(), two.running(), asyncio.timeout(20), asyncio.TaskGroup() as both:
        for intake in (one, two):
            both.create_task(_read_until(intake, lambda: "is there another client" in caplog.text))
    assert "is there another client with the client id 'edge-test'?" in caplog.text


async def _read_until(intake: Intake, condition: Callable[[], object]) -> None:
    async for _ in intake.arrivals:
        if condition():
            return


@in_loop
async def test_a_subscription_that_is_refused_is_said_and_asked_for_again(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(connection, "ASK_AGAIN", 0.1)
    with Broker(tmp_path, DYNAMIC) as broker:
        _allow(tmp_path, subscribe=False)
        broker.restart()
        intake = Intake(broker.url, keepalive="1s")
        async with intake.running(topics=["plant/{device}"]):
            await intake.connected()
            assert intake.status["subscriptions"] == {"plant/+": "refused: Not authorized"}
            assert "subscription to 'plant/+' refused: Not authorized" in caplog.text
            refusals = caplog.text.count("refused: Not authorized")
            await asyncio.wait_for(
                _read_until(
                    intake, lambda: caplog.text.count("refused: Not authorized") > refusals
                ),
                9,
            )


@in_loop
async def test_a_broker_that_grants_less_is_told(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    with Broker(tmp_path, f"listener {{port}} 127.0.0.1\nmax_qos 0\n{OPEN}") as broker:
        intake = Intake(broker.url)
        async with intake.running():
            await intake.connected()
            assert intake.status["subscriptions"] == {"plant/+": "QoS 0"}
            await send(broker, range(3), qos=0)
            assert (await intake.read(3)).numbers == [0, 1, 2]
    assert "granted with QoS 0 instead of 1" in caplog.text


@in_loop
async def test_a_wrong_password_is_said_and_never_shown(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    (tmp_path / "users").write_text(PASSWORDS)
    with Broker(tmp_path, "password_file {folder}/users") as broker:
        intake = Intake(broker.url, username="sensor", password="wrong-one")
        async with intake.running():
            await asyncio.wait_for(_read_until(intake, lambda: caplog.text), 9)
            assert "Not authorized; check username, password and certificate" in caplog.text
            assert "wrong-one" not in caplog.text + repr(intake.source) + str(intake.status)


@in_loop
async def test_tls_with_a_client_certificate(tmp_path: Path) -> None:
    certificates = Certificates(tmp_path)
    config = f"listener {{port}} 127.0.0.1\n{OPEN}\n{certificates.mosquitto}"
    with Broker(tmp_path, config) as broker:
        url = f"mqtts://localhost:{broker.port}"
        paths = {"certificate": certificates.client, "key": certificates.client_key}
        intake = Intake(url, ca=certificates.ca, **paths)
        async with intake.running():
            await intake.connected()
            await asyncio.to_thread(
                publish.multiple,
                [{"topic": "plant/a", "payload": reading(i), "qos": 1} for i in range(2000)],
                "localhost",
                broker.port,
                tls={
                    "ca_certs": certificates.ca,
                    "certfile": certificates.client,
                    "keyfile": certificates.client_key,
                },
            )
            assert sorted((await intake.read(2000)).numbers) == list(range(2000))


@in_loop
async def test_a_certificate_nobody_vouches_for_is_refused(tmp_path: Path) -> None:
    certificates = Certificates(tmp_path)
    config = f"listener {{port}} 127.0.0.1\n{OPEN}\n{certificates.mosquitto}"
    with Broker(tmp_path, config) as broker:
        intake = Intake(f"mqtts://localhost:{broker.port}")
        async with intake.running():
            await asyncio.wait_for(
                _read_until(
                    intake, lambda: "certificate verify failed" in str(intake.status["problem"])
                ),
                9,
            )


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


DYNAMIC = """listener {port} 127.0.0.1
allow_anonymous true
plugin /usr/lib/x86_64-linux-gnu/mosquitto_dynamic_security.so
plugin_opt_config_file {folder}/dynamic.json"""


def _allow(folder: Path, subscribe: bool) -> None:
    access = {
        "publishClientSend": True,
        "publishClientReceive": True,
        "subscribe": subscribe,
        "unsubscribe": True,
    }
    (folder / "dynamic.json").write_text(json.dumps({"defaultACLAccess": access}))


PASSWORDS = "sensor:$7$101$AAAA$AAAA\n"
