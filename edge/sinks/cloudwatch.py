"""Numbers of rows as metrics of CloudWatch, with the time at which they were measured."""

import asyncio
import re
from collections.abc import Mapping, Sequence
from datetime import timedelta
from typing import Annotated, ClassVar, Literal

import polars as pl
from pydantic import AfterValidator, Field, PrivateAttr

from edge.aws import AwsService, Target, Verdict, classify
from edge.aws.grants import assumed
from edge.clock import Clock
from edge.component import Names, Permission, Stream
from edge.errors import DefinitionError, Fault
from edge.expression import require
from edge.outbox.model import Parcel
from edge.sinks import Encoded, Receipt, Roll, Sink
from edge.sinks.datum import DATA, Measured, Shape, divide, make_data, rows_of
from edge.sinks.receipt import join, receipt_for

OLDEST = timedelta(days=14)
"""Age of a point that CloudWatch still takes (PutMetricData)."""
_MOST_DIMENSIONS = 30
_TOO_OLD = "it is older than the two weeks that CloudWatch takes"
# What it says of a datum that it can never take.
_UNTAKEN = re.compile(r"(Invalid|Missing)(Required)?Parameter\w*|Validation(Error|Exception)")

Unit = Literal[
    "Seconds", "Microseconds", "Milliseconds", "Bytes", "Kilobytes", "Megabytes", "Gigabytes",
    "Terabytes", "Bits", "Kilobits", "Megabits", "Gigabits", "Terabits", "Percent", "Count",
    "Bytes/Second", "Kilobytes/Second", "Megabytes/Second", "Gigabytes/Second",
    "Terabytes/Second", "Bits/Second", "Kilobits/Second", "Megabits/Second", "Gigabits/Second",
    "Terabits/Second", "Count/Second", "None",
]  # fmt: skip


def _check_namespace(name: str) -> str:
    if not re.fullmatch(r"[A-Za-z0-9._/#:-]{1,255}", name) or name.startswith(("AWS/", ":")):
        raise ValueError(
            f"must be up to 255 of A-Z a-z 0-9 . - _ / #, not below AWS/, got {name!r}"
        )
    return name


