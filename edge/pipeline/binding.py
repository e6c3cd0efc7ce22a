"""The parts of a pipeline brought together: which columns every one of them gets and gives."""

import hashlib
import json
import re
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from difflib import get_close_matches
from typing import TYPE_CHECKING, NamedTuple

import polars as pl

from edge.clock import Clock
from edge.component import Stream
from edge.errors import DefinitionError, Fault, FileFault
from edge.expression import Condition, compile_condition, require
from edge.operators import Operator
from edge.sinks import Sink
from edge.sources import Source

if TYPE_CHECKING:
    from edge.pipeline.model import Branch, Named, Pipeline

Place = tuple[str | int, ...]
"""Where something stands in a definition: `("operators", 2, "window", "size")`."""

RECEIVED = "edge_received"
_TEXT = pl.String()
REJECTED_COLUMNS = pl.Schema(
    {RECEIVED: pl.Datetime("us", "UTC"), "reason": _TEXT, "topic": _TEXT, "payload": _TEXT}
)
"""What the sink called by `rejected:` receives."""


class Stage(NamedTuple):
    """An operator in its place.

    name: unique in its list, the key of its memory. shape: hash of what shapes that memory.
    columns: what leaves it.
    """

    name: str
    operator: Operator
    shape: str
    columns: pl.Schema


class BoundBranch(NamedTuple):
    """The way to one sink.

    drop: columns of the runner's own that the sink does not get. columns: what the sink gets.
    given: what comes in.
    """

    operators: Sequence[Stage]
    when: Condition | None
    sink: Sink
    drop: Sequence[str]
    columns: pl.Schema
    given: pl.Schema


