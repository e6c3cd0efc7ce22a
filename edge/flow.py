"""One batch through the common operators and every branch: what the outbox commits for it."""

import logging
import traceback
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import NamedTuple

import polars as pl

from edge.codec import pack, rows_as_json
from edge.errors import DataError, TooManyFailures
from edge.expression import Condition
from edge.operators import Lost, Operator
from edge.outbox.model import WAITING, Kept, Loss, NewEntry, Reject, Remembered
from edge.outcome import Moment, Outcome
from edge.pipeline import Bound
from edge.roller import Roller
from edge.tap import Tap

log = logging.getLogger("edge.flow")


class Step(NamedTuple):
    """An operator in its place: `name` is `<branch>/<operator name>`, `common` is a branch too."""

    name: str
    operator: Operator
    shape: str


class Lane(NamedTuple):
    """The way to one sink: its operators, the condition on what they give, columns to leave out.

    columns: of the rows that come in.
    """

    sink: str
    steps: Sequence[Step]
    when: Condition | None
    drop: Sequence[str]
    columns: pl.Schema


_NOW = Moment()
_NO_ROLLERS: Mapping[str, Roller] = {}


class Flow:
    """The operators of one pipeline and what they remember. Used by one thread at a time."""

    def __init__(
        self,
        bound: Bound,
        wants_whole: Callable[[str], bool],
        tap: Tap | None = None,
        rollers: Mapping[str, Roller] = _NO_ROLLERS,
    ) -> None:
        """wants_whole tells for which names the log of changes has grown too long.

        rollers: by sink.
        """
        self._tap = tap or Tap(bound.pipeline)
        self._rollers = rollers
        # Rows of now are made durable first, and rolled when there is time.
        self._rolls_ahead = bound.source.finite
        rejected = bound.pipeline.rejected
        self._common = [
            Step(f"common/{stage.name}", stage.operator, stage.shape) for stage in bound.common
        ]
        lanes = [
            Lane(
                sink,
                [
                    Step(f"{sink}/{stage.name}", stage.operator, stage.shape)
                    for stage in branch.operators
                ],
                branch.when,
                branch.drop,
                branch.given,
            )
            for sink, branch in bound.branches.items()
        ]
        self._rejected = next((lane for lane in lanes if lane.sink == rejected), None)
        self._beside = {lane.sink: lane for lane in lanes if lane.sink in bound.others}
        apart = {rejected, *self._beside}
        self._lanes = [lane for lane in lanes if lane.sink not in apart]
        self._kept = {
            lane.sink
            for lane in self._lanes
            if bound.source.own_memory
            and all(step.operator.own_memory for step in (*self._common, *lane.steps))
        }
        self._wants_whole = wants_whole
        self._afresh: set[str] = set()
        self._unused: set[str] = set()
        self._reset: list[Loss] = []
        self._salvaged: dict[str, pl.DataFrame] = {}

    def rows(self, frame: pl.DataFrame) -> int | None:
        """How many rows `process` works on; None where an operator may take its time."""
        return frame.height if all(step.operator.quick for step in self._steps()) else None

    @property
    def timed(self) -> bool:
        """Whether an operator must be told of the time that goes by."""
        return any(step.operator.timed for step in self._steps())

    def process(self, frame: pl.DataFrame, moment: Moment = _NOW) -> Outcome:
        """Every operator once over the batch, which may be empty.

        After an exception the memory of the operators is undefined: `restore` it.
        """
        return self._pieces([frame], moment, whole=True)

    def process_apart(self, pieces: Sequence[pl.DataFrame]) -> Outcome:
        """As `process` of one batch, of which every piece gets entries of its own."""
        return self._pieces(pieces, _NOW)

    def _pieces(
        self, pieces: Sequence[pl.DataFrame], moment: Moment, whole: bool = False
    ) -> Outcome:
        outcome = Outcome.nothing()
        for piece in pieces:
            moment = moment._replace(salvaged=self._salvaged)
            outcome.add(self._rows(piece, moment, whole))
            self._salvaged = {}
        outcome.memory.extend(self._changes())
        outcome.losses.extend(self._reset)
        self._reset = []
        return outcome

    def isolate(self, frame: pl.DataFrame) -> Outcome:
        """As `process`, but rows that raise are found by halving and set aside as `failed`."""
        outcome = Outcome.nothing()
        if self._salvaged:
            self._attempt(frame.clear(), outcome)
            self._salvaged = {}
        self._attempt(frame, outcome)
        outcome.memory.extend(self._whole())
        return outcome

    def process_rejects(self, frame: pl.DataFrame) -> Outcome:
        """Rejected payloads as rows, on their way to the sink that `rejected:` names."""
        outcome = Outcome.nothing()
        if self._rejected is not None:
            self._deliver(self._rejected, frame, _NOW, outcome, {})
            outcome.memory.extend(self._changes())
        return outcome

    def restore(self, memory: Mapping[str, Kept]) -> None:
        """Every operator remembers what was last committed, or nothing.

        An operator whose options changed in a way that shapes its memory starts afresh. What it
        can make of that memory comes out with the next batch, in the commit that replaces it.
        """
        # What an outcome took along that was not committed comes again.
        self._afresh.clear()
        self._reset.clear()
        self._salvaged.clear()
        self._take_back(memory)
        self._tell_unused(memory)

    def _take_back(self, memory: Mapping[str, Kept]) -> None:
        for step in self._steps():
            kept = memory.get(step.name)
            if kept is not None and kept.shape != step.shape:
                self._forget(step, kept.states)
                kept = None
            step.operator.restore(kept.states if kept else ())

    def _tell_unused(self, memory: Mapping[str, Kept]) -> None:
        """Say whose memory no operator takes back: open windows in it never come out."""
        known = {"source", WAITING, *(step.name for step in self._steps())}
        for name in sorted({*memory} - known - self._unused):
            log.warning(
                "%s: is not in the definition any more, what it remembered is kept but not used; "
                "bring it back under that name to go on with it",
                name,
            )
            self._unused.add(name)

    def _forget(self, step: Step, states: Sequence[bytes]) -> None:
        """Memory is given up: the list of losses tells, also where no row is lost with it."""
        if step.name in self._afresh:
            return
        reason = "its options changed, what it remembered is forgotten"
        try:
            salvaged = step.operator.salvage(states)
        except Exception:
            log.exception("%s: what it remembered cannot be read", step.name)
            salvaged = None
        if salvaged is not None and salvaged.height:
            self._salvaged[step.name] = salvaged
            reason = f"its options changed, {salvaged.height} rows are made of what it remembered"
        log.warning("%s: %s", step.name, reason)
        self._afresh.add(step.name)
        self._reset.append(Loss(step.name, "reset", 0, 0, reason))

    def _steps(self) -> Iterator[Step]:
        yield from self._common
        rejected = [self._rejected] if self._rejected else []
        for lane in (*self._lanes, *self._beside.values(), *rejected):
            yield from lane.steps

    def _rows(self, frame: pl.DataFrame, moment: Moment, whole: bool = False) -> Outcome:
        outcome = Outcome.nothing()
        beside: dict[str, list[pl.DataFrame]] = {}
        self._tap.see("source", frame)
        rows = _run(self._common, frame, moment, outcome, beside, self._tap)
        packed: dict[tuple[str, ...], bytes] = {}
        batch = frame.height if whole else None
        for lane in self._lanes:
            self._deliver(lane, rows, moment, outcome, beside, packed, batch)
        for sink, lane in self._beside.items():
            given = beside.pop(sink, None) or [lane.columns.to_frame()]
            self._deliver(lane, pl.concat(given), moment, outcome, beside)
        if self._rejected is not None and moment != _NOW:
            empty = self._rejected.columns.to_frame()
            self._deliver(self._rejected, empty, moment, outcome, beside)
        return outcome

    def _deliver(
        self,
        lane: Lane,
        rows: pl.DataFrame,
        moment: Moment,
        outcome: Outcome,
        beside: dict[str, list[pl.DataFrame]],
        packed: dict[tuple[str, ...], bytes] | None = None,
        batch: int | None = None,
    ) -> None:
        """Append the rows of one lane; what goes to several lanes as it is, is packed once.

        batch: the rows of the whole batch; None for a part of it, and for what did not just come.
        """
        result = _run(lane.steps, rows, moment, outcome, beside, self._tap)
        if lane.when is not None and result.height:
            result = _condition(f"{lane.sink}/when", lane.when, result, outcome.counts)
            self._tap.see(f"{lane.sink}/when", result)
        if not result.height:
            return
        drop = tuple(lane.drop)
        if self._tap.wants(stage := f"sink:{lane.sink}"):
            self._tap.see(stage, _without(result, drop))
        size, given = int(result.estimated_size()), _without(result, drop)
        roller = self._rollers.get(lane.sink) if batch is not None else None
        if roller and self._rolls_ahead and (rolled := roller.ahead(given, size)):
            outcome.rolled.append(rolled)
            return
        packed = {} if packed is None else packed
        body = packed.get(drop) if result is rows else None
        if body is None:
            body = pack(given)
            if result is rows:
                packed[drop] = body
        outcome.entries.append(NewEntry(lane.sink, result.height, size, body))
        # Not of few: their texts are a part of those of the whole batch.
        if roller and batch and lane.sink in self._kept and result.height >= batch // 2:
            roller.keep(body, given)

    def _changes(self) -> list[Remembered]:
        changes = []
        for name, operator, shape in self._steps():
            whole = name in self._afresh or self._wants_whole(name)
            body = operator.snapshot(whole)
            if body is not None:
                changes.append(Remembered(name, shape, whole, body))
                self._afresh.discard(name)
        return changes

    def _whole(self) -> list[Remembered]:
        bodies = ((step, step.operator.snapshot(True)) for step in self._steps())
        return [
            Remembered(step.name, step.shape, True, body)
            for step, body in bodies
            if body is not None
        ]

    def _attempt(self, frame: pl.DataFrame, outcome: Outcome) -> None:
        before = self._whole()
        try:
            done = self._rows(frame, Moment(salvaged={} if frame.height else self._salvaged))
        except TooManyFailures:
            raise
        except Exception as error:
            self._take_back({piece.name: Kept(piece.shape, (piece.body,)) for piece in before})
            if frame.height <= 1:
                for rows in [frame] if frame.height else self._salvaged.values():
                    _set_aside(rows, error, outcome)
                return
            half = frame.height // 2
            self._attempt(frame.head(half), outcome)
            self._attempt(frame.tail(frame.height - half), outcome)
            return
        outcome.add(done)


