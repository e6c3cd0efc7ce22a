"""`edge new`: a project of the user's own, ready to run, test and build."""

from pathlib import Path
from typing import Annotated, Literal

import typer

from edge.cli.screen import put, say


def add_to(app: typer.Typer) -> None:
    """Register the command of this module."""
    app.command()(new)


def new(
    folder: Annotated[
        Path, typer.Argument(metavar="NAME", help="Folder to make; its name is the pipeline's.")
    ],
    origin: Annotated[
        Literal["mqtt", "dataset", "sqs"], typer.Option("--from", help="Where rows come from.")
    ] = "mqtt",
) -> None:
    """Make a project of your own: definitions with tests, container files, a site file.

    It runs, tests and builds an image as it is. Refuses a folder that is not empty.
    """
    from edge.project import KINDS, create

    made = create(folder, origin)
    put("\n".join(str(folder / path) for path in made))
    kind, name = KINDS[origin], folder.resolve().name
    say("\nNext:")
    say(f"  cd {folder}")
    say("  edge test pipelines tests")
    say(f"  {kind.run.format(name=name)}")
    if kind.needs:
        say(f"    needs {kind.needs.format(name=name)}")
    say(f"  edge image build --tag {name}:1 pipelines")
