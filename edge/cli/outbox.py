"""Commands that look into an outbox, also while its processor runs: `edge outbox ...`."""

import sys
import time
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Annotated, Any, Literal

import typer

from edge.cli.screen import FAILED, WRONG, Commands, complain, put, put_json, put_table, say
from edge.cli.status import Place, outbox_of
from edge.cli.working import counting
from edge.errors import DefinitionError, EdgeError

PATIENCE = 15.0  # seconds to wait until a running processor carried out a request

Json = Annotated[bool, typer.Option("--json", help="Print JSON for programs.")]


def _sinks(context: typer.Context, incomplete: str) -> list[str]:
    """Names of sinks that begin so, for the shell: of the outbox that stands before."""
    from edge.outbox import inspection

    file = context.params.get("file")
    try:
        known = inspection.status(outbox_of(Path(file)), 0)["sinks"] if file else {}
    except (EdgeError, OSError):  # the shell shows nothing then; the command says why
        return []
    return [name for name in known if name.startswith(incomplete)]


SinkName = Annotated[
    str, typer.Argument(metavar="SINK", help="The sink's name.", autocompletion=_sinks)
]
Numbers = Annotated[
    list[int] | None, typer.Argument(metavar="PARCEL", help="As `ls` shows; default all.")
]


def add_to(app: typer.Typer) -> None:
    """Register the group of commands of this module."""
    group = typer.Typer(
        cls=Commands, no_args_is_help=True, help="Look into an outbox, retry or drop what it holds."
    )
    for command in (ls, verify, export, retry, drop, ledger):
        group.command()(command)
    app.add_typer(group, name="outbox")


def ls(
    file: Place,
    sink: Annotated[str | None, typer.Option(help="Only this sink.", autocompletion=_sinks)] = None,
    rejected: Annotated[
        bool, typer.Option("--rejected", help="The latest rejected payloads instead.")
    ] = False,
    limit: Annotated[int, typer.Option(min=1, max=10**9, help="At most so many of each.")] = 1000,
    as_json: Json = False,
) -> None:
    """List waiting entries and parcels, oldest first."""
    from edge.outbox import inspection

    folder = outbox_of(file)
    if sink is not None:
        _know(folder, sink)
    if rejected:
        _put_rejected(inspection.rejects(folder, limit), as_json)
        return
    entries = inspection.entries(folder, sink, limit)
    parcels = inspection.parcels(folder, sink, limit)
    if as_json:
        put_json({"entries": entries, "parcels": parcels})
        return
    rows = [_line(each, "entry", "buffered", "") for each in entries]
    rows += [
        _line(each, "parcel", each["state"], each["reason"] or each["key"]) for each in parcels
    ]
    if not rows:
        say("nothing waits")
        return
    put_table(("number", "sink", "what", "state", "rows", "bytes", "since", "key or reason"), rows)


def verify(file: Place, as_json: Json = False) -> None:
    """Check every checksum, equation and count.

    Exits with 1 when something does not hold.
    """
    from edge.outbox import inspection

    folder = outbox_of(file)
    with counting("checks", _held(folder)) as done:
        found = inspection.verify(folder, done)
    if as_json:
        put_json(found)
    else:
        complain(*found["faults"])
        verdict = f"{len(found['faults'])} faults" if found["faults"] else "everything holds"
        say(f"checked {found['entries']} entries and {found['parcels']} parcels: {verdict}")
    if found["faults"]:
        raise typer.Exit(FAILED)


def export(
    file: Place,
    to: Annotated[Path, typer.Argument(metavar="FOLDER", help="Where the copies go.")],
    as_json: Json = False,
) -> None:
    """Copy what waits into files; nothing leaves the outbox.

    Entries become Arrow files, parcels what would be sent, rejected payloads one NDJSON file.
    """
    from edge.outbox import inspection

    folder = outbox_of(file)
    with counting("copies", _held(folder)) as done:
        written = inspection.export(folder, to, done)
    if as_json:
        put_json(written)
    else:
        say(f"{to}: " + ", ".join(f"{number} {what}" for what, number in written.items()))


def retry(file: Place, sink: SinkName, parcels: Numbers = None) -> None:
    """Send quarantined parcels again."""
    _carry_out(outbox_of(file), "retry", sink, parcels)


