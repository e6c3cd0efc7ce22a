"""Rows of a test or a preview, as the source of the pipeline would hand them over."""

from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from typing import Any, NamedTuple

import orjson
import polars as pl

from edge.codec import TIMESTAMP, Decoded, Record
from edge.outbox.model import Reject
from edge.pipeline.binding import RECEIVED

Rows = Sequence[Mapping[str, Any]]


class Given(NamedTuple):
    """frame: what became rows. rejects: payloads that the record refuses. read: how many rows."""

    frame: pl.DataFrame
    rejects: Sequence[Reject]
    read: int


class Giver:
    """Makes payloads of rows, and of payloads what the record says.

    What is no field of the record is a capture of the topic, or the time of arrival.
    """

    def __init__(self, record: Record, columns: pl.Schema | None) -> None:
        """columns: what the source gives; None where only data tells."""
        self._record = record
        self._columns = columns
        fields = record.fields or {}
        # A source that makes its columns itself asks no record.
        self._made = columns if not fields and record.format in ("json", "csv") else None
        self._captured = [
            name for name in columns or () if self._made is None and name not in {*fields, RECEIVED}
        ]
        self._decoder = _as_json(record).decoder(self._captured)

    def give(self, rows: Rows, now: datetime) -> Given:
        """now: when they arrive, unless a row says so itself."""
        if self._made is not None:
            return _of_columns(rows, self._made, now)
        payloads = [_payload(self._record, row, (*self._captured, RECEIVED)) for row in rows]
        decoded = self._decoder.decode(payloads)
        beside = {name: [row.get(name) for row in rows] for name in self._captured}
        arrived = [as_moment(row.get(RECEIVED)) or now for row in rows]
        rejects = [Reject(reason, payloads[index]) for index, reason in decoded.rejects]
        return self._whole(decoded, {**beside, RECEIVED: arrived}, rejects)

    def give_frame(self, frame: pl.DataFrame, now: datetime) -> Given:
        """As `give`, of columns that have types already, judged as those of Parquet are."""
        if self._made is not None:
            return _of_columns(frame.to_dicts(), self._made, now)
        decoded = self._decoder.decode_frame(frame)
        none = [None] * frame.height
        beside = {
            name: frame[name].to_list() if name in frame.columns else none
            for name in self._captured
        }
        arrived = frame[RECEIVED].to_list() if RECEIVED in frame.columns else [now] * frame.height
        rejects = [
            Reject(reason, str(frame.row(index, named=True)).encode())
            for index, reason in decoded.rejects
        ]
        return self._whole(decoded, {**beside, RECEIVED: arrived}, rejects)

    def _whole(
        self, decoded: Decoded, beside: Mapping[str, list[Any]], rejects: Sequence[Reject]
    ) -> Given:
        """Rows with what does not come from their payload, which is by payload."""
        frame = decoded.frame
        names = [name for name in beside if name not in frame.columns]
        others = pl.DataFrame(
            {name: beside[name] for name in names},
            schema={name: TIMESTAMP if name == RECEIVED else pl.String() for name in names},
        )
        if decoded.origin is not None:
            others = others[decoded.origin]
        frame = frame.hstack(others)
        if self._columns is not None:
            frame = frame.select(self._columns.names())
        return Given(frame, rejects, frame.height + len(rejects))


def _of_columns(rows: Rows, columns: pl.Schema, now: datetime) -> Given:
    """Rows of a source that knows no payloads; what is missing is null."""

    def cell(row: Mapping[str, Any], name: str) -> Any:
        if name == RECEIVED:
            return as_moment(row.get(name)) or now
        value = row.get(name)
        return as_moment(value) if columns[name] == TIMESTAMP and isinstance(value, str) else value

    series = [
        pl.Series(name, [cell(row, name) for row in rows], dtype, strict=False)
        for name, dtype in columns.items()
    ]
    return Given(pl.DataFrame(series), (), len(rows))


def as_row(reject: Reject) -> dict[str, Any]:
    """A rejected payload as a test expects it."""
    return {"reason": reject.reason, "payload": reject.payload.decode(errors="replace")}


def _payload(record: Record, row: Mapping[str, Any], beside: Sequence[str]) -> bytes:
    if record.format in ("value", "raw"):
        return str(row.get("value", "")).encode()
    return orjson.dumps({name: value for name, value in row.items() if name not in beside})


def _as_json(record: Record) -> Record:
    """A row of CSV is written as its values are, not as text."""
    if record.format != "csv":
        return record
    return Record(**{**dict(record), "format": "json", "header": None})


def as_moment(text: Any) -> datetime | None:
    """The time that a text says, in UTC where it names no zone; None if it says none."""
    try:
        moment = datetime.fromisoformat(text)
    except (TypeError, ValueError):
        return None
    return moment if moment.tzinfo else moment.replace(tzinfo=UTC)
