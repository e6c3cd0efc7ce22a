"""The command that shows how pipelines stand: status."""

import os
import time
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from edge.cli.screen import put, put_json, put_table, rows_of, table_of, terminal
from edge.errors import DefinitionError

if TYPE_CHECKING:
    from rich.console import RenderableType

EVERY = 1.0  # seconds between two looks of --watch

Place = Annotated[
    Path, typer.Argument(metavar="FILE", help="A definition, or the folder of its outbox.")
]


def add_to(app: typer.Typer) -> None:
    """Register the command of this module."""
    app.command()(status)


def status(
    file: Annotated[
        Path | None,
        typer.Argument(metavar="FILE", help="A definition or an outbox folder; default all."),
    ] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON for programs.")] = False,
    watch: Annotated[bool, typer.Option("--watch", help="Look again every second.")] = False,
) -> None:
    """Show depth, oldest age, link state and hours until full.

    Looks at the outbox from outside: it works while the processor runs and while it does not.
    """
    outboxes = {_name_of(file): outbox_of(file)} if file else _all_outboxes()
    if not watch:
        _put(_look(outboxes), as_json)
        return
    try:
        _watch(outboxes, as_json)
    except KeyboardInterrupt:
        raise typer.Exit(0) from None


def outbox_of(place: Path) -> Path:
    """The outbox folder of a definition, or `place` itself where that is a folder."""
    from edge.pipeline import load

    if place.is_dir():
        return place
    pipeline = load(place)
    folder = pipeline.outbox_folder()
    if pipeline.outbox.path is None and not folder.exists() and not folder.is_absolute():
        raise DefinitionError(
            f"outbox {folder}: there is none below {Path.cwd()}; go to where `edge run` was "
            "started, or set EDGE_STATE_DIR"
        )
    return folder


def _name_of(place: Path) -> str:
    from edge.pipeline import load

    return place.resolve().name if place.is_dir() else load(place).name


def _all_outboxes() -> dict[str, Path]:
    state = Path(os.environ.get("EDGE_STATE_DIR") or "var")
    found = {file.parent.name: file.parent for file in sorted(state.glob("*/outbox.sqlite"))}
    if not found:
        raise DefinitionError(
            f"status: there is no outbox below {state}; name a definition, or set EDGE_STATE_DIR"
        )
    return found


def _look(outboxes: Mapping[str, Path]) -> dict[str, Any]:
    from edge.outbox import inspection
    from edge.outbox.owner import is_owned

    now = time.time_ns() // 1000
    seen = {
        name: {"running": is_owned(folder), **inspection.status(folder, now)}
        for name, folder in outboxes.items()
    }
    for found in seen.values():
        if found["source"] and "connected" in found["source"] and not found["running"]:
            found["source"] |= {"connected": False, "problem": "the processor does not run"}
    return seen


def _put(seen: Mapping[str, Any], as_json: bool) -> None:
    if as_json:
        put_json(seen)
        return
    for name, found in seen.items():
        put(_headline(name, found))
        if line := _source_line(found["source"] or {}):
            put(line)
        if line := _waits_line(found):
            put(line)
        put_table(_COLUMNS, _rows(found))


def _watch(outboxes: Mapping[str, Path], as_json: bool) -> None:
    from rich.live import Live

    console = terminal()
    if as_json or not console.is_terminal:
        while True:
            _put(_look(outboxes), as_json)
            time.sleep(EVERY)
    with Live(console=console, refresh_per_second=4, screen=True) as live:
        while True:
            live.update(_drawn(_look(outboxes)))
            time.sleep(EVERY)


def _drawn(seen: Mapping[str, Any]) -> "RenderableType":
    from rich.console import Group
    from rich.text import Text

    drawn: list[RenderableType] = []
    for name, found in seen.items():
        table = table_of(_COLUMNS, rows := _rows(found))
        for line, row in zip(table.rows, rows, strict=True):
            line.style = "yellow" if row[1] == "down" else ""
        drawn.append(Text(_headline(name, found), style="bold"))
        source = found["source"] or {}
        if said := _source_line(source):
            drawn.append(Text(said, style="" if source.get("connected", True) else "yellow"))
        if said := _waits_line(found):
            drawn.append(Text(said, style="yellow"))
        drawn += [table, Text()]
    return Group(*drawn)


