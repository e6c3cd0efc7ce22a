"""What `edge image build` makes."""

import os
import tarfile
from pathlib import Path
from shutil import copyfile

import yaml

from edge.deploy.content import aws_parts
from edge.deploy.engine import Engine as Builder
from tests.containers.conftest import Image, Network
from tests.dashboard.plant import fetch
from tests.engine import ARCHITECTURE, NAME, Engine, pack
from tests.processor import until

CONTAINERS = Path(__file__).parents[2] / "containers"


def test_everything_is_less_than_330_mb_above_the_base(image: Image) -> None:
    assert image.said["size"] - image.said["base"] < 330e6
    assert sum(layer["size"] for layer in image.said["layers"]) == image.said["size"]


def test_the_digest_is_that_of_the_engine(engine: Engine, image: Image) -> None:
    assert engine.client.images.get(image.tag).id == image.said["digest"]


def test_a_build_leaves_the_image_and_nothing_else(engine: Engine, image: Image) -> None:
    dangling = {"label": "edge.stage", "dangling": True}
    # Another worker of this run may just build an image too.
    until(lambda: engine.client.images.list(filters=dangling) == [])


def test_an_image_for_another_processor_is_built_on_this_machine(
    engine: Engine, tmp_path: Path
) -> None:
    other = "arm64" if ARCHITECTURE == "amd64" else "amd64"
    base, tag = f"{NAME}other-base:1", f"{NAME}other:1"
    (tmp_path / "etc").mkdir()
    with tarfile.open(tmp_path / "base.tar", "w") as packed:
        packed.add(tmp_path / "etc", "etc")
    with (tmp_path / "base.docker").open("w+b") as made:
        pack(tmp_path / "base.tar", base, other, made)
        engine.client.images.load(made)
    for folder in ("app", "pipelines", "state"):
        (tmp_path / "build" / folder).mkdir(parents=True)
    copyfile(CONTAINERS / "Dockerfile", tmp_path / "build" / "Dockerfile")
    Builder(engine.client).build(tmp_path / "build", tag, f"linux/{other}", {"BASE": base})
    assert engine.client.images.get(tag).attrs["Architecture"] == other


def test_the_process_gets_sigterm_itself_and_is_not_root(engine: Engine, image: Image) -> None:
    config = engine.client.images.get(image.tag).attrs["Config"]
    assert config["Entrypoint"] == ["python3", "-m", "edge"]
    assert config["StopSignal"] == "SIGTERM"
    assert config["User"] == "10001:10001"
    assert config["Volumes"] == {"/var/lib/edge": {}}


def test_boto3_knows_in_it_what_every_part_talks_to(engine: Engine, image: Image) -> None:
    services = sorted({"sts", *aws_parts().values()})
    said = engine.client.containers.run(
        image.tag,
        ["-c", f"import boto3\nfor each in {services}: print(boto3.client(each, 'eu-west-1'))"],
        entrypoint="python3",
        read_only=True,
        network_mode="none",
        remove=True,
    )
    assert said.count(b"botocore.client") == len(services)


def test_definitions_are_in_it_and_good(engine: Engine, image: Image) -> None:
    said = engine.client.containers.run(
        image.tag,
        ["check", "/pipelines/room-trend.yaml", "/pipelines/machine-temperature.yaml"],
        read_only=True,
        network_mode="none",
        remove=True,
        stderr=True,
    )
    assert said.decode().count(": good") == 2


def test_a_new_project_runs_in_it_as_it_is(engine: Engine, image: Image) -> None:
    said = engine.client.containers.run(
        image.tag,
        ["run", "--once", "/pipelines/my-plant.yaml"],
        environment={"EDGE_OUT": "/var/lib/edge/out"},
        read_only=True,
        network_mode="none",
        remove=True,
        stderr=True,
    )
    assert b"sink 'hot': link is up" in said
    assert b"pipeline 'my-plant': stopped" in said


def test_it_is_watched_as_the_compose_file_says(
    engine: Engine, image: Image, plant: Network
) -> None:
    processor = yaml.safe_load((CONTAINERS / "compose.yaml").read_text())["services"]["processor"]
    http = {k: v for k, v in processor["environment"].items() if k.startswith("EDGE_HTTP")}
    assert processor["ports"] == ["127.0.0.1:8080:8080"]
    container = engine.client.containers.run(
        image.tag,
        ["run", "/pipelines/my-plant.yaml"],
        name=f"{NAME}watched-{os.getpid()}",
        environment={"EDGE_OUT": "/var/lib/edge/out", **http},
        network=plant.name,
        read_only=True,
        cap_drop=["ALL"],
        detach=True,
    )
    try:
        until(lambda: b"http: listens on" in container.logs())
        container.reload()
        address = container.attrs["NetworkSettings"]["Networks"][plant.name]["IPAddress"]
        state = f"http://{address}:8080/state"
        assert fetch(state).status == 401
        _, said = container.exec_run(["cat", http["EDGE_HTTP_TOKEN_FILE"]])
        token = said.decode().strip()
        (pipeline,) = fetch(state, Authorization=f"Bearer {token}").json()["pipelines"]
        assert pipeline["pipeline"] == "my-plant"
        for file in ("app.js", "style.css", "uplot.js"):
            page = f"http://{address}:8080/page/{file}"
            assert fetch(page, Authorization=f"Bearer {token}").status == 200, file
        assert token.encode() not in container.logs()
    finally:
        container.remove(force=True, v=True)
