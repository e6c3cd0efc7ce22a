"""What payloads become and what files are made of rows."""

import csv
import gzip
import io
import json
import sys
import time
from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from typing import Any

import orjson
import polars as pl
import pytest
from hypothesis import given
from hypothesis import strategies as st
from polars.testing import assert_frame_equal
from pydantic import ValidationError

from edge.codec import (
    TIMESTAMP,
    Decoded,
    Record,
    encode,
    extension,
    pack,
    rows_as_json,
    unpack,
)
from edge.errors import DefinitionError
from tests.search import examples

FIELDS: dict[str, Any] = {
    "ts": "optional timestamp_ms",
    "at": "optional timestamp",
    "device": "optional str",
    "temperature": {"type": "float", "path": "d.temp", "optional": True},
    "count": "optional int",
    "nanos": "optional timestamp_ns",
    "good": "optional bool",
}
QUICK = {name: field for name, field in FIELDS.items() if name not in ("nanos", "good")}
READING = b'{"ts":1700000000000,"device":"a","d":{"temp":21.5},"count":3,"good":true}'
MOMENT = datetime(2023, 11, 14, 22, 13, 20, tzinfo=UTC)


def decode(payloads: Sequence[bytes], **record: Any) -> Decoded:
    return Record(**record).decoder().decode(payloads)


def read_as(size: str, patch: pytest.MonkeyPatch) -> None:
    """From now on payloads are read as in a batch of another size: `medium` or `large`."""
    patch.setattr("edge.codec.few.MOST", 0)
    patch.setattr("edge.codec.objects.MANY", 0 if size == "large" else 1000)


