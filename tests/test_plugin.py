"""pytest finds the tests of definitions, and says what differs as `edge test` does."""

import subprocess
import sys
from pathlib import Path

DEFINITION = """\
edge: 1
name: press
source: {mqtt: {url: mqtt://localhost, topics: [plant/+]}}
record: {fields: {n: int}}
operators:
  - filter: n > 0
sinks: {lake: {file: {path: out}}}
tests:
  - {name: what is positive passes, given: [{n: 1}, {n: -1}], expect: {lake: [{n: 1}]}}
  - {name: two come, given: [{n: 1}], expect: {lake: [{n: 2}]}}
"""
OTHERS = {
    "compose.yaml": "services: {tests: {image: x}}\n",
    "site.yaml": "edge: 1\nsite: s\n",
    "broken.yaml": DEFINITION.replace("filter", "filtr"),
    "press.yaml": DEFINITION,
    "press.test.yaml": """\
edge: 1
tests:
  - name: it comes once
    steps:
      - {given: [{n: 3}], link: down, buffered: {lake: 1}}
      - {restart: true, link: up, expect: {lake: [{n: 3}]}}
""",
}


def test_each_test_of_a_definition_is_one_of_pytest_with_what_differs(tmp_path: Path) -> None:
    for name, text in OTHERS.items():
        (tmp_path / name).write_text(text)
    command = [sys.executable, "-m", "pytest", "-p", "no:cacheprovider", "-v"]
    done = subprocess.run(
        [*command, "--continue-on-collection-errors"], cwd=tmp_path, capture_output=True, text=True
    )
    lines = done.stdout.splitlines()
    assert done.returncode == 1, done.stdout
    assert any(line.startswith("press.yaml::what is positive passes PASSED") for line in lines)
    assert any(line.startswith("press.test.yaml::it comes once PASSED") for line in lines)
    assert any(line.startswith("press.yaml::two come FAILED") for line in lines)
    place = lines.index("  sink 'lake':")
    assert [lines[place + 1].strip(), lines[place + 3].strip()] == [
        "expected  n: 2",
        "differs   n: 1",
    ]
    assert "broken.yaml:6: operators.0" in done.stdout
    assert "no operator is called 'filtr'; did you mean 'filter'?" in done.stdout
    assert "1 failed, 2 passed, 1 error" in lines[-1]
