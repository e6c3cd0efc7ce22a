"""The three kinds of parts, and which parts there are of each."""

from collections.abc import Callable, Mapping
from importlib.metadata import entry_points
from typing import NamedTuple

from edge.component import Component
from edge.errors import DefinitionError
from edge.operators import OPERATORS, find_operator
from edge.sinks import SINKS, find_sink
from edge.sources import SOURCES, find_source


class Kind(NamedTuple):
    """Sources, operators or sinks: `word` names one, `table` has those that ship with edge."""

    word: str
    table: Mapping[str, str]
    lookup: Callable[[str], type[Component]]

    def names(self) -> list[str]:
        """Every part of this kind, those of other installed packages too."""
        outside = {point.name for point in entry_points(group=f"edge.{self.word}s")}
        return [*self.table, *sorted(outside - set(self.table))]

    def has(self, name: str) -> bool:
        """Whether a part is called `name`; asks other packages only about names not known here."""
        return name in self.table or name in self.names()

    def find(self, name: str) -> type[Component]:
        """The class called `name`. Raises DefinitionError where there is none to use."""
        try:
            return self.lookup(name)
        except ImportError as error:
            raise DefinitionError(
                f"{self.word} {name!r} cannot be imported: {error}; install what it needs"
            ) from error


SOURCE = Kind("source", SOURCES, find_source)
OPERATOR = Kind("operator", OPERATORS, find_operator)
SINK = Kind("sink", SINKS, find_sink)
KINDS = (SOURCE, OPERATOR, SINK)
