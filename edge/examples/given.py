"""The rows that a test gives, as its source would hand them over."""

from collections.abc import Mapping, Sequence
from datetime import datetime
from typing import Any, NamedTuple

import orjson
import polars as pl

from edge.codec import TIMESTAMP, Record
from edge.examples.compare import Rows, as_moment
from edge.outbox.model import Reject
from edge.pipeline.binding import RECEIVED


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
        self._captured = [name for name in columns or () if name not in {*fields, RECEIVED}]
        self._decoder = _as_json(record).decoder(self._captured)

    def give(self, rows: Rows, now: datetime) -> Given:
        """now: when they arrive, unless a row says so itself."""
        payloads = [_payload(self._record, row, (*self._captured, RECEIVED)) for row in rows]
        decoded = self._decoder.decode(payloads)
        origin = range(len(rows)) if decoded.origin is None else decoded.origin.to_list()
        others = [
            pl.Series(name, [rows[index].get(name) for index in origin], pl.String())
            for name in self._captured
            if name not in decoded.frame.columns
        ]
        arrived = [as_moment(rows[index].get(RECEIVED)) or now for index in origin]
        frame = decoded.frame.hstack([*others, pl.Series(RECEIVED, arrived, TIMESTAMP)])
        if self._columns is not None:
            frame = frame.select(self._columns.names())
        rejects = [Reject(reason, payloads[index]) for index, reason in decoded.rejects]
        return Given(frame, rejects, frame.height + len(rejects))


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
