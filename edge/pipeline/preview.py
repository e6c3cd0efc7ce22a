"""A frame through a pipeline, with what it is after every operator: for notebooks and shells."""

from collections.abc import Iterator, Mapping, Sequence
from datetime import UTC, datetime
from html import escape
from typing import TYPE_CHECKING, NamedTuple

import polars as pl

from edge.clock import Clock
from edge.pipeline.binding import Bound, BoundBranch, Stage
from edge.pipeline.given import Giver, Rows, as_row

if TYPE_CHECKING:
    from edge.pipeline.model import Pipeline

_REJECTED = {"reason": pl.String, "payload": pl.String}
_SHOWN = 5  # rows of a frame in a notebook


class Seen(NamedTuple):
    """The rows after one step: `common/filter`, `hot/when`, `hot`. before: how many came in."""

    name: str
    before: int
    frame: pl.DataFrame


class Preview(Mapping[str, pl.DataFrame]):
    """The frame after every step of a pipeline, by the step's name and in order.

    `source` is what came in. `common/<operator>` and `<sink>/<operator>` are what left an operator,
    `<sink>/when` what the condition kept, `<sink>` what is delivered, but for `edge_id`.
    `rejected` has the payloads that are no rows, each with its reason.
    """

    def __init__(self, name: str, steps: Sequence[Seen], rejected: pl.DataFrame) -> None:
        self._name = name
        self._steps = {step.name: step for step in steps}
        self.rejected = rejected

    def __getitem__(self, name: str) -> pl.DataFrame:
        return self._steps[name].frame

    def __iter__(self) -> Iterator[str]:
        return iter(self._steps)

    def __len__(self) -> int:
        return len(self._steps)

    def __repr__(self) -> str:
        width = max(map(len, self._steps))
        lines = [
            f"  {step.name:{width}}  {_change(step)}  {', '.join(step.frame.columns)}"
            for step in self._steps.values()
        ]
        if self.rejected.height:
            lines.append(f"  rejected: {self.rejected.height}, {self.rejected['reason'][0]}")
        return "\n".join([f"preview of {self._name}", *lines])

    def _repr_html_(self) -> str:
        """For notebooks: a line for each step, which opens to its first rows."""
        steps = [_as_html(step.name, _change(step), step.frame) for step in self._steps.values()]
        if self.rejected.height:
            steps.append(_as_html("rejected", f"{self.rejected.height} rows", self.rejected))
        return f"<div><b>{escape(self._name)}</b>{''.join(steps)}</div>"


def preview(pipeline: "Pipeline", rows: pl.DataFrame | Rows) -> Preview:
    """Rows through the record's checks, all operators and branches; opens nothing.

    What operators hold back comes out at the end. Raises DefinitionError, and what operators raise.
    """
    bound = pipeline.bind(Clock())
    giver, now = Giver(pipeline.record, bound.source_columns), datetime.now(UTC)
    given = giver.give_frame(rows, now) if isinstance(rows, pl.DataFrame) else giver.give(rows, now)
    if bound.source_columns is None:
        bound.bind_columns(given.frame.schema)
    rejected = pl.DataFrame(list(map(as_row, given.rejects)), schema=_REJECTED)
    return Preview(pipeline.name, [*_steps(bound, given.frame)], rejected)


def _steps(bound: Bound, frame: pl.DataFrame) -> Iterator[Seen]:
    beside: dict[str, list[pl.DataFrame]] = {}
    yield Seen("source", frame.height, frame)
    for step in _through("common", bound.common, frame, beside):
        yield step
        frame = step.frame
    apart = {*bound.others, bound.pipeline.rejected}
    for name, branch in bound.branches.items():
        if name not in apart:
            yield from _branch(name, branch, frame, beside)
    for name in bound.others:
        branch = bound.branches[name]
        rows = pl.concat(beside.get(name) or [branch.given.to_frame()])
        yield from _branch(name, branch, rows, beside)


def _branch(
    name: str, branch: BoundBranch, frame: pl.DataFrame, beside: dict[str, list[pl.DataFrame]]
) -> Iterator[Seen]:
    before = frame.height
    for step in _through(name, branch.operators, frame, beside):
        yield step
        frame = step.frame
    if branch.when is not None:
        kept = branch.when.keep(frame) if frame.height else frame
        yield Seen(f"{name}/when", frame.height, kept)
        frame = kept
    yield Seen(name, before, frame.drop(branch.drop, strict=False))


def _through(
    branch: str,
    stages: Sequence[Stage],
    frame: pl.DataFrame,
    beside: dict[str, list[pl.DataFrame]],
) -> Iterator[Seen]:
    for name, operator, _, columns in stages:
        before = frame.height
        operator.restore(())
        out = operator.process(frame) if before else columns.to_frame()
        rest = operator.flush()
        if rest is not None and rest.height:
            out = pl.concat([out, rest], how="vertical_relaxed") if out.height else rest
        if (more := operator.beside()) is not None:
            for sink, rows in more.rows.items():
                beside.setdefault(sink, []).append(rows)
        operator.restore(())
        yield Seen(f"{branch}/{name}", before, out)
        frame = out


def _change(step: Seen) -> str:
    after = step.frame.height
    return f"{after} rows" if step.before == after else f"{step.before} -> {after} rows"


def _as_html(name: str, change: str, frame: pl.DataFrame) -> str:
    table = frame.head(_SHOWN)._repr_html_()
    return f"<details><summary>{escape(name)}: {escape(change)}</summary>{table}</details>"
