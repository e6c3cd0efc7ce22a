"""The command line: `edge run`, `edge check`, `edge status` and the rest."""

import logging
import os
import sys
from typing import Annotated

import typer

from edge import __version__, cpu, heap
from edge.cli import (
    definition,
    deploy,
    examples,
    host,
    image,
    new,
    outbox,
    parts,
    processor,
    status,
    tap,
)
from edge.cli.screen import WRONG, Commands, complain, put

EXIT_CODES = """Exit codes: 0 done, 1 failed, 2 the definition or arguments are wrong, 3 another
process owns the outbox."""


def application(styled: bool = False) -> typer.Typer:
    """All commands; `styled` help and errors are for terminals."""
    app = typer.Typer(
        name="edge",
        cls=Commands,
        help="Process sensor data where it is made: MQTT and files in, SQS and S3 out.",
        epilog=EXIT_CODES,
        no_args_is_help=True,
        pretty_exceptions_enable=False,
        rich_markup_mode="markdown" if styled else None,
        context_settings={"help_option_names": ["-h", "--help"]},
    )
    app.callback()(_edge)
    for group in (
        processor,
        definition,
        examples,
        parts,
        status,
        tap,
        outbox,
        new,
        image,
        deploy,
        host,
    ):
        group.add_to(app)
    return app


def _show_version(wanted: bool) -> None:
    if wanted:
        put(f"edge {__version__}")
        raise typer.Exit


def _edge(
    version: Annotated[
        bool,
        typer.Option("--version", help="Print the version.", is_eager=True, callback=_show_version),
    ] = False,
) -> None:
    del version


def main() -> None:
    """Entry point of the command `edge`."""
    _check_processor()
    # Before polars is imported, which starts its threads then. Batches are small: more threads
    # cost memory and give nothing.
    os.environ.setdefault("POLARS_MAX_THREADS", "1")
    heap.use_one_arena()
    application(styled=sys.stdout.isatty() and sys.stderr.isatty())(obj=leave)


def leave() -> None:
    """End the process with 0 as it stands. Python itself would wait for each of its threads."""
    logging.shutdown()
    os._exit(0)


def _check_processor() -> None:
    """Leave with words where polars would die of an illegal instruction."""
    if lacks := cpu.missing():
        complain(
            f"this processor lacks {', '.join(lacks)}, which polars needs; "
            "pip install 'PATH-OF-THE-CLONE[compat]', "
            "or build the image with `edge image build --cpu compat`"
        )
        raise SystemExit(WRONG)
