"""What commands print: data to standard output, words for people to standard error; exit codes."""

import json
import sys
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import typer
from typer.core import TyperGroup

from edge.errors import DefinitionError, EdgeError, Fault, OutboxLocked

if TYPE_CHECKING:
    from rich.console import Console

FAILED, WRONG, LOCKED = 1, 2, 3


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
        except BrokenPipeError:
            # The reader went away (`edge describe window | head`): nothing is left to say.
            sys.stdout = None
            raise typer.Exit(FAILED) from None


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
    from rich.table import Table

    table = Table(box=None, padding=(0, 2, 0, 0), header_style="bold", pad_edge=False)
    for column in columns:
        table.add_column(column, overflow="fold")
    for row in rows:
        table.add_row(*("" if cell is None else str(cell) for cell in row))
    console = terminal()
    with console.capture() as captured:
        console.print(table, markup=False)
    put("\n".join(line.rstrip() for line in captured.get().splitlines()))


def as_fields(value: Mapping[str, object]) -> list[tuple[str, str]]:
    """A mapping as rows of a table, nested ones with dotted names."""
    rows: list[tuple[str, str]] = []
    for name, inner in value.items():
        if isinstance(inner, Mapping):
            rows.extend((f"{name}.{below}", text) for below, text in as_fields(inner))
        else:
            rows.append((name, str(inner)))
    return rows
