"""The definition of a pipeline as types: what can be declared, with its defaults and limits."""

import os
import re
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

from pydantic import (
    AfterValidator,
    BeforeValidator,
    Field,
    InstanceOf,
    PrivateAttr,
    WithJsonSchema,
    model_validator,
)

from edge.clock import Clock
from edge.codec import Record
from edge.component import PositiveDuration, Rate, Size, parse_duration, parse_size
from edge.errors import DefinitionError, Fault
from edge.operators import Operator
from edge.outbox.model import Limits, Priority, SinkLimits, WhenFull
from edge.pipeline.binding import Bound, Place, dotted, line_of, names_of
from edge.pipeline.example import Example, faults_of
from edge.pipeline.options import Options
from edge.sinks import Order, Roll, Sink
from edge.sources import Batch, Source

if TYPE_CHECKING:
    import polars as pl

    from edge.pipeline.given import Rows
    from edge.pipeline.preview import Preview

Acknowledge = Literal["committed", "delivered"]

SMALLEST_OUTBOX = parse_size("32MiB")
_RESERVED_SINKS = ("common", "source")


def _name(longest: int) -> tuple[Callable[[Any], Any], Mapping[str, Any]]:
    """The check of a name that goes into keys and client ids, and its JSON Schema."""
    allowed = re.compile(f"[a-z0-9-]{{1,{longest}}}")

    def check(text: str) -> str:
        if not allowed.fullmatch(text):
            raise ValueError(f"must be 1 to {longest} characters of a-z, 0-9 and -, got {text!r}")
        return text

    return check, {"type": "string", "pattern": f"^{allowed.pattern}$"}


def _text(value: object) -> object:
    """A site or replica called `7` is read as a number by YAML."""
    return str(value) if type(value) is int else value


_check_name, _name_schema = _name(63)
_check_site, _site_schema = _name(32)
Name = Annotated[str, AfterValidator(_check_name), WithJsonSchema(dict(_name_schema))]
_site_schema = {**_site_schema, "type": ["string", "integer"]}
Site = Annotated[
    str, BeforeValidator(_text), AfterValidator(_check_site), WithJsonSchema(dict(_site_schema))
]


def _room_to_work(size: Size) -> Size:
    if size < SMALLEST_OUTBOX:
        raise ValueError(f"must be at least 32MiB, got '{size}'")
    return size


class OutboxOptions(Options):
    """The durable buffer between the operators and the sinks."""

    path: Path | None = Field(
        None, description="Folder; default $EDGE_STATE_DIR/<name>, var/<name>."
    )
    max_size: Annotated[Size, AfterValidator(_room_to_work)] = Field(
        Size(2 * 2**30), description="Hard cap of its disk use, from 32MiB."
    )
    when_full: WhenFull = Field("block", description="What happens to rows at the cap.")


class LinkOptions(Options):
    """How the backlog leaves."""

    bandwidth: Rate | None = Field(None, gt=0, description="Upper bound of all sinks together.")
    live_share: float = Field(
        0.7, ge=0, le=1, description="Share of sending that goes to the newest rows."
    )


class BatchOptions(Options):
    """When rows that arrived are processed together."""

    rows: int = Field(10_000, ge=1, le=1_000_000, description="At this many rows,")
    wait: PositiveDuration = Field(
        parse_duration("50ms"), description="or this long after the first of them came."
    )


class RollOptions(Options):
    """When buffered rows become a parcel; what is left out is the sink's own default."""

    size: Size | None = Field(None, gt=0, description="At this many uncompressed bytes,")
    every: PositiveDuration | None = Field(
        None, description="or this long after the oldest buffered row."
    )


class Named(Options):
    """One operator in its list; its name is the key of its durable memory."""

    operator: InstanceOf[Operator]
    name: Name | None = Field(None, description="Its own; the key of its durable memory.")


def _as_named(value: object) -> object:
    return Named(operator=value) if isinstance(value, Operator) else value


def _told_apart(steps: "tuple[Named, ...]") -> "tuple[Named, ...]":
    names = names_of(steps)
    for name in names:
        if names.count(name) > 1:
            raise ValueError(f"two operators are called {name!r}; give one another name")
    return steps


Operators = Annotated[
    tuple[Annotated[Named, BeforeValidator(_as_named)], ...], AfterValidator(_told_apart)
]


class Branch(Options):
    """One sink and what happens to the rows on their way to it."""

    sink: InstanceOf[Sink]
    operators: Operators = Field((), description="After the common ones, before `when`.")
    when: str | None = Field(None, description="SQL condition of the rows this sink gets.")
    roll: RollOptions = Field(RollOptions(), description="When rows are rolled into a parcel.")
    priority: Priority = Field("normal", description="Which backlog leaves first, or goes first.")
    order: Order = Field(
        default_factory=lambda given: given["sink"].natural_order() if "sink" in given else "none",
        description="Order of delivery; default none, key for FIFO queues, all for mqtt.",
    )
    identity: bool = Field(True, description="Deliver the column `edge_id`.")
    max_size: Size | None = Field(None, gt=0, description="Its share of the outbox.")
    when_full: WhenFull | None = Field(None, description="What happens at its share.")
    live_share: float | None = Field(None, ge=0, le=1, description="See `link`.")

    def rolling(self) -> Roll:
        """When entries of this sink become parcels."""
        default = self.sink.roll_default
        return Roll(self.roll.size or default.size, self.roll.every or default.every)

    def limits(self) -> SinkLimits:
        """What the outbox must know about this sink."""
        return SinkLimits(self.priority, self.max_size, self.when_full)


