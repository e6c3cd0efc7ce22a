"""The aggregates once more, value by value: what one row adds to what is kept of a window."""

from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

import polars as pl

Parts = list[Any]

_KINDS = (pl.Int64(), pl.Float64(), pl.String(), pl.Boolean())
"""Types whose values Python has as they are, and adds and compares as polars does."""


class Step(NamedTuple):
    """start: the parts of a window without rows. add: `add(kept, at, value, order)` changes the
    parts from the place `at` on; the value is not null."""

    start: Callable[[], Parts]
    add: Callable[[Parts, int, Any, int], None]


def find_step(function: str, kind: pl.DataType | None, most: int) -> Step | None:
    """For an aggregate of values of `kind`; None where only the general way will do.

    most: how many values are kept at most, where values are kept.
    """
    if kind is None:
        return _COUNT
    if kind not in _KINDS:
        return None
    if function in ("MEDIAN", "QUANTILE"):
        return Step(lambda: [[], 0], _keep_up_to(most))
    if function == "COUNT DISTINCT":
        return Step(lambda: [{}, 0], _keep_each_up_to(most))
    if function == "SUM" and kind.is_float():
        return Step(lambda: [0, 0.0], _add)
    return _STEPS[function]


def _count(kept: Parts, at: int, value: Any, order: int) -> None:
    kept[at] += 1


def _add(kept: Parts, at: int, value: Any, order: int) -> None:
    kept[at] += 1
    kept[at + 1] += value


def _add_integers(kept: Parts, at: int, value: Any, order: int) -> None:
    """Beyond 64 bits it goes round, as in polars."""
    kept[at] += 1
    total = kept[at + 1] + value
    kept[at + 1] = total if -(2**63) <= total < 2**63 else (total + 2**63) % 2**64 - 2**63


def _least(kept: Parts, at: int, value: Any, order: int) -> None:
    if kept[at] is None or value < kept[at]:
        kept[at] = value


def _greatest(kept: Parts, at: int, value: Any, order: int) -> None:
    if kept[at] is None or value > kept[at]:
        kept[at] = value


def _first(kept: Parts, at: int, value: Any, order: int) -> None:
    if kept[at] is None or order < kept[at]:
        kept[at : at + 2] = order, value


def _last(kept: Parts, at: int, value: Any, order: int) -> None:
    if kept[at] is None or order >= kept[at]:
        kept[at : at + 2] = order, value


def _spread(kept: Parts, at: int, value: Any, order: int) -> None:
    """Welford (1962). Infinite values make it NaN, as they do in a group."""
    value = float(value)
    number, mean, square = kept[at] + 1, kept[at + 1], kept[at + 2]
    if number == 1:
        kept[at : at + 3] = 1, value, value - value
        return
    step = value - mean
    mean += step / number
    kept[at : at + 3] = number, mean, square + step * (value - mean)


def _keep_up_to(most: int) -> Callable[[Parts, int, Any, int], None]:
    def keep(kept: Parts, at: int, value: Any, order: int) -> None:
        if len(kept[at]) < most:
            kept[at].append(value)

    return keep


def _keep_each_up_to(most: int) -> Callable[[Parts, int, Any, int], None]:
    def keep(kept: Parts, at: int, value: Any, order: int) -> None:
        if len(kept[at]) < most:
            kept[at].setdefault(value)

    return keep


_COUNT = Step(lambda: [0], _count)
_SPREAD = Step(lambda: [0, None, 0.0], _spread)
_STEPS: Mapping[str, Step] = {
    "COUNT": _COUNT,
    "SUM": Step(lambda: [0, 0], _add_integers),
    "AVG": Step(lambda: [0, 0.0], _add),
    "MIN": Step(lambda: [None], _least),
    "MAX": Step(lambda: [None], _greatest),
    "FIRST": Step(lambda: [None, None], _first),
    "LAST": Step(lambda: [None, None], _last),
    "STDDEV": _SPREAD,
    "VARIANCE": _SPREAD,
}
