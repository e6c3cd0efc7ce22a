"""What a terminal shows below the log while pipelines run: how far the sources are, what waits."""

import asyncio
import time
from collections.abc import Mapping, Sequence
from datetime import timedelta
from typing import TYPE_CHECKING

from edge.component import format_duration, format_size
from edge.runner import Runner

if TYPE_CHECKING:
    from rich.console import Console

_EVERY = 0.5  # seconds between two looks


class Progress:
    """One line for each pipeline, drawn anew twice a second until it is cancelled."""

    def __init__(self, console: "Console") -> None:
        self._console = console
        self._started = time.monotonic()

    async def __call__(self, runners: Sequence[Runner]) -> None:
        """Show how `runners` stand; the lines are gone at the end."""
        from rich.live import Live
        from rich.text import Text

        with Live(console=self._console, auto_refresh=False, transient=True) as live:
            while True:
                lines = [self._line(runner) for runner in runners]
                live.update(Text("\n".join(lines), "dim", no_wrap=True), refresh=True)
                await asyncio.sleep(_EVERY)

    def _line(self, runner: Runner) -> str:
        if not runner.running:
            return f"{runner.pipeline.name}   waits for its outbox"
        source = self._source(runner.pipeline.source.status())
        waiting = (self._waiting(runner, name) for name in runner.links)
        return "   ".join((runner.pipeline.name, source, *waiting))

    def _source(self, status: Mapping[str, object]) -> str:
        if status.get("following"):
            behind = status.get("bytes_behind")
            late = f", {format_size(behind)} to read" if isinstance(behind, int) and behind else ""
            return f"{status.get('files')} files followed{late}"
        total, done = status.get("bytes_total"), status.get("bytes_done")
        if not isinstance(total, int) or not isinstance(done, int) or not total:
            return "connected" if status.get("connected") else "not connected"
        if done >= total:
            return f"all of {format_size(total)} read"
        rate = done / max(0.001, time.monotonic() - self._started)
        left = timedelta(seconds=round((total - done) / rate)) if rate else None
        ahead = f", {format_duration(left)} left" if left is not None else ""
        return f"{done / total:.0%} of {format_size(total)}, {format_size(rate)}/s{ahead}"

    def _waiting(self, runner: Runner, name: str) -> str:
        link = {True: "", False: " (link down)", None: ""}[runner.links[name].up]
        return f"{name}: {runner.outbox.depth(name).rows:,} waiting{link}"
