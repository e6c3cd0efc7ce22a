"""What one batch came to, and how the time stood with it."""

from collections import Counter
from collections.abc import Mapping
from typing import NamedTuple

import polars as pl

from edge.outbox.model import Commit, Loss, NewEntry, Reject, Remembered, Rolled


class Moment(NamedTuple):
    """ending: a finite source has ended, so what operators hold back comes out. elapsed:
    microseconds since the last time they were told; 0: they are not told now. salvaged: rows that
    operators made of memory from before their options changed, by name."""

    ending: bool = False
    elapsed: int = 0
    salvaged: Mapping[str, pl.DataFrame] = {}


class Outcome(NamedTuple):
    """What one batch came to: its part of the outbox's next commit."""

    entries: list[NewEntry]
    counts: Counter[tuple[str, str]]
    memory: list[Remembered]
    losses: list[Loss]
    rejects: list[Reject]
    rolled: list[Rolled]

    @classmethod
    def nothing(cls) -> "Outcome":
        """To begin with."""
        return cls([], Counter(), [], [], [], [])

    def add(self, other: "Outcome") -> None:
        """What came after it."""
        self.entries.extend(other.entries)
        self.counts.update(other.counts)
        self.memory.extend(other.memory)
        self.losses.extend(other.losses)
        self.rejects.extend(other.rejects)
        self.rolled.extend(other.rolled)

    def commit(self, position: bytes | None) -> Commit:
        """What is written down; position: of the source behind it, None leaves it where it is."""
        entries, counts, memory, losses, rejects, rolled = self
        return Commit(entries, position, memory, counts, rejects, losses, rolled)

    @property
    def empty(self) -> bool:
        """Whether there is nothing to commit."""
        return not any(self)
