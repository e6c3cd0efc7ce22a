"""What goes into the outbox and what comes out of it."""

from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from datetime import timedelta
from typing import Any, Literal, NamedTuple

WhenFull = Literal["block", "drop_oldest", "drop_newest"]
Priority = Literal["high", "normal", "low"]


class Limits(NamedTuple):
    """The hard cap of one outbox, in bytes of disk, and what happens there."""

    max_size: int = 2 * 2**30
    when_full: WhenFull = "block"


class SinkLimits(NamedTuple):
    """One sink's share of the outbox; None: only the outbox's own limits hold."""

    priority: Priority = "normal"
    max_size: int | None = None
    when_full: WhenFull | None = None


class Reject(NamedTuple):
    """One payload that did not become rows, and why. `topic` is the topic or file it came from.

    failed: it is a row that an operator could not process, as JSON. listed: it is such a row that
    the operator itself lists as a loss; it is only kept to be looked at.
    """

    reason: str
    payload: bytes
    topic: str | None = None
    failed: bool = False
    listed: bool = False


class NewEntry(NamedTuple):
    """Rows of one batch for one sink: `body` is an Arrow IPC stream (zstd) of `rows` rows.

    size: bytes the rows hold uncompressed, which is what `roll.size` counts.
    """

    sink: str
    rows: int
    size: int
    body: bytes


class Entry(NamedTuple):
    """A stored entry: its rows have the sequence numbers `first`, `first + 1`, ...

    Unless the frame in `body` carries them itself in a column `edge_sequence` (rows left over from
    a rolling). `time` is when it was committed, microseconds UTC.
    """

    id: int
    first: int
    rows: int
    size: int
    time: int
    body: bytes


class Parcel(NamedTuple):
    """The exact bytes that are sent, and sent again, under one key.

    key: S3 key, file path below the sink's folder, or the id of a message's first row.
    first, last: sequence numbers of its first and last row; rows: how many it holds.
    attributes: what the sink wants to know again at `send`, as JSON values (content type, group).
    id: the outbox's number for it; 0 until it is stored. time: when the oldest of its rows was
    committed, microseconds UTC; 0 until it is stored.
    """

    key: str
    first: int
    last: int
    rows: int
    body: bytes
    attributes: Mapping[str, Any] = {}
    id: int = 0
    time: int = 0


class Rolled(NamedTuple):
    """Rows of one batch for one sink that were rolled before they are committed.

    The parcels hold for the outbox of that id while its next row gets the number `first`. entry:
    makes an entry of the rows, should that have changed, or should there be no room for parcels.
    """

    sink: str
    outbox: str
    first: int
    rows: int
    parcels: Sequence[Parcel]
    entry: Callable[[], NewEntry]


class Divided(NamedTuple):
    """What became of the rows of one parcel, where not all of them fared alike.

    delivered: how many rows have arrived. refused: parcels of rows that never will, each with the
    reason. rest: what is to be sent again. Together they have the rows of the parcel.
    """

    delivered: int
    refused: Sequence[tuple[Parcel, str]] = ()
    rest: Parcel | None = None


class Refusal(NamedTuple):
    """Rows between sequence numbers `first` and `last` that can never be delivered, and why."""

    first: int
    last: int
    rows: int
    reason: str


class Remembered(NamedTuple):
    """A piece of memory of the part called `name` (`<branch>/<operator>`, or `source`).

    whole: replaces all that was kept under the name; otherwise a change after what is kept.
    shape: hash of the options that shape the memory.
    """

    name: str
    shape: str
    whole: bool
    body: bytes


WAITING = "waiting"
"""The name of memory that holds rows no operator has seen yet; its shape is how many they are."""


class Loss(NamedTuple):
    """Rows that are not delivered, for the list of losses: which part lost them, how and why."""

    part: str
    kind: str
    rows: int
    bytes: int
    reason: str
    first: int | None = None
    last: int | None = None


class Commit(NamedTuple):
    """Everything that one batch changes, written in one transaction.

    position: None leaves the stored position as it is.
    counts: what is added to the ledger, by (part, counter): `("source", "read"): 500`,
        `("common/filter", "filtered"): 12`. Rows appended per sink are counted by the outbox.
    rejects: kept for `edge outbox` within bounds; each is also listed as a loss.
    losses: lines of the list of losses only; their counters are in `counts`.
    rolled: what comes as parcels, of sinks that have nothing in `entries`.
    """

    entries: Sequence[NewEntry] = ()
    position: bytes | None = None
    memory: Sequence[Remembered] = ()
    counts: Mapping[tuple[str, str], int] = {}
    rejects: Sequence[Reject] = ()
    losses: Sequence[Loss] = ()
    rolled: Sequence[Rolled] = ()

    def unrolled(self) -> "Commit":
        """The same with entries only."""
        if not self.rolled:
            return self
        made = [each.entry() for each in self.rolled]
        return self._replace(entries=[*made, *self.entries], rolled=())

    def appended(self) -> Mapping[str, int]:
        """The rows that it adds, by sink."""
        rows: Counter[str] = Counter()
        for entry in self.entries:
            rows[entry.sink] += entry.rows
        for rolled in self.rolled:
            rows[rolled.sink] += rolled.rows
        return rows


class Kept(NamedTuple):
    """The memory of one part as it is stored: one whole, then changes in order."""

    shape: str
    states: Sequence[bytes]


class Restored(NamedTuple):
    """What a start finds: where the source stood and what every part remembered."""

    position: bytes | None
    memory: Mapping[str, Kept]


class Depth(NamedTuple):
    """How much of one sink waits: rows and bytes buffered, age of the oldest row."""

    rows: int
    bytes: int
    oldest: timedelta | None
