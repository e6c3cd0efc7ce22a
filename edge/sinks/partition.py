"""Rows -> files under Hive keys: what the file and the S3 sink share."""

from collections.abc import Iterator, Mapping, Sequence
from typing import Any, ClassVar

import polars as pl
from pydantic import Field, PrivateAttr

from edge.codec import ISO_8601, Compression, Format, encode, extension
from edge.component import Stream
from edge.errors import DefinitionError, Fault, LinkDown
from edge.outbox.model import Parcel, Refusal
from edge.sinks import Encoded, Receipt, Sink, split_id
from edge.sinks.receipt import join

MAX_PARTITIONS = 64
"""Files that one rolling makes at most; the rows of further partitions wait for the next."""

NULL = "__HIVE_DEFAULT_PARTITION__"

# What Hive and Spark escape in a partition value, and every reader unquotes again.
_ESCAPES = str.maketrans(
    {c: f"%{ord(c):02X}" for c in (*map(chr, range(32)), *"\"#%'*/:=?\\\x7f{}[]^")}
)

_ROW = "edge_row"


class Partitioned(Sink):
    """A sink of files: one parcel per partition, its key the path of the file."""

    text_compression: ClassVar[Compression] = "zstd"
    """Compression of ndjson, csv and json where the definition says nothing."""
    folder_limit: ClassVar[int] = 1024
    """UTF-8 bytes that fit between two slashes of a key."""

    format: Format = Field("ndjson", description="ndjson, csv, parquet or json.")
    compression: Compression | None = Field(None, description="none, gzip or zstd.")
    partition: Sequence[str] = Field(
        (),
        description="Columns that become folders (`line=a`) and leave the rows, as Hive, Spark and"
        " Athena expect; `date` is the UTC day of the event time where no column has that name."
        " Null and empty text are one folder.",
    )
    _identity: bool = PrivateAttr(True)
    _time: str = PrivateAttr("edge_received")
    _ordered: bool = PrivateAttr(False)

    def bind(self, columns: pl.Schema | None, stream: Stream, identity: bool, order: str) -> None:
        """Check the partition columns; DefinitionError for each that is missing or nested."""
        self._identity = identity
        self._time = stream.time
        self._ordered = order != "none"
        if len(set(self.partition)) < len(self.partition):
            given = ", ".join(self.partition)
            raise DefinitionError(Fault("partition", f"must name a column once, got {given}"))
        if columns is not None and (faults := list(self._faults(columns))):
            raise DefinitionError(*faults)

    def encode(self, frame: pl.DataFrame) -> Encoded:
        """One parcel per partition, oldest first; the rows beyond 64 partitions are left."""
        if not self.partition:
            return _encoded([self._parcel(frame, "")], None)
        texts = frame.select(self._text(column, frame.schema) for column in self.partition)
        groups = texts.with_row_index(_ROW).group_by(self.partition, maintain_order=True).agg(_ROW)
        rows = groups.drop_in_place(_ROW)
        made = [
            self._parcel(frame[rows[index]], self._folders(values))
            for index, values in enumerate(groups.head(MAX_PARTITIONS).iter_rows())
        ]
        beyond = rows[MAX_PARTITIONS:].explode().drop_nulls().sort()
        return _encoded(made, frame[beyond] if len(beyond) else None)

    async def _send_in_turn(self, parcels: Sequence[Parcel]) -> Receipt:
        """One after the other; where an order is kept, none goes ahead of one that waits."""
        parts: list[Receipt | LinkDown] = []
        for parcel in parcels:
            try:
                part: Receipt | LinkDown = await self._send_one(parcel)
            except LinkDown as error:
                part = LinkDown(str(error))  # that one holds this frame, and so the parcel
            parts.append(part)
            settled = isinstance(part, Receipt) and (part.delivered or part.refused)
            if self._ordered and not settled:
                break
        return join(parts)

    async def _send_one(self, parcel: Parcel) -> Receipt:
        """Deliver one parcel, or LinkDown."""
        raise NotImplementedError

    def _parcel(self, frame: pl.DataFrame, folders: str) -> Parcel | Refusal:
        path, outbox, first = split_id(frame.item(0, "edge_id"))
        last = split_id(frame.item(-1, "edge_id")).sequence
        ending = extension(self.format, self._compression())
        name = f"{outbox}-{first}-{last}.{ending}"
        key = f"{self._prefix()}{path}/{folders}{name}"
        if (
            len(key.encode()) > 1024
            or len(max(folders.encode().split(b"/"), key=len)) > self.folder_limit
        ):
            reason = f"partition: its values give a key too long to store, got {key!r}"
            return Refusal(first, last, frame.height, reason)
        dropped = self.partition if self._identity else ("edge_id", *self.partition)
        body, attributes = self._body(frame.drop(dropped, strict=False))
        return Parcel(key, first, last, frame.height, body, attributes)

    def _body(self, frame: pl.DataFrame) -> tuple[bytes, Mapping[str, Any]]:
        """The body of a parcel and its attributes."""
        return encode(frame, self.format, self._compression()), {}

    def _prefix(self) -> str:
        """What stands before the site in every key."""
        return ""

    def _compression(self) -> Compression:
        if self.compression is not None:
            return self.compression
        return "zstd" if self.format == "parquet" else self.text_compression

    def _faults(self, columns: pl.Schema) -> Iterator[Fault]:
        if not self._identity and {*columns} <= {"edge_id", *self.partition}:
            yield Fault("partition", "must leave a column for the rows; keep one or the identity")
        for index, column in enumerate(self.partition):
            if reason := self._unfit(column, columns):
                yield Fault(f"partition.{index}", reason)

    def _unfit(self, column: str, columns: pl.Schema) -> str | None:
        if column == "date" and column not in columns:
            if isinstance(columns.get(self._time), pl.Datetime):
                return None
            return (
                f"'date' is the day of the event time, but {self._time!r} is no timestamp among the"
                f" columns, which are {', '.join(columns)}; keep it or name another column"
            )
        if column not in columns:
            return f"column {column!r} is not among the columns, which are {', '.join(columns)}"
        if columns[column].is_nested() or columns[column] in (pl.Binary, pl.Object):
            return f"column {column!r} cannot name a folder, got type {columns[column]}"
        return None

    def _text(self, column: str, columns: pl.Schema) -> pl.Expr:
        """The values of a partition column as text."""
        if self._unfit(column, columns):
            # Rows from before a change of the definition: delivered, in the folder of null.
            return pl.repeat(None, pl.len(), dtype=pl.String).alias(column)
        if column not in columns:
            return pl.col(self._time).dt.date().cast(pl.String).alias(column)
        if isinstance(columns[column], pl.Datetime):
            return pl.col(column).dt.strftime(ISO_8601)
        return pl.col(column).cast(pl.String)

    def _folders(self, values: Sequence[str | None]) -> str:
        """`date=2024-05-01/line=a/` for the texts of the partition columns."""
        pairs = zip(self.partition, values, strict=True)
        return "".join(f"{_escaped(column)}={_escaped(value) or NULL}/" for column, value in pairs)


def _escaped(text: str | None) -> str:
    return (text or "").translate(_ESCAPES)


def _encoded(made: Sequence[Parcel | Refusal], rest: pl.DataFrame | None) -> Encoded:
    parcels = [part for part in made if isinstance(part, Parcel)]
    return Encoded(parcels, [part for part in made if isinstance(part, Refusal)], rest)
