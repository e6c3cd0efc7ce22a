"""A real standby on a real engine: it takes over from ECS and gives back, and no row is lost."""

import fcntl
import io
import json
import os
import signal
import subprocess
import tarfile
import threading
import time
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any, Self

import paho.mqtt.client as mqtt
import pytest

from edge.deploy import standby
from edge.deploy.content import UID
from edge.deploy.script import packed
from edge.deploy.site import Site
from edge.deploy.workload import load_workload
from edge.outbox.owner import is_owned
from tests.broker import Broker
from tests.cloud import Cloud
from tests.containers.conftest import Image
from tests.containers.conftest import image as image  # a fixture
from tests.deploy.sites import make
from tests.engine import FOLDER, NAME, Engine
from tests.processor import until

PIPELINE = """\
edge: 1
name: press
site: ${EDGE_SITE:-local}
replica: ${EDGE_REPLICA:-0}
source:
  mqtt: {url: "${BROKER}", topics: ["plant/{line}"], recognise: true} # no two numbers are alike
record: {fields: {n: int}}
sinks:
  lake:
    s3: {bucket: plant-lake, endpoint_url: "${CLOUD}", format: ndjson, compression: none}
    roll: {every: 1s}
"""
# Docker's client leaves the sockets of streamed answers to the garbage collector.
pytestmark = pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")

FAMILY = "edge-osaka-gw-1"
STAND_IN = f"{FAMILY}-standby"
KEYS = {"AWS_ACCESS_KEY_ID": "test", "AWS_SECRET_ACCESS_KEY": "test"}


class Agent(ThreadingHTTPServer):
    """The introspection of the ECS agent, and as `/ping` ECS itself, as a test wants them.

    silent: no agent answers, as after a reboot; cut: ECS does not; tasks: desired and known status;
    asked: how often for them.
    """

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), _Answers)
        self.silent = self.cut = False
        self.tasks = [("RUNNING", "RUNNING")]
        self.asked = 0
        self.url = f"http://127.0.0.1:{self.server_port}"

    def __enter__(self) -> Self:
        threading.Thread(target=self.serve_forever, args=[0.02], daemon=True).start()
        return self

    def __exit__(self, *_: object) -> None:
        self.shutdown()
        self.server_close()

    def answer(self, path: str) -> Any:
        if path == "/ping":
            return None if self.cut else "healthy"
        if self.silent:
            return None
        if path == "/v1/metadata":
            return {"Cluster": "plants", "ContainerInstanceArn": "arn:aws:ecs:x", "Version": "1"}
        self.asked += 1
        other = {"Arn": "other", "DesiredStatus": "RUNNING", "KnownStatus": "RUNNING"}
        return {
            "Tasks": [
                {**other, "Family": "another", "Version": "1", "Containers": []},
                *(
                    {"Arn": "a", "DesiredStatus": desired, "KnownStatus": known, "Family": FAMILY}
                    | {"Version": "3", "Containers": [{"Name": "edge", "DockerId": "abc"}]}
                    for desired, known in self.tasks
                ),
            ]
        }


class _Answers(BaseHTTPRequestHandler):
    server: Agent

    def do_GET(self) -> None:
        answer = self.server.answer(self.path)
        if answer is not None:
            self.send_response(200)
            self.end_headers()
            self.wfile.write(json.dumps(answer, separators=(",", ":")).encode())

    def log_message(self, format: str, *args: object) -> None:
        pass


class Host:
    """A machine with the standby: its settings, the program at work, and what that says."""

    def __init__(self, folder: Path, site: Site, agent: Agent, docker: str) -> None:
        self.etc, self.state, self._docker = folder / "standby", folder / "state", docker
        self.etc.mkdir()
        self._log = folder / "standby.log"
        changes = {"AGENT": agent.url, "CONTROL": f"{agent.url}/ping", "STATE": str(self.state)}
        changes |= {"AFTER": "2", "EVERY": "0.5", "ASK": "1", "WITHDRAW": "3"}
        changes |= {"OWNER": str(os.getuid())}
        workload = load_workload(site)
        (self.etc / "conf").write_text(standby.conf(workload, "gw-1", changes=changes))
        (self.etc / "environment").write_text(standby.variables(site, "gw-1") + "\n")
        (self.etc / "command").write_text("\n".join(workload.command()) + "\n")
        self.program = folder / "program"
        self.program.write_text(packed("standby"))
        self._process: subprocess.Popen[bytes] | None = None

    def __enter__(self) -> Self:
        with self._log.open("ab") as log:
            self._process = subprocess.Popen(
                ["sh", str(self.program), "watch"], env=self._environment(), stderr=log
            )
        return self

    def __exit__(self, *_: object) -> None:
        assert self._process
        self._process.send_signal(signal.SIGTERM)
        assert self._process.wait(60) == 0

    def check(self) -> str:
        """What is missing to stand in."""
        command = ["sh", str(self.program), "check"]
        done = subprocess.run(command, env=self._environment(), capture_output=True, text=True)
        assert done.returncode == (1 if done.stderr else 0)
        return done.stderr

    def said(self) -> str:
        """The log."""
        return self._log.read_text()

    def _environment(self) -> dict[str, str]:
        return {**os.environ, "DOCKER_HOST": self._docker, "EDGE_STANDBY": str(self.etc)}


