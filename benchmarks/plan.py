"""How much is measured, and where the files of a measurement live."""

import sys
import tempfile
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Generic, NamedTuple, TypeVar

from benchmarks.processes import Failed

T = TypeVar("T")


class Plan(NamedTuple):
    """messages: of a flood (the dataset has four times as many rows, a drain twice as many);
    rounds: each contender's turns; seconds: how long a steady load is watched; folder: on the disk
    to be measured; hours: of an outage; backlog: bytes of a large one.
    """

    messages: int
    rounds: int
    seconds: float
    folder: Path
    hours: float = 2.4
    backlog: int = 2 * 2**30

    @contextmanager
    def scratch(self) -> Iterator[Path]:
        """A fresh folder for one measurement, gone afterwards."""
        with tempfile.TemporaryDirectory(dir=self.folder) as folder:
            yield Path(folder)


class Rounds(NamedTuple, Generic[T]):
    """What each contender measured, round by round, or why it could not."""

    measured: Mapping[str, list[T]]
    problems: Mapping[str, str]

    def values(self, name: str, of: Callable[[T], float]) -> list[float]:
        """One number per round of the contender `name`; none if it failed."""
        return [of(one) for one in self.measured[name]] if name not in self.problems else []

    def problem(self, *names: str) -> str:
        """Why one of `names` has no numbers; empty if all have."""
        told = [self.problems[name] for name in names if name in self.problems]
        return "; ".join(dict.fromkeys(told))


def interleave(plan: Plan, contenders: Mapping[str, Callable[[], T]]) -> Rounds[T]:
    """Let every contender measure once a round, in turn; one that fails has no further turns."""
    measured: dict[str, list[T]] = {name: [] for name in contenders}
    problems: dict[str, str] = {}
    for number in range(1, plan.rounds + 1):
        for name, measure in contenders.items():
            if name in problems:
                continue
            try:
                measured[name].append(measure())
                print(f"  round {number}, {name}: {measured[name][-1]}", file=sys.stderr)
            except Failed as error:
                problems[name] = str(error)
                print(f"  round {number}, {name} failed: {error}", file=sys.stderr)
    return Rounds(measured, problems)
