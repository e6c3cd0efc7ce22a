"""What arrived against what had to arrive, as checks that a person can follow."""

from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import NamedTuple

from edge.demo.cloud import Arrived
from edge.demo.expected import Row
from edge.demo.sensor import Sensor

Ledger = Mapping[str, Mapping[str, int]]
"""Durable counters by part and name: `ledger["source"]["read"]`."""

_SINK_SIDE = ("delivered", "buffered", "thinned", "dropped", "refused", "damaged")


class Check(NamedTuple):
    """One line of the table. `expected` None: a number to look at, with nothing to hold."""

    part: str
    what: str
    expected: int | None
    found: int

    @property
    def holds(self) -> bool:
        return self.expected in (None, self.found)


def sensor_checks(total: int, sensor: Sensor, ledger: Ledger) -> Iterator[Check]:
    """Every reading that the broker took over is accounted for by the processor."""
    source = ledger["source"]
    accounted = source.get("taken", 0) + source.get("rejected", 0)
    yield Check("sensor", "readings published, with PUBACK", total, sensor.acknowledged)
    yield Check("sensor", "published while nobody had a session", 0, sensor.unheard)
    yield Check("processor", "readings accounted for", total, accounted)
    yield Check("processor", "redelivered and recognised", None, source.get("redelivered", 0))


def hint(checks: Iterable[Check]) -> str | None:
    """What to look at first when readings did not even reach the processor."""
    if all(check.holds for check in checks if check.part == "processor"):
        return None
    return (
        "Readings that the broker acknowledged never reached the processor: does the broker limit "
        "what it keeps for a subscriber that is away? See containers/mosquitto.conf."
    )


def lake_checks(due: Sequence[Row], arrived: Arrived) -> Iterator[Check]:
    """S3 holds every row once: a second PUT of the same key is recognised."""
    yield Check("S3", "objects", None, arrived.parcels)
    yield from _row_checks("S3", due, [row for _, row in arrived.rows])


def alarm_checks(due: Sequence[Row], arrived: Arrived) -> Iterator[Check]:
    """SQS is at least once: its consumer drops what it has seen, by `edge_id`."""
    rows = dict(arrived.rows)
    yield Check("SQS", "messages", None, arrived.parcels)
    yield Check("SQS", "repeats, told by edge_id", None, len(arrived.rows) - len(rows))
    yield from _row_checks("SQS", due, [*rows.values()])


def _row_checks(part: str, due: Sequence[Row], arrived: Sequence[Row]) -> Iterator[Check]:
    """Compared row by row with all values; the sensor's own count tells which one is missing."""
    came, wanted = Counter(arrived), set(due)
    yield Check(part, "rows", len(due), len(arrived))
    missing = {row.reading for row in due} - {row.reading for row in arrived}
    yield Check(part, "missing", 0, len(missing))
    yield Check(part, "duplicates", 0, came.total() - len({row.reading for row in arrived}))
    yield Check(part, "not due, or with a wrong value", 0, sum(row not in wanted for row in came))


def ledger_checks(ledger: Ledger) -> Iterator[Check]:
    """The ledger's equations: nothing comes in that does not go somewhere."""
    for part, counts in sorted(ledger.items(), key=lambda item: _place(item[0])):
        if part == "source":
            yield _equation(
                part, counts, ("read",), ("taken", "rejected", "redelivered", "retained")
            )
        elif part.startswith("sink:"):
            yield _equation(part, counts, ("appended", "summaries"), _SINK_SIDE)
        elif "in" in counts:
            rest = sorted({*counts} - {"in", "created", "out"})
            yield _equation(part, counts, ("in", "created"), ("out", *rest))


def _equation(
    part: str, counts: Mapping[str, int], left: Iterable[str], right: Iterable[str]
) -> Check:
    """Only counters that are not zero are written out; the first of either side always is."""

    def side(names: Iterable[str]) -> tuple[str, int]:
        first, *others = names
        shown = [first, *(name for name in others if counts.get(name))]
        return " + ".join(shown), sum(counts.get(name, 0) for name in (first, *others))

    (came_text, came), (went_text, went) = side(left), side(right)
    return Check("ledger", f"{part}: {came_text} = {went_text}", came, went)


def _place(part: str) -> tuple[bool, bool, bool, str]:
    """Source first, then the common operators, those of the sinks, the sinks."""
    return part != "source", part.startswith("sink:"), not part.startswith("common/"), part
