"""Where rows come from: the contract of a source and the table of sources."""

from collections.abc import AsyncGenerator, Awaitable, Callable, Mapping, Sequence
from typing import ClassVar, NamedTuple

import polars as pl

from edge.clock import Clock
from edge.codec import FieldSpec, Record, Reject
from edge.component import Component, Stream, find

SOURCES: Mapping[str, str] = {
    "mqtt": "edge.sources.mqtt:MqttSource",
    "dataset": "edge.sources.dataset:DatasetSource",
    "sqs": "edge.sources.sqs:SqsSource",
    "metrics": "edge.sources.metrics:MetricsSource",
}


def find_source(name: str) -> type["Source"]:
    """The source class called `name`; raises DefinitionError with the nearest known name."""
    found = find(SOURCES, "edge.sources", "source", name)
    assert issubclass(found, Source)
    return found


async def nothing() -> None:
    """The acknowledgement of a source that nobody waits for."""


class Arrival(NamedTuple):
    """One batch as a source hands it over.

    frame: the rows, one column per field of the record, per topic capture, and `edge_received`
        (microseconds UTC). May be empty: then only memory, position and counts are committed.
    position: where the next read starts once these rows are committed; None if the source cannot
        seek. Committed with the rows.
    acknowledge: called once, after the commit (or after every sink settled the rows, when the
        definition says `acknowledge: delivered`). Must be harmless when the connection the rows
        came from is gone.
    read: rows seen to make this batch. Must equal rejected + redelivered + retained + taken, where
        taken is the height of `frame` and rejected the length of `rejects`.
    rejects: payloads that did not become rows, each with its reason.
    """

    frame: pl.DataFrame
    position: bytes | None = None
    acknowledge: Callable[[], Awaitable[None]] = nothing
    read: int = 0
    rejects: Sequence[Reject] = ()
    redelivered: int = 0
    retained: int = 0

    def counts(self) -> dict[str, int]:
        """The source's side of the ledger, without what is zero."""
        counts = {
            "read": self.read,
            "rejected": len(self.rejects),
            "redelivered": self.redelivered,
            "retained": self.retained,
            "taken": self.frame.height,
        }
        return {name: rows for name, rows in counts.items() if rows}


class Batch(NamedTuple):
    """When a batch is handed over: at `rows` rows, or about `wait` seconds after its first came.

    bytes: at about so many it is handed over in any case, so that its rows, as they came, always
    have room in an outbox. parcel: with what operators may add to them so many make a parcel; rows
    of a source that comes to an end go together up to that.
    """

    rows: int = 10_000
    wait: float = 0.05
    bytes: int = 16 * 2**20
    parcel: int = 0


class Source(Component):
    """Brings batches of rows.

    The runner calls `bind` once, then iterates `arrivals`. It asks for the next arrival only after
    the last one is committed; while it does not ask, the source must keep its connection alive but
    need not read. When the task is cancelled the iterator is closed; `close` then releases
    everything.
    """

    own_memory: ClassVar[bool] = False
    """Whether the rows of an arrival have memory of their own, and nobody writes to it."""

    @property
    def finite(self) -> bool:
        """Whether it can come to an end by itself; `edge run --once` waits for that."""
        return False

    def bind(
        self, record: Record, stream: Stream, identity: str, batch: Batch, clock: Clock
    ) -> pl.Schema | None:
        """Prepare to read; opens nothing. Returns the columns it will give (None: only data tells).

        identity is `edge-<site>-<pipeline>-<replica>`, the same on every start.
        Raises DefinitionError for what only shows with the record at hand.
        """
        raise NotImplementedError

    def arrivals(self, position: bytes | None) -> AsyncGenerator[Arrival | None, None]:
        """Batches from `position` (what an earlier arrival carried; None: from the start).

        Yields None at least once a second while there is nothing, so that the runner can do other
        things. A network that is away is not an error: the source keeps trying by itself. A finite
        source returns at its end.
        """
        raise NotImplementedError

    def snapshot(self, whole: bool) -> bytes | None:
        """What must be remembered of the arrivals handed over so far; see `Operator.snapshot`."""
        return None

    def restore(self, states: Sequence[bytes]) -> None:
        """Take back what `snapshot` gave: one whole, then changes. Called before `arrivals`."""

    def fields(self) -> Mapping[str, FieldSpec] | None:
        """What the first rows were found to consist of; None while there were none."""
        return None

    def series(self) -> Sequence[str]:
        """Columns that tell one series from another where `record.key` does not: topic captures."""
        return ()

    def status(self) -> Mapping[str, object]:
        """What a user should see of it now: connected or not, why, progress. JSON values."""
        return {}

    async def close(self) -> None:
        """Release connections and files. Called once; the source is not used again."""
