"""A pipeline as a diagram: its stages, the arrows between them, and what went along each."""

from collections.abc import Iterator, Mapping
from typing import Any, NamedTuple

from edge.outbox.ledger import sink_part
from edge.pipeline import Branch, Pipeline
from edge.pipeline.binding import kind_of, names_of

SOURCE = "source"
_ROWS = {SOURCE: "read"}  # the counter that says how many rows came to a stage; others have `in`

Counters = Mapping[str, Mapping[str, int]]
Rates = Mapping[tuple[str, str], float]


class Stage(NamedTuple):
    """id: its part in the ledger; sink: whose branch it is on, None for what all rows pass."""

    id: str
    kind: str
    sink: str | None


class Diagram:
    """Stages and arrows of one definition, in the order in which rows pass them."""

    def __init__(self, pipeline: Pipeline) -> None:
        self.stages = [Stage(SOURCE, kind_of(pipeline.source), None)]
        self.arrows: list[tuple[str, str]] = []
        others: dict[str, str] = {}
        steps = zip(names_of(pipeline.operators), pipeline.operators, strict=True)
        for name, step in steps:
            self._add(self.stages[-1].id, Stage(f"common/{name}", kind_of(step.operator), None))
            others |= dict.fromkeys(step.operator.others(), self.stages[-1].id)
        end = self.stages[-1].id
        for sink, branch in pipeline.sinks.items():
            for name, step in zip(names_of(branch.operators), branch.operators, strict=True):
                others |= dict.fromkeys(step.operator.others(), f"{sink}/{name}")
        for sink, branch in pipeline.sinks.items():
            before = SOURCE if sink == pipeline.rejected else others.get(sink, end)
            for stage in _lane(sink, branch):
                self._add(before, stage)
                before = stage.id

    def _add(self, before: str, stage: Stage) -> None:
        self.stages.append(stage)
        self.arrows.append((before, stage.id))

    def drawn(
        self, counters: Counters, rates: Rates, problems: Mapping[str, str | None]
    ) -> dict[str, Any]:
        """JSON values. counters: the ledger; rates: rows a second, by part and counter."""
        stages = [
            {
                "id": stage.id,
                "kind": stage.kind,
                "sink": stage.sink,
                "counters": counters.get(stage.id, {}),
                "rows_per_second": rates.get((stage.id, _counter(stage.id, "delivered")), 0.0),
                "problem": problems.get(stage.id),
            }
            for stage in self.stages
        ]
        arrows = []
        for start, end in self.arrows:
            counter = _counter(end, "appended")
            rows = counters.get(end, {}).get(counter, 0)
            rate = rates.get((end, counter), 0.0)
            arrows.append({"from": start, "to": end, "rows": rows, "rows_per_second": rate})
        return {"stages": stages, "arrows": arrows}


def _lane(sink: str, branch: Branch) -> Iterator[Stage]:
    for name, step in zip(names_of(branch.operators), branch.operators, strict=True):
        yield Stage(f"{sink}/{name}", kind_of(step.operator), sink)
    if branch.when is not None:
        yield Stage(f"{sink}/when", "when", sink)
    yield Stage(sink_part(sink), kind_of(branch.sink), sink)


def _counter(stage: str, of_a_sink: str) -> str:
    return of_a_sink if stage.startswith("sink:") else _ROWS.get(stage, "in")
