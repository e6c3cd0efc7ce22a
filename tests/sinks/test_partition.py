"""How rows are cut into files, and what the files are called."""

import io
from datetime import date
from pathlib import Path
from typing import Any
from urllib.parse import unquote

import polars as pl
import pytest
from hypothesis import given
from hypothesis import strategies as st

from edge.codec import encode as encode_rows
from edge.errors import DefinitionError
from edge.outbox.model import Parcel
from edge.outbox.packed import sent_bytes
from edge.sinks import split_id
from edge.sinks.file import FileSink
from edge.sinks.partition import MAX_PARTITIONS, NULL
from tests.sinks.places import OUTBOX, PATH, STREAM, bound, rows


def sink(columns: pl.Schema | None = None, **options: Any) -> FileSink:
    settings = {name: options.pop(name) for name in ("identity", "stream") if name in options}
    made = bound(FileSink(path="out", **options), columns, **settings)
    assert isinstance(made, FileSink)
    return made


def sent(parcel: Parcel) -> bytes:
    return b"".join(sent_bytes(parcel.body, parcel.attributes))


def test_without_partitions_all_rows_are_one_file() -> None:
    (parcel,) = sink().encode(rows(12)).parcels
    assert parcel.key == f"{PATH}/{OUTBOX}-1-12.ndjson"
    assert (parcel.first, parcel.last, parcel.rows) == (1, 12, 12)
    assert sent(parcel) == encode_rows(rows(12), "ndjson", "none")


def test_each_partition_is_a_file_without_its_columns() -> None:
    parcels = sink(partition=["line"]).encode(rows(12)).parcels
    assert [parcel.key for parcel in parcels] == [
        f"{PATH}/line=l1/{OUTBOX}-1-10.ndjson",
        f"{PATH}/line=l2/{OUTBOX}-2-11.ndjson",
        f"{PATH}/line=l0/{OUTBOX}-3-12.ndjson",
    ]
    expected = rows(12).filter(pl.col("line") == "l1").drop("line")
    assert sent(parcels[0]) == encode_rows(expected, "ndjson", "none")


def test_date_is_the_utc_day_of_the_event_time() -> None:
    night = 86_400_000_000
    frame = rows(2).with_columns(ts=pl.Series([night - 1, night]).cast(pl.Datetime("us", "UTC")))
    parcels = sink(partition=["date"]).encode(frame).parcels
    days = [parcel.key.removeprefix(f"{PATH}/").split("/")[0] for parcel in parcels]
    assert days == ["date=1970-01-01", "date=1970-01-02"]


def test_a_column_called_date_comes_before_the_event_time() -> None:
    frame = rows(1).with_columns(date=pl.lit(date(2024, 5, 1)))
    (parcel,) = sink(frame.schema, partition=["date"]).encode(frame).parcels
    assert "/date=2024-05-01/" in parcel.key


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (None, NULL),
        ("", NULL),
        ("a/b=c", "a%2Fb%3Dc"),
        ("100%", "100%25"),
        ("two words", "two words"),
        ("größe", "größe"),
        ("..", ".."),
        (True, "true"),
        (7, "7"),
        (0.5, "0.5"),
    ],
)
def test_a_value_is_escaped_as_hive_does(value: object, text: str) -> None:
    frame = rows(1).with_columns(x=pl.lit(value))
    (parcel,) = sink(frame.schema, partition=["x"]).encode(frame).parcels
    assert parcel.key == f"{PATH}/x={text}/{OUTBOX}-1-1.ndjson"


def test_a_timestamp_names_a_folder_as_json_writes_it() -> None:
    (parcel,) = sink(partition=["ts"]).encode(rows(1)).parcels
    assert unquote(parcel.key) == f"{PATH}/ts=1970-01-01T00:00:01.000000Z/{OUTBOX}-1-1.ndjson"


