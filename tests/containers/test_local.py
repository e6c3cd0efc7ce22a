"""A site on the engine of this machine: applied, changed, taken back and destroyed."""

import io
import json
import os
import re
import subprocess
import sys
from collections.abc import Iterator
from contextlib import ExitStack
from datetime import datetime
from pathlib import Path
from typing import Any

import polars as pl
import pytest
from docker.errors import NotFound
from paho.mqtt.client import Client
from paho.mqtt.enums import CallbackAPIVersion

from tests.broker import Broker
from tests.cloud import Cloud
from tests.containers.conftest import Image, Network
from tests.dashboard.plant import fetch
from tests.engine import NAME, RUN, Engine
from tests.processor import until
from tests.proxy import Proxy

PIPELINE = Path(__file__).parents[2] / "pipelines" / "machine-temperature.yaml"
BUCKET, QUEUE = "lake", "alarms"
SITE = """
edge: 1
site: {site}
region: eu-west-1
target: docker
image: {image}
pipelines: ['{pipeline}']
docker: {{networks: [{networks}]}}
stop_timeout: 20s
environment:
  EDGE_DEMO_BROKER: {broker}
  EDGE_DEMO_BUCKET: lake
  EDGE_DEMO_QUEUE: alarms
  EDGE_DEMO_ROLL: 200ms
  AWS_ENDPOINT_URL: {cloud}
"""


class Hall:
    """One site of one host, and what was published to it."""

    def __init__(self, engine: Engine, file: Path, text: str, broker: Broker, cloud: Cloud) -> None:
        self._engine = engine
        self._file = file
        self._text = text
        self._broker = broker
        self._cloud = cloud
        self.name = f"edge-{file.stem}-0"
        self.published = 0

    def deploy(self, *arguments: str, code: int = 0, more: str = "", **shell: str) -> str:
        """A command of `edge deploy`, with `more` in the site file's environment; its output.

        shell: variables of the shell that it runs in.
        """
        self._file.write_text(self._text + more)
        done = subprocess.run(
            [sys.executable, "-m", "edge", "deploy", arguments[0], str(self._file), *arguments[1:]],
            env={**os.environ, **shell, "DOCKER_HOST": self._engine.host},
            capture_output=True,
            text=True,
        )
        assert done.returncode == code, done.stderr + done.stdout
        return done.stdout + done.stderr

    def stand_in(self, network: str) -> None:
        """In another network than those of the tests, which publish no ports."""
        networks = f"docker: {{networks: [{network}]}}"
        self._text = re.sub(r"^docker:.*$", networks, self._text, flags=re.M)

    def container(self) -> Any:
        return self._engine.client.containers.get(self.name)

    def publish(self, number: int) -> None:
        """So many readings, each worth to be kept; returns when the broker has them."""
        client = Client(CallbackAPIVersion.VERSION2)
        client.connect("127.0.0.1", self._broker.port)
        client.loop_start()
        for n in range(self.published, self.published + number):
            body = {
                "ts": f"2026-01-01T00:00:00.{n:06}Z",
                "reading": n,
                "temperature": n % 2 * 9 + 50,
            }
            info = client.publish("plant/a/m1/temperature", json.dumps(body), qos=1)
        info.wait_for_publish(60)
        client.disconnect()
        client.loop_stop()
        self.published += number

    def all_arrive_once(self) -> None:
        until(lambda: len(self._arrived()) >= self.published)
        assert self._arrived() == list(range(self.published))

    def _arrived(self) -> list[int]:
        bodies = self._cloud.objects(BUCKET).values()
        return sorted(n for body in bodies for n in pl.read_parquet(io.BytesIO(body))["reading"])

    def gap(self, since: float) -> float:
        """Seconds from the end of the first container after `since` until its successor reads."""
        ended = next(
            event["timeNano"] / 1e9
            for event in self._engine.client.events(
                since=int(since), until=int(since) + 600, decode=True
            )
            if event.get("Action") == "die"
        )
        lines = self.container().logs(timestamps=True).decode().splitlines()
        reads = next(line for line in lines if "connected to" in line)
        return datetime.fromisoformat(reads.split()[0][:26] + "+00:00").timestamp() - ended


@pytest.fixture
def hall(
    engine: Engine, image: Image, plant: Network, away: Network, cloud: Cloud, tmp_path: Path
) -> Iterator[Hall]:
    cloud.make_bucket(BUCKET)
    cloud.make_queue(QUEUE)
    keeping = "allow_anonymous true\nmax_queued_messages 0"
    with ExitStack() as stack:
        broker = stack.enter_context(Broker(tmp_path / "broker", keeping))
        sensors = stack.enter_context(Proxy(("127.0.0.1", broker.port), host=plant.gateway))
        only = away.gateway.rpartition(".")[0] + "."
        link = stack.enter_context(Proxy(("127.0.0.1", cloud.port), host=away.gateway, only=only))
        file = tmp_path / f"hall-{RUN}-{os.getpid()}.yaml"
        text = SITE.format(
            site=file.stem,
            image=image.tag,
            pipeline=PIPELINE,
            networks=f"{plant.name}, {away.name}",
            broker=f"mqtt://{plant.gateway}:{sensors.port}",
            cloud=link.url,
        )
        hall = Hall(engine, file, text, broker, cloud)
        yield hall
        hall.deploy("destroy", "--yes", "--data")
        with pytest.raises(NotFound):
            engine.client.volumes.get(hall.name)