def _run(
    steps: Sequence[Step],
    frame: pl.DataFrame,
    moment: Moment,
    outcome: Outcome,
    beside: dict[str, list[pl.DataFrame]],
    tap: Tap,
) -> pl.DataFrame:
    """Rows through operators, one after the other; `beside` gets what they have for other sinks."""
    counts = outcome.counts
    for name, operator, _ in steps:
        if before := frame.height:
            frame = operator.process(frame)
            counts[name, "in"] += before
            _account(name, operator, before, frame.height, counts)
        for held in _held_back(name, operator, moment):
            _account(name, operator, 0, held.height, counts)
            frame = pl.concat([frame, held], how="vertical_relaxed") if frame.height else held
        if (more := operator.beside()) is not None:
            for sink, rows in more.rows.items():
                beside.setdefault(sink, []).append(rows)
            for lost in more.losses:
                _give_up(name, lost, outcome)
        tap.see(name, frame)
    return frame


def _give_up(name: str, lost: Lost, outcome: Outcome) -> None:
    outcome.losses.append(Loss(name, lost.kind, lost.rows, 0, lost.reason))
    if lost.shown is not None:
        reason = f"{name}: {lost.reason}"
        kept = (Reject(reason, row, listed=True) for row in rows_as_json(lost.shown))
        outcome.rejects.extend(kept)


