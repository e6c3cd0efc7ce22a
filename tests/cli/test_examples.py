"""test: the `tests:` of a definition, and what is said when they fail."""

import json
from pathlib import Path
from xml.etree import ElementTree

import pytest

from tests.cli.conftest import Edge

ROOT = Path(__file__).parents[2]
GIVEN = """
    given:
      - {ts: 1700000000000, device: a, temperature: 20.5}
      - {ts: 1700000001000, device: b, temperature: 90}
"""
GOOD = f"""
tests:
  - name: all rows in both units
{GIVEN}
    expect:
      lake:
        - {{device: b, fahrenheit: 194}}
        - {{device: a, ts: "2023-11-14T22:13:20Z", fahrenheit: 68.9}}
      hot: [{{temperature: 90.0}}]
  - name: a row without sense is nowhere
    given: [{{ts: 1700000000000, device: a, temperature: -3}}]
    expect: {{lake: [], hot: []}}
  - name: text is no temperature
    given: [{{ts: 1700000000000, device: a, temperature: warm}}]
    expect:
      rejected: [{{reason: "field 'temperature' must be float, got \\"warm\\""}}]
"""
BAD = f"""
tests:
  - name: two rows too few and one too many
{GIVEN}
    ordered: true
    expect:
      lake: [{{device: b}}, {{device: a}}]
      hot: [{{temperature: 91.0}}]
  - name: one that passes
{GIVEN}
    expect: {{hot: [{{}}]}}
"""


def test_tests_that_pass_are_told_and_counted(edge: Edge, press: Path) -> None:
    press.write_text(press.read_text() + GOOD)
    done = edge("test", press)
    assert done.code == 0, done.out
    assert done.err.splitlines()[-1] == "3 passed, 0 failed"
    assert not (press.parent / "state").exists()


def test_a_failure_shows_what_was_expected_and_what_came_nearest(edge: Edge, press: Path) -> None:
    press.write_text(press.read_text() + BAD)
    done = edge("test", press)
    assert done.code == 1
    assert "tests.0: two rows too few and one too many: FAILED" in done.err
    assert done.err.splitlines()[-1] == "1 passed, 1 failed"
    lines = [line.strip() for line in done.out.splitlines()]
    assert "sink 'lake':" in lines
    assert "expected  device: 'b'" in lines
    place = lines.index("sink 'hot':")
    assert lines[place + 1] == "expected  temperature: 91.0"
    assert lines[place + 2].startswith("nearest   ts: '2023-11-14T22:13:21.000000Z', temperature")
    assert lines[place + 3] == "differs   temperature: 90.0"
    assert lines[place + 4].startswith("extra     ")


def test_tests_can_be_chosen_and_read_by_programs(edge: Edge, press: Path, tmp_path: Path) -> None:
    press.write_text(press.read_text() + BAD)
    done = edge("test", tmp_path, "--json", "--junit", tmp_path / "junit.xml")
    assert [(each["name"], each["passed"]) for each in json.loads(done.out)] == [
        ("two rows too few and one too many", False),
        ("one that passes", True),
    ]
    suite = ElementTree.parse(tmp_path / "junit.xml").getroot()[0]
    assert (suite.get("tests"), suite.get("failures")) == ("2", "1")
    [failure] = suite.iter("failure")
    assert "expected  temperature: 91.0" in (failure.text or "")
    assert edge("test", press, "-k", "passes").code == 0


def test_no_test_at_all_is_a_mistake(edge: Edge, press: Path) -> None:
    done = edge("test", press)
    assert done.code == 2
    assert "no test was found; add `tests:` to a definition, or widen -k" in done.err


def test_a_test_of_a_sink_that_is_not_there_is_a_fault_of_the_definition(
    edge: Edge, press: Path
) -> None:
    press.write_text(press.read_text() + "tests:\n  - {name: x, given: [], expect: {lak: []}}\n")
    for command in ("test", "check"):
        done = edge(command, press)
        assert done.code == 2
        said = "tests.0.expect.lak: must be a sink or 'rejected', got 'lak'; has lake, hot"
        assert f"press.yaml:26: {said}" in done.err


def test_what_windows_hold_back_comes_out_at_the_end(edge: Edge, press: Path) -> None:
    window = "  - window: {size: 10s, aggregate: {n: COUNT(*)}}\nsinks:\n"
    text = press.read_text().replace("sinks:\n", window).partition("  hot:")[0]
    expect = "    expect: {lake: [{device: a, n: 1}, {device: b, n: 1}]}\n"
    press.write_text(f"{text}\ntests:\n  - name: windows\n{GIVEN}{expect}")
    done = edge("test", press)
    assert done.code == 0, done.out


@pytest.mark.parametrize("file", sorted((ROOT / "pipelines").glob("*.yaml")), ids=lambda f: f.stem)
def test_every_example_has_tests_that_pass(edge: Edge, file: Path) -> None:
    done = edge("test", file)
    assert done.code == 0, done.out
