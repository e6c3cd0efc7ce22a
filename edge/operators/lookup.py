"""`lookup`: adds columns from a table that lies in a file."""

import logging
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Annotated, ClassVar, Literal, NamedTuple

import polars as pl
from pydantic import BeforeValidator, Field, PrivateAttr, WithJsonSchema

from edge.component import Size, Stream, format_size
from edge.errors import DefinitionError
from edge.expression import require, reserve, type_word
from edge.operators import Operator

log = logging.getLogger("edge.lookup")

_LOOK_EVERY = 1.0  # seconds between two looks at the file
_READERS: Mapping[str, Callable[[Path], pl.DataFrame]] = {
    ".csv": lambda path: pl.read_csv(path, infer_schema_length=None, try_parse_dates=False),
    ".ndjson": lambda path: pl.read_ndjson(path, infer_schema_length=None),
    ".json": lambda path: pl.read_json(path, infer_schema_length=None),
    ".parquet": pl.read_parquet,
}
_HIT = "edge_hit"


def _as_mapping(given: object) -> object:
    if isinstance(given, str):
        return {given: given}
    return dict(zip(given, given, strict=True)) if isinstance(given, list | tuple) else given


Columns = Annotated[
    dict[str, str],
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


class _Stamp(NamedTuple):
    """What changes when a file is written or replaced."""

    inode: int
    size: int
    modified: int


class Lookup(Operator):
    """Adds columns from a CSV, JSON, NDJSON or Parquet file, found by key.

    ```yaml
    lookup:
      file: machines.csv
      by: device
      columns: [site, limit]
    ```

    `by` and `columns` may map names of the rows to names of the file: `{device: id}`. The file must
    have every key once. A row whose key is not there gets nulls, or goes with `missing: drop`.

    The file is looked at once a second and read again when it changed; what does not read well or
    has other types leaves the old table in place, with a warning. Replace it as a whole (write
    beside it, then rename), so that no half of it is ever read. Rows get what the table says when
    they are processed: the same rows replayed later may get something else.

    Nulls and NaN: a null key finds nothing. A NaN finds a NaN.

    Memory: the table, at most `max_size` of it; nothing in the outbox.

    Cost: 0.3 ms per batch, 0.05 us per row.
    """

    quick: ClassVar[bool] = False  # a share that hangs must not hold up everything

    file: str = Field(description="The table: .csv, .ndjson, .json or .parquet.", min_length=1)
    by: Columns | None = Field(
        None,
        description="Columns by which a row finds its line: names, or name -> name in the file; "
        "the record's key if left out.",
    )
    columns: Columns | None = Field(
        None, description="What is added: names, or name -> name in the file; all if left out."
    )
    missing: Literal["null", "drop"] = Field(
        "null", description="What happens to a row whose key is not in the file."
    )
    max_size: Size = Field(
        Size(64 * 2**20), description="The largest table that is taken, as it lies in memory."
    )

    _path: Path = PrivateAttr()
    _by: dict[str, str] = PrivateAttr()
    _types: pl.Schema = PrivateAttr()
    _added: dict[str, str] = PrivateAttr()
    _columns: pl.Schema = PrivateAttr()
    _table: pl.DataFrame = PrivateAttr()
    _stamp: _Stamp | None = PrivateAttr(default=None)
    _looked: float = PrivateAttr(default=0.0)
    _warned: str = PrivateAttr(default="")

    def bind(self, columns: pl.Schema, stream: Stream) -> pl.Schema:
        self._by = dict(self.by) if self.by is not None else {name: name for name in stream.key}
        if not self._by:
            raise DefinitionError("lookup: needs by where record.key is not declared; add by")
        require(self._by, columns, "lookup")
        self._path = stream.folder / self.file
        self._types = pl.Schema({name: columns[name] for name in self._by})
        try:
            self._stamp = _stamp_of(self._path)
            table = self._read()
        except (OSError, ValueError, pl.exceptions.PolarsError) as error:
            raise DefinitionError(f"lookup: {self._path} cannot be used: {error}") from error
        given = {name: name for name in table.columns if name not in self._by.values()}
        self._added = dict(self.columns) if self.columns is not None else given
        reserve(self._added, "lookup")
        twice = next((name for name in self._added if name in columns), None)
        if twice is not None:
            raise DefinitionError(
                f"lookup: column {twice!r} is there already; give it another name such as "
                f"{{file_{twice}: {self._added[twice]}}}"
            )
        self._require_added(table)
        new = {name: table.schema[source] for name, source in self._added.items()}
        self._columns = pl.Schema({**columns, **new})
        self._table = self._chosen(table)
        return self._columns

    def _read(self) -> pl.DataFrame:
        """The file as a table, its keys in the types of the rows. Raises for whatever is wrong."""
        reader = _READERS.get(self._path.suffix)
        if reader is None:
            raise ValueError(f"the ending must be one of {', '.join(_READERS)}")
        table = reader(self._path)
        if (size := int(table.estimated_size())) > self.max_size:
            raise ValueError(f"it has {format_size(size)}, max_size is {self.max_size}")
        require(self._by.values(), table.columns, f"lookup {self.file!r}")
        keys = list(self._by.values())
        wanted = zip(keys, self._types.items(), strict=True)
        table = table.with_columns(
            _as_type(table[key], name, kind).alias(key) for key, (name, kind) in wanted
        )
        repeated = table.filter(table.select(keys).is_duplicated())
        if repeated.height:
            first = ", ".join(str(value) for value in repeated.select(keys).row(0))
            raise ValueError(f"the key {first} is there more than once")
        return table

    def _chosen(self, table: pl.DataFrame) -> pl.DataFrame:
        """Keys and added columns under the names they get, in the types they had at the start."""
        self._require_added(table)
        keys = (pl.col(source).alias(name) for name, source in self._by.items())
        added = (
            pl.col(source).cast(self._columns[name]).alias(name)
            for name, source in self._added.items()
        )
        hit = [pl.lit(True).alias(_HIT)] if self.missing == "drop" else []
        return table.select(*keys, *added, *hit)

    def _require_added(self, table: pl.DataFrame) -> None:
        require(self._added.values(), table.columns, f"lookup {self.file!r}")

    def process(self, frame: pl.DataFrame) -> pl.DataFrame:
        self._look()
        found = frame.join(self._table, on=list(self._by), how="left", maintain_order="left")
        if self.missing == "drop":
            found = found.filter(pl.col(_HIT)).drop(_HIT)
        return found.select(self._columns.names())

    def _look(self) -> None:
        """Read the file again if it changed; whatever goes wrong leaves the table as it was."""
        now = time.monotonic()
        if now - self._looked < _LOOK_EVERY:
            return
        self._looked = now
        try:
            stamp = _stamp_of(self._path)
            if stamp == self._stamp:
                return
            self._table, self._stamp = self._chosen(self._read()), stamp
            log.info("lookup: %s was read again, %d rows", self._path, self._table.height)
        except (OSError, ValueError, DefinitionError, pl.exceptions.PolarsError) as error:
            self._warn(f"lookup: {self._path} cannot be used, the table stays as it was: {error}")

    def _warn(self, text: str) -> None:
        """Once for every reason."""
        if text != self._warned:
            log.warning("%s", text)
            self._warned = text


def _stamp_of(path: Path) -> _Stamp:
    found = path.stat()
    return _Stamp(found.st_ino, found.st_size, found.st_mtime_ns)


def _as_type(values: pl.Series, name: str, kind: pl.DataType) -> pl.Series:
    """The keys of the file in the type of the rows' column `name`; raises ValueError."""
    try:
        return values.cast(kind)
    except pl.exceptions.PolarsError as error:
        raise ValueError(
            f"its keys must be {type_word(kind)} as column {name!r} is, got "
            f"{type_word(values.dtype)}"
        ) from error
