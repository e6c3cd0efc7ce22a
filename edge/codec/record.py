"""How a payload becomes rows: the `record:` section of a definition."""

from collections.abc import Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any, Literal, get_args
from zoneinfo import available_timezones

import polars as pl
from pydantic import (
    BaseModel,
    ConfigDict,
    Field,
    GetJsonSchemaHandler,
    field_validator,
    model_serializer,
    model_validator,
)
from pydantic.json_schema import JsonSchemaValue
from pydantic_core import CoreSchema

from edge.component import Names
from edge.errors import DefinitionError, Fault

if TYPE_CHECKING:
    from edge.codec.decoder import Decoder

PayloadFormat = Literal["json", "csv", "value", "raw"]
FieldType = Literal[
    "str",
    "int",
    "float",
    "bool",
    "json",
    "timestamp",
    "timestamp_s",
    "timestamp_ms",
    "timestamp_us",
    "timestamp_ns",
]
TIMESTAMP = pl.Datetime("us", "UTC")
COLUMN_TYPES: Mapping[str, pl.DataType] = {
    "str": pl.String(),
    "json": pl.String(),
    "int": pl.Int64(),
    "float": pl.Float64(),
    "bool": pl.Boolean(),
    **{name: TIMESTAMP for name in get_args(FieldType) if name.startswith("timestamp")},
}
_FORM = f"must be one of {', '.join(get_args(FieldType))}, or 'optional' before one of them"


