"""`lookup`: adds columns from a file, found by a key."""

import logging
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated

import polars as pl
from pydantic import BeforeValidator, Field, PrivateAttr, WithJsonSchema

from edge.codec import FieldSpec, FieldType
from edge.component import Missing, Size, Stream
from edge.errors import DefinitionError
from edge.expression import require, reserve, type_word
from edge.operators import Operator
from edge.table import ENDINGS, Mark, Table, TableFile, TableFormat, keys_of

log = logging.getLogger("edge.operators.lookup")

_KEY_TYPES: Mapping[type[pl.DataType], FieldType] = {
    pl.String: "str",
    pl.Int64: "int",
    pl.Float64: "float",
    pl.Boolean: "bool",
    pl.Datetime: "timestamp",
}


def _as_mapping(given: object) -> object:
    if isinstance(given, str):
        return {given: given}
    return dict(zip(given, given, strict=True)) if isinstance(given, list | tuple) else given


Columns = Annotated[
    dict[str, str],
    Field(min_length=1),
    BeforeValidator(_as_mapping),
    WithJsonSchema(
        {
            "anyOf": [
                {"type": "string"},
                {"type": "array", "items": {"type": "string"}},
                {"type": "object", "additionalProperties": {"type": "string"}},
            ]
        }
    ),
]
"""Column of the rows -> column of the file; a name or a list where both are the same."""


class Lookup(Operator):
    """Adds columns from a CSV, JSON, NDJSON or Parquet file, found by key.

    ```yaml
    lookup:
      file: machines.csv
      by: device
      columns: [site, limit]
    ```

    `by` and `columns` may map names of the rows to names of the file: `{device: id}`. Keys are read
    in the type they have in the rows, other columns in those of `types`, else as the first 1,000
    rows show, as in a record without `fields`: numbers are floats, text that looks like a time is
    text. JSON is an array of objects. The file must have a row, and one row for each key; a row
    that does not fit is an error with its line.

    A file that is not there or not well at the start keeps rows waiting where they come from, until
    it is: the log and `edge status` say why, links go on. `edge run --once` ends then.

    While it runs with a source that never ends, the file is looked at about once a second. When it
    has changed and the next look finds it the same, it is read again. If it reads whole and well,
    the next rows get the new values; otherwise, and when it is gone, the old ones stay and the log
    says why. What was committed stays as it is, so that results depend on when the file was
    changed. Rows of files (`dataset`) all see what was there at the start. Replace the file with
    `mv`: a writer that pauses for a second in the midst of it may be taken at its word.

    Nulls and NaN: a null or NaN in the key finds nothing. What is not found gives nulls, or with
    `missing: drop` the row goes.

    Memory: the file, about 150 bytes of RAM per row beside the values. Nothing in the outbox.

    Cost: 0.06 ms per batch and 0.1 us per row, however long the file is. Reading it again stops
    the rows meanwhile: 0.1 s for 100,000 rows of CSV.
    """

    file: str = Field(description="The file, relative to the definition.", min_length=1)
    by: Columns | None = Field(
        None,
        description="Columns by which a row finds its line: names, or name -> name in the file; "
        "the record's key if left out.",
    )
    columns: Columns | None = Field(
        None, description="What is added: names, or name -> name in the file; all if left out."
    )
    types: dict[str, FieldType] = Field(
        {}, description="Types of added columns, as in `record.fields`; others as the file shows."
    )
    missing: Missing = Field(
        "null", description="What happens to a row whose key is not in the file."
    )
    format: TableFormat | None = Field(
        None, description="Of the file; left out, its ending tells: .csv, .json, .ndjson, .parquet."
    )
    max_rows: int = Field(100_000, ge=1, description="Most rows that the file may have.")
    max_size: Size = Field(Size(64 * 2**20), description="How large the file may be.")

    _file: TableFile = PrivateAttr()
    _table: Table = PrivateAttr()
    _read: Mark | None = PrivateAttr()
    _seen: Mark | None = PrivateAttr()
    _keys: list[str] = PrivateAttr()

    def bind(self, columns: pl.Schema, stream: Stream) -> pl.Schema:
        by = {name: name for name in stream.key} if self.by is None else self.by
        if not by:
            raise DefinitionError("lookup: needs by where record.key is not declared; add by")
        require(by, columns, "lookup")
        self._keys = list(by)
        keys = {
            name: FieldSpec(type=self._key_type(name, columns[name]), path=path)
            for name, path in by.items()
        }
        path = stream.folder / self.file
        form = self.format or self._form_of(path)
        file = TableFile(path, form, keys, {}, self.max_rows, self.max_size)
        self._read = self._seen = file.mark()
        self._file = file._replace(columns=self._fields(file, columns))
        self._table = self._file.read()
        return pl.Schema({**columns, **self._table.values.schema})

    def _key_type(self, name: str, dtype: pl.DataType) -> FieldType:
        kind = _KEY_TYPES.get(dtype.base_type())
        if kind is None:
            raise DefinitionError(f"lookup: column {name!r} is no key, got {type_word(dtype)}")
        return kind

    def _form_of(self, path: Path) -> TableFormat:
        form = ENDINGS.get(path.suffix)
        if form is None:
            known = ", ".join(ENDINGS)
            raise DefinitionError(
                f"lookup: the ending of file tells no format ({known}), got {self.file!r}; "
                "set format"
            )
        return form

    def _fields(self, file: TableFile, given: pl.Schema) -> Mapping[str, FieldSpec]:
        """The columns to add, any of which may be null in the file."""
        shown = {} if self.columns and self.columns.keys() <= self.types.keys() else file.fields()
        keys = {field.path for field in file.keys.values()}
        added = self.columns or {name: name for name in shown if name not in keys}
        reserve(added, "lookup")
        require(self.types, added, "lookup: types")
        again = next((name for name in added if name in given), None)
        if again is not None:
            raise DefinitionError(
                f"lookup: column {again!r} is there already; give it another name such as "
                f"{{file_{again}: {added[again]}}}"
            )
        for name, source in added.items():
            if name not in self.types and source not in shown:
                raise file.no_column(source, list(shown))
        return {
            name: FieldSpec(
                type=self.types[name] if name in self.types else shown[source].type,
                path=source,
                optional=True,
            )
            for name, source in added.items()
        }

    def process(self, frame: pl.DataFrame) -> pl.DataFrame:
        found = list(map(self._table.rows.get, keys_of(frame, self._keys)))
        rows = pl.Series(found, dtype=pl.UInt32)
        if self.missing == "drop" and rows.null_count():
            there = rows.is_not_null()
            frame, rows = frame.filter(there), rows.filter(there)
        added = [column.gather(rows) for column in self._table.values.get_columns()]
        return frame.hstack(added)

    @property
    def timed(self) -> bool:
        return True

    def advance(self, elapsed: int) -> None:
        """Read the file again once it has changed and then not between two calls."""
        del elapsed
        before, self._seen = self._seen, self._file.mark()
        if self._seen == self._read or self._seen != before:
            return
        self._read = self._seen
        try:
            self._table = self._file.read()
        except DefinitionError as error:
            log.warning("%s; what was read before stays", error)
        else:
            log.info("lookup: file %r was read again", str(self._file.path))
