"""What a sink got beside what was expected of it."""

import math
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

from edge.pipeline.given import Rows, as_moment

Tolerance = float | Mapping[str, float]

_CLOSE = 1e-9


class Difference(NamedTuple):
    """What one sink got other than expected.

    missing: expected rows that did not come, each with the row that came nearest (None: none is
    left). extra: rows that came and were not expected. note: what else there is to know.
    """

    sink: str
    missing: Sequence[tuple[Mapping[str, Any], Mapping[str, Any] | None]]
    extra: Rows
    tolerance: Tolerance = 0.0
    note: str | None = None

    def differing(self, expected: Mapping[str, Any], found: Mapping[str, Any]) -> dict[str, Any]:
        """The columns of `found` that are not as expected."""
        return {
            name: found.get(name)
            for name, value in expected.items()
            if name not in found or not _alike(name, value, found[name], self.tolerance)
        }


def compare(
    sink: str, expected: Rows, found: Rows, ordered: bool = False, tolerance: Tolerance = 0.0
) -> Difference | None:
    """None if every expected row came and no other; rows expected name the columns that matter."""

    def fits(row: Mapping[str, Any], other: Mapping[str, Any]) -> bool:
        return all(
            name in other and _alike(name, value, other[name], tolerance)
            for name, value in row.items()
        )

    left = list(found)
    missing = []
    for place, row in enumerate(expected):
        if ordered:
            match = place if place < len(found) and fits(row, found[place]) else None
            if match is not None:
                left.remove(found[match])
        else:
            match = next((n for n, other in enumerate(left) if fits(row, other)), None)
            if match is not None:
                del left[match]
        if match is None:
            missing.append(row)
    if not missing and not left:
        return None
    return Difference(
        sink, [(row, _nearest(row, left, tolerance)) for row in missing], left, tolerance
    )


def _nearest(
    expected: Mapping[str, Any], left: Rows, tolerance: Tolerance
) -> Mapping[str, Any] | None:
    """The row that agrees with most of what was expected."""

    def agreeing(row: Mapping[str, Any]) -> int:
        return sum(
            _alike(name, value, row.get(name), tolerance) for name, value in expected.items()
        )

    return max(left, key=agreeing, default=None)


def _alike(name: str, expected: Any, found: Any, tolerance: Tolerance) -> bool:
    """Whether a value is what was expected: floats within 1e-9, times in any way of writing."""
    off = tolerance.get(name, 0.0) if isinstance(tolerance, Mapping) else tolerance
    if isinstance(expected, bool) or isinstance(found, bool):
        return expected is found
    if isinstance(expected, int | float) and isinstance(found, int | float):
        return math.isclose(expected, found, rel_tol=_CLOSE, abs_tol=max(_CLOSE, off))
    if isinstance(expected, str) and isinstance(found, str) and expected != found:
        moment = as_moment(expected)
        return moment is not None and moment == as_moment(found)
    return bool(expected == found)
