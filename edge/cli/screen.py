"""What commands print: data to standard output, words for people to standard error; exit codes."""

import json
import logging
import sqlite3
import sys
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import typer
from typer.core import TyperGroup

from edge.errors import DefinitionError, EdgeError, Fault, OutboxLocked

if TYPE_CHECKING:
    from rich.console import Console
    from rich.table import Table

log = logging.getLogger("edge.cli")

FAILED, WRONG, LOCKED = 1, 2, 3
_NEVER_FOLDED = 24  # characters of a cell that stays in one line: a time, a sink, a number


class Commands(TyperGroup):
    """A group of commands whose errors become one line each and an exit code."""

    def invoke(self, ctx: Any) -> Any:
        try:
            return super().invoke(ctx)
        except DefinitionError as error:
            complain(*error.faults)
            raise typer.Exit(WRONG) from error
        except EdgeError as error:
            complain(str(error))
            raise typer.Exit(LOCKED if isinstance(error, OutboxLocked) else FAILED) from error
        except KeyboardInterrupt:
            say(
                "stopped; what was done stays, nothing is half done, the same command does the rest"
            )
            raise typer.Exit(FAILED) from None
        except BrokenPipeError:
            # The reader went away (`edge describe window | head`): nothing is left to say.
            sys.stdout = None
            raise typer.Exit(FAILED) from None
        except OSError as error:
            if error.filename is None:
                raise
            log.debug("traceback of what follows", exc_info=error)
            reason = f"{error.strerror}; look at the path, its owner and its permissions"
            complain(f"{error.filename}: cannot be used: {reason}")
            raise typer.Exit(FAILED) from error
        except sqlite3.OperationalError as error:
            log.debug("traceback of what follows", exc_info=error)
            remedy = "look at its disk, its owner and its permissions"
            complain(f"the file of the outbox cannot be used: {error}; {remedy}")
            raise typer.Exit(FAILED) from error


def terminal(stderr: bool = False) -> "Console":
    """Colours where there is a terminal, plain text of any width where there is none."""
    from rich.console import Console

    console = Console(stderr=stderr, highlight=False, soft_wrap=True)
    return console if console.is_terminal else Console(stderr=stderr, width=10_000, soft_wrap=True)


def say(*words: str, style: str = "") -> None:
    """One line for people."""
    terminal(stderr=True).print(*words, style=style, markup=False, highlight=False)


def complain(*faults: Fault | str) -> None:
    """What is wrong, one line each."""
    for fault in faults:
        say(str(fault), style="red")


def put(text: str) -> None:
    """Data, as it is."""
    typer.echo(text)


def put_json(value: object) -> None:
    """Data for programs; what JSON does not know is written as text."""
    put(json.dumps(value, indent=2, ensure_ascii=False, default=str))


def put_table(columns: Sequence[str], rows: Sequence[Sequence[object]]) -> None:
    """Rows as aligned columns, their heads in bold where there is a terminal."""
    console = terminal()
    with console.capture() as captured:
        console.print(table_of(columns, rows))
    put("\n".join(line.rstrip() for line in captured.get().splitlines()))


def table_of(columns: Sequence[str], rows: Sequence[Sequence[object]]) -> "Table":
    """A table whose long cells share the width that the short ones leave."""
    from rich.table import Table
    from rich.text import Text

    table = Table(box=None, padding=(0, 2, 0, 0), header_style="bold", pad_edge=False)
    texts = [["" if cell is None else printable(str(cell)) for cell in row] for row in rows]
    for index, column in enumerate(columns):
        short = all(len(row[index]) <= _NEVER_FOLDED for row in texts)
        table.add_column(column, overflow="fold", no_wrap=short)
    for row in texts:
        table.add_row(*map(Text, row))
    return table


def printable(text: str) -> str:
    r"""Text from outside, which must not steer a terminal: control characters become `\x1b`."""
    return "".join(c if c.isprintable() else c.encode("unicode_escape").decode() for c in text)


def rows_of(count: int) -> str:
    """`1 row`, `2,000 rows`."""
    return f"{count:,} row{'' if count == 1 else 's'}"
