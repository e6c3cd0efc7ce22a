"""Numbers of pipelines in the log, as metrics that CloudWatch Logs finds there."""

import asyncio
import logging
import time
from collections.abc import Mapping, Sequence
from typing import Any

from edge.outbox import inspection
from edge.outbox.measures import Measure, measures, unit_of
from edge.runner import Runner

log = logging.getLogger("edge.metrics")

EVERY = 60.0  # seconds
_LOOK = 1.0
_NAMESPACE = "edge"
_NAMED = ("site", "replica", "pipeline", "sink")


class Embedded:
    """Once a minute a line for each pipeline and each of its sinks, until it is cancelled.

    The embedded metric format (CloudWatch User Guide, "Specification: Embedded metric format").
    """

    async def __call__(self, runners: Sequence[Runner]) -> None:
        """Look at `runners`, each from the moment on when its outbox is there."""
        due = dict.fromkeys(runners, 0.0)
        while True:
            for runner in runners:
                if runner.running and time.monotonic() >= due[runner]:
                    due[runner] = time.monotonic() + EVERY
                    await self._tell(runner)
            await asyncio.sleep(_LOOK)

    async def _tell(self, runner: Runner) -> None:
        pipeline = runner.pipeline
        where = {"site": pipeline.site, "replica": pipeline.replica}
        try:
            found = await runner.outbox.call("look", inspection.read_status)
        except Exception as error:  # the disk; the intake says more, and this must go on
            log.warning("pipeline %r: its numbers cannot be read: %s", pipeline.name, error)
            return
        now = time.time_ns() // 1_000_000
        for row in measures(pipeline.name, True, found):
            about = "numbers" if row["sink"] is None else f"numbers of sink {row['sink']!r}"
            extra = {"embedded": embedded({**where, **row}, now)}
            log.info("pipeline %r: %s", pipeline.name, about, extra=extra)


def embedded(row: Measure, now: int) -> Mapping[str, Any]:
    """The members that make a log line metrics; now: milliseconds since 1970."""
    known = {name: value for name, value in row.items() if value is not None}
    told = [name for name in _NAMED if name in known]
    names = [name for name in known if name not in told]
    units = {name: unit for name in names if (unit := unit_of(name))}
    made = [{"Name": n, "Unit": units[n]} if n in units else {"Name": n} for n in names]
    about = {"Namespace": _NAMESPACE, "Dimensions": [told], "Metrics": made}
    return {"_aws": {"Timestamp": now, "CloudWatchMetrics": [about]}, **known}