class CloudwatchSink(AwsService, Sink):
    """Puts numbers of rows as metrics of CloudWatch, each at the time of its row.

    ```yaml
    cloudwatch:
      namespace: plant
      metrics: temperature
      dimensions: [line, device]
    ```

    A row is one point of each metric. They go with their own time, so what waited for the link
    lands where it belongs; CloudWatch shows points that are a day old or more only after hours, and
    takes none older than two weeks or more than two hours ahead: those rows are refused, with the
    reason in the ledger. Null and NaN are left out; a row without any number is refused. A
    dimension that is null is left out; characters beyond ASCII are written as `\\xfc`.

    A call that was cut off is made again with the same points. CloudWatch does not know repeats: it
    counts the point twice, which leaves Average, Minimum and Maximum as they are and adds to Sum
    and SampleCount. Use the former. Needs cloudwatch:PutMetricData.

    Cost: 10 us a point, when it is rolled; one call for 1,000 of them. CloudWatch charges for each
    combination of metric and dimensions.
    """

    service: ClassVar[str] = "cloudwatch"
    roll_default: ClassVar[Roll] = Roll(2**20, timedelta(seconds=60))

    namespace: Annotated[str, AfterValidator(_check_namespace)] = Field(
        "edge", description="Namespace of the metrics."
    )
    metrics: Names = Field(
        (), description="Columns that are metrics; default all numbers that are no dimension."
    )
    dimensions: Names | None = Field(
        None, description="Columns that tell one series from another; default the record's `key`."
    )
    units: Mapping[str, Unit] = Field(
        {}, description="Unit by metric; default by the end of its name: _seconds, _bytes, _rows."
    )
    resolution: Literal[1, 60] = Field(
        60, description="Seconds that CloudWatch keeps apart; 1 costs more there."
    )
    _shape: Shape | None = PrivateAttr(None)
    _stream: Stream = PrivateAttr(Stream())
    _clock: Clock = PrivateAttr(default_factory=Clock)

    def bind(self, columns: pl.Schema | None, stream: Stream, identity: bool, order: str) -> None:
        self._stream = stream
        if len(self._told_by()) > _MOST_DIMENSIONS:
            raise DefinitionError(Fault("dimensions", f"must be at most {_MOST_DIMENSIONS}"))
        if columns is not None:
            require(self.metrics, columns, "metrics")
            require(self.dimensions or (), columns, "dimensions")
            require([stream.time], columns, "the time of the rows")
            self._shape = self._shaped(columns)

    def encode(self, frame: pl.DataFrame) -> Encoded:
        return make_data(frame, self._shape or self._shaped(frame.schema))

    async def send(self, parcels: Sequence[Parcel]) -> Receipt:
        """One call a parcel, side by side; LinkDown when CloudWatch settled nothing."""
        sending = map(self._send, parcels)
        return join(await asyncio.gather(*sending, return_exceptions=True))

    def permissions(self, path: str) -> Sequence[Permission]:
        """To put into this namespace."""
        if not self.asks_aws():
            return ()
        only = {"StringEquals": {"cloudwatch:namespace": self.namespace}}
        return assumed(self.role_arn, [Permission(("cloudwatch:PutMetricData",), "*", only)])

    def _told_by(self) -> Sequence[str]:
        return self._stream.key if self.dimensions is None else self.dimensions

    def _shaped(self, columns: pl.Schema) -> Shape:
        apart = {*self._told_by(), self._stream.time, "edge_id"}
        numbers = [
            name
            for name, kind in columns.items()
            if name not in apart and (kind.is_numeric() or kind == pl.Boolean)
        ]
        metrics = self.metrics or tuple(numbers)
        if not 1 <= len(metrics) <= DATA:
            raise DefinitionError(Fault("metrics", f"must be 1 to {DATA}, got {len(metrics)}"))
        fixed = {"StorageResolution": 1} if self.resolution == 1 else {}
        return Shape(self._stream.time, metrics, self._told_by(), self.units, fixed)

    async def _send(self, parcel: Parcel) -> Receipt:
        try:
            rows = rows_of(parcel)
        except ValueError as error:
            return Receipt(refused={parcel.id: str(error)})
        oldest = self._clock.now() / 1e6 - OLDEST.total_seconds()
        refused = {place: _TOO_OLD for place, row in enumerate(rows) if row.time < oldest}
        young = [place for place in range(len(rows)) if place not in refused]
        taken: set[int] = set()
        stopped = await self._put(rows, young, taken, refused) if young else None
        if len(taken) == len(rows):
            return Receipt([parcel.id])
        if stopped and not (taken or refused):
            return receipt_for(stopped, [parcel])
        divided = {parcel.id: divide(parcel, rows, taken, refused)}
        return Receipt(divided=divided, problem=stopped and stopped.problem)

    async def _put(
        self,
        rows: Sequence[Measured],
        places: Sequence[int],
        taken: set[int],
        refused: dict[int, str],
    ) -> Verdict | None:
        """Notes what becomes of rows, by place; gives why it stopped, if it did.

        Where one cannot be taken they are halved until it stands alone.
        """
        data = [datum for place in places for datum in rows[place].data]
        try:
            await self.call(
                lambda client: client.put_metric_data(Namespace=self.namespace, MetricData=data)
            )
            taken.update(places)
            return None
        except Exception as error:
            verdict = classify(error, Target("CloudWatch", f"namespace {self.namespace!r}"))
            if not _UNTAKEN.fullmatch(_code(error)):
                return verdict
        if len(places) == 1:
            refused[places[0]] = verdict.problem
            return None
        half = len(places) // 2
        stopped = await self._put(rows, places[:half], taken, refused)
        return stopped or await self._put(rows, places[half:], taken, refused)


def _code(error: Exception) -> str:
    return str(getattr(error, "response", {}).get("Error", {}).get("Code", ""))
