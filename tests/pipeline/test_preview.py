"""A preview shows, step by step, what a run would deliver."""

from pathlib import Path

import orjson
import polars as pl
import pytest

import edge
from edge.codec import rows_as_json
from edge.examples import _found

DEFINITION = """\
name: press
source: {mqtt: {url: mqtt://localhost, topics: ["plant/{device}"]}}
record:
  time: ts
  key: device
  fields: {ts: timestamp_ms, temp: {type: float, path: T}, note: optional str}
operators:
  - filter: temp > 0
  - derive: {double: temp * 2}
sinks:
  lake: {file: {path: out}}
  hot:
    operators:
      - window: {size: 1m, late: late, aggregate: {peak: MAX(temp)}}
    when: peak > 80
    file: {path: out}
  late: {file: {path: out}}
"""
ROWS = [
    {"device": "a", "ts": 1700000000000, "T": 90.0},
    {"device": "a", "ts": 1700000300000, "T": 20.0},
    {"device": "a", "ts": 1700000000000, "T": 30.0},
    {"device": "a", "ts": 1700000300000, "T": -1.0},
]
STEPS = [
    ("source", 4),
    ("common/filter", 3),
    ("common/derive", 3),
    ("lake", 3),
    ("hot/window", 2),
    ("hot/when", 1),
    ("hot", 1),
    ("late", 1),
]


def press() -> edge.Pipeline:
    return edge.loads(DEFINITION, "press.yaml", {})


def heights(seen: edge.Preview) -> list[tuple[str, int]]:
    return [(name, frame.height) for name, frame in seen.items()]


def test_every_step_has_its_frame_from_payloads_and_from_a_frame_alike() -> None:
    assert heights(press().preview(ROWS)) == STEPS
    seen = press().preview(pl.DataFrame(ROWS))
    assert heights(seen) == STEPS
    assert seen["hot"]["peak"].to_list() == [90.0]
    assert seen["lake"].columns == ["ts", "temp", "note", "device", "double"]
    assert seen["common/derive"]["double"].to_list() == [180.0, 40.0, 60.0]


def test_what_the_record_refuses_is_told_with_its_reason() -> None:
    for rows, reason in (
        ([*ROWS, {"ts": 1, "T": "warm"}], "field 'temp' must be float, got \"warm\""),
        (pl.DataFrame([*ROWS, {"ts": 1, "T": None}]), "field 'temp' is missing"),
    ):
        seen = press().preview(rows)
        assert heights(seen) == STEPS
        assert seen.rejected["reason"].to_list() == [reason]
        assert reason in repr(seen)


def test_a_preview_remembers_nothing_for_the_next() -> None:
    pipeline = press()
    assert heights(pipeline.preview(ROWS)) == heights(pipeline.preview(ROWS)) == STEPS


def test_no_rows_show_the_columns_of_every_step() -> None:
    seen = press().preview([])
    assert [name for name, _ in STEPS] == list(seen)
    assert seen["hot"].columns == ["device", "ts", "window_end", "peak"]


def test_a_notebook_gets_a_line_for_every_step_and_no_markup_of_others() -> None:
    seen = press().preview([{"device": "<b>", "ts": 1700000000000, "T": 90}, {"T": "<i>"}])
    html = seen._repr_html_()
    assert html.count("<details>") == len(STEPS) + 1
    assert "<summary>hot/when: 1 rows</summary>" in html
    assert "<b>&" not in html
    assert "<i>" not in html


@pytest.mark.parametrize("file", sorted(Path("pipelines").glob("*.yaml")), ids=lambda f: f.stem)
def test_a_preview_ends_in_what_a_run_delivers(file: Path) -> None:
    pipeline = edge.load(file, {})
    for example in pipeline.tests:
        seen, found = pipeline.preview(example.given), _found(pipeline, example)
        for sink in pipeline.sinks:
            rows = [orjson.loads(row) for row in rows_as_json(seen[sink])]
            assert rows == found.get(sink, []), sink
