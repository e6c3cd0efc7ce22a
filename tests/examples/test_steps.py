"""A test in steps plays on the real intake, outbox and links, in time that only it moves."""

from pathlib import Path
from textwrap import indent

import pytest

from edge.errors import DefinitionError
from edge.examples import Result, run_examples
from edge.pipeline import load
from edge.pipeline.example import Example, Step

DEFINITION = """\
edge: 1
name: press
source: {mqtt: {url: mqtt://localhost, topics: ["plant/{device}"]}}
record:
  time: ts
  key: device
  fields: {ts: timestamp, temp: float}
sinks:
  minutes:
    operators:
      - window: {size: 1m, idle: 30s, aggregate: {n: COUNT(*), mean: AVG(temp)}}
    s3: {bucket: lake}
  hot:
    when: temp > 80
    sqs: {queue: alarms}
tests:
  - name: it
    steps:
"""
AT = "2030-05-01T10:00:"


def row(second: int, temp: object) -> str:
    return f'{{device: a, ts: "{AT}{second:02}Z", temp: {temp}}}'


def played(folder: Path, steps: str, definition: str = DEFINITION) -> Result:
    file = folder / "press.yaml"
    file.write_text(definition + indent(steps, "      "))
    [result] = run_examples(load(file))
    return result


def test_a_window_closes_when_its_idle_time_has_gone_by(tmp_path: Path) -> None:
    steps = f"""\
- given: [{row(0, 20)}, {row(1, 30)}]
  expect: {{minutes: []}}
- wait: 29s
  expect: {{minutes: []}}
- wait: 2s
  expect: {{minutes: [{{device: a, n: 2, mean: 25}}]}}
- wait: 5m
  expect: {{minutes: [], hot: []}}
"""
    assert played(tmp_path, steps) == Result("tests.0", "it", ())


def test_an_hour_goes_by_in_a_moment(tmp_path: Path) -> None:
    result = played(
        tmp_path, f"- given: [{row(0, 20)}]\n- wait: 1h\n  expect: {{minutes: [{{}}]}}\n"
    )
    assert result.passed


def test_rows_wait_while_the_link_is_down_and_go_once_it_is_up(tmp_path: Path) -> None:
    steps = f"""\
- link: {{hot: down}}
  given: [{row(0, 90)}]
  expect: {{hot: []}}
  buffered: {{hot: 1}}
- wait: 1m
  given: [{row(1, 91)}]
  expect: {{hot: []}}
  buffered: {{hot: 2, minutes: 0}}
- link: up
  expect: {{hot: [{{temp: 90}}, {{temp: 91}}]}}
  buffered: {{hot: 0}}
- expect: {{hot: []}}
"""
    assert played(tmp_path, steps).problem is None
    assert played(tmp_path, steps).passed


def test_what_operators_remember_and_what_waits_outlives_a_restart(tmp_path: Path) -> None:
    steps = f"""\
- link: down
  given: [{row(0, 90)}]
- restart: true
  given: [{row(1, 70)}]
  buffered: {{hot: 1}}
- restart: true
  link: up
  wait: 1m
  expect:
    hot: [{{temp: 90}}]
    minutes: [{{n: 2, mean: 80}}]
"""
    assert played(tmp_path, steps) == Result("tests.0", "it", ())


def test_the_first_step_that_fails_is_told_with_what_waits(tmp_path: Path) -> None:
    steps = f"""\
- given: [{row(0, 70)}]
- link: down
  given: [{row(1, 90)}]
  expect: {{hot: [{{temp: 90}}]}}
- expect: {{hot: [{{temp: 1}}]}}
"""
    result = played(tmp_path, steps)
    assert (result.step, result.problem) == (1, None)
    [difference] = result.differences
    assert difference.missing == [({"temp": 90}, None)]
    assert difference.note == "rows buffered: 1, the link is down"


def test_a_row_that_was_delivered_twice_or_never_named_does_not_pass_unseen(tmp_path: Path) -> None:
    steps = f"- given: [{row(0, 90)}]\n- expect: {{hot: []}}\n"
    [difference] = played(tmp_path, steps).differences
    assert [row["temp"] for row in difference.extra] == [90]


def test_how_many_wait_is_told_when_it_is_another_number(tmp_path: Path) -> None:
    result = played(tmp_path, f"- given: [{row(0, 90)}]\n  buffered: {{hot: 3}}\n")
    assert result.problem == "sink 'hot': rows buffered: 0, expected 3"