@given(st.lists(st.one_of(st.none(), st.text(max_size=40)), min_size=1, max_size=80))
def test_every_row_is_in_exactly_one_place(values: list[str | None]) -> None:
    frame = rows(len(values)).with_columns(x=pl.Series(values, dtype=pl.String))
    encoded = sink(frame.schema, partition=["x"], format="parquet").encode(frame)
    left = [] if encoded.rest is None else encoded.rest["edge_id"].to_list()
    found: dict[str, str | None] = {}
    for parcel in encoded.parcels:
        folder = parcel.key.split("/")[3]
        text = unquote(folder.removeprefix("x="))
        for row in pl.read_parquet(io.BytesIO(parcel.body))["edge_id"]:
            found[row] = None if text == NULL else text
    expected = {row: value or None for row, value in frame.select("edge_id", "x").iter_rows()}
    refused = sum(refusal.rows for refusal in encoded.refused)
    assert len(found) + len(left) + refused == frame.height
    assert all(expected[row] == value for row, value in found.items())


def test_rows_beyond_64_partitions_wait_for_the_next_rolling() -> None:
    frame = rows(200, lines=100)
    files = sink(partition=["line"])
    first = files.encode(frame)
    assert len(first.parcels) == MAX_PARTITIONS
    assert [parcel.first for parcel in first.parcels] == list(range(1, 65))
    assert first.rest is not None
    assert first.rest.columns == frame.columns
    sequences = [split_id(row).sequence for row in first.rest["edge_id"]]
    assert sequences == [*range(65, 101), *range(165, 201)]
    second = files.encode(first.rest)
    assert second.rest is None
    assert sum(parcel.rows for parcel in (*first.parcels, *second.parcels)) == 200


def test_a_value_too_long_for_a_folder_is_refused_alone() -> None:
    frame = rows(3).with_columns(x=pl.Series(["a", "b" * 300, "c"]))
    encoded = sink(frame.schema, partition=["x"]).encode(frame)
    assert [parcel.first for parcel in encoded.parcels] == [1, 3]
    (refusal,) = encoded.refused
    assert (refusal.first, refusal.last, refusal.rows) == (2, 2, 1)
    assert refusal.reason.startswith("partition: its values give a key too long to store")


def test_without_identity_the_rows_have_no_id() -> None:
    (parcel,) = sink(identity=False).encode(rows(1)).parcels
    assert b"edge_id" not in sent(parcel)


@pytest.mark.parametrize("values", [None, [[1]] * 3])
def test_rows_from_before_a_partition_was_declared_are_delivered_too(values: Any) -> None:
    frame = rows(3) if values is None else rows(3).with_columns(pl.Series("shift", values))
    columns = pl.Schema({**rows(1).schema, "shift": pl.Int64})
    (parcel,) = sink(columns, partition=["shift"]).encode(frame).parcels
    assert parcel.key == f"{PATH}/shift={NULL}/{OUTBOX}-1-3.ndjson"
    assert parcel.rows == 3


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (
            {"partition": ["line", "line"]},
            "partition: must name a column once, got line, line",
        ),
        (
            {"partition": ["nowhere"]},
            "partition.0: column 'nowhere' is not among the columns, which are edge_id, ts, line,"
            " value",
        ),
        (
            {"partition": ["date"], "stream": STREAM._replace(time="gone")},
            "partition.0: 'date' is the day of the event time, but 'gone' is no timestamp among"
            " the columns, which are edge_id, ts, line, value; keep it or name another column",
        ),
        (
            {"partition": ["edge_id", "ts", "line", "value"], "identity": False},
            "partition: must leave a column for the rows; keep one or the identity",
        ),
    ],
)
def test_a_partition_that_cannot_be_is_named(options: dict[str, Any], message: str) -> None:
    with pytest.raises(DefinitionError) as caught:
        sink(**options)
    assert str(caught.value) == message


def test_a_nested_column_names_no_folder(tmp_path: Path) -> None:
    frame = rows(1).with_columns(x=pl.Series([[1, 2]]))
    with pytest.raises(DefinitionError, match="cannot name a folder"):
        sink(frame.schema, partition=["x"])
