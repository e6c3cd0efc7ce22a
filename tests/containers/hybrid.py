"""The hybrid example in two containers, through all that may go wrong: `make hybrid`."""

import contextlib
import json
import logging
import os
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Callable
from contextlib import ExitStack
from datetime import timedelta
from pathlib import Path
from typing import Any

import yaml
from docker.errors import APIError

from tests.agent import Agent
from tests.cloud import REGION, Cloud
from tests.containers.conftest import build
from tests.engine import NAME, RUN, Engine, running
from tests.processor import until
from tests.proxy import Proxy
from tests.test_share import arrived, write

SITES = Path(__file__).parents[2] / "deploy" / "sites"
ROWS = 3_000
LARGE = "p" * 1_200_000
"""A result above what a message may have, which goes by the bucket of claims."""

# The real lock and the real exit, without the 90 s that an update may need.
_IMPATIENT = (
    "from edge.outbox.store import Outbox; Outbox.open.__defaults__ = (2.0,);"
    "from edge.cli import main; main()"
)


class Hybrid:
    """Both sites on one engine, the cloud behind a link, and the agent that has credentials.

    Use as a context manager; the site files are those of deploy/sites, with their target changed.
    """

    def __init__(self, engine: Engine, image: str, cloud: Cloud, folder: Path) -> None:
        self.engine = engine
        self.cloud = cloud
        self.share = folder / "share"
        self._folder = folder
        self._image = image
        self._stack = ExitStack()
        self.sites: dict[str, Path] = {}

    def __enter__(self) -> "Hybrid":
        self.share.mkdir()
        self._folder.chmod(0o755)
        self.share.chmod(0o755)
        self.cloud.make_queue("inspections")
        for bucket in ("inspection-claims", "inspection-results"):
            self.cloud.make_bucket(bucket)
        self.link = self._stack.enter_context(Proxy(("127.0.0.1", self.cloud.port)))
        self.agent = self._stack.enter_context(Agent())
        for name, address in (("collector", self.link.url), ("aggregator", self.cloud.url)):
            self.sites[name] = self._on_docker(name, address)
            self._stack.callback(self.deploy, "destroy", name, "--yes", "--data")
        return self

    def __exit__(self, *_: object) -> None:
        self._stack.close()

    def _on_docker(self, name: str, address: str) -> Path:
        """The site file turned to this engine, by its target and what only AWS has."""
        site = yaml.safe_load((SITES / f"share-{name}.yaml").read_text())
        for only_there in ("create", "outbox", "cluster"):
            site.pop(only_there, None)
        site |= {
            "target": "docker",
            "site": f"{name}-{RUN}",
            "region": REGION,
            "image": self._image,
            "pipelines": [str((SITES / path).resolve()) for path in site["pipelines"]],
            "network": {"mode": "host"},
            "docker": {"credentials_uri": self.agent.url},
            "environment": {**site["environment"], "AWS_ENDPOINT_URL": address},
        }
        for mount in site.get("mounts", ()):
            mount["host"] = str(self.share)
        file = self._folder / f"{name}.yaml"
        file.write_text(yaml.safe_dump(site))
        return file

    def deploy(self, command: str, name: str, *options: str) -> str:
        done = subprocess.run(
            [sys.executable, "-m", "edge", "deploy", command, str(self.sites[name]), *options],
            env={**os.environ, "DOCKER_HOST": self.engine.host},
            capture_output=True,
            text=True,
        )
        assert done.returncode == 0, done.stderr + done.stdout
        return done.stdout

    def container(self, name: str) -> Any:
        replica = "gw-1" if name == "collector" else "0"
        return self.engine.client.containers.get(f"edge-{name}-{RUN}-{replica}")

    def status(self) -> dict[str, Any]:
        """What the collector says of itself; empty while it does not run."""
        (row,) = json.loads(self.deploy("status", "collector", "--json"))
        found: dict[str, Any] = (row["pipelines"] or {}).get("share-collector", {})
        return found

    def read(self, rows: int) -> None:
        """Wait until the collector has as many rows in its outbox, or beyond."""
        until(lambda: self.status().get("rows_read", 0) >= rows)

    def kill(self) -> None:
        """SIGKILL to all in the collector's container; Docker starts it again."""
        container = self.container("collector")
        before = container.attrs["RestartCount"]
        with contextlib.suppress(APIError):  # what kills may end with the container
            container.exec_run(["python3", "-c", "import os; os.kill(-1, 9)"])

        def is_back() -> bool:
            container.reload()
            return bool(container.attrs["RestartCount"] > before and container.status == "running")

        until(is_back)

    def stop(self) -> int:
        """SIGTERM, as an update sends it; the exit code."""
        container = self.container("collector")
        container.stop(timeout=60)
        container.reload()
        return int(container.attrs["State"]["ExitCode"])

    def second(self) -> int:
        """Exit code of a second collector on the same outbox."""
        first = self.container("collector")
        options = first.attrs["HostConfig"]
        rival = self.engine.client.containers.create(
            self._image,
            entrypoint=["python3", "-c", _IMPATIENT],
            command=first.attrs["Config"]["Cmd"],
            name=f"{NAME}second",
            environment=first.attrs["Config"]["Env"],
            volumes=options["Binds"],
            network_mode="host",
        )
        try:
            rival.start()
            return int(rival.wait(timeout=300)["StatusCode"])
        finally:
            rival.remove(force=True)


