"""The numbers of an outbox as rows: one for its pipeline, one for each of its sinks."""

from collections.abc import Mapping
from typing import Any

Measure = dict[str, str | float | None]

OF_PIPELINE = (
    "running",
    "connected",
    "rows_read",
    "rows_rejected",
    "rows_failed",
    "last_read_seconds",
    "imbalances",
    "outbox_bytes",
    "outbox_max_bytes",
    "hours_until_full",
)
"""Numbers of a pipeline. Rows are totals since its outbox was made."""
OF_SINK = (
    "link_up",
    "waiting_rows",
    "waiting_bytes",
    "oldest_seconds",
    "delivered_rows",
    "quarantined_rows",
)
"""Numbers of a sink."""

_AS_SAID = ("rows_read", "rows_rejected", "rows_failed", "last_read_seconds")
_UNITS = {"_seconds": "Seconds", "_bytes": "Bytes", "_rows": "Count"}


def unit_of(name: str) -> str | None:
    """The unit that the end of a name tells, in the words of CloudWatch."""
    return next((unit for end, unit in _UNITS.items() if name.endswith(end)), None)


def measures(pipeline: str, running: bool, found: Mapping[str, Any] | None) -> list[Measure]:
    """Rows with `pipeline`, `sink` (None: of the pipeline) and their numbers; None: not known.

    found: what `inspection.status` gives; None where there is no outbox.
    """
    whole: Measure = {"pipeline": pipeline, "sink": None, "running": float(running)}
    if found is None:
        return [whole]
    connected = (found["source"] or {}).get("connected")
    whole |= {
        "connected": None if connected is None else float(running and bool(connected)),
        **{name: found[name] for name in _AS_SAID},
        "imbalances": len(found["imbalances"]),
        "outbox_bytes": found["outbox"]["bytes"],
        "outbox_max_bytes": found["outbox"]["max_bytes"],
        "hours_until_full": found["outbox"]["hours_until_full"],
    }
    return [whole, *(_of_sink(pipeline, name, sink) for name, sink in found["sinks"].items())]


def _of_sink(pipeline: str, name: str, sink: Mapping[str, Any]) -> Measure:
    return {
        "pipeline": pipeline,
        "sink": name,
        "link_up": None if sink["link"] is None else float(sink["link"] == "up"),
        "waiting_rows": sink["buffered_rows"],
        "waiting_bytes": sink["buffered_bytes"],
        "oldest_seconds": sink["oldest_seconds"] or 0.0,
        "delivered_rows": sink["delivered_rows"],
        "quarantined_rows": sink["quarantined_rows"],
    }
