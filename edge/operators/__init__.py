"""What happens to rows: the contract of an operator and the table of operators."""

from collections.abc import Mapping, Sequence
from typing import Any, ClassVar, NamedTuple, TypeVar, get_origin

import polars as pl
from pydantic import GetJsonSchemaHandler, model_validator
from pydantic.json_schema import JsonSchemaValue
from pydantic_core import CoreSchema

from edge.component import Component, Stream, find
from edge.origin import unseal

_Kind = TypeVar("_Kind", bound="Operator")

OPERATORS: Mapping[str, str] = {
    "filter": "edge.operators.filter:Filter",
    "derive": "edge.operators.derive:Derive",
    "select": "edge.operators.select:Select",
    "drop": "edge.operators.drop:Drop",
    "rename": "edge.operators.rename:Rename",
    "cast": "edge.operators.cast:Cast",
    "deadband": "edge.operators.deadband:Deadband",
    "dedupe": "edge.operators.dedupe:Dedupe",
    "compress": "edge.operators.compress:Compress",
    "sample": "edge.operators.sample:Sample",
    "window": "edge.operators.window:Window",
    "join": "edge.operators.join:Join",
    "lookup": "edge.operators.lookup:Lookup",
    "python": "edge.operators.python:Python",
}


def find_operator(name: str) -> type["Operator"]:
    """The operator class called `name`; raises DefinitionError with the nearest known name."""
    found = find(OPERATORS, "edge.operators", "operator", name)
    assert issubclass(found, Operator)
    return found


class Lost(NamedTuple):
    """Rows that an operator gives up, for the list of losses: how (`late`), how many and why.

    shown: those of them that `edge outbox ls --rejected` is to show.
    """

    kind: str
    rows: int
    reason: str
    shown: pl.DataFrame | None = None


class Beside(NamedTuple):
    """What an operator has for others than the next one.

    rows: for sinks named by `others`, by name, with the columns that came in. losses: rows it gave
    up; `account` counts them too.
    """

    rows: Mapping[str, pl.DataFrame] = {}
    losses: Sequence[Lost] = ()


class Operator(Component):
    """Turns one batch into another.

    Cutting the same rows into other batches must give the same rows in the same order, and no
    result may depend on anything but the rows, `advance` and the restored memory: no clock of its
    own, no chance.
    """

    removes: ClassVar[str] = "filtered"
    """Ledger name of the rows that go in and do not come out: filtered, unchanged, ..."""

    short: ClassVar[str | None] = None
    """The option that a bare value stands for: `filter: x > 1` is `filter: {where: x > 1}`."""

    @model_validator(mode="before")
    @classmethod
    def _take_short_form(cls, given: Any) -> Any:
        if cls.short is None:
            return given
        plain_mapping = get_origin(cls.model_fields[cls.short].annotation) is dict
        if isinstance(given, Mapping) and not plain_mapping:
            return given
        # `derive: {columns: a + b}` makes a column of that name; Derive(columns={...}) does not
        spelled_out = isinstance(given, Mapping) and isinstance(given.get(cls.short), Mapping)
        return given if spelled_out and len(given) == 1 else {cls.short: given}

    @classmethod
    def __get_pydantic_json_schema__(
        cls, core_schema: CoreSchema, handler: GetJsonSchemaHandler
    ) -> JsonSchemaValue:
        schema = handler(core_schema)
        if cls.short is None:
            return schema
        options = handler.resolve_ref_schema(schema)
        return {"anyOf": [options["properties"][cls.short], schema]}

    quick: ClassVar[bool] = True
    """False where the work on a few rows may take long: it never runs on the event loop."""

    own_memory: ClassVar[bool] = False
    """Whether rows that leave have the memory of the rows that came or new one, and nobody writes
    to it: such rows may stay in memory until they are rolled."""

    def bind(self, columns: pl.Schema, stream: Stream) -> pl.Schema:
        """Check the options against the columns that come in; returns the columns that go out.

        Called once before `process`, and before `restore`. Raises DefinitionError.
        """
        raise NotImplementedError

    def process(self, frame: pl.DataFrame) -> pl.DataFrame:
        """The rows that leave for the rows that came. Runs in a worker thread, never twice at once.

        Never called with an empty frame. Raises DataError for rows that cannot be processed.
        """
        raise NotImplementedError

    def flush(self) -> pl.DataFrame | None:
        """Rows that were held back and come out because a finite source ended."""
        return None

    @property
    def timed(self) -> bool:
        """Whether `advance` is to be called."""
        return False

    def advance(self, elapsed: int) -> pl.DataFrame | None:
        """Rows that come out because `elapsed` microseconds went by.

        Called about once a second after `process`, also without rows, while the source is one that
        never ends. Only time in which rows could have come counts: not that of a standstill, nor
        what a wall clock jumps by. For rows from files it is never called.
        """
        return None

    def others(self) -> Sequence[str]:
        """Names of sinks to which it sends rows itself; they get no others."""
        return ()

    def beside(self) -> Beside | None:
        """What it has for others since the last call. Asked after each of the methods above."""
        return None

    def account(self, before: int, after: int) -> dict[str, int]:
        """Ledger counters, beside `in` and `out`, of a `process`: `before` rows in, `after` out.

        After `flush` and `advance` that gave rows it is called too, with 0 rows in.

        The equation `in + created = out + removed + folded + held` must hold with them.
        """
        if after <= before:
            return {self.removes: before - after}
        return {"created": after - before}

    def snapshot(self, whole: bool) -> bytes | None:
        """What changed since the last call, or everything when `whole`; None if there is nothing.

        Called after every batch, in the order of the batches; committed together with its rows.
        """
        return None

    def restore(self, states: Sequence[bytes]) -> None:
        """Take back what `snapshot` gave: one whole, then changes in order; nothing forgets all."""

    def shape(self) -> object:
        """What decides beside the options whether kept memory still fits, as a JSON value.

        Asked after `bind`: the types of columns of which values are remembered belong here.
        """
        return None

    def salvage(self, states: Sequence[bytes]) -> pl.DataFrame | None:
        """Rows with the columns that go out, made of memory that does not fit the options any more.

        states: as for `restore`, from an operator of this name with another shape. None if no row
        is lost with it. Whatever it raises, the memory is forgotten then.
        """
        return None


def as_it_was(kind: type[_Kind], states: Sequence[bytes]) -> _Kind:
    """The operator that wrote `states`, of which the first is sealed with its origin."""
    origin, _ = unseal(states[0])
    operator = kind.model_validate(origin.options)
    operator.bind(origin.columns, origin.stream)
    operator.restore(states)
    return operator