def story(hybrid: Hybrid, tell: Callable[[str], None]) -> Counter[str]:
    """All of it; what arrived, by part."""
    third = ROWS // 3
    hybrid.deploy("apply", "aggregator")
    hybrid.deploy("apply", "collector")
    write(hybrid.share, range(third))
    until(lambda: len(arrived(hybrid.cloud, "parts")) >= third)
    tell(f"{third} rows arrived; now the link is cut and the agent's credentials have expired")
    hybrid.link.set("refuse")
    hybrid.agent.left = timedelta(hours=-1)  # served with 200, as the agent of ECS does offline
    write(hybrid.share, range(third, 2 * third))
    hybrid.read(2 * third)
    hybrid.kill()
    tell(f"{third} rows wait in the outbox, and the collector was killed")
    hybrid.read(2 * third)
    taken = hybrid.link.taken
    hybrid.link.set("slow", rate=20_000)
    hybrid.agent.mend()
    until(lambda: hybrid.link.taken > taken)
    assert hybrid.stop() == 0
    tell("the link is back, and SIGTERM came in the midst of the drain")
    hybrid.link.set("up")
    hybrid.deploy("apply", "collector")
    write(hybrid.share, range(2 * third, ROWS))
    line = {"at": "2026-03-01T07:00:00Z", "station": "s1", "part": LARGE, "width": 12}
    (hybrid.share / "large.part").write_text(json.dumps(line) + "\n")
    (hybrid.share / "large.part").rename(hybrid.share / "large.ndjson")
    hybrid.kill()
    tell("the collector was killed again while it reads the rest")
    hybrid.read(ROWS + 1)
    assert hybrid.second() == 3
    tell("a second collector on its outbox was refused")
    until(lambda: len(arrived(hybrid.cloud, "parts")) >= ROWS + 1)
    return Counter(arrived(hybrid.cloud, "parts"))


def main() -> int:
    """Tell the story on this machine's engine, or one started for it; 1 if a row is not there."""
    began = time.monotonic()
    logging.getLogger("werkzeug").setLevel(logging.CRITICAL)  # it tells of every call
    with running() as engine, Cloud() as cloud, tempfile.TemporaryDirectory() as made:
        print("building the image")
        build(engine, f"{NAME}hybrid:1", engine.base(), "pipelines")
        with Hybrid(engine, f"{NAME}hybrid:1", cloud, Path(made)) as hybrid:
            found = story(hybrid, print)
    wrong = sum(found[part] != 1 for part in parts()) + len(found.keys() - parts())
    print(f"{sum(found.values())} rows arrived of {ROWS + 1}; {wrong} missing, doubled or strange")
    print(f"{time.monotonic() - began:.0f} s")
    return int(wrong > 0)


def parts() -> set[str]:
    """What the input has."""
    return {*(f"p{n}" for n in range(ROWS)), LARGE}


if __name__ == "__main__":
    sys.exit(main())