_COLUMNS = ("sink", "link", "waiting", "bytes", "oldest", "delivered", "quarantined", "reason")


def _headline(name: str, found: Mapping[str, Any]) -> str:
    from edge.component import format_size

    room = found["outbox"]
    hours = room["hours_until_full"]
    full = "" if hours is None else f", full in {hours:.1f} h"
    most = f" of {format_size(room['max_bytes'])}" if room["max_bytes"] else ""
    disk = f", {room['disk_problem']}" if room["disk_problem"] else ""
    failed = f", {found['rows_failed']:,} failed" if found["rows_failed"] else ""
    words = [
        f"{name}: {'running' if found['running'] else 'not running'}",
        f"{rows_of(found['rows_read'])} read, {found['rows_rejected']:,} rejected{failed}",
        f"outbox {format_size(room['bytes'])}{most}{full}{disk}",
        *(f"does not balance: {equation}" for equation in found["imbalances"]),
    ]
    return "; ".join(words)


def _source_line(source: Mapping[str, Any]) -> str | None:
    """How the source stands; None where it says nothing of itself."""
    match source:
        case {"kind": kind, "connected": True}:
            answers = source.get("subscriptions", {}).items()
            refused = [topic for topic, answer in answers if answer.startswith("refused")]
            more = f"; subscriptions refused: {', '.join(refused)}" if refused else ""
            return f"source {kind}: connected to {source.get('url', 'its server')}{more}"
        case {"kind": kind, "connected": _}:
            return f"source {kind}: not connected: {source.get('problem') or 'no reason known'}"
        case {"kind": kind, "following": True, "files": files}:
            return f"source {kind}: follows {_followed(files, source)}"
        case {"kind": kind, "file": str(file), "bytes_done": done, "bytes_total": total}:
            return f"source {kind}: {file}, {done / max(1, total):.0%}"
        case {"kind": kind, "files": int(files), "files_done": done} if files and files == done:
            return f"source {kind}: all read, {files} {'file' if files == 1 else 'files'}"
    return None


def _waits_line(found: Mapping[str, Any]) -> str | None:
    """Which file of an operator keeps rows from coming in."""
    missing = (found["source"] or {}).get("waits_for")
    return f"intake waits: {missing}" if missing and found["running"] else None


def _followed(files: int, source: Mapping[str, Any]) -> str:
    from edge.component import format_size

    words = [f"{files:,} {'file' if files == 1 else 'files'}"]
    if source.get("settling"):
        words.append(f"{source['settling']:,} wait to settle")
    if source.get("bytes_behind"):
        words.append(f"{format_size(source['bytes_behind'])} to read")
    if source.get("unreadable", 0) > 1:
        words.append(f"{source['unreadable']:,} cannot be read")
    if source.get("problem"):
        words.append(str(source["problem"]))
    return "; ".join(words)


def _rows(found: Mapping[str, Any]) -> list[tuple[str, ...]]:
    return [_row(name, sink) for name, sink in found["sinks"].items()]


def _row(name: str, sink: Mapping[str, Any]) -> tuple[str, ...]:
    from datetime import timedelta

    from edge.component import format_duration, format_size

    oldest = sink["oldest_seconds"]
    return (
        name,
        sink["link"] or "not tried",
        rows_of(sink["buffered_rows"]),
        format_size(sink["buffered_bytes"]),
        "" if oldest is None else format_duration(timedelta(seconds=round(oldest))),
        rows_of(sink["delivered_rows"]),
        rows_of(sink["quarantined_rows"]) if sink["quarantined_rows"] else "",
        sink["link_reason"] or "",
    )
