"""The image on a real engine: stopped, killed, cut off, and never two on one outbox."""

import json
import os
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import pytest
from docker.models.containers import Container
from docker.models.networks import Network as DockerNetwork
from paho.mqtt.client import Client
from paho.mqtt.enums import CallbackAPIVersion

from tests.broker import Broker
from tests.cloud import Cloud
from tests.containers.conftest import Image, Network
from tests.engine import NAME, Engine
from tests.processor import until
from tests.proxy import Proxy

BUCKET = "lake"
KEEPING = "allow_anonymous true\nmax_queued_messages 0"
DEFINITION = """
name: press
site: test
source:
  mqtt: {{url: 'mqtt://{broker}', topics: 'p/+', recognise: true}} # no two numbers are alike
record: {{fields: {{n: int}}}}
sinks:
  lake:
    s3: {{bucket: lake, endpoint_url: '{cloud}', compression: none}}
    roll: {{size: 64KiB, every: 200ms}}
"""
HARDENED: dict[str, Any] = {
    "read_only": True,
    "cap_drop": ["ALL"],
    "security_opt": ["no-new-privileges"],
    "detach": True,
}


class Site:
    """One processor container on its volume, a broker and a cloud, and what was published."""

    def __init__(
        self, container: Container, away: DockerNetwork, broker: Broker, cloud: Cloud
    ) -> None:
        self.container = container
        self._away = away
        self._broker = broker
        self._cloud = cloud
        self.published = 0

    def publish(self, number: int) -> None:
        """So many further rows, at QoS 1; returns when the broker has them."""
        client = Client(CallbackAPIVersion.VERSION2)
        client.max_queued_messages_set(0)
        client.max_inflight_messages_set(1000)
        client.connect("127.0.0.1", self._broker.port)
        client.loop_start()
        for n in range(self.published, self.published + number):
            info = client.publish("p/a", json.dumps({"n": n}), qos=1)
        info.wait_for_publish(60)
        client.disconnect()
        client.loop_stop()
        self.published += number

    def start(self) -> None:
        """Start it, and wait until it is subscribed at the broker."""
        said = self.said().count("connected to mqtt")
        self.container.start()
        until(lambda: self.said().count("connected to mqtt") > said)

    def said(self) -> str:
        return str(self.container.logs().decode())

    def arrived(self) -> list[int]:
        """`n` of every row in the bucket, in order."""
        bodies = self._cloud.objects(BUCKET).values()
        return sorted(json.loads(line)["n"] for body in bodies for line in body.splitlines())

    def status(self) -> dict[str, Any]:
        command = ["python3", "-m", "edge", "status", "--json", "/pipelines/press.yaml"]
        code, out = self.container.exec_run(command, demux=True)
        assert code == 0, out
        found: dict[str, Any] = json.loads(out[0])["press"]
        return found

    def until_all_is_there(self) -> None:
        """Each row once: none is missing and none is doubled."""
        until(lambda: len(self.arrived()) >= self.published)
        assert self.arrived() == list(range(self.published))

    def cut(self) -> None:
        """Take the network away behind which the cloud is."""
        self._away.disconnect(self.container)

    def mend(self) -> None:
        self._away.connect(self.container)

    def check(self) -> tuple[int, str]:
        """Exit code and words of the image's own health check, asked now."""
        command = self.container.image.attrs["Config"]["Healthcheck"]["Test"][1:]
        code, said = self.container.exec_run(command)
        return code, said.decode()

    def health(self) -> str:
        self.container.reload()
        return str(self.container.attrs["State"]["Health"]["Status"])


