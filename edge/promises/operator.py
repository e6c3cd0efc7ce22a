"""What every operator promises, whatever its rows are and however they were cut into batches."""

import itertools
from collections.abc import Callable, Sequence

import polars as pl
from polars.testing import assert_frame_equal

from edge.operators import Operator

Make = Callable[[], tuple[Operator, pl.Schema]]
"""A new operator, bound, and the columns that go out."""


def pieces(frame: pl.DataFrame, cuts: Sequence[int]) -> list[pl.DataFrame]:
    """The frame cut before these rows, without empty pieces."""
    edges = [0, *sorted(cuts), frame.height]
    parts = [frame.slice(start, max(0, end - start)) for start, end in itertools.pairwise(edges)]
    return [part for part in parts if part.height]


def undisturbed(make: Make, frame: pl.DataFrame) -> pl.DataFrame:
    """What it gives for all rows at once; the columns must be those that `bind` promised."""
    operator, columns = make()
    result = operator.process(frame)
    assert result.schema == columns, f"promised {columns}, gave {result.schema}"
    return result


def splits(make: Make, frame: pl.DataFrame, cuts: Sequence[int]) -> None:
    """Cut into other batches, the same rows give the same rows."""
    operator, _ = make()
    parts = [operator.process(part) for part in pieces(frame, cuts)]
    assert_frame_equal(pl.concat(parts), undisturbed(make, frame))


def resumes(make: Make, frame: pl.DataFrame, cuts: Sequence[int], whole: Sequence[bool]) -> None:
    """Rebuilt and restored between any two batches, it gives the same rows.

    whole: whether it is asked for everything after a batch, or for what changed.
    """
    parts: list[pl.DataFrame] = []
    states: list[bytes] = []
    operator, _ = make()
    for part, afresh in zip(pieces(frame, cuts), whole, strict=False):
        parts.append(operator.process(part))
        state = operator.snapshot(afresh or not states)
        if state is not None:
            states = [state] if afresh else [*states, state]
        operator, _ = make()
        operator.restore(states)
    assert_frame_equal(pl.concat(parts), undisturbed(make, frame))


def is_pure(make: Make, frame: pl.DataFrame) -> None:
    """The batch is left alone, and a second operator gives the same."""
    before = frame.clone()
    first = undisturbed(make, frame)
    assert_frame_equal(frame, before)
    assert_frame_equal(undisturbed(make, frame), first)


def accounts(make: Make, frame: pl.DataFrame) -> None:
    """`in + created = out + removed + folded + held`, for a batch and for what comes at the end."""
    operator, _ = make()
    rows = frame.height
    for result in (operator.process(frame), operator.flush()):
        before, after = (rows, result.height) if result is not None else (0, 0)
        rows = 0
        counts = operator.account(before, after)
        created = counts.pop("created", 0)
        assert before + created == after + sum(counts.values()), counts


class OperatorPromises:
    """Subclass it as `TestName`, with `make` and `rows`; every promise is a test of pytest.

    make: a new operator, bound, and the columns that go out. rows: a frame of some twenty rows with
    what may come: several keys, nulls, NaN, times out of order.
    """

    def make(self) -> tuple[Operator, pl.Schema]:
        """A new operator, bound, and the columns that go out."""
        raise NotImplementedError

    def rows(self) -> pl.DataFrame:
        """What it is tried on."""
        raise NotImplementedError

    def test_split_batches_give_the_same_rows(self) -> None:
        """Cut anywhere, and into batches of one row."""
        rows = self.rows()
        for cut in range(1, rows.height):
            splits(self.make, rows, [cut])
        splits(self.make, rows, range(rows.height))

    def test_resume_between_any_two_batches_changes_nothing(self) -> None:
        """From a whole snapshot each time, and from a whole one and changes."""
        rows = self.rows()
        for whole in (True, False):
            resumes(self.make, rows, range(rows.height), [whole] * rows.height)

    def test_pure_the_batch_is_left_alone_and_a_second_run_agrees(self) -> None:
        """No chance, no clock, nothing written into the frame."""
        is_pure(self.make, self.rows())

    def test_empty_batch_gives_none_and_the_promised_columns(self) -> None:
        """Also where no row is left, the columns are there."""
        assert undisturbed(self.make, self.rows().clear()).height == 0

    def test_rows_that_go_are_accounted_for(self) -> None:
        """The ledger can balance."""
        accounts(self.make, self.rows())