class FieldSpec(BaseModel):
    """One field of a record: its type, where it is found, and whether it may be missing."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    type: FieldType = Field(description="What its values are.")
    path: str | None = Field(
        None,
        description="Dotted place in nested JSON, or column of CSV or Parquet. Default: the name.",
    )
    optional: bool = Field(False, description="Missing or null is null instead of a reject.")

    @model_validator(mode="before")
    @classmethod
    def _from_text(cls, value: object) -> object:
        if not isinstance(value, str):
            return value
        words = value.split()
        if not words or words[-1] not in COLUMN_TYPES or words[:-1] not in ([], ["optional"]):
            raise ValueError(f"{_FORM}, got {value!r}")
        return {"type": words[-1], "optional": len(words) == 2}

    @classmethod
    def __get_pydantic_json_schema__(
        cls, core_schema: CoreSchema, handler: GetJsonSchemaHandler
    ) -> JsonSchemaValue:
        text = {"type": "string", "pattern": f"^(optional +)?({'|'.join(COLUMN_TYPES)})$"}
        return {"anyOf": [text, handler(core_schema)]}

    @field_validator("path")
    @classmethod
    def _has_no_empty_step(cls, path: str | None) -> str | None:
        if path is not None and not all(path.split(".")):
            raise ValueError(f"must be names joined by dots such as d.temp, got {path!r}")
        return path

    @model_serializer
    def _as_written(self) -> str | dict[str, Any]:
        if self.path is None:
            return f"optional {self.type}" if self.optional else self.type
        written: dict[str, Any] = {"type": self.type, "path": self.path}
        return {**written, "optional": True} if self.optional else written

    def steps(self, name: str) -> tuple[str, ...]:
        """The keys that lead to the value of the field called `name`."""
        return tuple(self.path.split(".")) if self.path else (name,)


class Record(BaseModel):
    """How a payload becomes rows.

    A field takes what its type says and nothing that merely resembles it: `int` takes 5 and 5.0 but
    not 4.7, `"5"` or true; `float` any number; `bool` only true and false; `str` text, and numbers
    and booleans as text, but no array or object; `json` anything, as JSON text. `timestamp` is ISO
    8601 text, `timestamp_s` to `timestamp_ns` numbers since 1970 (up to 2200; seconds and
    milliseconds with fractions). A field that is missing or null rejects the payload unless it is
    optional.

    - `json`: one object per payload. With `rows`, one row for each object in that array: a field is
      looked for in the array's object first, then in the payload around it; an empty array gives no
      row. `json` fields cost about 1.5 us per payload more, they are taken apart in Python.
    - `csv`: one line per payload, or several, which become several rows. Columns are in the order
      of `fields`; with `header: true` the first line of each payload names them. An empty cell is
      null. Numbers and timestamps are text, so every type reads it.
    - `value`: the payload is the text of column `value`: a float unless `fields` says otherwise.
    - `raw`: the payload is column `value` as text; one that is not UTF-8 becomes base64 after
      `base64:`.

    When `fields` is left out the first rows decide: numbers are floats (whole readings prove
    nothing; beyond 2^53 they are ints), text is str (also when it looks like a time), true and
    false are bool, objects and arrays are json, and what is null everywhere or of several kinds is
    json too. All are optional, but `time`: it is read as ISO 8601 text, or as the number whose unit
    puts it between 1970 and 2200.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    format: PayloadFormat = Field("json", description="What a payload is written in.")
    time: str | None = Field(None, description="Event time column; arrival time when left out.")
    key: Names = Field((), description="Columns that tell one series from another.")
    fields: Mapping[str, FieldSpec] | None = Field(
        None, description="Name and type of every column: see `edge describe field`."
    )
    rows: str | None = Field(
        None, description="JSON: name of the array whose objects become rows, each for itself."
    )
    extra: Literal["drop", "keep"] = Field("drop", description="What happens to other fields.")
    timezone: str = Field("UTC", description="Of timestamps in text without an offset.")
    header: bool | None = Field(
        None, description="CSV: the first line names the columns. Files: true; payloads: false."
    )

    @field_validator("timezone")
    @classmethod
    def _is_known(cls, zone: str) -> str:
        if zone != "UTC" and zone not in available_timezones():  # which takes 20 ms
            raise ValueError(f"must be a time zone such as Europe/Berlin, got {zone!r}")
        return zone

    @field_validator("fields")
    @classmethod
    def _has_fields(cls, fields: Mapping[str, FieldSpec] | None) -> Mapping[str, FieldSpec] | None:
        if fields is not None and not fields:
            raise ValueError("must name at least one field; leave it out to let the rows decide")
        for name in fields or ():
            if name.startswith("edge_") or not name:
                raise ValueError(f"columns starting with edge_ are reserved, got {name!r}")
        return fields

    @model_validator(mode="after")
    def _agrees_with_itself(self) -> "Record":
        for fault in self._faults():
            raise ValueError(fault)
        return self

    def _faults(self) -> Iterator[str]:
        fields = self.fields or {}
        if self.format != "json" and (self.rows or self.extra == "keep"):
            yield f"rows and extra: keep are for JSON, got format {self.format!r}"
        if self.format in ("value", "raw") and any(field.path for field in fields.values()):
            yield f"path is for formats with names, got format {self.format!r}"
        if self.format in ("value", "raw") and fields and list(fields) != ["value"]:
            yield f"format {self.format!r} has one field, value, got {', '.join(fields)}"
        if self.format == "raw" and fields and fields["value"].type != "str":
            yield f"format 'raw' gives text, got {fields['value'].type}"
        if self.header is not None and self.format != "csv":
            yield f"header is for format 'csv', got it with {self.format!r}"
        time = fields.get(self.time) if self.time else None
        if time and not time.type.startswith("timestamp"):
            yield f"time {self.time!r} must be a timestamp, got {time.type}"
        if time and time.optional:
            yield f"time {self.time!r} must not be optional: a row without it has no place in time"
        if self.rows in fields:
            yield f"field {self.rows!r} is the array that becomes rows; drop one of the two"
        yield from _nested_in_each_other(fields)

    def decoder(self, captures: Sequence[str] = ()) -> "Decoder":
        """What turns payloads into columns. `captures` are columns that the source adds itself.

        Raises DefinitionError when `key` or `time` is neither a field nor a capture, or a name is
        both.
        """
        from edge.codec.decoder import Decoder

        faults = [Fault(path, text) for path, text in self._misplaced(captures)]
        if faults:
            raise DefinitionError(*faults)
        return Decoder(self)

    def _misplaced(self, captures: Sequence[str]) -> Iterator[tuple[str, str]]:
        fields = self.known_fields()
        for name in captures:
            if fields and name in fields:
                yield f"record.fields.{name}", f"topics have a level {{{name}}} too; rename one"
        if self.time in captures:
            yield (
                "record.time",
                f"must be a field of the payload, got the topic level {self.time!r}",
            )
        if fields is None and self.format == "csv" and not self.header:
            yield "record.fields", "must name the columns of CSV without a header, got none"
        if fields is None or self.extra == "keep":
            return
        known = [*fields, *captures]
        if self.time and self.time not in known:
            yield "record.time", f"must be one of {', '.join(known)}, got {self.time!r}"
        for name in self.key:
            if name not in known:
                yield "record.key", f"must be one of {', '.join(known)}, got {name!r}"

    def known_fields(self) -> Mapping[str, FieldSpec] | None:
        """The fields, also those that the format implies; None while only data can tell."""
        if self.fields is None and self.format in ("value", "raw"):
            return {"value": FieldSpec(type="float" if self.format == "value" else "str")}
        return self.fields


def _nested_in_each_other(fields: Mapping[str, FieldSpec]) -> Iterator[str]:
    places = {field.steps(name): name for name, field in fields.items()}
    for name, field in fields.items():
        if places[field.steps(name)] != name:
            yield f"{name!r} is read from the same place as {places[field.steps(name)]!r}; drop one"
    for place, name in places.items():
        for length in range(1, len(place)):
            outer = places.get(place[:length])
            if outer is not None and fields[outer].type != "json":
                yield f"{name!r} lies within {outer!r}, which must then be json"
