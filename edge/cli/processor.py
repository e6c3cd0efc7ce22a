"""Commands that run pipelines: run, demo."""

import gc
import logging
import os
import sys
from collections.abc import Callable, Coroutine, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

import typer

from edge.cli.screen import terminal
from edge.errors import DefinitionError, Fault

if TYPE_CHECKING:
    from rich.console import Console

    from edge.pipeline import Pipeline
    from edge.process import Beside
    from edge.secrets import Secrets

log = logging.getLogger("edge.cli")

Level = Literal["debug", "info", "warning", "error"]
LogFormat = Literal["auto", "text", "json"]

_YOUNG = 5000  # objects, more than the rows of a small batch: else each has Python look for garbage


def add_to(app: typer.Typer) -> None:
    """Register the commands of this module."""
    app.command()(run)
    app.command()(demo)


def run(
    context: typer.Context,
    files: Annotated[
        list[Path], typer.Argument(metavar="FILE", help="Definitions to run, or folders.")
    ],
    once: Annotated[
        bool, typer.Option("--once", help="End when finite sources end and the outboxes are empty.")
    ] = False,
    http: Annotated[
        str | None,
        typer.Option(
            envvar="EDGE_HTTP",
            metavar="HOST:PORT",
            help="Show state, metrics and health there; beyond this machine with EDGE_HTTP_TOKEN.",
        ),
    ] = None,
    http_certificate: Annotated[
        Path | None, typer.Option(envvar="EDGE_HTTP_CERTIFICATE", help="For TLS, a PEM file.")
    ] = None,
    http_key: Annotated[
        Path | None, typer.Option(envvar="EDGE_HTTP_KEY", help="Its key, a PEM file.")
    ] = None,
    http_client_ca: Annotated[
        Path | None,
        typer.Option(envvar="EDGE_HTTP_CLIENT_CA", help="Only certificates of this authority."),
    ] = None,
    log_format: Annotated[
        LogFormat, typer.Option(help="For people or programs; auto: text on a terminal, else json.")
    ] = "auto",
    log_level: Annotated[Level, typer.Option(help="The least that is logged.")] = "info",
    log_metrics: Annotated[
        bool,
        typer.Option(
            "--log-metrics",
            envvar="EDGE_LOG_METRICS",
            help="Log numbers once a minute, as metrics that CloudWatch Logs finds; in json only.",
        ),
    ] = False,
) -> None:
    """Run pipelines in one process until SIGTERM or SIGINT.

    Every definition is checked before anything opens.
    """
    # What is imported is never garbage: looking for some in it takes a quarter of the start.
    gc.disable()
    import asyncio

    from edge import process
    from edge.pipeline import Pipeline, load
    from edge.pipeline.reading import definition_files
    from edge.secrets import secrets_of

    gc.freeze()
    gc.set_threshold(_YOUNG)
    gc.enable()
    pipelines: list[Pipeline] = []
    faults: list[Fault] = []
    for file in definition_files(files):
        try:
            pipelines.append(load(file))
        except DefinitionError as error:
            faults.extend(error.faults)
    faults.extend(_shared_outboxes({str(p.file): p.outbox_folder() for p in pipelines}))
    if faults:
        raise DefinitionError(*faults)
    secrets = secrets_of(pipelines, os.environ)
    form = log_format if log_format != "auto" else "text" if sys.stderr.isatty() else "json"
    console = terminal(stderr=True) if sys.stderr.isatty() and form == "text" else None
    if log_metrics and form != "json":
        raise DefinitionError("--log-metrics: are JSON, got a log of text; add --log-format json")
    start_logging(form, log_level, secrets, console)
    beside: list[Beside] = []
    if http:
        from edge.dashboard.beside import dashboards

        beside += dashboards(http, secrets, http_certificate, http_key, http_client_ca)
    _tell_owned([pipeline.outbox_folder() for pipeline in pipelines])
    beside += _progress(pipelines, console) if console else []
    beside += _embedded() if log_metrics else []
    asyncio.run(_run(process.run(pipelines, once=once, beside=beside), context.obj))


async def _run(work: Coroutine[None, None, None], leave: Callable[[], None] | None) -> None:
    """Do the work, then leave the process at once, where it is one of its own.

    A thread may hang for ever, in a write to a share that is gone or a pipe that nobody reads.
    """
    await work
    if leave is not None:
        leave()


def _embedded() -> "list[Beside]":
    """Numbers in the log, whatever else is logged."""
    from edge.cli.embedded import Embedded

    logging.getLogger("edge.metrics").setLevel(logging.INFO)
    return [Embedded()]


def _progress(pipelines: "Sequence[Pipeline]", console: "Console") -> "list[Beside]":
    """What moves below the log; nothing where rows are printed between it."""
    from edge.cli.progress import Progress
    from edge.pipeline.binding import kind_of

    sinks = [branch.sink for pipeline in pipelines for branch in pipeline.sinks.values()]
    return [] if "console" in map(kind_of, sinks) else [Progress(console)]


def demo(
    out: Annotated[Path, typer.Option(help="Where its files go.")] = Path("out/demo"),
    fault: Annotated[
        Literal["link", "rubbish", "full"] | None,
        typer.Option(help="Instead, let one thing go wrong until Ctrl-C, with the live page on."),
    ] = None,
    http: Annotated[
        str | None, typer.Option(metavar="HOST:PORT", help="With a fault: where the page is.")
    ] = None,
) -> None:
    """Play the main job on real data, all on this machine.

    Starts a broker, S3 and SQS here, takes them away and brings them back. Needs the extra `demo`.
    """
    from edge.demo import fault as staged
    from edge.demo import main

    if http is not None and fault is None:
        raise DefinitionError("--http: needs --fault; the main job has no time to be looked at")
    if fault is not None:
        raise typer.Exit(staged.main(fault, out, http))
    raise typer.Exit(main(out))


def start_logging(
    form: str, level: str, secrets: "Secrets", console: "Console | None" = None
) -> None:
    """Log to standard error, one line an event; `json` gives one object a line.

    secrets: what no line may show. console: a terminal on which warnings and errors are coloured.
    """
    from edge.cli.journal import ConsoleHandler, JsonLines, TextLines
    from edge.cli.repeats import Repeats

    lines = ConsoleHandler(console) if console else logging.StreamHandler()
    lines.setFormatter(JsonLines(secrets) if form == "json" else TextLines(secrets))
    logging.basicConfig(level=logging.WARNING, handlers=[Repeats(lines)])
    logging.getLogger("edge").setLevel(level.upper())
    # A traceback whenever credentials cannot be renewed; the link says why, in words, once.
    logging.getLogger("botocore.credentials").setLevel(logging.ERROR)


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
