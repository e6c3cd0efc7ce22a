"""A connection comes back by itself, says what was wrong, and never acts on what is not MQTT."""

import asyncio
import logging
import socket
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from edge.mqtt import Connection, Endpoint, Messages, Session
from edge.mqtt.failure import explain
from tests.broker import Broker
from tests.certificates import Certificates
from tests.loop import in_loop, until
from tests.mqtt.wire import CONNACK, HastyClock, Script, scripted
from tests.ports import free_port
from tests.search import examples


def session(**changes: object) -> Session:
    return Session("edge-test", {"a/#": 1}, 600, 1000, 1, 2**20)._replace(**changes)  # type: ignore[arg-type]


@asynccontextmanager
async def connection(
    url: str, known: tuple[str, ...] = (), **options: object
) -> AsyncIterator[Connection]:
    found = Connection(Endpoint(url=url, **options), session(), Path(), HastyClock())
    found.start(known)
    try:
        yield found
    finally:
        await found.close()


async def problem(script: Script, **options: object) -> str:
    """What the status says of a server that does this."""
    async with scripted(script) as url, connection(url, **options) as one:
        messages = Messages(1)

        def told() -> bool:
            one.drain(messages, 100)
            return str(one.status()["problem"]) not in ("None", "not connected yet")

        await until(told)
        return str(one.status()["problem"]).removeprefix(url)


@in_loop
async def test_a_broker_that_is_not_there_is_waited_for(tmp_path: Path) -> None:
    broker = Broker(tmp_path)
    async with connection(broker.url) as one:
        await until(lambda: "refused" in str(one.status()["problem"]))
        with broker:
            await until(lambda: one.status()["connected"])
            assert one.status()["problem"] is None


async def reason(url: str, **options: object) -> str:
    """Why there is no connection."""
    async with connection(url, **options) as one:
        await until(lambda: one.status()["problem"] not in (None, "not connected yet"))
        return str(one.status()["problem"]).removeprefix(f"{url}: ")


@in_loop
async def test_what_the_system_says_comes_with_what_to_do(tmp_path: Path) -> None:
    assert await reason(f"mqtt://127.0.0.1:{free_port()}") == (
        "Connection refused; is the broker running on that host and port?"
    )
    with Broker(tmp_path) as broker:
        assert await reason(broker.url.replace("mqtt:", "mqtts:")) == (
            "Connection reset by peer while connecting; does that port speak TLS?"
        )


@in_loop
async def test_certificates_that_do_not_fit_are_explained(tmp_path: Path) -> None:
    pem = Certificates(tmp_path)
    config = f"listener {{port}} 127.0.0.1\nallow_anonymous true\n{pem.mosquitto}"
    with Broker(tmp_path, config) as broker:
        url = f"mqtts://localhost:{broker.port}"
        assert (await reason(url)).endswith("; set ca to the certificate of the broker's authority")
        assert await reason(f"mqtts://127.0.0.1:{broker.port}", ca=pem.ca) == (
            "certificate verify failed: IP address mismatch, certificate is not valid for "
            "'127.0.0.1'; use a name of that certificate in url"
        )
        assert (await reason(url, ca=pem.ca)).endswith(", set certificate and key")
        assert await reason(url, ca=pem.ca_key) == (
            f"ca: holds no certificate in PEM form, got {pem.ca_key}"
        )
        assert "the key that belongs to it" in await reason(url, ca=pem.ca, certificate=pem.client)


@pytest.mark.parametrize(
    ("error", "sentence"),
    [
        (
            socket.gaierror(-2, "Name or service not known"),
            "the host is not found: Name or service not known; check url and the name server",
        ),
        (
            TimeoutError("timed out"),
            "timed out while connecting; check host, port, network and firewalls",
        ),
        (OSError(113, "No route to host"), "No route to host; check the network"),
        (
            ConnectionResetError(104, "Connection reset by peer"),
            "Connection reset by peer while connecting; does that port speak MQTT, without TLS?",
        ),
        (OSError(24, "Too many open files"), "Too many open files"),
    ],
)
def test_no_numbers_are_shown(error: OSError, sentence: str) -> None:
    assert explain(error, secure=False) == sentence


@in_loop
async def test_the_subscriptions_are_in_the_status(tmp_path: Path) -> None:
    with Broker(tmp_path) as broker:
        async with connection(broker.url) as one:
            messages = Messages(1)
            await until(lambda: one.drain(messages, 10) or one.settled)
            assert one.status() == {
                "url": broker.url,
                "client_id": "edge-test",
                "connected": True,
                "problem": None,
                "connections": 1,
                "session": "new",
                "subscriptions": {"a/#": "QoS 1"},
            }


@in_loop
async def test_a_problem_is_logged_once_however_often_it_is_met(
    caplog: pytest.LogCaptureFixture,
) -> None:
    url = f"mqtt://127.0.0.1:{free_port()}"
    attempts = 0

    class Counting(HastyClock):
        async def sleep(self, seconds: float) -> None:
            nonlocal attempts
            attempts += 1
            await super().sleep(seconds)

    one = Connection(Endpoint(url=url), session(), Path(), Counting())
    with caplog.at_level(logging.WARNING, "edge.mqtt"):
        one.start(())
        await until(lambda: attempts > 5)
        await one.close()
    assert len(caplog.records) == 1


