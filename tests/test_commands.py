"""Every command of the documents is run, or has a test of its own that runs it."""

import json
import os
import re
import shlex
import signal
import subprocess
import sys
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import pytest
from typer.core import TyperGroup
from typer.main import get_command

from edge.cli import application
from tests.broker import Broker
from tests.cli.conftest import Edge, edge
from tests.processor import Processor, until
from tests.test_docs import BLOCK, DOCUMENTS, ROOT, blocks

__all__ = ["edge"]

CLIMATE = "tests/test_commands.py::test_the_first_pipeline_of_the_readme_runs_as_it_is_written"
SITE = "tests/deploy/test_page.py::test_from_an_empty_account_to_a_running_site"
HOSTS = "tests/deploy/test_page.py::test_a_host_comes_stands_in_and_goes"
LOCAL = "tests/containers/test_local.py::test_a_site_is_applied_changed_and_taken_back"
IMAGE = "tests/containers/test_image.py::test_a_new_project_runs_in_it_as_it_is"
MANIFESTS = "tests/deploy/test_kubernetes.py::test_plan_writes_manifests_apart_from_policies"
ELSEWHERE: Mapping[tuple[str, str], str] = {
    # A broker, an engine or an account stands where these say `localhost`, a tag or a number.
    ("README.md", "edge check climate.yaml"): CLIMATE,
    ("README.md", "mosquitto_pub"): CLIMATE,
    ("troubleshooting.md", "edge status FILE"): CLIMATE,
    ("troubleshooting.md", "edge tap climate.yaml"): CLIMATE,
    ("watch.md", "pip install"): CLIMATE,
    ("README.md", "make run"): "tests/test_demo.py::test_the_demo_delivers_every_row_once",
    ("README.md", "edge image build"): LOCAL,
    ("docker.md", "edge image build"): LOCAL,
    ("docker.md", "make hybrid"): "tests/containers/test_hybrid.py::test_each_row_of_the_share",
    ("containers.md", "edge image build"): IMAGE,
    ("containers.md", "docker compose"): "tests/containers/test_image.py::test_it_is_watched",
    ("deploy.md", "REGISTRY="): SITE,
    ("hosts.md", "edge host activate"): HOSTS,
    ("hosts.md", "sh host.sh"): "tests/deploy/test_hosts.py::test_one_script_serves_several_hosts",
    ("hosts.md", "edge host standby"): HOSTS,
    ("hosts.md", "edge host drain"): HOSTS,
    ("kubernetes.md", "edge deploy plan"): MANIFESTS,
    # Nothing of ours: programs of a cluster and an account, which no test has.
    ("kubernetes.md", "kubectl label node"): "",
    ("kubernetes.md", "aws iam create-role"): "",
}
"""Page and first words of each block that does not run by itself in an empty folder: its test."""

COMMAND = re.compile(r"^(edge|make|pip|docker|kubectl|aws|sh|mosquitto_pub) ", re.MULTILINE)


def place_of(page: str, block: str) -> tuple[str, str] | None:
    """The place in ELSEWHERE that a block has."""
    found = [key for key in ELSEWHERE if key[0] == page and block.startswith(key[1])]
    return found[0] if found else None


def pages_with_commands() -> Iterator[tuple[str, str]]:
    """All blocks of a page that run by themselves in one: what one made is there for the next."""
    commands: dict[str, list[str]] = {}
    for place, block in blocks("sh"):
        page = place.partition(":")[0]
        if place_of(page, block) is None:
            commands.setdefault(page, []).append(block)
    return ((page, "\n".join(of)) for page, of in commands.items())


