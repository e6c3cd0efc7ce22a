"""Payloads of one record -> columns."""

from collections.abc import Mapping, Sequence
from typing import Any

import polars as pl

from edge.codec.cells import CellReader
from edge.codec.few import FewReader
from edge.codec.infer import infer_columns, infer_objects
from edge.codec.objects import ObjectReader
from edge.codec.record import COLUMN_TYPES, FieldSpec, Record
from edge.codec.rows import Decoded, Raw, settle
from edge.codec.values import read_raw, read_values
from edge.component import format_size


class Decoder:
    """Turns payloads of one record into columns; made by `Record.decoder()`.

    Every payload gives the same rows, or the same reject, whatever other payloads come with it.
    Not for two threads at once.
    """

    def __init__(self, record: Record) -> None:
        self._record = record
        self._fields: Mapping[str, FieldSpec] | None = None
        if record.extra == "drop":
            self._use(record.known_fields())

    @property
    def columns(self) -> pl.Schema | None:
        """What `decode` gives, in order; None until the first rows have decided."""
        if self._fields is None:
            return None
        return pl.Schema((name, COLUMN_TYPES[field.type]) for name, field in self._fields.items())

    @property
    def fields(self) -> Mapping[str, FieldSpec] | None:
        """The fields, also those that the first rows decided; None until then.

        Set it to what an earlier run decided: FieldSpec objects or what their `model_dump` gave.
        """
        return self._fields

    @fields.setter
    def fields(self, fields: Mapping[str, FieldSpec | str | Mapping[str, Any]]) -> None:
        self._use({name: FieldSpec.model_validate(field) for name, field in fields.items()})

    def _use(self, fields: Mapping[str, FieldSpec] | None) -> None:
        self._fields = fields
        if fields is not None and self._record.format == "json":
            self._objects = ObjectReader(fields, self._record.rows)
            self._few = None if self._record.rows else FewReader(fields, self._record.timezone)
        elif fields is not None:
            self._cells = CellReader({name: field.path or name for name, field in fields.items()})

    def decode(self, payloads: Sequence[bytes]) -> Decoded:
        """Payloads decoded together; one that does not fit is rejected with its reason.

        While `columns` is None and no payload can be read, the frame has no columns.
        """
        if not payloads:
            return self._nothing()
        try:
            return self._decode(payloads)
        except MemoryError:
            if len(payloads) == 1:
                size = format_size(len(payloads[0]))
                return self._rejected(f"payload is too large for this machine's memory, got {size}")
        half = len(payloads) // 2
        return _joined(self.decode(payloads[:half]), self.decode(payloads[half:]), half)

    def _decode(self, payloads: Sequence[bytes]) -> Decoded:
        if self._record.format == "raw":
            return self._settled(read_raw(payloads))
        if self._record.format == "value":
            return self._settled(read_values(payloads))
        if self._record.format == "csv":
            return self._decode_cells(payloads)
        if self._fields is None:
            self._use(infer_objects(payloads, self._record))
        if self._fields is None:
            return self._unread(payloads)
        few = self._few.read(payloads) if self._few else None
        if few is not None:
            return Decoded(few, None, [])
        return self._settled(self._objects.read(payloads))

    def decode_lines(
        self, block: bytes, lines: Sequence[bytes] | None, header: Sequence[str] = ()
    ) -> Decoded | None:
        """Lines of a file: each is a payload.

        block: whole lines, the last with or without its line break. lines: the same, taken apart;
        with None only the quick way is tried, and None comes back where it fails or rejects.
        header: the columns of a CSV file.
        """
        quick = self._read_lines(block, header) if lines is None else None
        if quick is not None:
            decoded = self._settled(quick)
            return None if decoded.rejects else decoded
        if lines is None:
            return None
        if self._record.format != "csv":
            return self.decode(lines)
        return self._settled(self._cells.read_singly(lines, header))

    def _read_lines(self, block: bytes, header: Sequence[str]) -> Raw | None:
        if self._fields is None:
            self._infer_lines(block, header)
        if self._fields is None:
            return None
        if self._record.format != "csv":
            return self._objects.read_lines(block)
        frame = self._cells.read_lines(block, header)
        return Raw(frame) if frame is not None else None

    def _infer_lines(self, block: bytes, header: Sequence[str]) -> None:
        lines = block.split(b"\n", 1000)[:1000]
        if self._record.format == "csv":
            cells = CellReader(_same(header)).read_singly(lines, header)
            self._use(infer_columns(cells.frame, self._record))
        else:
            self._use(infer_objects(lines, self._record))

    def decode_frame(self, frame: pl.DataFrame) -> Decoded:
        """Columns that have types already (Parquet), under the same rules: 4.7 is no int.

        A row is what a payload is elsewhere.
        """
        if self._fields is None:
            self._use({**infer_columns(frame, self._record), **(self._record.fields or {})})
        fields = self._fields or {}
        found = {name: field.path or name for name, field in fields.items()}
        columns = [
            (pl.col(path) if path in frame.columns else pl.lit(None)).alias(name)
            for name, path in found.items()
        ]
        return self._settled(Raw(frame.select(columns)))

    def _decode_cells(self, payloads: Sequence[bytes]) -> Decoded:
        if self._fields is None:
            names = _header(payloads)
            if not names:
                return self._unread(payloads)
            sample = CellReader(_same(names)).read(payloads[:1000], header=True)
            self._use(infer_columns(sample.frame, self._record))
        return self._settled(self._cells.read(payloads, header=bool(self._record.header)))

    def _settled(self, raw: Raw) -> Decoded:
        assert self._fields is not None
        return settle(raw, self._fields, self._record.timezone)

    def _rejected(self, reason: str) -> Decoded:
        """One payload that did not become rows."""
        return self._nothing()._replace(
            origin=pl.Series([], dtype=pl.UInt32), rejects=[(0, reason)]
        )

    def _nothing(self) -> Decoded:
        return Decoded(pl.DataFrame(schema=self.columns or {}), None, [])

    def _unread(self, payloads: Sequence[bytes]) -> Decoded:
        """Every payload rejected, while nobody knows what columns there are."""
        reader = ObjectReader({"value": FieldSpec(type="str", optional=True)}, None)
        unknown = dict.fromkeys(range(len(payloads)), "payload has no field")
        reasons = {**unknown, **reader.read(payloads).rejects}
        return Decoded(pl.DataFrame(), pl.Series([], dtype=pl.UInt32), sorted(reasons.items()))


def _joined(head: Decoded, tail: Decoded, payloads: int) -> Decoded:
    """What two halves of some payloads became, of which the first has so many, as one."""
    origins = [
        pl.int_range(half.frame.height, dtype=pl.UInt32, eager=True)
        if half.origin is None
        else half.origin
        for half in (head, tail)
    ]
    return Decoded(
        pl.concat([half.frame for half in (head, tail) if half.frame.width] or [head.frame]),
        pl.concat([origins[0], (origins[1] + payloads).cast(pl.UInt32)]),
        [*head.rejects, *((index + payloads, reason) for index, reason in tail.rejects)],
    )


def _header(payloads: Sequence[bytes]) -> Sequence[str]:
    for payload in payloads:
        try:
            return payload.decode().splitlines()[0].split(",")
        except (UnicodeDecodeError, IndexError):
            continue
    return ()


def _same(names: Sequence[str]) -> dict[str, str]:
    return dict(zip(names, names, strict=True))
