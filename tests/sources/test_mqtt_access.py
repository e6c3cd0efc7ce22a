"""Who is let in, with what rights, and what is said when not."""

import asyncio
import json
from pathlib import Path
from typing import Any

import pytest
from paho.mqtt import publish

from edge.mqtt import connection
from tests.broker import Broker
from tests.certificates import Certificates
from tests.loop import in_loop
from tests.mqtt.intake import OPEN, Intake, read_until, reading, send

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


@pytest.fixture
def broker(tmp_path: Path) -> Any:
    with Broker(tmp_path / "broker", OPEN) as found:
        yield found


@in_loop
async def test_a_twin_that_the_broker_says_nothing_of_is_guessed(
    broker: Broker, caplog: pytest.LogCaptureFixture
) -> None:
    """Mosquitto 2.0.11 closes the first connection without a reason."""
    one, two = Intake(broker.url), Intake(broker.url)
    async with one.running(), two.running(), asyncio.timeout(60), asyncio.TaskGroup() as both:
        for intake in (one, two):
            both.create_task(read_until(intake, lambda: "is there another client" in caplog.text))
    assert "is there another client with the client id 'edge-test'?" in caplog.text


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
                read_until(intake, lambda: caplog.text.count("refused: Not authorized") > refusals),
                60,
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
            await asyncio.wait_for(read_until(intake, lambda: caplog.text), 60)
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
                read_until(
                    intake, lambda: "certificate verify failed" in str(intake.status["problem"])
                ),
                60,
            )
