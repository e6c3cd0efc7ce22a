"""`lookup`: what it takes for a table, and what happens when that changes."""

import logging
from collections.abc import Callable
from pathlib import Path
from typing import Any

import polars as pl
import pytest

import edge.operators.lookup
from edge.component import Stream
from edge.errors import DefinitionError
from edge.operators.lookup import Lookup

COLUMNS = pl.Schema({"device": pl.String(), "n": pl.Int64(), "edge_received": pl.Int64()})
ROWS = pl.DataFrame({"device": ["a", "b", None], "n": [1, 2, 3], "edge_received": [0, 0, 0]})
TABLE = pl.DataFrame({"device": ["a", "b"], "line": ["l1", None], "limit": [20, 30]})


@pytest.fixture(autouse=True)
def _looks_at_every_batch(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(edge.operators.lookup, "_LOOK_EVERY", 0.0)


def lookup(folder: Path, **options: Any) -> Lookup:
    operator = Lookup.model_validate({"file": "t.csv", **options})
    operator.bind(COLUMNS, Stream(key=("device",), folder=folder))
    return operator


def replace(path: Path, text: str) -> None:
    """As a writer should: beside it, then renamed."""
    beside = path.with_suffix(".new")
    beside.write_text(text)
    beside.rename(path)


WRITERS: dict[str, Callable[[Path], object]] = {
    "csv": TABLE.write_csv,
    "ndjson": TABLE.write_ndjson,
    "json": TABLE.write_json,
    "parquet": TABLE.write_parquet,
}


@pytest.mark.parametrize("form", WRITERS)
def test_a_row_gets_the_columns_of_its_key(tmp_path: Path, form: str) -> None:
    WRITERS[form](tmp_path / f"t.{form}")
    found = lookup(tmp_path, file=f"t.{form}").process(ROWS)
    assert found.select("device", "line", "limit").rows() == [
        ("a", "l1", 20),
        ("b", None, 30),
        (None, None, None),
    ]


def test_names_may_differ_and_keys_take_the_type_of_the_rows(tmp_path: Path) -> None:
    (tmp_path / "t.csv").write_text("id,name\n1,one\n2,two\n")
    operator = Lookup(file="t.csv", by={"n": "id"}, columns={"title": "name"}, missing="drop")
    operator.bind(COLUMNS, Stream(folder=tmp_path))
    assert operator.process(ROWS).select("n", "title").rows() == [(1, "one"), (2, "two")]
    assert operator.account(3, 2) == {"filtered": 1}


def test_a_changed_file_is_read_again(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    replace(tmp_path / "t.csv", "device,limit\na,20\n")
    operator = lookup(tmp_path)
    assert operator.process(ROWS)["limit"].to_list() == [20, None, None]
    replace(tmp_path / "t.csv", "device,limit\na,21\nb,31\n")
    with caplog.at_level(logging.INFO):
        assert operator.process(ROWS)["limit"].to_list() == [21, 31, None]
    assert "was read again, 2 rows" in caplog.text


@pytest.mark.parametrize(
    ("text", "said"),
    [
        (None, "No such file"),
        ("device,limit\na,20\na,21\n", "the key a is there more than once"),
        ("device,limit\na,high\n", "conversion"),
        ("device,lim", "column 'limit' is not in"),
        ("", "empty"),
    ],
    ids=["gone", "twice", "type", "half", "empty"],
)
def test_what_cannot_be_used_leaves_the_table_as_it_was(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, text: str | None, said: str
) -> None:
    file = tmp_path / "t.csv"
    replace(file, "device,limit\na,20\n")
    operator = lookup(tmp_path)
    if text is None:
        file.unlink()
    else:
        replace(file, text)
    for _ in range(3):
        assert operator.process(ROWS)["limit"].to_list() == [20, None, None]
    [warning] = [record.getMessage() for record in caplog.records]
    assert "the table stays as it was" in warning
    assert said in warning
    replace(file, "device,limit\na,22\n")
    assert operator.process(ROWS)["limit"].to_list() == [22, None, None]


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"file": "none.csv"}, "none.csv cannot be used"),
        ({"file": "t.xlsx"}, "the ending must be one of .csv, .ndjson, .json, .parquet"),
        ({"columns": ["limt"]}, "column 'limt' is not in the batch, which has device, limit, n"),
        ({"columns": ["n"]}, "column 'n' is there already; give it another name such as"),
        ({"by": "devise"}, "column 'devise' is not in the batch"),
        ({"by": {"n": "device"}}, "its keys must be int as column 'n' is, got str"),
        ({"columns": {"edge_x": "limit"}}, "reserved"),
        ({"max_size": "10B"}, "max_size is 10B"),
    ],
)
def test_what_cannot_work_is_refused_at_the_start(
    tmp_path: Path, options: dict[str, Any], said: str
) -> None:
    for name in ("t.csv", "t.xlsx"):
        (tmp_path / name).write_text("device,limit,n\na,20,1\n")
    with pytest.raises(DefinitionError) as error:
        lookup(tmp_path, **{"columns": ["limit"], **options})
    assert said in str(error.value)