@pytest.fixture
def site(
    engine: Engine,
    image: Image,
    plant: Network,
    away: Network,
    cloud: Cloud,
    tmp_path: Path,
    request: pytest.FixtureRequest,
) -> Iterator[Site]:
    """Made and not started; nothing of it but the volume can be written."""
    cloud.make_bucket(BUCKET)
    name = f"{NAME}{request.node.name[:40]}-{os.getpid()}"
    with ExitStack() as stack:
        broker = stack.enter_context(Broker(tmp_path / "broker", KEEPING))
        sensors = stack.enter_context(Proxy(("127.0.0.1", broker.port), host=plant.gateway))
        # This machine answers on each of its addresses, whatever the network that a packet takes.
        only = away.gateway.rpartition(".")[0] + "."
        link = stack.enter_context(Proxy(("127.0.0.1", cloud.port), host=away.gateway, only=only))
        pipelines = definitions(
            tmp_path, DEFINITION.format(broker=f"{plant.gateway}:{sensors.port}", cloud=link.url)
        )
        container = engine.client.containers.create(
            image.tag,
            name=name,
            network=plant.name,
            environment={name: os.environ[name] for name in os.environ if name.startswith("AWS_")},
            volumes={str(pipelines): mounted("/pipelines", "ro"), name: mounted("/var/lib/edge")},
            **HARDENED,
        )
        site = Site(container, engine.client.networks.get(away.name), broker, cloud)
        site.mend()
        yield site
        container.remove(force=True, v=True)
        engine.client.volumes.get(name).remove()


def definitions(folder: Path, text: str) -> Path:
    """A folder that the container's user may read."""
    pipelines = folder / "pipelines"
    pipelines.mkdir()
    pipelines.chmod(0o755)
    (pipelines / "press.yaml").write_text(text)
    return pipelines


def mounted(place: str, mode: str = "rw") -> dict[str, str]:
    return {"bind": place, "mode": mode}


@pytest.fixture(scope="module")
def rival(engine: Engine, image: Image, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Any]:
    """A second container on the outbox of a first, started before the other tests run.

    It waits 90 s for the first to leave, in which they run.
    """
    pipelines = definitions(
        tmp_path_factory.mktemp("rival"),
        DEFINITION.format(broker="127.0.0.1:1", cloud="http://127.0.0.1:1"),
    )
    volume = f"{NAME}rival-{os.getpid()}"
    mounts = {str(pipelines): mounted("/pipelines", "ro"), volume: mounted("/var/lib/edge")}
    run = engine.client.containers.run
    first = run(image.tag, volumes=mounts, network_mode="none", name=f"{volume}-1", **HARDENED)
    until(lambda: b": started" in first.logs())
    second = run(image.tag, volumes=mounts, network_mode="none", name=f"{volume}-2", **HARDENED)
    yield first, second
    for container in (first, second):
        container.remove(force=True, v=True)
    engine.client.volumes.get(volume).remove()


def test_a_stop_in_the_midst_of_a_stream_takes_seconds_and_loses_nothing(
    rival: Any, site: Site
) -> None:
    site.start()
    site.publish(3_000)
    site.container.stop(timeout=10)
    site.container.reload()
    assert site.container.attrs["State"]["ExitCode"] == 0, site.said()  # not killed after the 10 s
    site.publish(2_000)  # the broker keeps them
    site.start()
    site.until_all_is_there()


def test_a_kill_and_a_restart_on_the_same_volume_lose_nothing(rival: Any, site: Site) -> None:
    site.start()
    site.publish(3_000)
    site.container.kill()
    site.container.wait()
    site.publish(1_000)
    site.start()
    site.publish(1_000)
    site.until_all_is_there()


def test_the_link_is_cut_and_what_waited_is_drained_when_it_is_back(rival: Any, site: Site) -> None:
    site.start()
    site.publish(500)
    site.until_all_is_there()
    site.cut()
    site.publish(500)
    until(lambda: site.status()["sinks"]["lake"]["buffered_rows"] == 500)
    assert len(site.arrived()) == 500
    until(lambda: site.check() == (0, ""))  # the link is none of the health check's business
    site.mend()
    site.until_all_is_there()


def test_it_is_healthy_and_neither_root_nor_able_to_write_outside_of_its_volume(
    rival: Any, site: Site
) -> None:
    site.start()
    until(lambda: site.health() == "healthy")
    code, said = site.container.exec_run(["id", "-u"])
    assert (code, said) == (0, b"10001\n")
    assert site.container.exec_run(["touch", "/app/x"])[0] != 0
    assert site.container.exec_run(["touch", "/var/lib/edge/x"])[0] == 0


def test_a_second_container_on_the_same_outbox_ends_with_3(rival: Any) -> None:
    first, second = rival
    assert second.wait(timeout=150)["StatusCode"] == 3
    assert "another process owns it" in second.logs().decode()
    first.reload()
    assert first.status == "running"