class Bound:
    """A pipeline whose parts know their columns.

    `source_columns` is None where only data tells them, and while a file is missing: then
    `bind_columns` must be called with those `declared`, or those of the first rows, before `common`
    and `branches` are used, but for the branch of rejected payloads.
    """

    def __init__(self, pipeline: "Pipeline", clock: Clock, patient: bool = False) -> None:
        """Raises DefinitionError with every fault found.

        patient: a file that an operator needs may come later; `missing` says which.
        """
        self.pipeline = pipeline
        self.source: Source = pipeline.source
        self.stream = _stream(pipeline)
        self.common: Sequence[Stage] = ()
        self.branches: Mapping[str, BoundBranch] = {}
        self.source_columns: pl.Schema | None = None
        self.others = _others(pipeline)
        self._others_columns: dict[str, pl.Schema] = {}
        self._faults: list[Fault] = []
        self._only_files = True  # whether all faults are those of files
        self.missing: str | None = None
        self.declared = self._bind_source(clock)
        self._raise_faults()
        if self.declared is not None:
            try:
                self.bind_columns(self.declared)
            except FileFault as fault:
                if not patient:
                    raise
                self.missing = str(fault)
        if self.source_columns is None:
            self._bind_sinks_early()
            self._bind_rejected()
            self._raise_faults()

    def bind_columns(self, columns: pl.Schema) -> None:
        """Bind operators and sinks to the columns the source gives.

        Raises DefinitionError; FileFault where files are all that is wrong.
        """
        self._check_record(columns)
        names = names_of(self.pipeline.operators)
        common = self._bind_operators(("operators",), names, self.pipeline.operators, columns)
        branches = {}
        if common is not None:
            branches = self._bind_branches(common[-1].columns if common else columns)
        self._raise_faults()
        self.source_columns, self.common, self.branches = columns, common or (), branches

    def _bind_source(self, clock: Clock) -> pl.Schema | None:
        pipeline = self.pipeline
        with self._noting("source", kind_of(self.source)):
            return self.source.bind(
                pipeline.record, self.stream, pipeline.identity(), pipeline.batching(), clock
            )
        return None

    def _bind_sinks_early(self) -> None:
        for name, branch in self.pipeline.sinks.items():
            with self._noting("sinks", name, kind_of(branch.sink)):
                branch.sink.bind(None, self._stream_to(name), branch.identity, branch.order)

    def _bind_rejected(self) -> None:
        name = self.pipeline.rejected
        branch = name and self._bind_branch(name, self.pipeline.sinks[name], REJECTED_COLUMNS)
        if name and branch:
            self.branches = {name: branch}

    def _check_record(self, columns: pl.Schema) -> None:
        for option, names in (("time", [self.stream.time]), ("key", self.stream.key)):
            with self._noting("record", option):
                require(names, columns, option)

    def _bind_operators(
        self, place: Place, names: Sequence[str], steps: "Sequence[Named]", columns: pl.Schema
    ) -> list[Stage] | None:
        """None when one of them does not fit: what comes after it has no known columns."""
        stages: list[Stage] = []
        for index, (name, step) in enumerate(zip(names, steps, strict=True)):
            operator = step.operator
            before = len(self._faults)
            with self._noting(*place, index, kind_of(operator)):
                given, columns = columns, operator.bind(columns, self.stream)
                self._refuse_reserved((*place, index), given, columns)
                self._bind_others((*place, index, kind_of(operator)), operator, given)
            if len(self._faults) > before:
                return None
            stages.append(Stage(name, operator, _shape(operator, self.stream), columns))
        return stages

    def _bind_others(self, place: Place, operator: Operator, columns: pl.Schema) -> None:
        """Sinks that an operator sends rows to itself get them with the columns that it got."""
        if operator.others() and place[1] in {*self.others, self.pipeline.rejected}:
            self._note(place, "must not send rows on: this sink has its own from an operator")
            return
        for name in operator.others():
            if name not in self.pipeline.sinks or name == self.pipeline.rejected:
                near = get_close_matches(name, self.pipeline.sinks, 1)
                hint = f"did you mean {near[0]!r}?" if near else "declare it under sinks"
                self._note(place, f"no sink for it is called {name!r}; {hint}")
            elif self._others_columns.setdefault(name, columns) != columns:
                self._note(place, f"sink {name!r} already takes rows with other columns; add one")

    def _refuse_reserved(self, place: Place, given: pl.Schema, columns: pl.Schema) -> None:
        for name in columns:
            if name.startswith("edge_") and name not in given and name != "edge_early":
                self._note(place, f"columns starting with edge_ are reserved, got {name!r}")

    def _bind_branches(self, columns: pl.Schema) -> dict[str, BoundBranch]:
        branches = {}
        # Sinks that operators send rows to come last: then it is known with which columns.
        for name in sorted(self.pipeline.sinks, key=self.others.__contains__):
            branch = self.pipeline.sinks[name]
            if name == self.pipeline.rejected:
                bound = self.branches.get(name) or self._bind_branch(name, branch, REJECTED_COLUMNS)
            else:
                given = self._others_columns.get(name, columns)
                bound = self._bind_branch(name, branch, given)
            if bound is not None:
                branches[name] = bound
        return {name: branches[name] for name in self.pipeline.sinks if name in branches}

    def _bind_branch(self, name: str, branch: "Branch", columns: pl.Schema) -> BoundBranch | None:
        place = ("sinks", name)
        names = names_of(branch.operators)
        stages = self._bind_operators((*place, "operators"), names, branch.operators, columns)
        if stages is None:
            return None
        given, columns = columns, stages[-1].columns if stages else columns
        when = None
        if branch.when is not None:
            with self._noting(*place, "when"):
                expr = compile_condition(branch.when, columns, f"when {branch.when!r}")
                when = Condition(expr, columns)
        drop = self._dropped(name, branch)
        columns = pl.Schema({name: kind for name, kind in columns.items() if name not in drop})
        if branch.order == "key" and not self.stream.key:
            self._note((*place, "order"), "must not be 'key' where record.key is not declared")
        with self._noting(*place, kind_of(branch.sink)):
            branch.sink.bind(columns, self._stream_to(name), branch.identity, branch.order)
        return BoundBranch(stages, when, branch.sink, drop, columns, given)

    def _dropped(self, name: str, branch: "Branch") -> Sequence[str]:
        """Arrival time travels to the sink only where it is the time of the rows, or asked for."""
        if self.stream.time == RECEIVED or name == self.pipeline.rejected:
            return ()
        steps = (*self.pipeline.operators, *branch.operators)
        selects = [step.operator for step in steps if kind_of(step.operator) == "select"]
        if any(RECEIVED in getattr(select, "columns", ()) for select in selects):
            return ()
        return (RECEIVED,)

    def _stream_to(self, sink: str) -> Stream:
        """Each sink is a client of its own."""
        return self.stream._replace(client=f"{self.stream.client}-{sink}")

    def _note(self, place: Place, message: str, of_file: bool = False) -> None:
        self._only_files &= of_file
        self._faults.append(self.pipeline.fault(place, message))

    @contextmanager
    def _noting(self, *place: str | int) -> Iterator[None]:
        """Faults found inside belong to `place`."""
        try:
            yield
        except DefinitionError as error:
            for fault in error.faults:
                inner = tuple(fault.path.split(".")) if fault.path else ()
                # A source names what it misses in the record by its place in the definition.
                where = inner if inner[:1] == ("record",) else (*place, *inner)
                self._note(where, fault.message, isinstance(error, FileFault))

    def _raise_faults(self) -> None:
        if self._faults:
            faults, self._faults = self._faults, []
            kind, self._only_files = FileFault if self._only_files else DefinitionError, True
            raise kind(*faults)