@pytest.mark.parametrize(("page", "commands"), [*pages_with_commands()])
def test_the_commands_of_a_page_run_one_after_the_other(
    page: str, commands: str, tmp_path: Path
) -> None:
    path = f"{Path(sys.executable).parent}:{os.environ['PATH']}"
    done = subprocess.run(
        ["bash", "-euo", "pipefail", "-c", commands],
        cwd=tmp_path,
        env={**os.environ, "PATH": path},
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, f"{page}: {done.stdout}{done.stderr}"


def test_what_does_not_run_by_itself_has_a_test_that_is_there() -> None:
    there = {place_of(place.partition(":")[0], block) for place, block in blocks("sh")}
    assert set(ELSEWHERE) == there - {None}
    for named in filter(None, ELSEWHERE.values()):
        file, _, test = named.partition("::")
        assert f"def {test}" in (ROOT / file).read_text(), named


def test_blocks_of_commands_say_that_they_are() -> None:
    assert [place for place, block in blocks("") if COMMAND.search(block)] == []


def lines_of(page: str, *first: str) -> list[list[str]]:
    """The words of each line of the blocks of a page that begin so, up to `|` or a comment."""
    found = [
        block
        for place, block in blocks("sh")
        if place.startswith(f"{page}:") and block.startswith(first)
    ]
    lines = "".join(found).splitlines()
    return [shlex.split(line.partition("|")[0], comments=True) for line in lines]


def test_the_first_pipeline_of_the_readme_runs_as_it_is_written(
    edge: Edge, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    looked_at, whole = [text for place, text in blocks("yaml") if place.startswith("README")][:2]
    file = tmp_path / "climate.yaml"
    check, run = lines_of("README.md", "edge check")
    (publish,) = lines_of("README.md", "mosquitto_pub")
    _, watch = lines_of("watch.md", "pip install")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("EDGE_STATE_DIR", str(tmp_path / "var"))
    with Broker(tmp_path / "broker") as broker:
        publish += ["-p", str(broker.port)]

        file.write_text(looked_at.replace(":1883", f":{broker.port}"))
        assert edge(*check[1:]).code == 0
        assert run == ["edge", "run", file.name]
        with Processor(file).running(b"connected") as process:
            subprocess.run(publish, check=True)
            until(lambda: came(edge, "screen"))
            process.send_signal(signal.SIGINT)
            assert process.wait() == 0

        file.write_text(whole.replace(":1883", f":{broker.port}"))
        assert edge("explain", file.name).code == 0
        assert watch[-1] == file.name
        options = [word.replace(":8080", ":0") for word in watch[2:-1]]
        with Processor(file, *options).running(b"connected"):
            subprocess.run(publish, check=True)
            until(lambda: came(edge, "archive"))
            for words in lines_of("troubleshooting.md", "edge status", "edge tap"):
                asked = [word.replace("FILE", file.name) for word in words[1:]]
                done = edge(*asked, *(["--for", "10ms"] if asked[0] == "tap" else []))
                assert done.code == 0, f"{words}: {done.err}"


def came(edge: Edge, sink: str) -> bool:
    """Whether a row for the sink is in the outbox, or has been."""
    said = json.loads(edge("status", "climate.yaml", "--json").out)["climate"]
    rows = said["sinks"].get(sink, {"buffered_rows": 0, "delivered_rows": 0})
    return bool(rows["buffered_rows"] + rows["delivered_rows"])


def commands() -> Iterator[tuple[str, list[str]]]:
    """The words of every `edge ...` of the documents, in blocks and in sentences."""
    for document in [*DOCUMENTS, ROOT / "edge/project/template/any/README.md"]:
        text = document.read_text()
        lines = [line for _, block in BLOCK.findall(text) for line in block.splitlines()]
        sentences = re.sub(r"\s*\n\s*", " ", BLOCK.sub("", text))
        for said in [*lines, *re.findall(r"`(edge [^`]+)`", sentences)]:
            for part in re.split(r"[|;>]|&&", re.sub(r"\s#.*", "", said)):
                words = re.sub(r"^\s*(\w+=\S+ )*", "", part).split()
                if len(words) > 1 and words[0] == "edge":
                    yield document.name, [word.strip("[],") for word in words[1:]]


def test_every_command_that_is_named_is_there_with_its_options() -> None:
    named, program = list(commands()), get_command(application())
    assert len(named) > 100
    assert [f"{page}: {words}" for page, words in named if not is_known(program, words)] == []


def is_known(command: Any, words: list[str]) -> bool:
    """Whether a command line names commands and options that there are."""
    options = {name for parameter in command.params for name in parameter.opts}
    for word in words:
        if word.startswith("-"):
            if word.partition("=")[0] not in {*options, "--install-completion"}:
                return False
        elif isinstance(command, TyperGroup):
            if word not in command.commands:
                return False
            command = command.commands[word]
            options = {name for parameter in command.params for name in parameter.opts}
    return True
