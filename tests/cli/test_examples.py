"""test: the `tests:` of a definition, and what is said when they fail."""

import json
import os
import signal
import subprocess
import sys
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


def test_each_test_is_told_when_it_is_done(edge: Edge, press: Path) -> None:
    press.write_text(press.read_text() + GOOD)
    (press.parent / "second.yaml").write_text("edge: 1\nsinks: {}\ntests: []\n")
    done = edge("test", press, press.with_name("second.yaml"))
    assert done.code == 2
    assert done.err.splitlines()[2].endswith("text is no temperature: passed")
    assert "second.yaml:1: name: is missing" in done.err


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


FILE = """\
edge: 1
tests:
  - name: one that is hot waits
    steps:
      - {link: {hot: down}, given: [{ts: 1700000000000, device: a, temperature: 90}]}
      - {expect: {hot: [{temperature: 90}]}}
"""


def test_tests_in_a_file_beside_a_definition_are_run_with_it(edge: Edge, press: Path) -> None:
    press.write_text(press.read_text() + GOOD)
    press.with_name("press.test.yaml").write_text(FILE)
    done = edge("test", press)
    assert done.code == 1
    assert done.err.splitlines()[-1] == "3 passed, 1 failed"
    assert [line.strip() for line in done.out.splitlines()] == [
        "after step 1:",
        "sink 'hot':",
        "expected  temperature: 90",
        "nearest   nothing else came",
        "note      rows buffered: 1, the link is down",
    ]
    assert edge("test", press.with_name("press.test.yaml")).err.endswith("0 passed, 1 failed\n")


def test_a_file_of_tests_elsewhere_names_its_definition_and_its_variables(
    edge: Edge, press: Path, tmp_path: Path
) -> None:
    press.write_text(press.read_text().replace("temperature > 80", "temperature > ${LIMIT}"))
    (tmp_path / "more").mkdir()
    file = tmp_path / "more" / "limit.test.yaml"
    expect = FILE.replace("{hot: down}", "{hot: up}").replace(
        "edge: 1", "definition: ../press.yaml"
    )
    file.write_text(expect)
    done = edge("test", file)
    assert done.code == 2
    assert "the environment has no LIMIT" in done.err
    file.write_text(f"environment: {{LIMIT: '89'}}\n{expect}")
    assert edge("test", tmp_path / "more").code == 0


def test_what_is_wrong_in_a_file_of_tests_has_its_line(edge: Edge, press: Path) -> None:
    file = press.with_name("press.test.yaml")
    for wrong, said in (
        (
            FILE.replace("hot: down", "cold: down"),
            ":5: tests.0.steps.0.link.cold: must be a sink, ",
        ),
        (FILE.replace("expect:", "expct:"), ":6: tests.0.steps.1: no option is called 'expct'; "),
    ):
        file.write_text(wrong)
        done = edge("test", file)
        assert done.code == 2
        assert f"press.test.yaml{said}" in done.err
    file.with_name("other.test.yaml").write_text(FILE)
    done = edge("test", file.with_name("other.test.yaml"))
    assert "definition: is missing, and there is no other.yaml beside" in done.err


def test_what_is_hidden_or_no_definition_is_not_looked_at(edge: Edge, press: Path) -> None:
    press.write_text(press.read_text() + GOOD)
    (press.parent / ".venv").mkdir()
    (press.parent / ".venv" / "bad.yaml").write_text("sinks: []\n")
    (press.parent / "compose.yaml").write_text("services: {}\n")
    done = edge("test", press.parent)
    assert (done.code, done.err.splitlines()[-1]) == (0, "3 passed, 0 failed")


def test_a_folder_is_run_and_built_without_its_tests(press: Path) -> None:
    from edge.deploy.content import _copy_definitions
    from edge.pipeline.reading import definition_files

    press.with_name("press.test.yaml").write_text(FILE)
    assert definition_files([press.parent]) == [press]
    assert definition_files([press, press.parent, press.parent / "." / press.name]) == [press]
    image = press.parent / "image"
    image.mkdir()
    _copy_definitions(image, [press.parent])
    assert [file.name for file in image.glob("*.yaml")] == ["press.yaml"]


def test_watched_tests_run_again_after_a_change_and_ctrl_c_ends_them(press: Path) -> None:
    press.write_text(press.read_text() + GOOD)
    command = [sys.executable, "-m", "edge", "test", "--watch", str(press)]
    with subprocess.Popen(command, stderr=subprocess.PIPE, text=True) as process:
        assert process.stderr is not None
        said = iter(process.stderr.readline, "")
        assert "3 passed, 0 failed\n" in said
        assert next(said) == "waits for a change; Ctrl-C ends\n"
        changed = press.with_name(".press")
        changed.write_text(press.read_text().replace("b, fahrenheit: 194", "b, fahrenheit: 195"))
        changed.replace(press)
        assert "2 passed, 1 failed\n" in said
        assert next(said) == "waits for a change; Ctrl-C ends\n"
        process.send_signal(signal.SIGINT)
        assert next(said) == "stopped\n"
        assert process.wait() == 0


def test_ctrl_c_while_watched_tests_run_is_told_once(tmp_path: Path) -> None:
    slow = tmp_path / "slow.py"
    slow.write_text(
        "import sys, time\n"
        "try:\n"
        "    print('here', file=sys.stderr, flush=True)\n"
        "    while True: time.sleep(0.05)\n"
        "finally: print('put away', file=sys.stderr, flush=True)\n"
    )
    command = [sys.executable, "-m", "edge", "test", "--watch", str(slow)]
    with subprocess.Popen(
        command, stderr=subprocess.PIPE, text=True, start_new_session=True
    ) as process:
        assert process.stderr is not None
        assert process.stderr.readline() == "here\n"
        os.killpg(process.pid, signal.SIGINT)  # a terminal tells the whole group
        assert process.stderr.read() == "put away\nstopped\n"
    assert process.returncode == 0