@pytest.fixture(scope="module")
def built(engine: Engine, image: Image) -> str:
    """The image under test, with the pipeline of these tests in it."""
    files = {
        "Dockerfile": f"FROM {image.tag}\nCOPY press.yaml /pipelines/\n",
        "press.yaml": PIPELINE,
    }
    context = io.BytesIO()
    with tarfile.open(fileobj=context, mode="w") as packed:
        for name, text in files.items():
            member = tarfile.TarInfo(name)
            member.size, member.mode = len(text), 0o644
            packed.addfile(member, io.BytesIO(text.encode()))
    context.seek(0)
    tag = f"{NAME}standby:1"
    engine.client.images.build(fileobj=context, custom_context=True, tag=tag, rm=True)
    return tag


@pytest.fixture
def agent() -> Iterator[Agent]:
    with Agent() as agent:
        yield agent


@pytest.fixture
def broker(tmp_path: Path) -> Iterator[Broker]:
    with Broker(tmp_path / "broker", "allow_anonymous true\nmax_queued_messages 0") as broker:
        yield broker


@pytest.fixture
def site(tmp_path: Path, broker: Broker, cloud: Cloud) -> Site:
    outbox = tmp_path / "outbox"
    outbox.mkdir()
    os.chown(outbox, UID, UID)
    for folder in (tmp_path, *tmp_path.parents):  # pytest's are closed to others
        if folder.stat().st_mode & 0o055 == 0:
            folder.chmod(0o755)
    cloud.client("s3").create_bucket(
        Bucket="plant-lake", CreateBucketConfiguration={"LocationConstraint": "eu-west-1"}
    )
    changes = {
        "mode: bridge": "mode: host",
        "{PLANT: osaka}": json.dumps({"BROKER": broker.url, "CLOUD": cloud.url}),
        'secrets: {MQTT_PASSWORD: "arn:aws:ssm:eu-west-1:123456789012:parameter/mqtt"}\n': "",
        "mounts: [{host: /srv/data, container: /in}]\n": "",
        "/var/lib/edge": str(outbox),
    }
    # Where pytest keeps its folders is no place for an outbox, but here it is.
    made = make(tmp_path, {k: v for k, v in changes.items() if k != "/var/lib/edge"}, PIPELINE)
    return made.model_copy(update={"outbox": str(outbox)})


@pytest.fixture(autouse=True)
def alone(engine: Engine) -> Iterator[None]:
    """One test at a time, for each takes what has these names on the engine for its own."""
    with (FOLDER / "standby").open("a") as turn:
        fcntl.flock(turn, fcntl.LOCK_EX)
        yield
        for name in (STAND_IN, f"{NAME}task-"):
            for container in engine.client.containers.list(all=True, filters={"name": name}):
                container.remove(force=True, v=True)


class Ecs:
    """Starts the task as the agent would, which alone has credentials."""

    def __init__(self, engine: Engine, built: str, site: Site) -> None:
        self._client, self._image, self._site = engine.client, built, site
        self._number = 0

    def start(self) -> Any:
        self._number += 1
        workload = load_workload(self._site)
        return self._client.containers.run(
            self._image,
            workload.command(),
            name=f"{NAME}task-{self._number}",
            detach=True,
            init=True,
            read_only=True,
            network_mode="host",
            cap_drop=["ALL"],
            labels={"com.amazonaws.ecs.task-definition-family": FAMILY},
            environment=[*standby.variables(self._site, "gw-1").splitlines(), *_pairs(KEYS)],
            volumes={self._site.outbox: {"bind": "/var/lib/edge", "mode": "rw"}},
        )


def _pairs(variables: dict[str, str]) -> list[str]:
    return [f"{name}={value}" for name, value in variables.items()]


class Sensor:
    """Publishes numbers at QoS 1 all the time, whoever listens."""

    def __init__(self, broker: Broker) -> None:
        self.sent = 0
        self._client = mqtt.Client(mqtt.CallbackAPIVersion.VERSION2)
        self._client.connect("127.0.0.1", broker.port)
        self._client.loop_start()
        self._ended = threading.Event()
        self._thread = threading.Thread(target=self._publish)
        self._thread.start()

    def _publish(self) -> None:
        while not self._ended.wait(0.01):
            sent = self._client.publish("plant/a", json.dumps({"n": self.sent}), qos=1)
            sent.wait_for_publish(30)
            self.sent += 1

    def stop(self) -> int:
        """How many it published."""
        self._ended.set()
        self._thread.join()
        self._client.loop_stop()
        return self.sent


