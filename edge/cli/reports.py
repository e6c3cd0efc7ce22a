"""What processors report of themselves, as one table for every target."""

from collections.abc import Mapping, Sequence
from datetime import timedelta
from typing import TYPE_CHECKING

from edge.cli.screen import put_table, rows_of

if TYPE_CHECKING:
    from edge.outbox.measures import Measure

_COLUMNS = (
    "replica",
    "pipeline",
    "sink",
    "link",
    "waiting",
    "bytes",
    "oldest",
    "ledger",
    "last row",
    "reported",
)
_LINKS: Mapping[object, str] = {0: "down", 1: "up"}


def put_reports(numbers: Mapping[str, "Sequence[Measure]"]) -> None:
    """A line for each sink, behind how its pipeline stands.

    numbers: by replica, rows of `edge.outbox.measures` with `reported_seconds`.
    """
    lines: list[Sequence[object]] = []
    for replica, rows in numbers.items():
        wholes = {row["pipeline"]: row for row in rows if row["sink"] is None}
        sinks = (row for row in rows if row["sink"] is not None)
        lines += [_line(replica, row, wholes.get(row["pipeline"], {})) for row in sinks]
    if lines:
        put_table(_COLUMNS, lines)


def _line(replica: str, row: "Measure", whole: "Measure") -> Sequence[object]:
    from edge.component import format_size

    waiting = int(row.get("waiting_rows") or 0)
    return (
        replica,
        row["pipeline"],
        row["sink"],
        _LINKS.get(row.get("link_up"), "not tried"),
        rows_of(waiting),
        format_size(float(row.get("waiting_bytes") or 0)),
        _age(row.get("oldest_seconds")) if waiting else None,
        _ledger(whole.get("imbalances")),
        _age(whole.get("last_read_seconds"), " before"),
        _age(
            row.get("reported_seconds"),
            " ago: not running" if whole.get("running") == 0 else " ago",
        ),
    )


def _ledger(imbalances: str | float | None) -> str | None:
    if imbalances is None:
        return None
    return f"{imbalances:.0f} equations fail" if imbalances else "balances"


def _age(seconds: str | float | None, after: str = "") -> str | None:
    from edge.component import format_duration

    if seconds is None:
        return None
    whole = timedelta(seconds=round(float(seconds)))
    if whole < timedelta():
        return f"{format_duration(-whole)} ahead of this clock"
    return format_duration(whole) + after
