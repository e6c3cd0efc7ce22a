"""Whatever a broker does: what it kept becomes rows once, and what is wrong is said."""

import asyncio
import resource
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest

from edge.cli.status import _source_line
from edge.mqtt import Connection, Endpoint, Messages
from edge.mqtt.endpoint import CONNECT_TIMEOUT
from edge.sources import Batch
from tests.broker import Broker
from tests.certificates import Certificates
from tests.faults.way import Deaf
from tests.loop import in_loop, until
from tests.mqtt.intake import OPEN, Intake, read_until, reading, send
from tests.mqtt.test_connection import session
from tests.mqtt.wire import HastyClock, publish, scripted, variable
from tests.processor import Processor
from tests.proxy import Proxy

LARGEST = 268_435_455
"""Bytes that an MQTT packet can have after its header (MQTT 5, 1.5.5)."""
STORM = 50_000


@pytest.fixture
def broker(tmp_path: Path) -> Iterator[Broker]:
    with Broker(tmp_path / "broker", OPEN) as found:
        yield found


def shown(intake: Intake) -> str:
    """The line of `edge status` about the source."""
    return str(_source_line({"kind": "mqtt", **intake.status}))


def greeted(port: int) -> socket.socket:
    """A publisher of MQTT 3.1.1 that sends bytes."""
    client = socket.create_connection(("127.0.0.1", port))
    client.sendall(b"\x10\x0f\x00\x04MQTT\x04\x02\x00\x3c\x00\x03raw")
    assert client.recv(4) == b"\x20\x02\x00\x00"
    return client


def publish_huge(port: int, size: int) -> None:
    """One message at QoS 1 in a packet of `size` bytes after its header."""
    head = b"\x32" + variable(size) + b"\x00\x09plant/big\x00\x01"
    left = size - (len(head) - 1 - len(variable(size)))
    with greeted(port) as client:
        client.sendall(head)
        while left:
            left -= client.send(memoryview(bytes(2**20))[:left])
        assert client.recv(4) == b"\x40\x02\x00\x01"


@in_loop
async def test_a_broker_that_is_gone_is_named_until_it_is_back(tmp_path: Path) -> None:
    broker = Broker(tmp_path, OPEN)
    intake = Intake(broker.url)
    async with intake.running():
        await read_until(intake, lambda: "refused" in str(intake.status["problem"]))
        assert shown(intake) == (
            f"source mqtt: not connected: {broker.url}: Connection refused; is the broker running "
            "on that host and port?"
        )
        with broker:
            await intake.connected()
            assert shown(intake) == f"source mqtt: connected to {broker.url}"
            await send(broker, [1])
            assert (await intake.read(1)).numbers == [1]


@in_loop
async def test_a_slow_line_only_needs_time(broker: Broker) -> None:
    with Proxy(("127.0.0.1", broker.port)) as proxy:
        intake = Intake(f"mqtt://127.0.0.1:{proxy.port}", keepalive="2s")
        async with intake.running():
            await intake.connected()
            proxy.set("slow", rate=7_000)
            await send(broker, range(400))
            total = await intake.read(400)
            assert (sorted(total.numbers), total.redelivered) == (list(range(400)), 0)
            assert intake.status["connections"] == 1


@in_loop
async def test_what_a_full_queue_of_the_broker_drops_nobody_can_tell(tmp_path: Path) -> None:
    limits = "allow_anonymous true\nmax_queued_messages 100\nmax_inflight_messages 20"
    with Broker(tmp_path, limits) as broker:
        intake = Intake(broker.url)
        async with intake.running():
            await intake.connected()
        await send(broker, range(500))  # every one got its PUBACK
        async with intake.running():
            total = await intake.read(100)
            assert await anext(intake.arrivals) is None, "nothing more comes"
            assert intake.status["session"] == "kept"
            assert intake.status["problem"] is None
    assert total.numbers == list(range(100)), "the newest are lost, without a sign"


