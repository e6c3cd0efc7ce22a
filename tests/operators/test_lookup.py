"""`lookup`: what a file may look like, what is refused, and when it is read again."""

import json
import os
from collections.abc import Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import polars as pl
import pytest

from edge.component import Stream
from edge.errors import DefinitionError
from edge.operators.lookup import Lookup
from edge.pipeline import loads
from tests.operators.cases import COLUMNS
from tests.scripted import HandClock

ROWS = [
    {"device": "a", "hall": "north", "limit": 20.5},
    {"device": "b", "hall": None, "limit": 3},
]
FRAME = pl.DataFrame([{"device": name} for name in ("a", "b", "c", None)], schema=COLUMNS)
NAMES = {"columns": ["hall", "limit"]}
TYPED: dict[str, Any] = {**NAMES, "types": {"hall": "str", "limit": "float"}}


def write_csv(path: Path, rows: Sequence[dict[str, Any]] = ROWS, ends: str = "\n") -> None:
    lines = [",".join("" if v is None else str(v) for v in row.values()) for row in rows]
    path.write_bytes(ends.join([",".join(ROWS[0]), *lines, ""]).encode("utf-8-sig"))


def write(path: Path) -> None:
    """ROWS in the format that the name says."""
    match path.suffix:
        case ".csv":
            write_csv(path, ends="\r\n")
        case ".parquet":
            pl.DataFrame(ROWS).write_parquet(path)
        case ".json":
            path.write_text(json.dumps(ROWS, indent=2))
        case _:
            path.write_text("".join(json.dumps(row) + "\n" for row in ROWS))


def lookup(path: Path, **options: Any) -> Lookup:
    operator = Lookup.model_validate({"file": path.name, **(options or NAMES)})
    operator.bind(COLUMNS, Stream("ts", ("device",), path.parent))
    return operator


def found(operator: Lookup, frame: pl.DataFrame = FRAME) -> list[tuple[Any, ...]]:
    return operator.process(frame).select("device", "hall", "limit").rows()


def fault(path: Path, **options: Any) -> str:
    with pytest.raises(DefinitionError) as caught:
        lookup(path, **options)
    text = str(caught.value)
    return text.replace(f"lookup '{path}': ", "")


@pytest.mark.parametrize("options", [NAMES, TYPED, {"max_rows": 2}], ids=["named", "typed", "all"])
@pytest.mark.parametrize("ending", ["csv", "json", "ndjson", "jsonl", "parquet"])
def test_every_format_gives_the_same(tmp_path: Path, ending: str, options: Any) -> None:
    path = tmp_path / f"devices.{ending}"
    write(path)
    operator = lookup(path, **options)
    assert found(operator) == [
        ("a", "north", 20.5),
        ("b", None, 3.0),
        ("c", None, None),
        (None,) * 3,
    ]
    assert operator.process(FRAME).columns == [*COLUMNS, "hall", "limit"]


def test_what_is_not_found_goes_if_told_so(tmp_path: Path) -> None:
    write(tmp_path / "devices.csv")
    operator = lookup(tmp_path / "devices.csv", **NAMES, missing="drop")
    assert found(operator) == [("a", "north", 20.5), ("b", None, 3.0)]
    assert operator.account(4, 2) == {"filtered": 2}


def test_null_in_yaml_is_the_word_null() -> None:
    assert Lookup.model_validate({"file": "f.csv", **NAMES, "missing": None}).missing == "null"


def test_keys_may_be_numbers_times_and_several_and_have_other_names(tmp_path: Path) -> None:
    path = tmp_path / "shifts.csv"
    path.write_text("number,day,name\n1,2024-05-01T00:00:00Z,early\n2,2024-05-01T00:00:00Z,late\n")
    options = {
        "by": {"n": "number", "ts": "day"},
        "columns": {"shift": "name"},
    }
    day = datetime(2024, 5, 1, tzinfo=UTC)
    rows = [{"n": 1, "ts": day}, {"n": 2, "ts": day}, {"n": 2, "ts": None}, {"n": 3, "ts": day}]
    result = lookup(path, **options).process(pl.DataFrame(rows, schema=COLUMNS))
    assert result["shift"].to_list() == ["early", "late", None, None]