def test_rejected_payloads_are_expected_in_their_step(tmp_path: Path) -> None:
    steps = f"""\
- given: [{row(0, "warm")}]
  expect: {{rejected: [{{reason: "field 'temp' must be float, got \\"warm\\""}}]}}
- given: [{row(0, 20)}]
  expect: {{rejected: []}}
"""
    assert played(tmp_path, steps).passed


def test_rows_that_an_operator_fails_on_fail_the_test(tmp_path: Path) -> None:
    (tmp_path / "mine.py").write_text(
        "def divide(frame):\n    1 / (frame['temp'][0] - 90)\n    return frame\n"
    )
    definition = DEFINITION.replace(
        "sinks:\n", "operators:\n  - python: {function: mine.py:divide}\nsinks:\n"
    )
    result = played(tmp_path, f"- given: [{row(0, 90)}]\n", definition)
    assert result.step == 0
    assert result.problem is not None
    assert result.problem.startswith("1 rows failed in operators: ")
    assert "ZeroDivisionError" in result.problem


def test_what_the_real_sink_refuses_is_not_delivered(tmp_path: Path) -> None:
    file = tmp_path / "press.yaml"
    file.write_text(
        DEFINITION.replace("temp: float", "temp: float, note: str").partition("tests:")[0]
    )
    given = [
        {"device": "a", "ts": f"{AT}00Z", "temp": 90 + n, "note": "x" * n * 600_000} for n in (1, 2)
    ]
    step = Step(given=given, expect={"hot": [{"temp": 91}]}, buffered={"hot": 0})
    tests = (Example(name="it", steps=(step,)),)
    assert run_examples(load(file).model_copy(update={"tests": tests}))[0].passed


FILES = """\
edge: 1
name: press
source: {dataset: {path: "*.csv"}}
record: {format: csv, time: ts, fields: {ts: timestamp, temp: float}}
operators:
  - window: {size: 1m, aggregate: {n: COUNT(*)}}
sinks: {minutes: {file: {path: out}}}
tests:
  - name: it
    steps:
"""


def test_what_is_held_back_comes_out_when_the_files_end(tmp_path: Path) -> None:
    steps = f"""\
- given: [{row(0, 1)}]
  expect: {{minutes: []}}
- end: true
  expect: {{minutes: [{{n: 1}}]}}
"""
    assert played(tmp_path, steps, FILES).passed


NO_END = "19: tests.0.steps.0.end: this source never ends by itself; let time go by with `wait`"
TOO_LATE = "12: tests.0.steps.1.given: come after the files have ended; move `end` behind them"
NO_SINK = "19: tests.0.steps.0.link.cold: must be a sink, got 'cold'; has minutes, hot"
NO_UNIT = "19: tests.0.steps.0.wait: must be a duration such as 30s or 5m, got 5"


@pytest.mark.parametrize(
    ("definition", "steps", "said"),
    [
        (DEFINITION, "- {end: true}\n", NO_END),
        (FILES, "- {end: true}\n- {given: [{}]}\n", TOO_LATE),
        (DEFINITION, "- {link: {cold: down}}\n", NO_SINK),
        (DEFINITION, "- {wait: 5}\n", NO_UNIT),
    ],
)
def test_a_step_that_cannot_be_is_a_fault_with_its_line(
    tmp_path: Path, definition: str, steps: str, said: str
) -> None:
    with pytest.raises(DefinitionError) as raised:
        played(tmp_path, steps, definition)
    assert str(raised.value) == f"{tmp_path}/press.yaml:{said}"


def test_numbers_may_be_off_by_a_tolerance_for_all_or_by_column(tmp_path: Path) -> None:
    plain = DEFINITION.replace("    steps:\n", "")
    for tolerance, passes in (
        ("0.5", True),
        ("0.1", False),
        ("{temp: 0.5}", True),
        ("{mean: 1}", False),
    ):
        text = f"    given: [{row(0, 90.4)}]\n    expect: {{hot: [{{temp: 90}}]}}\n"
        (tmp_path / "press.yaml").write_text(f"{plain}{text}    tolerance: {tolerance}\n")
        assert run_examples(load(tmp_path / "press.yaml"))[0].passed is passes, tolerance
