"""The command line: `edge run`, `edge check`, `edge status` and the rest."""

import contextlib
import ctypes
import logging
import os
import sys
from typing import Annotated

import typer

from edge import __version__, cpu
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

_M_TRIM_THRESHOLD, _M_MMAP_THRESHOLD, _M_ARENA_MAX = -1, -3, -8  # malloc.h of glibc
_BLOCKS = 32 * 2**20  # the most that glibc takes: blocks of a file are far smaller


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
    use_one_arena()
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


def use_one_arena() -> None:
    """Share freed memory between threads, which use large blocks in turn: 35 MB less are kept.

    And keep what large blocks need between them: a file is read in a twentieth less time where the
    kernel need not clear the same pages again and again.
    """
    # polars adds its own to this in the environment, which a process that started us handed down.
    options = ["narenas:1", os.environ.get("_RJEM_MALLOC_CONF")]
    os.environ["_RJEM_MALLOC_CONF"] = ",".join(filter(None, options))
    with contextlib.suppress(AttributeError):  # musl has no arenas
        libc = ctypes.CDLL(None)
        libc.mallopt(_M_ARENA_MAX, 1)
        libc.mallopt(_M_MMAP_THRESHOLD, _BLOCKS)
        libc.mallopt(_M_TRIM_THRESHOLD, 2 * _BLOCKS)
