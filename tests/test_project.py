"""What `edge new` makes runs, tests and goes into an image as it is."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
import yaml
from jsonschema import Draft202012Validator
from paho.mqtt import publish

from edge.deploy.site import load_site
from edge.deploy.workload import load_workload
from edge.errors import DefinitionError
from edge.pipeline.document import parse
from edge.project import KINDS, Origin, create
from tests.broker import Broker
from tests.cli.conftest import Edge, edge
from tests.cloud import Cloud
from tests.processor import Processor, until

__all__ = ["edge"]
ORIGINS = sorted(KINDS)
every_origin = pytest.mark.parametrize("origin", ORIGINS)


def definition(project: Path) -> Path:
    return project / "pipelines" / f"{project.name}.yaml"


def delivered(project: Path, sink: str) -> list[str]:
    files = project.glob(f"out/local/{project.name}/{sink}/**/*.*")
    whole = [file for file in sorted(files) if not file.name.startswith(".")]
    return [line for file in whole for line in file.read_text().splitlines()]


@every_origin
def test_a_new_project_checks_tests_and_says_what_is_next(
    edge: Edge, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, origin: Origin
) -> None:
    monkeypatch.chdir(tmp_path)
    done = edge("new", "my-plant", "--from", origin)
    assert done.code == 0, done.err
    assert "my-plant/pipelines/my-plant.yaml" in done.out.splitlines()
    assert [line.strip() for line in done.err.splitlines()[1:4]] == [
        "Next:",
        "cd my-plant",
        "edge test pipelines tests",
    ]
    monkeypatch.chdir("my-plant")
    assert edge("check", "pipelines/my-plant.yaml").code == 0
    said = edge("test", ".")
    assert said.code == 0, said.out
    assert said.err.splitlines()[-1] == "3 passed, 0 failed"
    assert not [path for path in Path().rglob("*") if "@" in path.name]
    texts = [path.read_text() for path in Path().rglob("*") if path.is_file()]
    assert not [text for text in texts if "@name@" in text or "@version@" in text]


def test_pytest_runs_the_tests_of_a_new_project(tmp_path: Path) -> None:
    create(tmp_path / "my-plant", "mqtt")
    command = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider"]
    done = subprocess.run(command, cwd=tmp_path / "my-plant", capture_output=True, text=True)
    assert done.returncode == 0, done.stdout
    assert "3 passed" in done.stdout


def test_a_project_of_files_runs_to_its_end(tmp_path: Path) -> None:
    create(tmp_path / "my-plant", "dataset")
    project = tmp_path / "my-plant"
    command = [sys.executable, "-m", "edge", "run", "--once", "pipelines/my-plant.yaml"]
    done = subprocess.run(command, cwd=project, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert len(delivered(project, "hours")) == 1 + 2 * 6
    assert len(delivered(project, "hot")) == 3


def test_a_project_of_a_broker_runs(tmp_path: Path) -> None:
    create(tmp_path / "my-plant", "mqtt")
    project = tmp_path / "my-plant"
    around = {"EDGE_STATE_DIR": str(tmp_path / "var"), "EDGE_OUT": str(project / "out")}
    with Broker(tmp_path / "broker") as broker:
        processor = Processor(definition(project), BROKER=broker.url, **around)
        with processor.running(b"connected"):
            payload = json.dumps({"ts": 1767261600000, "temperature": 90})
            topic = "plant/l1/press-1/telemetry"
            publish.single(topic, payload, qos=1, hostname="127.0.0.1", port=broker.port)
            until(lambda: delivered(project, "hot"))
    assert '"device":"press-1"' in delivered(project, "hot")[0]


def test_a_project_of_a_queue_runs(cloud: Cloud, tmp_path: Path) -> None:
    create(tmp_path / "my-plant", "sqs")
    project = tmp_path / "my-plant"
    url = cloud.make_queue("my-plant")
    row = {"at": "2026-01-01T10:00:00Z", "station": "s1", "part": "p1", "width": 13.5}
    cloud.client("sqs").send_message(QueueUrl=url, MessageBody=json.dumps(row))
    around = {"EDGE_STATE_DIR": str(tmp_path / "var"), "AWS_ENDPOINT_URL": cloud.url}
    with Processor(definition(project), **around).running():
        until(lambda: delivered(project, "outside"))
    assert '"part":"p1"' in delivered(project, "outside")[0]


@every_origin
def test_its_site_takes_its_pipeline_and_its_compose_file_names_its_image(
    tmp_path: Path, origin: Origin
) -> None:
    create(tmp_path / "my-plant", origin)
    site = load_site(tmp_path / "my-plant/deploy/sites/site-1.yaml", {})
    ((pipeline,),) = load_workload(site).pipelines.values()
    assert pipeline.name == "my-plant"
    compose = yaml.safe_load((tmp_path / "my-plant/containers/compose.yaml").read_text())
    processor = compose["services"]["processor"]
    assert processor["image"] == "${EDGE_IMAGE:-my-plant:1}"
    assert processor["environment"]["EDGE_OUT"].startswith("/var/lib/edge/")
    # As in the compose file that tests/containers runs: for this machine alone, behind a token.
    ours = yaml.safe_load(Path("containers/compose.yaml").read_text())["services"]["processor"]
    assert processor["ports"] == ours["ports"] == ["127.0.0.1:8080:8080"]
    page = {name: value for name, value in ours["environment"].items() if "HTTP" in name}
    assert len(page) == 2
    assert page.items() <= processor["environment"].items()
    assert (tmp_path / "my-plant/containers/Dockerfile").read_text().count("\nFROM ") == 2


@every_origin
def test_editors_find_the_schema_that_its_files_name(tmp_path: Path, origin: Origin) -> None:
    create(tmp_path / "my-plant", origin)
    others = "deploy/sites/site-1.yaml", "tests/my-plant.test.yaml"
    files = [definition(tmp_path / "my-plant"), *(tmp_path / "my-plant" / name for name in others)]
    for file in files:
        first = file.read_text().splitlines()[0]
        said, _, named = first.partition("=")
        assert said == "# yaml-language-server: $schema"
        schema = json.loads((file.parent / named).read_text())
        document, _ = parse(str(file), file.read_text(), {}, first="edge")
        validator = Draft202012Validator(schema)
        assert [error.message for error in validator.iter_errors(_plain(document.values))] == []


def _plain(values: object) -> object:
    return json.loads(json.dumps(values))


def test_a_folder_that_is_not_empty_is_left_alone(edge: Edge, tmp_path: Path) -> None:
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "notes").write_text("mine")
    done = edge("new", tmp_path / "mine")
    assert done.code == 2
    assert done.err == f"{tmp_path}/mine: is there already and not empty; choose another name\n"
    assert os.listdir(tmp_path) == ["mine"]
    assert os.listdir(tmp_path / "mine") == ["notes"]


def test_a_folder_that_is_empty_is_taken(tmp_path: Path) -> None:
    (tmp_path / "mine").mkdir()
    assert Path("pipelines/mine.yaml") in create(tmp_path / "mine", "sqs")


@pytest.mark.parametrize("name", ["My_Plant", "a" * 64, "-plant"])
def test_a_name_that_no_pipeline_may_have_is_refused(tmp_path: Path, name: str) -> None:
    with pytest.raises(DefinitionError, match="must end in 1 to 63 characters"):
        create(tmp_path / name, "mqtt")
    assert os.listdir(tmp_path) == []


def test_a_project_that_cannot_be_made_whole_leaves_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def cut_off(*_: object, **__: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr("edge.project.site_schema", cut_off)
    with pytest.raises(KeyboardInterrupt):
        create(tmp_path / "my-plant", "mqtt")
    assert os.listdir(tmp_path) == []