def test_text_keys_keep_their_zeros_and_numbers_are_floats_unless_declared(tmp_path: Path) -> None:
    path = tmp_path / "devices.csv"
    path.write_text("device,limit,count\n007,20,3\n7,30,4\n")
    operator = lookup(path, types={"count": "int"})
    found = operator.process(pl.DataFrame([{"device": "007"}, {"device": "7"}], schema=COLUMNS))
    assert found.select("limit", "count").rows() == [(20.0, 3), (30.0, 4)]
    assert found.schema["limit"] == pl.Float64()


def test_a_key_is_needed(tmp_path: Path) -> None:
    write(tmp_path / "devices.csv")
    with pytest.raises(DefinitionError, match="add by"):
        Lookup(file="devices.csv").bind(COLUMNS, Stream("ts", (), tmp_path))


def test_one_file_may_be_in_another_format_than_its_name_says(tmp_path: Path) -> None:
    write_csv(tmp_path / "devices.txt")
    assert fault(tmp_path / "devices.txt").endswith("got 'devices.txt'; set format")
    assert found(lookup(tmp_path / "devices.txt", **NAMES, format="csv"))[0][1] == "north"


HEAD = "device,hall,limit\n"


@pytest.mark.parametrize(
    ("text", "options", "message"),
    [
        ("", NAMES, "no rows are there"),
        (HEAD, NAMES, "no rows are there"),
        (HEAD, TYPED, "no rows are there"),
        (HEAD + "a,x\n", TYPED, "line 2: "),
        (HEAD + "a,x,1\nb,y,high\n", TYPED, "line 3: field 'limit' must be float, got \"high\""),
        (HEAD + ",x,1\nb,y,\n,z,2\n", TYPED, "line 2: field 'device' is missing, and 1 more"),
        (HEAD + "a,x,1\na,y,2\n", TYPED, "must have one row for each key, got two for 'a'"),
        (HEAD + "a,\xff,1\n", TYPED, "line 2: "),
        (HEAD + "a,x,1\nb,x,1\n", TYPED | {"max_rows": 1}, "at most max_rows 1, got 2"),
        (HEAD + "a,x,1\n", TYPED | {"max_size": "20B"}, "at most max_size 20 B, got 24 B"),
        ("device,hall\na,x\n", TYPED, "no column 'limit' is in the file, which has device, hall"),
        ("device,halls,limit\na,x,1\n", NAMES, "no column 'hall' is in the file, which has device, "
        "halls, limit; did you mean 'halls'?"),
        ("name,hall,limit\na,x,1\n", NAMES, "no column 'device' is in the file, which has name"),
    ],
)  # fmt: skip
def test_a_file_that_does_not_fit_says_where(
    tmp_path: Path, text: str, options: Any, message: str
) -> None:
    path = tmp_path / "devices.csv"
    path.write_bytes(text.encode("latin-1"))
    assert message in fault(path, **options)


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("a.json", b'{"device": "a"}', "must be json: must be an array of objects, got dict"),
        ("a.json", b'[{"device": "a"', "must be json: "),
        ("a.json", b"[]", "no rows are there"),
        (
            "a.json",
            b'[{"device": "a", "hall": "x"}]',
            "no column 'limit' is in the file in any row",
        ),
        ("a.json", b'[{"device": "a", "hall": "x", "limit": 1}, 7]', "row 2: "),
        ("a.ndjson", b'{"device": "a", "hall": "x", "limit": 1}\n{"dev', "line 2: "),
        ("a.parquet", b"PAR1", "must be parquet: "),
    ],
)
def test_a_file_that_is_broken_is_refused(
    tmp_path: Path, name: str, content: bytes, message: str
) -> None:
    (tmp_path / name).write_bytes(content)
    assert message in fault(tmp_path / name, **TYPED)