@in_loop
@pytest.mark.parametrize("protocol", ["5", "3.1.1"])
async def test_twins_with_one_client_id_are_told_and_kick_each_other_less_and_less(
    broker: Broker, protocol: str, caplog: pytest.LogCaptureFixture
) -> None:
    class Hasty(HastyClock):
        """Forty times as fast."""

        def steady(self) -> float:
            return time.monotonic() * 40

        async def sleep(self, seconds: float) -> None:
            await asyncio.sleep(seconds / 40)

    endpoint = Endpoint(url=broker.url, protocol=protocol)
    twins = [Connection(endpoint, session(), Path(), Hasty()) for _ in "ab"]
    for each in twins:
        each.start(())

    def told() -> bool:
        for each in twins:
            each.drain(Messages(each.generation), 100)
        found = any(question in str(each.status()["problem"]) for each in twins)
        return found and time.monotonic() - started > 3

    question = "is there another client with the client id 'edge-test'? give every replica its own"
    started = time.monotonic()
    await until(told)
    minutes = (time.monotonic() - started) * 40 / 60
    for each in twins:
        await each.close()
    assert sum(each.generation for each in twins) < 30 + 8 * minutes
    assert len([each for each in caplog.records if each.levelname == "WARNING"]) <= 6


@in_loop
async def test_a_refusal_of_version_3_is_said_too() -> None:
    async def refusing(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(b"\x20\x02\x00\x00")
        subscribe = await reader.read(1000)
        writer.write(b"\x90\x03" + subscribe[2:4] + b"\x80")
        await reader.read()

    async with scripted(refusing) as url:
        intake = Intake(url, protocol="3.1.1")
        async with intake.running():
            await intake.connected()
            assert shown(intake).endswith("; subscriptions refused: plant/+")


@in_loop
async def test_a_storm_of_retained_messages_is_taken_whole(tmp_path: Path) -> None:
    with Broker(tmp_path, f"{OPEN}\nmax_inflight_messages 0") as broker:
        with greeted(broker.port) as client:
            for first in range(0, STORM, 1000):
                numbers = range(first, first + 1000)
                client.sendall(
                    b"".join(publish(b"plant/%d" % n, reading(n), flags=1) for n in numbers)
                )
            client.sendall(b"\xc0\x00")
            assert client.recv(2) == b"\xd0\x00"
        intake = Intake(broker.url)
        async with intake.running():
            total = await intake.read(STORM)
            assert intake.status["connections"] == 1
            await send(broker, [STORM])
            assert (await intake.read(1)).numbers == [STORM]
    assert sorted(total.numbers) == list(range(STORM))


@in_loop
@pytest.mark.parametrize(("protocol", "rejected"), [("3.1.1", 1), ("5", 0)])
async def test_a_payload_of_256_mb_costs_no_memory_and_no_neighbour(
    broker: Broker, protocol: str, rejected: int
) -> None:
    """In MQTT 5 a packet of the largest size is a byte too large: the broker drops it."""
    intake = Intake(broker.url, protocol=protocol)
    async with intake.running():
        await intake.connected()
        before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
        await asyncio.to_thread(publish_huge, broker.port, LARGEST)
        await send(broker, [7])
        total = await intake.read(1 + rejected)
        grown = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before
        assert intake.status["connections"] == 1
    assert total.numbers == [7]
    assert (
        total.rejects
        == [
            (
                "plant/big",
                "payload has 256.0 MiB, the limit is 1.0 MiB (max_payload); "
                "its first 1024 bytes are kept",
            )
        ]
        * rejected
    )
    assert grown < 40 * 1024, "KiB"


@in_loop
async def test_topics_may_hold_any_text(broker: Broker) -> None:
    devices = ["Presse 1", "温度", "ø—\u00a0", "🏭", "a=b&c", "%2F", "..", "'", '"']
    intake = Intake(broker.url)
    async with intake.running(topics=["Werk Süd/{line}/{device}"]):
        await intake.connected()
        for number, device in enumerate(devices):
            await send(broker, [number], f"Werk Süd/Linie 1/{device}")
        total = await intake.read(len(devices))
    assert total.frame["device"].to_list() == devices
    assert set(total.frame["line"]) == {"Linie 1"}


@in_loop
@pytest.mark.parametrize(
    ("host", "since", "known", "said"),
    [
        ("localhost", -5, True, "has expired; check the clock of this machine, then renew"),
        ("localhost", 5, True, "not yet valid by the clock of this machine; set it, best by NTP"),
        ("elsewhere", -0.1, True, "use a name of that certificate in url"),
        ("localhost", -0.1, False, "set ca to the certificate of the broker's authority"),
    ],
    ids=["expired", "not yet valid", "wrong name", "unknown authority"],
)
async def test_a_certificate_that_does_not_hold_is_told_with_the_remedy(
    tmp_path: Path, host: str, since: float, known: bool, said: str
) -> None:
    pem = Certificates(tmp_path)
    pem.issue(host, pem.server, pem.server_key, since=since)
    config = f"listener {{port}} 127.0.0.1\n{OPEN}\ncertfile {pem.server}\nkeyfile {pem.server_key}"
    with Broker(tmp_path / "broker", config) as broker:
        intake = Intake(f"mqtts://localhost:{broker.port}", **({"ca": pem.ca} if known else {}))
        async with intake.running(), asyncio.timeout(60):
            await read_until(intake, lambda: said in shown(intake))


@in_loop
async def test_a_broker_that_vanishes_without_a_word_is_missed_and_nothing_is_doubled(
    broker: Broker,
) -> None:
    """The cable is pulled: no packet ever says so. What was acknowledged then comes again."""
    with Proxy(("127.0.0.1", broker.port)) as proxy:
        intake = Intake(f"mqtt://127.0.0.1:{proxy.port}", keepalive="2s", batch=Batch(10_000, 0.05))
        async with intake.running():
            await intake.connected()
            await send(broker, range(30))
            taken = await intake.read(30, acknowledge=False)
            proxy.set("black_hole")
            for arrival in taken.arrivals:
                await arrival.acknowledge()
            async with asyncio.timeout(60):
                await read_until(intake, lambda: not intake.status["connected"])
            assert "did not answer a ping for 2 s" in shown(intake)
            proxy.cut()
            proxy.set("up")
            await send(broker, range(30, 35))
            again = await intake.read(35)
    assert taken.numbers + again.numbers == list(range(35))
    assert again.redelivered == 30


def test_told_to_stop_before_a_broker_that_does_not_answer_it_leaves_at_once(
    tmp_path: Path,
) -> None:
    with ExitStack() as stack:
        proxy = stack.enter_context(Proxy(("127.0.0.1", 1)))
        proxy.set("refuse")
        stack.enter_context(Deaf(proxy.port))
        definition = tmp_path / "press.yaml"
        definition.write_text(
            f"name: press\nsource: {{mqtt: {{url: 'mqtt://127.0.0.1:{proxy.port}', topics: a}}}}\n"
            "sinks: {out: {file: {path: out}}}\noutbox: {path: outbox}\n"
        )
        processor = Processor(definition)
        process = stack.enter_context(processor.running())
        time.sleep(0.5)
        asked = time.monotonic()
        process.send_signal(signal.SIGTERM)
        assert process.wait(60) == 0
        assert time.monotonic() - asked < CONNECT_TIMEOUT
    assert "is left" not in processor.said()
    words = [sys.executable, "-m", "edge", "status", "press.yaml"]
    told = subprocess.run(words, cwd=tmp_path, capture_output=True, text=True, check=True)
    assert "source mqtt: not connected:" in told.stdout + told.stderr
