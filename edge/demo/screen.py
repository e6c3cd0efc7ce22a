"""What a person sees: live progress on a terminal, plain lines elsewhere, a table at the end."""

import time
from collections.abc import Sequence

from rich.console import Console
from rich.live import Live
from rich.progress_bar import ProgressBar
from rich.table import Table
from rich.text import Text

from edge.demo.verdict import Check

_PLAIN_EVERY = 3.0  # seconds between two plain lines


class Screen:
    """Progress goes to stderr, the closing table to stdout."""

    def __init__(self, total: int) -> None:
        self._total = total
        self._console = Console(stderr=True, highlight=False)
        self._start = time.monotonic()
        self._plain_at = self._start + _PLAIN_EVERY
        self._live = Live(console=self._console, refresh_per_second=8, transient=True)

    def __enter__(self) -> "Screen":
        if self._console.is_terminal:
            self._live.start()
        return self

    def __exit__(self, *_: object) -> None:
        if self._live.is_started:
            self._live.stop()

    def say(self, text: str, style: str = "") -> None:
        """One thing that happened, with the seconds since the start."""
        seconds = time.monotonic() - self._start
        # As a style of `print` it would colour the live picture below too.
        line = Text.from_markup(f"{seconds:5.1f} s  {text}", style=style)
        self._console.print(line, soft_wrap=True)

    def show(self, published: int, lines: Sequence[tuple[str, str]]) -> None:
        """How things stand now: name and text, in the order given."""
        if self._live.is_started:
            self._live.update(self._picture(published, lines))
        elif time.monotonic() >= self._plain_at:
            self._plain_at = time.monotonic() + _PLAIN_EVERY
            self.say("; ".join(f"{name} {text}" for name, text in lines))

    def _picture(self, published: int, lines: Sequence[tuple[str, str]]) -> Table:
        grid = Table.grid(padding=(0, 2))
        grid.add_row("", ProgressBar(self._total, published, width=48))
        for name, text in lines:
            grid.add_row(f"[bold]{name}", text)
        return grid


def table(checks: Sequence[Check]) -> Table:
    """The closing table: what must be, what is."""
    picture = Table("", "", title="What arrived", title_justify="left")
    picture.add_column("must be", justify="right")
    picture.add_column("is", justify="right")
    picture.add_column("")
    part = ""
    for check in checks:
        if part and check.part != part:
            picture.add_section()
        mark = "" if check.expected is None else "[green]ok" if check.holds else "[bold red]WRONG"
        name = check.part if check.part != part else ""
        picture.add_row(name, check.what, _cell(check.expected), _cell(check.found), mark)
        part = check.part
    return picture


def _cell(value: int | None) -> str:
    return "" if value is None else f"{value:,}"
