"""containers/compose.yaml: a broker that starts, and a processor as careful as a task is."""

import os
import re
import subprocess
from pathlib import Path
from typing import Any

import pytest
import yaml
from paho.mqtt import publish

from edge.pipeline import load
from tests.broker import Broker

FOLDER = Path("containers")
IMAGE = (FOLDER / "Dockerfile").read_text()


@pytest.fixture(scope="module")
def services() -> Any:
    return yaml.safe_load((FOLDER / "compose.yaml").read_text())["services"]


def default(value: str) -> str:
    """What compose makes of `${NAME:-default}` where nothing is set."""
    return re.sub(r"\$\{\w+:-([^}]*)\}", r"\1", value)


def test_its_broker_starts_and_keeps_what_waits(services: Any, tmp_path: Path) -> None:
    *shell, script = services["broker"]["command"]
    assert "$" not in script  # which compose would replace
    places = dict(each.split(":")[:2] for each in services["broker"]["volumes"])
    assert places == {"./mosquitto.conf": "/edge.conf", "broker": "/mosquitto/data"}
    written = tmp_path / "made.conf"
    for old, new in (
        ("/edge.conf", str(FOLDER / "mosquitto.conf")),
        ("/tmp/mosquitto.conf", str(written)),
        ("exec mosquitto", "true"),
    ):
        assert old in script
        script = script.replace(old, new)
    subprocess.run([*shell, script], check=True)

    config = written.read_text()
    assert "listener 1883\n" in config
    assert "persistence_location /mosquitto/data/\n" in config
    config = config.replace("listener 1883", "listener {port} 127.0.0.1")
    config = config.replace("/mosquitto/data/", "{folder}/")
    if os.getuid() == 0:
        config += "user root\n"  # another may not write the folders of the tests
    with Broker(tmp_path / "broker", config) as broker:
        publish.single("a", "kept", qos=1, retain=True, hostname="127.0.0.1", port=broker.port)
        broker.restart()
        command = ["mosquitto_sub", "-h", "127.0.0.1", "-p", f"{broker.port}", "-t", "a"]
        assert subprocess.check_output([*command, "-C", "1", "-W", "60"]) == b"kept\n"


def test_its_processor_runs_the_main_job_as_a_task_does(services: Any) -> None:
    processor = services["processor"]
    assert (processor["init"], processor["read_only"], processor["cap_drop"]) == (
        True,
        True,
        ["ALL"],
    )
    assert processor["security_opt"] == ["no-new-privileges:true"]
    assert processor["volumes"] == ["outbox:/var/lib/edge"]
    assert "VOLUME /var/lib/edge" in IMAGE
    given = {name: default(value or "") for name, value in processor["environment"].items()}
    pipeline = load("pipelines/machine-temperature.yaml", given)
    assert getattr(pipeline.source, "url", "") == "mqtt://broker:1883"
    assert "broker" in services
