"""Numbers of processors of this machine, as rows."""

import logging
import os
import sqlite3
from collections.abc import AsyncGenerator, Mapping
from datetime import timedelta
from pathlib import Path

import polars as pl
from pydantic import Field, PrivateAttr

from edge.clock import Clock
from edge.codec import TIMESTAMP, Record
from edge.component import Names, PositiveDuration, Stream
from edge.errors import DefinitionError, EdgeError, Fault
from edge.outbox import inspection
from edge.outbox.measures import OF_PIPELINE, OF_SINK, Measure, measures
from edge.outbox.owner import is_owned
from edge.outbox.schema import FILE
from edge.sources import Arrival, Batch, Source
from edge.threads import in_thread

log = logging.getLogger("edge.sources.metrics")

_LOOK = 0.5  # seconds between looks at whether it is time
NAMED = ("site", "replica", "pipeline", "sink")
"""Columns that tell whose numbers a row has."""
_COLUMNS = pl.Schema(
    {
        **dict.fromkeys(NAMED, pl.String()),
        **dict.fromkeys((*OF_PIPELINE, *OF_SINK), pl.Float64()),
        "edge_received": TIMESTAMP,
    }
)


class MetricsSource(Source):
    """Reads the numbers of processors of this machine, once an interval.

    ```yaml
    metrics:
      every: 1m
    ```

    Looks into outboxes as `edge status` does, its own among them. One row for a pipeline (`sink` is
    null): `running` (1 or 0), `connected`, `rows_read`, `rows_rejected`, `rows_failed`,
    `last_read_seconds` (age of the row that came last), `imbalances` (equations of the ledger that
    fail), `outbox_bytes`, `outbox_max_bytes`, `hours_until_full`; and one for each of its sinks:
    `link_up` (1 or 0), `waiting_rows`, `waiting_bytes`, `oldest_seconds`, `delivered_rows`,
    `quarantined_rows`. Rows are totals since the outbox was made; what is not known is null. `site`
    and `replica` are EDGE_SITE (else `local`) and EDGE_REPLICA (else `0`), `edge_received` is when.

    The rows go through an outbox as all others: while the link is away they wait, each with its
    time. While this processor does not run nothing is measured.

    Cost: 2 ms for each pipeline and interval.
    """

    pipelines: Names = Field(
        (),
        description="Names of pipelines, or folders of outboxes (with a `/`); default all below"
        " EDGE_STATE_DIR.",
    )
    every: PositiveDuration = Field(timedelta(minutes=1), description="The interval.")

    _folder: Path = PrivateAttr(Path())
    _clock: Clock = PrivateAttr(default_factory=Clock)
    _problem: str | None = PrivateAttr(None)

    def bind(
        self, record: Record, stream: Stream, identity: str, batch: Batch, clock: Clock
    ) -> pl.Schema:
        if record.fields:
            raise DefinitionError(Fault("record.fields", "are given by `metrics`; leave them out"))
        self._folder, self._clock = stream.folder, clock
        return _COLUMNS

    async def arrivals(self, position: bytes | None) -> AsyncGenerator[Arrival | None, None]:
        due = self._clock.steady()
        while True:
            if (left := due - self._clock.steady()) > 0:
                yield None
                await self._clock.sleep(min(left, _LOOK))
                continue
            due = max(due, self._clock.steady() - _LOOK) + self.every.total_seconds()
            frame = await in_thread(self._measured)
            yield Arrival(frame, read=frame.height)

    def status(self) -> Mapping[str, object]:
        """Why an outbox could not be read, if one could not."""
        return {"problem": self._problem} if self._problem else {}

    def _measured(self) -> pl.DataFrame:
        self._problem = None
        rows = [row for name, folder in self._folders().items() for row in self._look(name, folder)]
        where = {
            "site": os.environ.get("EDGE_SITE") or "local",
            "replica": os.environ.get("EDGE_REPLICA") or "0",
            "edge_received": self._clock.now(),
        }
        return pl.DataFrame([{**row, **where} for row in rows], schema=_COLUMNS)

    def _folders(self) -> Mapping[str, Path]:
        state = Path(os.environ.get("EDGE_STATE_DIR") or "var")
        if not self.pipelines:
            return {file.parent.name: file.parent for file in sorted(state.glob(f"*/{FILE}"))}
        return {
            Path(name).name: self._folder / name if "/" in name else state / name
            for name in self.pipelines
        }

    def _look(self, name: str, folder: Path) -> list[Measure]:
        found = None
        try:
            if (folder / FILE).exists():
                found = inspection.status(folder, self._clock.now())
        except (EdgeError, OSError, sqlite3.Error) as error:
            self._problem = f"outbox {folder}: cannot be read: {error}"
            log.warning("%s", self._problem)
        return measures(name, is_owned(folder), found)