@pytest.fixture(params=["small", "medium", "large"])
def every_way(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    """Payloads read as in batches of each size."""
    if request.param != "small":
        read_as(request.param, monkeypatch)


def rows(payload: bytes, **record: Any) -> list[dict[str, Any]]:
    decoded = decode([payload], **record)
    assert not decoded.rejects
    return decoded.frame.to_dicts()


def reason(payload: bytes, **record: Any) -> str:
    decoded = decode([payload], **record)
    assert decoded.frame.height == 0
    return decoded.rejects[0][1]


# What a payload may hold


def test_a_reading_becomes_typed_columns() -> None:
    fields = {"ts": "timestamp_ms", "device": "str", "t": {"type": "float", "path": "d.temp"}}
    decoder = Record(fields=fields, time="ts", key="device").decoder()
    assert decoder.columns == pl.Schema({"ts": TIMESTAMP, "device": pl.String, "t": pl.Float64})
    decoded = decoder.decode([READING, READING])
    assert decoded.frame.rows() == [(MOMENT, "a", 21.5)] * 2
    assert decoded.frame.schema == decoder.columns
    assert decoded.origin is None


@pytest.mark.usefixtures("every_way")
@pytest.mark.parametrize(
    ("kind", "value", "became"),
    [
        ("int", "5", 5),
        ("int", "5.0", 5),
        ("int", "-9223372036854775808", -(2**63)),
        ("float", "5", 5.0),
        ("float", "1e3", 1000.0),
        ("str", '"x"', "x"),
        ("str", "17", "17"),
        ("str", "true", "true"),
        ("str", r'"\u0000\ud83d\ude00"', "\0😀"),
        ("int", "9007199254740993", 9007199254740993),
        ("int", "-9007199254740993", -9007199254740993),
        ("bool", "true", True),
        ("json", '{"a":[1,"x"]}', '{"a":[1,"x"]}'),
        ("json", '"x"', '"x"'),
        ("timestamp", '"2023-11-14T22:13:20Z"', MOMENT),
        ("timestamp", '"2023-11-14T22:13:20"', MOMENT),
        ("timestamp", '"2023-11-14 22:13:20.000001"', MOMENT + timedelta(microseconds=1)),
        ("timestamp", '"2023-11-15T00:13:20+02:00"', MOMENT),
        ("timestamp", '"2023-11-14T22:13Z"', MOMENT - timedelta(seconds=20)),
        ("timestamp", '"20231114T221320Z"', MOMENT),
        ("timestamp_s", "1700000000", MOMENT),
        ("timestamp_s", "1700000000.000001", MOMENT + timedelta(microseconds=1)),
        ("timestamp_ms", "1700000000000", MOMENT),
        ("timestamp_us", "1700000000000001", MOMENT + timedelta(microseconds=1)),
        ("timestamp_ns", "1700000000000001999", MOMENT + timedelta(microseconds=1)),
        ("timestamp_s", "0", datetime(1970, 1, 1, tzinfo=UTC)),
    ],
)
def test_a_type_takes_what_it_says(kind: str, value: str, became: object) -> None:
    assert rows(b'{"x":%s}' % value.encode(), fields={"x": kind}) == [{"x": became}]


@pytest.mark.usefixtures("every_way")
@pytest.mark.parametrize(
    ("kind", "value", "said"),
    [
        ("int", "4.7", "field 'x' must be int, got 4.7"),
        ("int", "true", "field 'x' must be int, got true"),
        ("int", '"5"', "field 'x' must be int, got \"5\""),
        ("int", "9223372036854775808", "field 'x' must be int, got 9223372036854775808"),
        ("float", "false", "field 'x' must be float, got false"),
        ("float", '"1.5"', "field 'x' must be float, got \"1.5\""),
        ("bool", "1", "field 'x' must be bool, got 1"),
        ("str", "[1]", "field 'x' must be str, got [1]"),
        ("str", '{"a":1}', "field 'x' must be str, got {\"a\":1}"),
        ("float", "null", "field 'x' is missing"),
        ("json", "null", "field 'x' is missing"),
        ("timestamp", "1700000000", "field 'x' must be an ISO 8601 time, got \"1700000000\""),
        ("timestamp", "20240101", "must be an ISO 8601 time"),
        ("timestamp", '"soon"', "field 'x' must be an ISO 8601 time, got \"soon\""),
        ("timestamp", '"2024-02-30T00:00:00Z"', "must be an ISO 8601 time"),
        ("timestamp_s", "1700000000000", "must be seconds between 1970 and 2200"),
        ("timestamp_ms", "-1", "must be milliseconds between 1970 and 2200, got -1"),
        ("timestamp_ns", "1700000000.5", "must be whole nanoseconds between 1970 and 2200"),
        ("timestamp_ms", '"1700000000000"', "must be milliseconds between 1970 and 2200"),
    ],
)
def test_a_wrong_value_is_told_with_field_expectation_and_value(
    kind: str, value: str, said: str
) -> None:
    assert said in reason(b'{"x":%s}' % value.encode(), fields={"x": kind})
    if value != "null":
        assert said in reason(b'{"x":%s}' % value.encode(), fields={"x": f"optional {kind}"})


def test_a_long_value_is_shortened_in_the_reason() -> None:
    assert len(reason(b'{"x":"%s"}' % (b"y" * 5000), fields={"x": "int"})) < 120


def test_a_missing_value_is_null_only_if_optional() -> None:
    assert rows(b"{}", fields={"x": "optional float"}) == [{"x": None}]
    assert reason(b"{}", fields={"x": "float"}) == "field 'x' is missing"


@pytest.mark.usefixtures("every_way")
@pytest.mark.parametrize(
    "payload",
    [
        b"",
        b"  ",
        b"null",
        b"5",
        b"[]",
        b'[{"device":"a"}]',
        b'"x"',
        b"{",
        b"\xff\xfe",
        b'{"device":"\xff"}',
        rb'{"device":"\ud800"}',
        b'{"device":"a\x00b"}',
        b'{"device":"a\nb"}',
        b'{"device":"a"}{"device":"b"}',
        b'{"device":"a"}\n{"device":"b"}',
        b'{"d":5}',
        b'{"d":{"temp":1e400}}',
        b'{"device":NaN}',
        b'{"x":' + b"[" * 5000 + b"]" * 5000 + b"}",
        b'{"x":' + b'{"a":' * 3000 + b"1" + b"}" * 3000 + b"}",
        gzip.compress(READING + b"\n" + READING, mtime=0),
        b"x\x01" + READING,
    ],
)
def test_a_bad_payload_is_rejected_and_its_neighbours_go_on(payload: bytes) -> None:
    decoded = decode([READING, payload, READING, payload], fields=FIELDS)
    assert [index for index, _ in decoded.rejects] == [1, 3]
    assert decoded.frame.height == 2
    assert decoded.origin is not None
    assert decoded.origin.to_list() == [0, 2]


@pytest.mark.usefixtures("every_way")
@pytest.mark.parametrize(
    "payload",
    [
        b"\xef\xbb\xbf" + READING,
        READING + b"\r\n",
        b" \t" + READING,
        READING.replace(b",", b",\n  "),
        READING.replace(b'"ts"', b'"x":' + b"9" * 40 + b',"ts"'),
        READING.replace(b"3", b"3.0"),
    ],
)
def test_a_payload_may_be_written_in_any_legal_way(payload: bytes) -> None:
    decoded = decode([READING, payload], fields=FIELDS)
    assert not decoded.rejects
    assert decoded.frame.rows()[0] == decoded.frame.rows()[1]


VALUES = st.one_of(
    st.none(),
    st.booleans(),
    st.integers(-(2**66), 2**66),
    st.floats(allow_nan=False, allow_infinity=False),
    st.sampled_from([1700000000000, 1700000000000000000, 5.0, 4.7, "[x", "{y", "", "5", "true"]),
    st.sampled_from([2.0**53, 2**53 + 1, -(2**53) - 1, 2**63 - 1, 1e18, -0.0]),
    st.sampled_from(["2024-01-01", "2024-01-01T00:00:00Z", "2024-01-01 00:00:00", "2024-13-01"]),
    st.text(max_size=5),
    st.lists(st.integers(0, 3), max_size=2),
    st.dictionaries(st.sampled_from(["temp", "z"]), st.integers(0, 3), max_size=2),
)
KEYS = st.sampled_from(["ts", "at", "device", "d", "count", "nanos", "good", "readings", "zz"])
LISTED = st.lists(st.one_of(st.dictionaries(KEYS, VALUES, max_size=3), VALUES), max_size=3)


def _written(pairs: list[tuple[str, object]]) -> bytes:
    """JSON in which a key may occur twice."""
    return ("{" + ",".join(f"{json.dumps(k)}:{json.dumps(v)}" for k, v in pairs) + "}").encode()


def _cut(payload: bytes, place: int) -> bytes:
    return payload[: place % (len(payload) + 1)]


OBJECTS = st.lists(st.tuples(KEYS, st.one_of(VALUES, LISTED)), max_size=6).map(_written)
PAYLOADS = st.one_of(
    OBJECTS,
    OBJECTS,
    st.just(READING),
    st.builds(_cut, OBJECTS, st.integers(0, 99)),
    st.binary(max_size=12),
    st.sampled_from([rb'{"device":"\udc00x"}', b'{"zz":1e999}', b'{"d":{"temp":1,"temp":true}}']),
)


def _alone(record: Record, payload: bytes) -> tuple[list[tuple[Any, ...]], list[str]]:
    decoded = record.decoder().decode([payload])
    return decoded.frame.rows(), [said for _, said in decoded.rejects]


@pytest.mark.parametrize(
    "record",
    [
        Record(fields=FIELDS),
        Record(fields={"device": "str", "count": "int"}),
        Record(fields=QUICK),
        Record(fields={**FIELDS, "zz": "optional json"}),
        Record(fields=FIELDS, rows="readings"),
        Record(format="csv", fields={"a": "optional str", "b": "optional int"}),
        Record(format="value", fields={"value": "timestamp"}),
        Record(format="raw"),
    ],
    ids=["optional", "required", "quick", "json", "rows", "csv", "value", "raw"],
)
@examples(120)
@given(payloads=st.lists(PAYLOADS, min_size=1, max_size=6))
def test_a_payload_gives_the_same_whatever_came_with_it(
    record: Record, payloads: list[bytes]
) -> None:
    decoded = record.decoder().decode(payloads)
    reasons = dict(decoded.rejects)
    origin = decoded.origin.to_list() if decoded.origin is not None else range(len(payloads))
    together = decoded.frame.rows()
    for index, payload in enumerate(payloads):
        mine = [row for row, number in zip(together, origin, strict=True) if number == index]
        said = [reasons[index]] if index in reasons else []
        assert (repr(mine), said) == (repr(_alone(record, payload)[0]), _alone(record, payload)[1])


@pytest.mark.parametrize("fields", [FIELDS, QUICK, {"device": "str", "ts": "timestamp_s"}])
@examples(200)
@given(payloads=st.lists(PAYLOADS, min_size=1, max_size=6))
def test_a_small_batch_gives_what_a_large_one_gives(
    fields: dict[str, Any], payloads: list[bytes]
) -> None:
    small = decode(payloads, fields=fields)
    for size in ("medium", "large"):
        with pytest.MonkeyPatch.context() as patch:
            read_as(size, patch)
            larger = decode(payloads, fields=fields)
        assert repr(larger.frame.rows()) == repr(small.frame.rows())
        assert larger.frame.schema == small.frame.schema
        assert list(larger.rejects) == list(small.rejects)


@examples(200)
@given(value=VALUES, kind=st.sampled_from(["str", "int", "float", "bool"]))
def test_types_agree_with_a_plain_python_check(value: Any, kind: str) -> None:
    fits = {
        "str": not isinstance(value, list | dict),
        "int": not isinstance(value, bool)
        and isinstance(value, int | float)
        and float(value).is_integer()
        and -(2**63) <= value < 2**63,
        "float": isinstance(value, int | float) and not isinstance(value, bool),
        "bool": isinstance(value, bool),
    }
    decoded = decode([_as_json({"x": value})], fields={"x": kind})
    assert (not decoded.rejects) == (value is not None and fits[kind])


def _as_json(value: object) -> bytes:
    return json.dumps(value, ensure_ascii=False).encode()


# Arrays


ARRAY = {"fields": {"device": "str", "t": "timestamp_s", "v": "optional int"}, "rows": "readings"}


def test_an_array_becomes_rows_and_other_fields_repeat() -> None:
    payloads = [
        b'{"device":"a","readings":[{"t":1,"v":1},{"t":2}]}',
        b'{"device":"b","readings":[]}',
        b'{"device":"c","readings":[{"t":3,"v":3,"device":"inner"}]}',
    ]
    decoded = decode(payloads, **ARRAY)
    assert decoded.frame["device"].to_list() == ["a", "a", "inner"]
    assert decoded.frame["v"].to_list() == [1, None, 3]
    assert decoded.origin is not None
    assert decoded.origin.to_list() == [0, 0, 2]
    assert not decoded.rejects


@pytest.mark.parametrize(
    ("readings", "said"),
    [
        (b"5", "field 'readings' must be an array, got 5"),
        (b"null", "field 'readings' is missing"),
        (b"[5]", "field 'readings' must be an array of objects, got 5"),
        (b'[{"t":1},null]', "field 'readings' must be an array of objects, got null"),
        (b'[{"t":1},{"t":2,"v":4.7}]', "field 'v' must be int, got 4.7"),
        (b'[{"t":1},{"v":4}]', "field 't' is missing"),
    ],
)
def test_one_bad_element_rejects_its_payload_whole(readings: bytes, said: str) -> None:
    good = b'{"device":"a","readings":[{"t":1,"v":1}]}'
    decoded = decode([good, b'{"device":"a","readings":%s}' % readings, good], **ARRAY)
    assert decoded.rejects == [(1, said)]
    assert decoded.frame.height == 2


# Other formats


def test_csv_payloads_may_hold_several_lines() -> None:
    fields = {"t": "timestamp", "name": "optional str", "v": "float"}
    payloads = [b"2024-01-01T00:00:00Z,a,1", b'2024-01-01 00:00:01,"b, ""c""",2\n2024-01-02,,3\n']
    decoded = decode(payloads, format="csv", fields=fields)
    assert decoded.frame["name"].to_list() == ["a", 'b, "c"', None]
    assert decoded.frame["v"].to_list() == [1.0, 2.0, 3.0]
    assert decoded.origin is not None
    assert decoded.origin.to_list() == [0, 1, 1]


@pytest.mark.parametrize("bad", [b"1", b"1,2,3", b"", b'1,"2', b"x,2", b"1,\xff", b'1,"2"x'])
def test_a_bad_line_leaves_its_neighbours_alone(bad: bytes) -> None:
    decoded = decode([b"1,2", bad, b"3,4"], format="csv", fields={"a": "int", "b": "str"})
    assert [index for index, _ in decoded.rejects] == [1]
    assert decoded.frame.rows() == [(1, "2"), (3, "4")]


@pytest.mark.parametrize(
    ("form", "payload"),
    [("json", b'{"a": "\xff"}'), ("csv", b'{"a": "\xff"}'), ("value", b"1234567\xff")],
)
def test_a_payload_that_is_no_text_names_the_byte(form: str, payload: bytes) -> None:
    fields = {"value" if form == "value" else "a": "str"}
    assert reason(payload, format=form, fields=fields) == (
        "payload is not UTF-8: byte 0xff at position 7 is no text"
    )


def test_a_csv_payload_may_carry_its_own_header() -> None:
    record = {"format": "csv", "header": True, "fields": {"a": "int", "b": "optional str"}}
    decoded = decode([b"b,a\nx,1", b"a\n2\n3"], **record)
    assert decoded.frame.rows() == [(1, "x"), (2, None), (3, None)]


def test_a_value_payload_is_a_number_unless_told_otherwise() -> None:
    decoded = decode([b" 21.5\n", b"hot", b"\xff", b"7"], format="value")
    assert decoded.frame["value"].to_list() == [21.5, 7.0]
    assert decoded.rejects[0] == (1, "field 'value' must be float, got \"hot\"")
    assert rows(b"open", format="value", fields={"value": "str"}) == [{"value": "open"}]


def test_a_raw_payload_is_text_or_base64() -> None:
    decoded = decode([b"any {text", b"\xff\x00"], format="raw")
    assert decoded.frame["value"].to_list() == ["any {text", "base64:/wA="]


# Time zones


def test_text_without_offset_is_local_time_of_the_record() -> None:
    record = {"fields": {"t": "timestamp"}, "timezone": "Europe/Berlin"}
    summer = rows(b'{"t":"2024-07-01T12:00:00"}', **record)[0]["t"]
    assert summer == datetime(2024, 7, 1, 10, tzinfo=UTC)
    assert rows(b'{"t":"2024-07-01T12:00:00Z"}', **record)[0]["t"].hour == 12
    twice = rows(b'{"t":"2024-10-27T02:30:00"}', **record)[0]["t"]
    assert twice == datetime(2024, 10, 27, 0, 30, tzinfo=UTC)
    assert "2024-03-31T02:30:00" in reason(b'{"t":"2024-03-31T02:30:00"}', **record)
    assert rows(b'{"t":"2024-07-01"}', **record)[0]["t"].hour == 22


# Fields that nobody declared


def test_the_first_rows_decide_what_nobody_declared() -> None:
    first = b'{"t":1700000000000,"n":20,"big":9007199254740993,"s":"2024-01-01","b":true,"j":[1]}'
    decoder = Record(time="t").decoder()
    assert decoder.columns is None
    assert not decoder.decode([b"oops", first]).frame.is_empty()
    assert decoder.fields is not None
    assert {name: field.model_dump() for name, field in decoder.fields.items()} == {
        "t": "timestamp_ms",
        "n": "optional float",
        "big": "optional int",
        "s": "optional str",
        "b": "optional bool",
        "j": "optional json",
    }
    assert decoder.decode([b'{"t":1700000000000,"n":20.5}']).frame["n"].to_list() == [20.5]


def test_what_was_decided_can_be_given_back() -> None:
    first = Record().decoder()
    first.decode([b'{"a":1}'])
    again = Record().decoder()
    assert first.fields is not None
    again.fields = {name: field.model_dump() for name, field in first.fields.items()}
    assert again.columns == first.columns


def test_nothing_is_decided_by_payloads_that_cannot_be_read() -> None:
    decoder = Record().decoder()
    assert [index for index, _ in decoder.decode([b"oops", b"5"]).rejects] == [0, 1]
    assert decoder.columns is None


def test_other_fields_are_kept_when_asked() -> None:
    decoded = decode([b'{"a":"1","b":2,"c":null}'], fields={"a": "str"}, extra="keep")
    assert decoded.frame.to_dicts() == [{"a": "1", "b": 2.0, "c": None}]


# Definitions


@pytest.mark.parametrize(
    ("record", "said"),
    [
        ({"fields": {"x": "number"}}, "must be one of str, int"),
        ({"fields": {}}, "must name at least one field"),
        ({"fields": {"edge_x": "str"}}, "reserved"),
        ({"fields": {"x": {"type": "str", "path": "a..b"}}}, "names joined by dots"),
        ({"fields": {"x": "str"}, "time": "x"}, "must be a timestamp"),
        ({"timezone": "Mars/Base"}, "must be a time zone"),
        ({"format": "csv", "fields": {"x": "str"}, "rows": "r"}, "are for JSON"),
        ({"format": "value", "fields": {"x": "str"}}, "has one field, value"),
        ({"fields": {"a": "str", "b": {"type": "str", "path": "a.b"}}}, "lies within"),
        ({"fields": {"a": "str", "b": {"type": "int", "path": "a"}}}, "same place"),
    ],
)
def test_a_record_that_cannot_work_is_refused(record: dict[str, Any], said: str) -> None:
    with pytest.raises(ValidationError, match=said):
        Record(**record)


def test_key_and_time_must_be_fields_or_captures() -> None:
    record = Record(fields={"x": "str"}, key=["x", "line"])
    assert record.key == ("x", "line")
    record.decoder(captures=["line"])
    with pytest.raises(DefinitionError, match=r"record\.key: must be one of x, got 'line'"):
        record.decoder()
    with pytest.raises(DefinitionError, match="rename one"):
        record.decoder(captures=["x", "line"])
    with pytest.raises(DefinitionError, match="columns of CSV without a header"):
        Record(format="csv").decoder()
    with pytest.raises(DefinitionError, match="must be a field of the payload"):
        Record(time="ts").decoder(captures=["ts"])


def test_a_record_reads_back_what_it_writes() -> None:
    record = Record(fields=FIELDS, key="device", rows="r")
    assert Record(**record.model_dump()) == record


# Bodies


FRAME = pl.DataFrame(
    {
        "t": pl.Series([MOMENT, None], dtype=TIMESTAMP),
        "s": ['q"\n,', None],
        "f": [1.5, float("nan")],
        "i": [1, None],
    }
)


@pytest.mark.parametrize("compression", ["none", "gzip", "zstd"])
@pytest.mark.parametrize("form", ["ndjson", "csv", "json", "parquet"])
def test_the_same_rows_are_the_same_bytes(form: Any, compression: Any) -> None:
    body = encode(FRAME, form, compression)
    assert encode(FRAME.clone(), form, compression) == body
    assert encode(pl.concat([FRAME[:1], FRAME[1:]]), form, compression) == body


def test_text_forms_write_iso_8601_with_z() -> None:
    lines = encode(FRAME, "ndjson", "none").splitlines()
    first = {"t": "2023-11-14T22:13:20.000000Z", "s": 'q"\n,', "f": 1.5, "i": 1}
    assert list(map(orjson.loads, lines)) == [first, dict.fromkeys("tsfi")]
    assert orjson.loads(encode(FRAME, "json", "none")) == [first, dict.fromkeys("tsfi")]
    assert rows_as_json(FRAME) == lines
    cells = list(csv.reader(io.StringIO(encode(FRAME, "csv", "none").decode())))
    assert cells[1] == ["2023-11-14T22:13:20.000000Z", 'q"\n,', "1.5", "1"]


def test_compressed_forms_hold_the_plain_ones() -> None:
    plain = encode(FRAME, "ndjson", "none")
    assert gzip.decompress(encode(FRAME, "ndjson", "gzip")) == plain
    assert_frame_equal(pl.read_ndjson(encode(FRAME, "ndjson", "zstd")), pl.read_ndjson(plain))
    assert_frame_equal(pl.read_parquet(encode(FRAME, "parquet", "zstd")), FRAME)


def test_empty_frames_have_bodies_too() -> None:
    assert rows_as_json(FRAME.clear()) == []
    assert encode(FRAME.clear(), "json", "none") == b"[]\n"
    assert encode(FRAME.clear(), "csv", "none") == b"t,s,f,i\n"


def test_the_ending_tells_form_and_compression() -> None:
    assert extension("ndjson", "zstd") == "ndjson.zst"
    assert extension("csv", "gzip") == "csv.gz"
    assert extension("json", "none") == "json"
    assert extension("parquet", "zstd") == "parquet"


@pytest.mark.parametrize("times", [1, 10_000], ids=["few rows", "many rows"])
def test_an_entry_gives_back_its_rows(times: int) -> None:
    frame = pl.concat([FRAME] * times)
    assert_frame_equal(unpack(pack(frame)), frame)
    assert pack(frame) == pack(frame.clone())


# Speed


def test_a_hundredth_of_bad_payloads_does_not_stall_the_rest() -> None:
    """A batch with bad payloads is screened in one pass, not halved."""
    decoder = Record(fields=FIELDS).decoder()
    payloads = [READING] * 5000
    for index in range(0, 5000, 100):
        payloads[index] = b'{"ts":'
    started = time.process_time()
    assert len(decoder.decode(payloads).rejects) == 50
    assert time.process_time() - started < 1


@pytest.mark.parametrize("rows", [5, 5000])
def test_nothing_is_kept_of_an_entry_that_was_read(rows: int) -> None:
    body = pack(pl.DataFrame({"n": range(rows), "t": [f"row {n}" for n in range(rows)]}))

    def after(reads: int) -> int:
        for _ in range(reads):
            unpack(body)
        return sys.getallocatedblocks()

    before = after(100)
    assert after(400) - before < 200