def delivered(cloud: Cloud) -> list[int]:
    s3 = cloud.client("s3")
    keys = [each["Key"] for each in s3.list_objects_v2(Bucket="plant-lake").get("Contents", ())]
    bodies = [s3.get_object(Bucket="plant-lake", Key=key)["Body"].read() for key in keys]
    return sorted(json.loads(line)["n"] for body in bodies for line in body.splitlines())


def started(container: Any) -> bool:
    return b": started" in container.logs() or b'started"' in container.logs()


def stand_in(engine: Engine) -> Any:
    """The container of the standby; None where it does not run."""
    found = engine.client.containers.list(filters={"name": f"^/{STAND_IN}$"})
    return found[0] if found else None


def test_standby_and_ecs_hand_over_to_each_other_and_each_row_arrives_once(
    engine: Engine, built: str, agent: Agent, broker: Broker, cloud: Cloud, site: Site,
    tmp_path: Path,
) -> None:  # fmt: skip
    ecs, outbox = Ecs(engine, built, site), Path(site.outbox) / "press"
    task = ecs.start()
    until(lambda: started(task))
    sensor = Sensor(broker)
    with Host(tmp_path, site, agent, engine.host) as host:
        until(lambda: (host.state / "image").exists())

        # The host was rebooted while the link is away: no agent, no task.
        agent.silent = agent.cut = True
        task.kill()
        killed = time.monotonic()
        until(lambda: (found := stand_in(engine)) and started(found))
        taken = time.monotonic() - killed
        assert is_owned(outbox)
        assert "it buffers, and delivers nothing to AWS" in host.said()
        before, sent = len(delivered(cloud)), sensor.sent
        until(lambda: sensor.sent > sent + 100)
        assert len(delivered(cloud)) == before

        # The link is back, and ECS starts a task, which waits for the outbox.
        agent.silent = agent.cut = False
        task = ecs.start()
        begin = time.monotonic()
        until(lambda: stand_in(engine) is None)
        left = time.monotonic() - begin
        until(lambda: started(task))
        given = time.monotonic() - begin
        print(f"stood in after {taken:.1f} s, left after {left:.1f} s, task after {given:.1f} s")
        assert "makes way: ECS runs" in host.said()

        sent = sensor.stop()
        until(lambda: len(delivered(cloud)) >= sent)
        assert delivered(cloud) == list(range(sent))

        # ECS stops it on purpose, its link is well: the standby stays out.
        agent.tasks = []
        task.stop(timeout=30)
        assert task.wait()["StatusCode"] == 0
        until(lambda: not (host.state / "image").exists())
        assert stand_in(engine) is None


def test_what_ecs_cannot_start_again_stands_in_until_a_container_is_there(
    engine: Engine, built: str, agent: Agent, site: Site, tmp_path: Path
) -> None:
    host = Host(tmp_path, site, agent, engine.host)
    host.state.mkdir()
    (host.state / "image").write_text(engine.client.images.get(built).id + "\n")
    agent.cut, agent.tasks = True, [("STOPPED", "STOPPED")]
    with host:
        # The agent runs, but the task's container has ended once too often.
        until(lambda: (found := stand_in(engine)) and started(found))
        stand_in(engine).kill()  # what stands in is no better protected than others
        until(lambda: (found := stand_in(engine)) and started(found))
        agent.tasks = [("RUNNING", "PULLED")]  # its image may take hours to come
        asked = agent.asked
        until(lambda: agent.asked > asked + 3)
        assert stand_in(engine) is not None
        agent.tasks = [("RUNNING", "CREATED")]
        until(lambda: stand_in(engine) is None)


def test_it_refuses_secrets_that_others_can_read_and_says_what_is_missing(
    engine: Engine, built: str, agent: Agent, site: Site, tmp_path: Path
) -> None:
    arn = "arn:aws:ssm:eu-west-1:123456789012:parameter/mqtt"
    host = Host(tmp_path, site.model_copy(update={"secrets": {"TOKEN": arn}}), agent, engine.host)
    assert "secrets is missing; write NAME=value lines for TOKEN" in host.check()
    assert f"ECS has run no task {FAMILY} here" in host.check()
    host.state.mkdir()
    (host.state / "image").write_text("sha256:" + "0" * 64)
    secrets = host.etc / "secrets"
    secrets.write_text("OTHER=1\n")
    secrets.chmod(0o644)
    assert "must be of mode 0600" in host.check()
    assert "lacks TOKEN" in host.check()
    assert "is not on this host any more" in host.check()
    secrets.write_text("TOKEN=1\n")
    secrets.chmod(0o600)
    (host.state / "image").write_text(engine.client.images.get(built).id)
    assert host.check() == ""