DEFINITION = """
edge: 1
name: halls
source: {dataset: {path: x.csv}}
record: {format: csv, time: ts, key: device, fields: {ts: timestamp, device: str, x: float}}
operators:
  - lookup:
      file: devices.csv
      columns: [hall]
sinks: {out: {console: {}}}
"""


def test_a_missing_file_is_a_fault_of_the_definition_with_its_line(tmp_path: Path) -> None:
    place = str(tmp_path / "halls.yaml")
    with pytest.raises(DefinitionError) as caught:
        loads(DEFINITION, place).bind(HandClock())
    assert str(caught.value) == (
        f"{place}:7: operators.0.lookup: lookup '{tmp_path}/devices.csv': cannot be read: "
        "No such file or directory; relative paths start at the definition"
    )


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"columns": {"x": "limit"}}, "{file_x: limit}"),
        ({"columns": {"z": "limit", "y": "limit"}}, "'z' is read from the same place as 'y'"),
        ({"columns": {"y": "device"}}, "'device' is read from the same place as 'y'; drop one"),
        ({"columns": {"edge_x": "limit"}}, "columns starting with 'edge_' are reserved"),
        ({"columns": "hall", "by": "devise"}, "did you mean 'device'?"),
        ({"columns": "hall", "types": {"limit": "int"}}, "types: column 'limit' is not in"),
    ],
)
def test_options_that_do_not_fit_the_rows_are_refused(
    tmp_path: Path, options: Any, message: str
) -> None:
    write(tmp_path / "devices.csv")
    assert message in fault(tmp_path / "devices.csv", **options)


def replace(path: Path, rows: Sequence[dict[str, Any]]) -> None:
    """As `mv` does."""
    other = path.with_name("new.csv")
    write_csv(other, rows)
    other.replace(path)


SOUTH = [{"device": "a", "hall": "south", "limit": 1}]


def test_a_changed_file_is_read_when_it_has_not_changed_for_a_second(tmp_path: Path) -> None:
    path = tmp_path / "devices.csv"
    write(path)
    operator = lookup(path)
    assert operator.timed
    replace(path, SOUTH)
    operator.advance(1_000_000)
    assert found(operator)[0] == ("a", "north", 20.5)
    operator.advance(1_000_000)
    assert found(operator)[0] == ("a", "south", 1.0)


def test_a_file_that_is_still_written_is_left_alone(tmp_path: Path) -> None:
    path = tmp_path / "devices.csv"
    write(path)
    operator = lookup(path)
    for length in range(20, 28):  # one more letter each second; at 24 the row looks whole
        path.write_text("device,hall,limit\na,south,10\n"[:length])
        operator.advance(1_000_000)
        assert found(operator)[0] == ("a", "north", 20.5)


@pytest.mark.parametrize(
    "content", ["device,hall,limit\na,south,1\na,west,2\n", "device,hal", None]
)
def test_a_file_that_became_bad_or_is_gone_keeps_the_old_values_and_is_told_once(
    tmp_path: Path, content: str | None, caplog: pytest.LogCaptureFixture
) -> None:
    path = tmp_path / "devices.csv"
    write(path)
    operator = lookup(path, **TYPED)
    if content is None:
        path.unlink()
    else:
        path.write_text(content)
    for _ in range(4):
        operator.advance(1_000_000)
    assert found(operator)[0] == ("a", "north", 20.5)
    [message] = caplog.messages
    assert message.startswith(f"lookup '{path}': ")
    assert message.endswith("; what was read before stays")
    replace(path, SOUTH)
    operator.advance(1_000_000)
    operator.advance(1_000_000)
    assert found(operator)[0] == ("a", "south", 1.0)


def test_types_stay_those_of_the_start(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    path = tmp_path / "devices.csv"
    write(path)
    operator = lookup(path)
    path.write_text("device,hall,limit\na,north,high\n")
    os.utime(path, (1, 1))
    operator.advance(1_000_000)
    operator.advance(1_000_000)
    assert found(operator)[0] == ("a", "north", 20.5)
    assert "line 2: field 'limit' must be" in caplog.text