def _held_back(name: str, operator: Operator, moment: Moment) -> Iterator[pl.DataFrame]:
    """What comes out of an operator without rows: after a change, in time, and at the end."""
    if name in moment.salvaged:
        yield moment.salvaged[name]
    if moment.elapsed and operator.timed:
        due = operator.advance(moment.elapsed)
        if due is not None and due.height:
            yield due
    if moment.ending:
        rest = operator.flush()
        if rest is not None and rest.height:
            yield rest


def _account(
    name: str, operator: Operator, before: int, after: int, counts: Counter[tuple[str, str]]
) -> None:
    counts[name, "out"] += after
    for counter, rows in operator.account(before, after).items():
        counts[name, counter] += rows


def _without(frame: pl.DataFrame, columns: Sequence[str]) -> pl.DataFrame:
    """As `frame.drop`, without the trip through the optimiser that a small batch would feel."""
    left = frame.clone()
    for column in columns:
        if column in left.columns:
            left.drop_in_place(column)
    return left


def _condition(
    name: str, when: Condition, frame: pl.DataFrame, counts: Counter[tuple[str, str]]
) -> pl.DataFrame:
    kept = when.keep(frame)
    counts[name, "in"] += frame.height
    counts[name, "out"] += kept.height
    counts[name, "filtered"] += frame.height - kept.height
    return kept


def _set_aside(rows: pl.DataFrame, error: Exception, outcome: Outcome) -> None:
    """Rows that do not get past an operator: ledgered as failed, kept with the traceback."""
    if isinstance(error, DataError):
        reason = str(error)
    else:
        reason = "".join(traceback.format_exception(error)).strip()
        log.error("a row failed and is set aside: %s", reason)
    outcome.counts["pipeline", "failed"] += rows.height
    outcome.rejects.extend(Reject(reason, row, failed=True) for row in rows_as_json(rows))
