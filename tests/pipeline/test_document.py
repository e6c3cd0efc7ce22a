"""YAML is read as YAML 1.2, variables as text, and what is no YAML is told in one line."""

import pytest

from edge.pipeline import loads
from tests.pipeline.press import FILE, GOOD, faults

NOT_A_DEFINITION = [
    ("", ": is empty; start with `edge: 1` and a `name:`"),
    ("# nothing\n", ": is empty; start with `edge: 1` and a `name:`"),
    ("- a\n", ":1: must be a mapping that starts with `edge: 1`, got a list"),
    ("press", ":1: must be a mapping that starts with `edge: 1`, got 'press'"),
    (
        "a: 1\n---\nb: 2\n",
        ":2: is not YAML: must hold one definition, got a second one after '---'",
    ),
    (
        "a: b: c\n",
        ":1: is not YAML: a second ': ' in one line; quote the text, or start a new line",
    ),
    ("a:\n\t- b\n", ":2: is not YAML: a tab cannot indent; use spaces"),
    (
        "a:\n    x: 1\n  y: 2\n",
        ":3: is not YAML: a key that is not in the column of the keys above; "
        "start all of one level in one column",
    ),
    (
        "a:\n  - x\n - y\n",
        ":3: is not YAML: a dash that is not in the column of the dashes above; "
        "start a list's items in one column",
    ),
    (
        "a:\n  x: 1\n    y: 2\n",
        ":3: is not YAML: a key further in than the line above, which has no ':' at its end; "
        "align the two",
    ),
    (
        "a:\n  - x: 1\n  y: 2\n",
        ":3: is not YAML: a key among the items of a list; give it a dash, or move it out",
    ),
    (
        "a:\n  x: 1\n  - y: 2\n",
        ":3: is not YAML: a dash among keys; give each line above a dash too, or indent this one",
    ),
    (
        "a: {m}/readings\n",
        ":1: is not YAML: text after a closing quote or bracket; quote the whole value",
    ),
    ("a: 1\nb\nc: 2\n", ":2: is not YAML: a line that is neither `key: value` nor `- item`"),
    ("a: 'x\nb: 1\n", ":1: is not YAML: a quote that is never closed"),
    (
        "a: [x, 1\nb: 2\n",
        ":1: is not YAML: a [ that is not closed, or a comma or quote is missing in it; "
        "texts with : { } [ ] , need quotes",
    ),
    ("a: @x\n", ":1: is not YAML: a value cannot start with % @ or `; quote it"),
    ('a: "\\d"\n', ":1: is not YAML: a backslash in double quotes; use single quotes"),
    ("a: *b\n", ":1: is not YAML: found undefined alias 'b'"),
    ("a: \0\n", ": has a character that YAML forbids, got '\\x00'"),
    ("[" * 5000, ": is nested too deeply"),
    ("x" * (2**20 + 1), ": must be at most 1 MiB, got 1048577 characters"),
]


@pytest.mark.parametrize(("text", "expected"), NOT_A_DEFINITION)
def test_what_is_no_definition_is_told_in_one_line(text: str, expected: str) -> None:
    assert faults(text) == [FILE + expected]


@pytest.mark.parametrize(("text", "place"), [(r'a: "x\0y"', "a: "), (r'"\ud800": 1', "")])
def test_what_no_path_and_no_topic_can_hold_is_told(text: str, place: str) -> None:
    got = r"'\x00'" if place else r"'\ud800'"
    assert f"{FILE}:1: {place}has a character that no text can have, got {got}" in faults(text)


def test_aliases_cannot_unfold_without_end() -> None:
    bomb = "a0: &a0 [x, x]\n"
    bomb += "".join(f"a{n}: &a{n} [*a{n - 1}, *a{n - 1}]\n" for n in range(1, 40))
    assert faults(bomb) == [f"{FILE}: aliases unfold to more than 50000 values"]
    assert f"{FILE}:1: a.0: is an alias of what it lies in; write it out" in faults("a: &a [*a]\n")


def test_scalars_are_those_of_yaml_1_2() -> None:
    row = "{a: on, b: 1:30, c: 2024-01-01, d: 0777, e: True, f: 1e3, g: ~, h: .5, i: 0x1F, j: '1'}"
    text = GOOD.replace("given: [{temperature: 90}]", f"given: [{row}]")
    (given,) = loads(text, FILE, {}).tests[0].given

    assert given == {
        "a": "on", "b": "1:30", "c": "2024-01-01", "d": 777, "e": True, "f": 1000.0, "g": None,
        "h": 0.5, "i": 31, "j": "1",
    }  # fmt: skip


def test_variables_are_replaced_in_values_only_and_never_change_the_structure() -> None:
    text = GOOD.replace("url: mqtt://localhost:1883", "url: mqtt://${HOST}:${PORT:-1883}")
    text = text.replace("prefix: readings/", "prefix: $${HOST}/")
    text = text.replace("rows: 10000", "rows: '${ROWS}'").replace("true", "${ID}")
    text = text.replace("queue: plant-alarms", "queue: ${QUEUE:-alarms}")
    pipeline = loads(text, FILE, {"HOST": "broker", "ROWS": "7", "ID": "false", "QUEUE": ""})

    assert str(pipeline.source.url) == "mqtt://broker:1883"  # type: ignore[attr-defined]
    assert pipeline.sinks["lake"].sink.prefix == "${HOST}/"  # type: ignore[attr-defined]
    assert pipeline.batch.rows == 7
    assert pipeline.sinks["alarms"].identity is False
    assert pipeline.sinks["alarms"].sink.queue == "alarms"  # type: ignore[attr-defined]

    injected = faults(text, {"HOST": "a", "ROWS": "7\nsite: b", "ID": "no", "QUEUE": "q"})
    assert injected == [f"{FILE}:53: batch.rows: must be a whole number, got '7\\nsite: b'"]