def drop(
    file: Place,
    sink: SinkName,
    parcels: Numbers = None,
    yes: Annotated[bool, typer.Option("--yes", help="Do not ask.")] = False,
) -> None:
    """Forget rows that wait, or quarantined ones.

    The ledger keeps their number.
    """
    folder = outbox_of(file)
    what = (
        f"parcels {', '.join(map(str, parcels))}"
        if parcels
        else "everything that waits or is quarantined"
    )
    if not yes and not (sys.stdin.isatty() and typer.confirm(f"Drop {what} for {sink!r}?")):
        complain(f"drop: nothing was dropped of outbox {folder}; confirm, or give --yes")
        raise typer.Exit(WRONG)
    _carry_out(folder, "drop", sink, parcels)


def ledger(file: Place, as_json: Json = False) -> None:
    """Show where every row went, what was lost and why.

    Exits with 1 when an equation of the ledger does not hold.
    """
    from edge.outbox import inspection

    books = inspection.books(outbox_of(file))
    if as_json:
        put_json(books)
    else:
        counters = books["ledger"]
        rows = [(part, name, f"{n:,}") for part in counters for name, n in counters[part].items()]
        put_table(("part", "counter", "rows"), rows)
        _put_losses(books["losses"])
        complain(*books["imbalances"])
    if books["imbalances"]:
        raise typer.Exit(FAILED)


def _carry_out(
    folder: Path, action: Literal["retry", "drop"], sink: str, parcels: Sequence[int] | None
) -> None:
    from edge.outbox import inspection, request

    outcome = request.carry_out(folder, action, sink, parcels or None)
    if isinstance(outcome, int):
        say(f"{action}: {outcome} parcels of sink {sink!r}")
        return
    say(f"{action}: the processor runs and does it")
    deadline = time.monotonic() + PATIENCE
    while time.monotonic() < deadline:
        if (done := inspection.answer(folder, int(outcome))) is not None:
            say(f"{action}: {done} of sink {sink!r}")
            return
        time.sleep(0.1)
    complain(f"{action}: no answer within {PATIENCE:.0f} s; the request stays and will be done")
    raise typer.Exit(FAILED)


def _held(folder: Path) -> int:
    """How much there is to look at; 0 where the file is too damaged to say."""
    from edge.outbox import inspection

    try:
        return inspection.held(folder)
    except DefinitionError:
        raise
    except EdgeError:
        return 0


def _know(folder: Path, sink: str) -> None:
    from edge.outbox import inspection

    if sink not in (known := inspection.status(folder, 0)["sinks"]):
        names = ", ".join(sorted(known))
        raise DefinitionError(f"outbox {folder}: has no sink {sink!r}; known are {names}")


def _line(found: Mapping[str, Any], what: str, state: str, note: str) -> tuple[object, ...]:
    rows, size = f"{found['rows']:,}", f"{found['bytes']:,}"
    return found["id"], found["sink"], what, state, rows, size, _utc(found["time"]), note


def _put_losses(losses: Sequence[Mapping[str, Any]]) -> None:
    if not losses:
        put("\nnothing was lost")
        return
    rows = [
        (
            loss["part"],
            loss["kind"],
            f"{loss['rows']:,}",
            f"{loss['bytes']:,}",
            _utc(loss["first_time"]),
            _utc(loss["last_time"]),
            loss["reason"],
        )
        for loss in losses
    ]
    put("")
    put_table(("lost by", "how", "rows", "bytes", "first", "last", "reason"), rows)


def _put_rejected(found: Sequence[Mapping[str, Any]], as_json: bool) -> None:
    readable = [{**each, "payload": each["payload"].decode(errors="replace")} for each in found]
    if as_json:
        put_json(readable)
        return
    if not readable:
        say("no payload was rejected")
        return
    rows = [
        (_utc(each["time"]), each["topic"], each["size"], each["reason"], each["payload"][:80])
        for each in readable
    ]
    put_table(("time", "topic", "bytes", "reason", "payload"), rows)


def _utc(micros: int) -> str:
    return f"{datetime.fromtimestamp(micros / 1e6, UTC):%Y-%m-%dT%H:%M:%SZ}"
