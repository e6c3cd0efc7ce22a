"""The image under test, built once, and the networks that its containers stand in."""

import fcntl
import json
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

import pytest
from docker.errors import ImageNotFound

from edge.project import create
from tests.engine import NAME, Engine

TAG = f"{NAME}processor:1"


class Image(NamedTuple):
    """tag; said: what `edge image build --json` printed of it, empty where another worker built."""

    tag: str
    said: dict[str, Any]


@pytest.fixture(scope="session")
def image(engine: Engine, tmp_path_factory: pytest.TempPathFactory) -> Image:
    """Of the folder `pipelines/` and of a new project, for this machine."""
    with (Path(engine.client.info()["DockerRootDir"]).parent / "image").open("a+") as noted:
        fcntl.flock(noted, fcntl.LOCK_EX)  # another worker of this run may build it now
        try:
            engine.client.images.get(TAG)
        except ImageNotFound:
            project = tmp_path_factory.mktemp("project") / "my-plant"
            create(project, "dataset")
            noted.truncate(0)
            folders = "pipelines", str(project / "pipelines")
            noted.write(build(engine, TAG, engine.base(), *folders))
            noted.flush()
        noted.seek(0)
        return Image(TAG, json.loads(noted.read())[0])


def build(engine: Engine, tag: str, base: str, *arguments: str) -> str:
    """What the command prints with `--json`."""
    command = [sys.executable, "-m", "edge", "image", "build", "--json"]
    done = subprocess.run(
        [*command, "--tag", tag, "--base", base, *arguments],
        env={**os.environ, "DOCKER_HOST": engine.host},
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


class Network(NamedTuple):
    """name; gateway: the address of this machine in it. Nothing else can be reached from it."""

    name: str
    gateway: str

    @classmethod
    def make(cls, engine: Engine, name: str) -> "Network":
        made = engine.client.networks.create(f"{NAME}{name}-{os.getpid()}", internal=True)
        made.reload()
        return cls(made.name, made.attrs["IPAM"]["Config"][0]["Gateway"])


@pytest.fixture(scope="session")
def plant(engine: Engine) -> "Iterator[Network]":
    """Where sensors and broker are."""
    yield (network := Network.make(engine, "plant"))
    engine.client.networks.get(network.name).remove()


@pytest.fixture(scope="session")
def away(engine: Engine) -> "Iterator[Network]":
    """Behind which the cloud is."""
    yield (network := Network.make(engine, "away"))
    engine.client.networks.get(network.name).remove()
