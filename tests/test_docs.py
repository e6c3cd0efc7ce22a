"""What the README says can be loaded and found; `python tests/test_docs.py` prints its table."""

import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from typer.core import TyperGroup
from typer.main import get_command

from edge.cli import application
from edge.deploy.site import read_site
from edge.pipeline import loads
from edge.pipeline.parts import KINDS

ROOT = Path(__file__).parents[1]
README = (ROOT / "README.md").read_text()
DOCUMENTS = [ROOT / "README.md", *sorted(ROOT.glob("docs/**/*.md"))]
TABLE = re.compile(r"(?<=-->\n).*(?=<!-- end of parts -->)", re.DOTALL)

# What a block that shows one section is laid over.
AROUND = {
    "edge": "edge: 1\n",
    "name": "name: example\n",
    "source": "source: {mqtt: {url: mqtt://localhost:1883, topics: ['sensors/+/climate']}}\n",
    "record": "record: {time: ts, fields: {ts: timestamp_ms, device: str, temp: float}}\n",
    "sinks": "sinks: {screen: {console: {}}}\n",
}


def blocks(language: str) -> Iterator[tuple[str, str]]:
    for document in DOCUMENTS:
        text = document.read_text()
        for match in re.finditer(rf"^```{language}\n(.*?)^```$", text, re.DOTALL | re.MULTILINE):
            line = text.count("\n", 0, match.start()) + 1
            yield f"{document.name}:{line}", match[1]


def whole(block: str) -> str:
    there = set(re.findall(r"^(\w+):", block, re.MULTILINE))
    return "".join(text for key, text in AROUND.items() if key not in there) + block


def table_of_parts() -> str:
    """A row for every part: its name, its kind, the first line of its docstring."""
    rows = ["| part | kind | what it does |", "| --- | --- | --- |"]
    for kind in KINDS:
        for name in kind.table:
            part = kind.find(name)
            text = str(part.__doc__).splitlines()[0]
            rows.append(f"| `{name}` | {kind.word} | {text} |")
    return "\n".join(rows) + "\n"


@pytest.mark.parametrize(("place", "block"), [*blocks("yaml")])
def test_every_yaml_block_is_a_definition_or_a_site_that_loads(place: str, block: str) -> None:
    if re.search(r"^image:", block, re.MULTILINE):
        assert read_site(block, place, {}).pipelines
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
    (file,) = tmp_path.glob("out/**/*.ndjson")
    assert file.read_text().count("\n") == 1


def test_the_table_of_parts_has_every_part() -> None:
    shown = TABLE.search(README)
    assert shown is not None
    assert shown[0] == table_of_parts(), "paste what `python tests/test_docs.py` prints"


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
    print(table_of_parts(), end="")