def _as_branch(value: object) -> object:
    return Branch(sink=value) if isinstance(value, Sink) else value


class Pipeline(Options):
    """What is read, what is done with it and where it goes.

    In Python a bare sink or operator may stand where a `Branch` or `Named` is declared:
    `Pipeline(name="press", source=MqttSource(...), sinks={"lake": S3Sink(...)})`. Making one opens
    nothing. Raises pydantic's ValidationError.
    """

    edge: Literal[1] = Field(1, description="Version of the definition's format.")
    name: Name = Field(description="Names outbox, keys and client id: [a-z0-9-]{1,63}.")
    site: Site = Field("local", description="Where this runs: [a-z0-9-]{1,32}.")
    replica: Site = Field("0", description="Which of several processors at this site.")
    source: InstanceOf[Source] = Field(description="Where rows come from.")
    acknowledge: Acknowledge = Field(
        "committed",
        description="When the source may forget: after the commit, or the delivery.",
        exclude=True,
    )
    record: Record = Field(Record(), description="How a payload becomes rows.")
    operators: Operators = Field((), description="What happens to all rows.")
    sinks: dict[Name, Annotated[Branch, BeforeValidator(_as_branch)]] = Field(
        min_length=1, description="Where results go, by name."
    )
    rejected: str | None = Field(
        None, description="A sink that takes rejected payloads, and nothing else."
    )
    outbox: OutboxOptions = Field(OutboxOptions(), description="The durable buffer.")
    link: LinkOptions = Field(LinkOptions(), description="How the backlog leaves.")
    batch: BatchOptions = Field(BatchOptions(), description="When a batch is complete.")
    tests: tuple[Example, ...] = Field((), description="Rows given and rows expected.")
    folder: Path = Field(Path(), description="Where relative paths start.", exclude=True)
    file: str | None = Field(None, description="The file it was read from.", exclude=True)
    _lines: Mapping[Place, int] = PrivateAttr({})

    @model_validator(mode="after")
    def _sinks_fit(self) -> "Pipeline":
        """Raises DefinitionError, which says where; a ValueError of a whole model could not."""
        faults = []
        if self.rejected is not None and self.rejected not in self.sinks:
            known = ", ".join(self.sinks)
            faults.append(Fault("rejected", f"must be a sink, got {self.rejected!r}; has {known}"))
        for name, branch in self.sinks.items():
            if name in _RESERVED_SINKS:
                faults.append(Fault(f"sinks.{name}", "is a reserved name; give it another"))
            if branch.max_size and branch.max_size > self.outbox.max_size:
                most = f"must be at most '{self.outbox.max_size}' as the outbox is"
                faults.append(Fault(f"sinks.{name}.max_size", f"{most}, got '{branch.max_size}'"))
        faults.extend(faults_of(self.tests, tuple(self.sinks), self.source.finite))
        if faults:
            raise DefinitionError(*faults)
        return self

    @property
    def lines(self) -> Mapping[Place, int]:
        """The line of every place, where the definition came from a file."""
        return self._lines

    def identity(self) -> str:
        """`edge-<site>-<pipeline>-<replica>`: who this processor is, the same on every start."""
        return f"edge-{self.site}-{self.name}-{self.replica}"

    def outbox_folder(self) -> Path:
        """`outbox.path`, else `$EDGE_STATE_DIR/<name>`, else `var/<name>`."""
        if self.outbox.path is not None:
            return self.folder / self.outbox.path
        return Path(os.environ.get("EDGE_STATE_DIR") or "var") / self.name

    def limits(self) -> Limits:
        """Size and policy of the whole outbox."""
        return Limits(self.outbox.max_size, self.outbox.when_full)

    def batching(self) -> Batch:
        """When a source hands over."""
        size = min(Batch().bytes, self.outbox.max_size // 16)
        parcel = min((branch.rolling().size for branch in self.sinks.values()), default=0)
        wait = self.batch.wait.total_seconds()
        return Batch(self.batch.rows, wait, size, min(size, parcel * 3 // 4))

    def fault(self, place: Place, message: str) -> Fault:
        """A fault at `place`, with file and line where the definition came from a file."""
        return Fault(dotted(place), message, self.file, line_of(place, self._lines))

    def bind(self, clock: Clock, patient: bool = False) -> Bound:
        """Bring the parts together and check every expression, key and time column.

        Binds the pipeline's own parts. Raises DefinitionError with all faults found; patient: but
        for files that operators need and that are not there yet.
        """
        return Bound(self, clock, patient)

    def preview(self, rows: "pl.DataFrame | Rows") -> "Preview":
        """The frame after every operator, for notebooks: `pipeline.preview(frame)["lake"]`.

        rows: a frame, or mappings as payloads are; both go through the record's checks. Opens
        nothing, remembers nothing. Raises DefinitionError, and what operators raise.
        """
        from edge.pipeline.preview import preview

        return preview(self, rows)
