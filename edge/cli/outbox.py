"""Commands that look into an outbox, also while its processor runs or is stopped."""

import typer


def add_to(app: typer.Typer) -> None:
    """Register the commands of this module."""