def test_a_site_is_applied_changed_and_taken_back_and_each_row_arrives_once(hall: Hall) -> None:
    assert f"+ container {hall.name}" in hall.deploy("plan")
    assert "replica 0: running" in hall.deploy("apply")
    assert "nothing to change" in hall.deploy("plan")
    assert "~ secrets: other values" in hall.deploy("plan", AWS_SECRET_ACCESS_KEY="other")
    first = hall.container()
    hall.deploy("apply")
    assert hall.container().id == first.id  # nothing was touched
    assert hall.container().attrs["State"]["StartedAt"] == first.attrs["State"]["StartedAt"]
    hall.publish(1_000)

    changed = "  EDGE_OTHER: '1'\n"
    assert "+   EDGE_OTHER: '1'" in hall.deploy("plan", more=changed)
    since = hall.container().attrs["State"]["StartedAt"]
    hall.deploy("apply", more=changed)
    assert hall.container().id != first.id
    assert hall.gap(datetime.fromisoformat(since[:26] + "+00:00").timestamp()) < 30
    hall.publish(1_000)

    crashing = "  EDGE_HTTP: nowhere\n"
    said = hall.deploy("apply", more=crashing, code=1)
    assert "replica 0: rolled back: exit code 2" in said
    assert "EDGE_OTHER=1" in hall.container().attrs["Config"]["Env"]
    hall.publish(1_000)
    hall.all_arrive_once()

    (row,) = json.loads(hall.deploy("status", "--json"))
    assert row["state"] == "running"
    sink = row["pipelines"]["machine-temperature"]["sinks"]["lake"]
    assert sink["delivered_rows"] == 3_000
    (said,) = (line for line in hall.deploy("status").splitlines() if " lake " in line)
    assert all(word in said for word in (" up ", " 0 rows ", " balances ", " before ", "0s ago"))
    assert "0 " in hall.deploy("logs")

    hall.deploy("destroy", "--yes")
    hall.publish(1_000)  # the broker keeps them, and the volume what was taken
    hall.deploy("apply")
    hall.all_arrive_once()


@pytest.fixture
def open_network(engine: Engine) -> Iterator[str]:
    made = engine.client.networks.create(f"{NAME}open-{os.getpid()}")
    yield str(made.name)
    made.remove()


def test_its_page_is_there_for_this_machine_alone(open_network: str, hall: Hall) -> None:
    hall.stand_in(open_network)
    hall.deploy("apply")
    (row,) = json.loads(hall.deploy("status", "--json"))
    (published,) = hall.container().attrs["NetworkSettings"]["Ports"]["8080/tcp"]
    assert published["HostIp"] == "127.0.0.1"
    assert row["page"] == f"http://127.0.0.1:{published['HostPort']}/"
    assert fetch(f"{row['page']}state").status == 401
    _, said = hall.container().exec_run(["cat", "/var/lib/edge/http-token"])
    answer = fetch(f"{row['page']}state", Authorization=f"Bearer {said.decode().strip()}")
    assert answer.json()["pipelines"][0]["pipeline"] == "machine-temperature"
    off = "  EDGE_HTTP: ''\n"
    hall.deploy("apply", more=off)
    (row,) = json.loads(hall.deploy("status", "--json", more=off))
    assert (row["state"], row["page"]) == ("running", None)


def test_an_apply_that_was_cut_off_goes_on_and_never_leaves_two(hall: Hall, engine: Engine) -> None:
    hall.deploy("apply")
    container = hall.container()
    container.stop()
    container.rename(f"{hall.name}-former")  # between the old one's end and the new one's start
    hall.deploy("apply", more="  EDGE_OTHER: '1'\n")
    names = [
        each.name for each in engine.client.containers.list(all=True, filters={"name": hall.name})
    ]
    assert names == [hall.name]
    assert "EDGE_OTHER=1" in hall.container().attrs["Config"]["Env"]


def test_what_the_engine_cannot_start_leaves_the_old_one_running(hall: Hall) -> None:
    hall.deploy("apply")
    first = hall.container()
    said = hall.deploy(
        "apply",
        code=1,
        more="network: {mode: bridge}\nmounts: [{host: /dev/null/x, container: /in}]\n",
    )
    assert "docker: container" in said
    assert hall.container().id == first.id
    until(lambda: hall.container().status == "running")
