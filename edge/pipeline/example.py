"""The tests of a pipeline as types: rows given and expected, at once or step by step."""

from collections.abc import Iterator, Mapping, Sequence
from datetime import datetime
from pathlib import Path
from typing import Annotated, Any, Literal, Self

from pydantic import Field, model_validator

from edge.component import Duration, parse_duration
from edge.errors import Fault
from edge.pipeline.options import Options

REJECTED = "rejected"
"""Under this name a test may expect payloads that are no rows: their `reason`, their `payload`."""

Rows = list[dict[str, Any]]
State = Literal["up", "down"]
Tolerance = Annotated[float, Field(ge=0)]


class Step(Options):
    """One step of a test: what happens, in this order, and what has come of it at its end."""

    link: State | dict[str, State] | None = Field(
        None, description="What becomes of the links: `down`, `up`, or {SINK: down}."
    )
    restart: bool = Field(False, description="Whether the processor is stopped and started again.")
    wait: Duration = Field(parse_duration("0s"), description="So much time goes by.")
    given: Rows = Field([], description="Rows that the source brings then.")
    end: bool = Field(False, description="Whether the files end: what is held back comes out.")
    expect: dict[str, Rows] = Field(
        {}, description="Rows delivered since the sink was last looked at, by sink."
    )
    buffered: dict[str, int] = Field({}, description="How many rows wait in the outbox, by sink.")


class Example(Options):
    """One entry of `tests:`: rows given, and rows expected at sinks; or steps of such."""

    name: str = Field(description="What it shows.")
    given: Rows = Field([], description="Rows as the source would bring them.")
    expect: dict[str, Rows] = Field({}, description="Rows expected, by sink.")
    steps: tuple[Step, ...] = Field((), description="Instead of both: one after the other.")
    start: datetime | None = Field(
        None, description="The wall clock at the first step; default the first row's time."
    )
    ordered: bool = Field(False, description="Whether the order of the expected rows counts.")
    tolerance: Tolerance | dict[str, Tolerance] = Field(
        0.0, description="How far numbers may be off: for all columns, or {COLUMN: 0.1}."
    )

    @model_validator(mode="after")
    def _one_form(self) -> Self:
        whole = [name for name in ("given", "expect") if name in self.model_fields_set]
        if self.steps and whole:
            raise ValueError(f"has `steps` and `{whole[0]}`; move `{whole[0]}` into a step")
        if not self.steps and len(whole) < 2:
            lacks = "expect" if whole == ["given"] else "given"
            raise ValueError(f"has no `{lacks}`; add `{lacks}:`, or `steps:` instead")
        if not self.steps and self.start is not None:
            raise ValueError("has `start` without `steps`; leave it out")
        return self

    def named(self) -> Iterator[tuple[tuple[str | int, ...], str]]:
        """The name of every sink it speaks of, with its place."""
        for name in self.expect:
            yield ("expect", name), name
        for place, step in enumerate(self.steps):
            links = step.link if isinstance(step.link, Mapping) else {}
            for key, names in (("expect", step.expect), ("buffered", step.buffered)):
                yield from ((("steps", place, key, name), name) for name in names)
            yield from ((("steps", place, "link", name), name) for name in links)


class ExampleFile(Options):
    """A file of tests beside a definition, or elsewhere: `press-line.test.yaml`."""

    edge: Literal[1] = Field(1, description="Version of the format.")
    definition: Path | None = Field(
        None, description="What is tested; default the file of the same name without `.test`."
    )
    environment: dict[str, str] = Field({}, description="What `${NAME}` means to the definition.")
    tests: tuple[Example, ...] = Field(description="The tests.")


def faults_of(examples: Sequence[Example], sinks: Sequence[str], finite: bool) -> Iterator[Fault]:
    """What cannot be in tests of a pipeline: sinks that are not there, an end that never comes.

    finite: whether its source can come to an end by itself.
    """
    for index, example in enumerate(examples):
        for inner, name in example.named():
            rejects = REJECTED if inner[-2] == "expect" else None
            if name not in (*sinks, rejects):
                what = f"a sink or {REJECTED!r}" if rejects else "a sink"
                message = f"must be {what}, got {name!r}; has {', '.join(sinks)}"
                yield Fault(_path(index, *inner), message)
        ends = [place for place, step in enumerate(example.steps) if step.end]
        if ends and not finite:
            message = "this source never ends by itself; let time go by with `wait`"
            yield Fault(_path(index, "steps", ends[0], "end"), message)
        for place in range(ends[0] + 1 if ends else len(example.steps), len(example.steps)):
            if example.steps[place].given:
                message = "come after the files have ended; move `end` behind them"
                yield Fault(_path(index, "steps", place, "given"), message)


def _path(*place: str | int) -> str:
    return ".".join(map(str, ("tests", *place)))