def _others(pipeline: "Pipeline") -> frozenset[str]:
    """Sinks that get rows only from the operators that name them."""
    branches = pipeline.sinks.values()
    steps = [*pipeline.operators, *(step for branch in branches for step in branch.operators)]
    return frozenset(name for step in steps for name in step.operator.others())


def _stream(pipeline: "Pipeline") -> Stream:
    record = pipeline.record
    return Stream(record.time or RECEIVED, record.key, pipeline.folder, pipeline.identity())


def _options(part: Operator) -> Mapping[str, object]:
    options: Mapping[str, object] = part.model_dump(mode="json", fallback=_qualified)
    return options


def _qualified(value: object) -> str:
    """Functions and classes among the options, by where they are defined."""
    return f"{getattr(value, '__module__', '')}:{getattr(value, '__qualname__', repr(value))}"


def _shape(operator: Operator, stream: Stream) -> str:
    """Hash of what shapes an operator's memory: all options, time and key, types it remembers."""
    options = [kind_of(operator), _options(operator), stream.time, stream.key]
    text = json.dumps([*options, operator.shape()])
    return hashlib.sha256(text.encode()).hexdigest()[:16]


def kind_of(part: object) -> str:
    """The YAML name of a source, operator or sink: `MqttSource` is `mqtt`, `Filter` is `filter`."""
    name = type(part).__name__
    for suffix, contract in (("Source", Source), ("Sink", Sink)):
        if isinstance(part, contract):
            name = name.removesuffix(suffix)
    return re.sub(r"(?<=[a-z0-9])(?=[A-Z])", "-", name).lower()


def names_of(steps: "Sequence[Named]") -> list[str]:
    """The name of every operator of one list: its own, else its kind, `kind-2` for the second."""
    names: list[str] = []
    seen: dict[str, int] = {}
    for step in steps:
        kind = kind_of(step.operator)
        seen[kind] = seen.get(kind, 0) + 1
        names.append(step.name or (kind if seen[kind] == 1 else f"{kind}-{seen[kind]}"))
    return names


def dotted(place: Place) -> str:
    """`operators.2.window.size`; a key that would break the line is quoted."""
    return ".".join(str(step) if str(step).isprintable() else repr(step) for step in place)


def line_of(place: Place, lines: Mapping[Place, int]) -> int | None:
    """The line of `place`, or of the nearest thing around it that has one."""
    around = (place[:length] for length in range(len(place), -1, -1))
    return next((lines[near] for near in around if near in lines), None)