@in_loop
async def test_a_server_that_speaks_only_the_old_version_is_told_apart() -> None:
    async def refuse(_: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(b"\x20\x02\x00\x01")
        await writer.drain()

    assert await problem(refuse) == (": the broker does not speak MQTT 5; set protocol: 3.1.1")


@in_loop
async def test_a_server_that_hangs_up_on_connect_may_not_speak_the_version() -> None:
    async def hang_up(_: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.close()

    told = await problem(hang_up)
    assert told == (
        ": the broker closed the connection without an answer; "
        "if it does not speak MQTT 5, set protocol: 3.1.1"
    )
    assert "protocol" not in await problem(hang_up, protocol="3.1.1")


@in_loop
async def test_a_reason_to_disconnect_is_passed_on() -> None:
    async def overloaded(_: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(CONNACK + b"\xe0\x02\x97\x00")
        await writer.drain()

    assert await problem(overloaded) == ": the broker ended the connection: Quota exceeded"


@in_loop
async def test_a_twin_with_our_client_id_is_named() -> None:
    async def taken_over(_: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(CONNACK + b"\xe0\x02\x8e\x00")
        await writer.drain()

    assert await problem(taken_over) == (
        ": the broker dropped us because another client connected as 'edge-test'; "
        "give every replica its own number or client_id"
    )


@in_loop
async def test_bytes_that_are_no_mqtt_lead_to_a_new_connection() -> None:
    attempts = 0

    async def garbage(_: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        nonlocal attempts
        attempts += 1
        writer.write(CONNACK + b"\x30\xff\xff\xff\xff\xff")
        await writer.drain()

    async with scripted(garbage) as url, connection(url) as one:
        await until(lambda: attempts > 2)
        assert "whose length has more than four bytes" in str(one.status()["problem"])


@in_loop
async def test_what_came_before_the_end_is_handed_over() -> None:
    async def last_words(_: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(CONNACK + b"\x30\x05\x00\x01a\x00x")
        await writer.drain()

    async with scripted(last_words) as url, connection(url) as one:
        messages = Messages(1)
        await until(lambda: one.drain(messages, 100))
        await until(lambda: one.drain(messages, 100) or one.generation > 1)
        assert messages.payloads == [b"x"]


@examples(40)
@given(st.lists(st.tuples(st.integers(1, 15), st.binary(max_size=40)), max_size=6))
def test_any_packets_leave_the_connection_working_or_renewed(
    packets: list[tuple[int, bytes]],
) -> None:
    stream = b"".join(
        bytes([kind << 4 | (2 if kind in (6, 8, 10) else 0), len(body)]) + body
        for kind, body in packets
    )
    asyncio.run(_survives(stream))


async def _survives(stream: bytes) -> None:
    served = asyncio.Event()

    async def send(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(CONNACK + (b"" if served.is_set() else stream))
        served.set()
        await writer.drain()
        while await reader.read(1000):
            pass

    async with scripted(send) as url, connection(url) as one:
        await until(lambda: one.generation and served.is_set())
        await one.wait(0.05)
        one.drain(Messages(one.generation), 1000)
        await until(lambda: one.status()["connected"])


@in_loop
async def test_a_broker_that_falls_silent_is_left(tmp_path: Path) -> None:
    with Broker(tmp_path) as broker:
        async with connection(broker.url, keepalive="1s") as one:
            messages = Messages(1)
            await until(lambda: one.drain(messages, 1) or one.settled)
            broker.pause()
            try:
                await until(lambda: one.drain(messages, 1) or not one.status()["connected"])
                assert "did not answer a ping for 1 s" in str(one.status()["problem"])
            finally:
                broker.resume()
            await until(lambda: one.status()["connected"])


@in_loop
async def test_a_late_acknowledgement_is_not_sent(tmp_path: Path) -> None:
    received = asyncio.Queue[bytes]()

    async def count(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(CONNACK)
        while data := await reader.read(1000):
            received.put_nowait(data)
            if data.endswith(b"@\x02\x00\x09"):
                return

    async with scripted(count) as url, connection(url) as one:
        messages = Messages(1)
        await until(lambda: one.generation == 1)
        one.acknowledge(1, [b"\x00\x09"])
        await until(lambda: one.drain(messages, 1) or one.generation == 2)
        one.acknowledge(1, [b"\x00\x07"])
        one.acknowledge(2, [b"\x00\x08"])
        heard = b""
        async with asyncio.timeout(60):
            while b"@\x02\x00\x08" not in heard:
                heard += await received.get()
        assert b"@\x02\x00\x07" not in heard


@pytest.mark.parametrize(
    ("options", "reason"),
    [
        ({"url": "http://x"}, "must be mqtt://host:port or mqtts://host:port, got 'http://x'"),
        ({"url": "mqtt://a:b@x"}, "must not hold a user name or password; use username"),
        ({"url": "mqtt://x:99999"}, "must have a port between 1 and 65535"),
        ({"url": "mqtt://x/path"}, "must end after the port"),
        ({"url": "mqtt://x", "ca": "ca.pem"}, "need a url that starts with mqtts://"),
        ({"url": "mqtts://x", "key": "k.pem"}, "key needs certificate"),
        ({"url": "mqtt://x", "password": "p"}, "password needs username"),
        ({"url": "mqtt://x", "protocol": "6"}, "must be 5 or 3.1.1, got '6'"),
        ({"url": "mqtt://x", "keepalive": "10ms"}, "must be between 1s and 65535s"),
    ],
)
def test_options_that_cannot_work_are_refused(options: dict[str, str], reason: str) -> None:
    with pytest.raises(ValueError) as caught:
        Endpoint(**options)
    assert reason in str(caught.value)


def test_ports_and_versions_have_their_usual_values() -> None:
    assert Endpoint(url="mqtt://x").address == ("x", 1883)
    assert Endpoint(url="mqtts://x").address == ("x", 8883)
    assert Endpoint(url="mqtt://x:1", protocol=5).protocol == "5"
    assert Endpoint(url="mqtt://[::1]:1").address == ("::1", 1)
