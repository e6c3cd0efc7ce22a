"""What the documents say holds; `python -m tests.test_docs` writes docs/parts.md."""

import inspect
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
import yaml
from jsonschema import Draft202012Validator
from typer.core import TyperGroup
from typer.main import get_command

from edge.cli import application
from edge.cli.parts import options
from edge.deploy.site import read_site
from edge.pipeline import loads, schema
from edge.pipeline.parts import KINDS

ROOT = Path(__file__).parents[1]
README = (ROOT / "README.md").read_text()
DOCUMENTS = [ROOT / "README.md", *sorted(ROOT.glob("docs/**/*.md"))]
WRITTEN = [path for path in DOCUMENTS if path.name != "parts.md"]
"""Documents whose blocks stand for themselves; those of parts are tried where their classes are."""
PARTS = ROOT / "docs" / "parts.md"

# What a block that shows one section is laid over.
AROUND = {
    "edge": "edge: 1\n",
    "name": "name: example\n",
    "source": "source: {mqtt: {url: mqtt://localhost:1883, topics: ['sensors/+/climate']}}\n",
    "record": "record: {time: ts, fields: {ts: timestamp_ms, device: str, temp: float}}\n",
    "sinks": "sinks: {screen: {console: {}}}\n",
}


BLOCK = re.compile(r"^```(\w*)\n(.*?)^```$", re.DOTALL | re.MULTILINE)


def blocks(language: str) -> Iterator[tuple[str, str]]:
    """Where each block of a language begins, `README.md:49`, and its text."""
    for document in WRITTEN:
        text = document.read_text()
        for match in BLOCK.finditer(text):
            if match[1] == language:
                line = text.count("\n", 0, match.start()) + 1
                yield f"{document.name}:{line}", match[2]


def whole(block: str) -> str:
    there = set(re.findall(r"^(\w+):", block, re.MULTILINE))
    return "".join(text for key, text in AROUND.items() if key not in there) + block


def reference() -> str:
    """What docs/parts.md has to be: every part by kind, as `edge describe` has it."""
    parts = [(kind.word, name, kind.find(name)) for kind in KINDS for name in kind.table]
    lines = [
        "# Parts",
        "",
        "Sources, operators and sinks, each with its options, as `edge describe NAME` prints them.",
        "",
        "| part | kind | what it does |",
        "| --- | --- | --- |",
    ]
    for word, name, part in parts:
        lines.append(f"| [`{name}`](#{word}-{name}) | {word} | {first_line(part)} |")
    for word, name, part in parts:
        lines += ["", f"## {word} `{name}`", "", inspect.cleandoc(str(part.__doc__)), ""]
        lines += ["| option | type | default | meaning |", "| --- | --- | --- | --- |"]
        for row in options(part):
            cells = (" ".join(cell.split()).replace("|", "\\|") for cell in row)
            lines.append("| " + " | ".join(cells) + " |")
    return "\n".join(lines) + "\n"


def first_line(part: type) -> str:
    return str(part.__doc__).splitlines()[0]


@pytest.mark.parametrize(("place", "block"), [*blocks("yaml")])
def test_every_yaml_block_loads_as_what_it_is(place: str, block: str) -> None:
    if re.search(r"^image:", block, re.MULTILINE):
        assert read_site(block, place, {}).pipelines
        return
    if re.search(r"^definition:", block, re.MULTILINE):
        Draft202012Validator(schema.tests_schema()).validate(yaml.safe_load(block))
        return
    pipeline = loads(whole(block), str(ROOT / "README.md"), {})
    assert pipeline.sinks, place


@pytest.mark.parametrize(("place", "block"), [*blocks("python")])
def test_every_python_block_runs(place: str, block: str, tmp_path: Path) -> None:
    (tmp_path / "readings").mkdir()
    rows = "time,device,pressure\n2024-05-01T12:00:00Z,a,7.5\n2024-05-01T12:01:00Z,a,-1\n"
    (tmp_path / "readings" / "a.csv").write_text(rows)
    command = [sys.executable, "-c", block]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, timeout=60)
    assert done.returncode == 0, f"{place}: {done.stderr}"
    if "edge.run(" in block:
        (file,) = tmp_path.glob("out/**/*.ndjson")
        assert file.read_text().count("\n") == 1


def test_the_reference_of_parts_is_what_the_classes_say() -> None:
    assert PARTS.read_text() == reference(), "write it with `python -m tests.test_docs`"


def test_the_readme_names_every_part() -> None:
    named = re.search(r"^### Parts$(.*?)^#", README, re.DOTALL | re.MULTILINE)
    assert named is not None
    known = {f"{kind.word}-{name}" for kind in KINDS for name in kind.table}
    assert set(re.findall(r"docs/parts\.md#([\w-]+)", named[1])) == known


def test_the_readme_names_every_command_and_no_other() -> None:
    group = get_command(application())
    assert isinstance(group, TyperGroup)
    named = set(re.findall(r"`edge ([a-z]+)", README))
    assert named == set(group.commands)


def test_links_lead_somewhere() -> None:
    for document in DOCUMENTS:
        for target in re.findall(r"\]\((?!https?:|#)([^)#]+)", document.read_text()):
            assert (document.parent / target).exists(), f"{document.name}: {target}"


def test_every_fault_names_the_test_that_makes_it_happen() -> None:
    rows = re.findall(r"^\|.*\|$", (ROOT / "docs" / "faults.md").read_text(), re.MULTILINE)
    faults = [row for row in rows if not row.startswith(("| fault ", "| ---"))]
    assert faults
    for row in faults:
        named = re.findall(r"`(tests/[\w/]+\.py)::(test_\w+)(?:\[(.+?)\])?`", row)
        assert named, row
        for file, test, case in named:
            text = (ROOT / file).read_text()
            assert f"def {test}(" in text, f"{file}::{test}"
            assert not case or f'"{case}"' in text, f"{file}::{test}[{case}]"


def test_the_readme_can_be_read_in_one_sitting() -> None:
    assert README.count("\n") < 400


if __name__ == "__main__":
    PARTS.write_text(reference())
