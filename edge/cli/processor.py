"""Commands that run pipelines: run, demo."""

import gc
import logging
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Annotated, Literal

import typer

from edge.errors import DefinitionError, Fault

log = logging.getLogger("edge.cli")

Level = Literal["debug", "info", "warning", "error"]


def add_to(app: typer.Typer) -> None:
    """Register the commands of this module."""
    app.command()(run)
    app.command()(demo)


def run(
    files: Annotated[list[Path], typer.Argument(metavar="FILE", help="Definitions to run.")],
    once: Annotated[
        bool, typer.Option("--once", help="End when finite sources end and the outboxes are empty.")
    ] = False,
    log_format: Annotated[
        Literal["text", "json"], typer.Option(help="Log lines for people or for programs.")
    ] = "text",
    log_level: Annotated[Level, typer.Option(help="The least that is logged.")] = "info",
) -> None:
    """Run pipelines in one process until SIGTERM or SIGINT.

    Every definition is checked before anything opens.
    """
    # What is imported is never garbage: looking for some in it takes a quarter of the start.
    gc.disable()
    import asyncio

    from edge import runner
    from edge.pipeline import Pipeline, load

    gc.freeze()
    gc.enable()
    pipelines: list[Pipeline] = []
    faults: list[Fault] = []
    for file in files:
        try:
            pipelines.append(load(file))
        except DefinitionError as error:
            faults.extend(error.faults)
    faults.extend(_shared_outboxes({str(p.file): p.outbox_folder() for p in pipelines}))
    if faults:
        raise DefinitionError(*faults)
    start_logging(log_format, log_level)
    _tell_owned([pipeline.outbox_folder() for pipeline in pipelines])
    asyncio.run(runner.run(pipelines, once=once))


def demo(
    out: Annotated[Path, typer.Option(help="Where its files go.")] = Path("out/demo"),
) -> None:
    """Play the main job on real data, all on this machine.

    Starts a broker, S3 and SQS here, takes them away and brings them back. Needs edge[demo].
    """
    from edge.demo import main

    raise typer.Exit(main(out))


def start_logging(form: str, level: str) -> None:
    """Log to standard error, one line an event; `json` gives one object a line."""
    from edge.cli.journal import JsonLines, TextLines

    lines = logging.StreamHandler()
    lines.setFormatter(JsonLines() if form == "json" else TextLines())
    logging.basicConfig(level=logging.WARNING, handlers=[lines])
    logging.getLogger("edge").setLevel(level.upper())


def _tell_owned(folders: Sequence[Path]) -> None:
    """Say what a start is going to wait for: a processor that is just leaving, or one too many."""
    from edge.outbox.owner import is_owned

    for folder in folders:
        if is_owned(folder):
            log.warning("outbox %s: another process owns it; waiting for it to leave", folder)


def _shared_outboxes(folders: Mapping[str, Path]) -> list[Fault]:
    seen: dict[Path, str] = {}
    faults = []
    for file, folder in folders.items():
        first = seen.setdefault(folder.resolve(), file)
        if first != file:
            message = f"shares the outbox {folder} with {first}; give it another name or path"
            faults.append(Fault("outbox", message, file))
    return faults
