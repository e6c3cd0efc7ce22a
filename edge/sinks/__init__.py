"""Where results go: the contract of a sink and the table of sinks."""

from collections.abc import Mapping, Sequence
from datetime import timedelta
from typing import ClassVar, Literal, NamedTuple

import polars as pl

from edge.component import Component, Size, Stream, find
from edge.outbox.model import Divided, Parcel, Refusal

Order = Literal["none", "key", "all"]

SINKS: Mapping[str, str] = {
    "file": "edge.sinks.file:FileSink",
    "console": "edge.sinks.console:ConsoleSink",
    "s3": "edge.sinks.s3:S3Sink",
    "sqs": "edge.sinks.sqs:SqsSink",
    "mqtt": "edge.sinks.mqtt:MqttSink",
    "cloudwatch": "edge.sinks.cloudwatch:CloudwatchSink",
}


def find_sink(name: str) -> type["Sink"]:
    """The sink class called `name`; raises DefinitionError with the nearest known name."""
    found = find(SINKS, "edge.sinks", "sink", name)
    assert issubclass(found, Sink)
    return found


class Encoded(NamedTuple):
    """What a sink made of rows. Every row is in exactly one of the three.

    rest: rows left for the next rolling (more than 64 partitions), as they came; None if none.
    """

    parcels: Sequence[Parcel]
    refused: Sequence[Refusal] = ()
    rest: pl.DataFrame | None = None


class Receipt(NamedTuple):
    """What became of parcels that were sent, by parcel id. Those in neither are tried again.

    refused: the destination will never take it, with the reason; the parcel is quarantined.
    rekey: S3 only: the key is taken by other bytes (a restored disk image); the outbox draws a new
        id and the parcel goes again under a new key.
    problem: why something is in neither, for the status and the log.
    divided: parcels whose rows did not all fare alike.
    """

    delivered: Sequence[int] = ()
    refused: Mapping[int, str] = {}
    rekey: Sequence[int] = ()
    problem: str | None = None
    divided: Mapping[int, Divided] = {}


class Roll(NamedTuple):
    """When entries become parcels: at `size` uncompressed bytes, or `every` after the oldest."""

    size: int
    every: timedelta


class RowId(NamedTuple):
    """`<site>/<pipeline>/<sink>/<outbox>-<sequence>` taken apart."""

    path: str
    outbox: str
    sequence: int


def split_id(edge_id: str) -> RowId:
    """`osaka/press/lake/1a2b3c4d-17` -> `RowId("osaka/press/lake", "1a2b3c4d", 17)`."""
    path, _, tail = edge_id.rpartition("/")
    outbox, _, sequence = tail.partition("-")
    return RowId(path, outbox, int(sequence))


class Sink(Component):
    """Delivers parcels, and makes them out of rows when they are rolled."""

    roll_default: ClassVar[Roll] = Roll(Size(8 * 2**20), timedelta(seconds=60))
    send_limit: ClassVar[int] = 4
    """How many parcels one `send` takes at most."""

    def natural_order(self) -> Order:
        """The order of delivery where the definition names none."""
        return "none"

    def bind(self, columns: pl.Schema | None, stream: Stream, identity: bool, order: str) -> None:
        """Check the options against the columns that will come; opens nothing.

        Raises DefinitionError. columns is None while only data will tell. identity: whether
        `edge_id` is delivered. order: `none`, `key` or `all`.
        """

    def encode(self, frame: pl.DataFrame) -> Encoded:
        """Rows -> parcels. Runs in a worker thread. Pure: the same frame gives the same bytes.

        The first column is `edge_id` (String, `<site>/<pipeline>/<sink>/<outbox>-<sequence>`),
        unique, rising; the others are as `bind` was told. The sink drops `edge_id` when `identity`
        is off.
        """
        raise NotImplementedError

    async def send(self, parcels: Sequence[Parcel]) -> Receipt:
        """Deliver parcels, at most `send_limit`, in the order given.

        Raises LinkDown when the destination cannot be reached and nothing was settled. Sending a
        parcel twice leaves the destination as sending it once, or lets its reader tell.
        """
        raise NotImplementedError

    async def close(self) -> None:
        """Release connections and files."""
