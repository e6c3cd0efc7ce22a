"""What a terminal shows of a command that takes its time: how far it is, how fast, how long."""

import contextlib
from collections.abc import Callable, Iterator

from edge.cli.screen import say, terminal

Advance = Callable[[int], None]
Say = Callable[[str], None]


@contextlib.contextmanager
def counting(what: str, total: int) -> Iterator[Advance]:
    """`with counting("checks", 5_000) as done: done(1)`: a bar with rate and time left.

    Nothing where standard error is no terminal; gone at the end.
    """
    from rich.progress import (
        BarColumn,
        MofNCompleteColumn,
        Progress,
        TextColumn,
        TimeRemainingColumn,
    )

    console = terminal(stderr=True)
    columns = (
        TextColumn("{task.description}"),
        BarColumn(),
        MofNCompleteColumn(),
        TextColumn("{task.fields[rate]}"),
        TimeRemainingColumn(),
    )
    with Progress(
        *columns, console=console, transient=True, disable=not console.is_terminal
    ) as bar:
        task = bar.add_task(what, total=total, rate="")

        def advance(count: int) -> None:
            speed = bar.tasks[0].speed
            bar.update(task, advance=count, rate=f"{speed:,.0f}/s" if speed else "")

        yield advance


@contextlib.contextmanager
def waiting() -> Iterator[Say]:
    """A line at a time for people; on a terminal the last one moves, with the time it takes.

    For work of which nobody knows how much is left.
    """
    from rich.progress import Progress, SpinnerColumn, TextColumn, TimeElapsedColumn

    console = terminal(stderr=True)
    if not console.is_terminal:
        yield say
        return
    columns = SpinnerColumn(), TextColumn("{task.description}", markup=False), TimeElapsedColumn()
    with Progress(*columns, console=console, transient=True) as line:
        task = line.add_task("")

        def tell(words: str) -> None:
            line.console.print(words, markup=False, highlight=False)
            line.reset(task, description=words)

        yield tell
