"""What the commands of `edge deploy` do where the target is the Docker engine of this machine."""

import os
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import typer

from edge.cli.reports import put_reports
from edge.cli.screen import FAILED, printable, put, put_json, put_table, say, terminal
from edge.errors import DefinitionError

if TYPE_CHECKING:
    from edge.deploy.local.container import Given
    from edge.deploy.local.processors import Change, Processors, Standing
    from edge.deploy.workload import Workload
    from edge.outbox.measures import Measure

_SIGNS = {
    "create": ("+", "green"),
    "update": ("~", "yellow"),
    "start": (">", "yellow"),
    "remove": ("-", "red"),
}
_WORDS = {"create": "creates", "update": "replaces", "start": "starts", "remove": "removes"}
_COLUMNS = ("replica", "container", "state", "health", "since", "restarts", "page")


def plan(workload: "Workload", profile: str | None, as_json: bool) -> None:
    """Show what `apply` would change."""
    from edge.deploy.guarantees import LINK_LOSS, notes

    changes, told = _processors(workload, profile).changes(), notes(workload)
    if as_json:
        put_json(
            {
                "changes": [each._asdict() for each in changes],
                "notes": [note._asdict() for note in told],
                "promises": LINK_LOSS["docker"],
            }
        )
        return
    console = terminal()
    for change in changes:
        sign, style = _SIGNS[change.action]
        console.print(f"{sign} container {change.name}", style=style, markup=False)
        for line in change.lines:
            style = {"+": "green", "-": "red"}.get(line[0], "")
            console.print(f"    {line}", style=style, markup=False)
    if not changes:
        put("nothing to change")
    for note in told:
        put(f"note {note}")
    for line in LINK_LOSS["docker"]:
        put(f"promise {line}")


def apply(workload: "Workload", profile: str | None, patience: float) -> None:
    """Make it so, and see every processor at work."""
    standings = _processors(workload, profile).apply(patience, _tell_change)
    for standing in standings:
        _tell_standing(standing)
    if any(each.state in ("crashes", "rolled back") for each in standings):
        raise typer.Exit(FAILED)


def status(workload: "Workload", as_json: bool) -> None:
    """How container and processor of every replica stand."""
    rows = _processors(workload, None).status()
    if as_json:
        put_json(rows)
    else:
        put_table(_COLUMNS, [_row(row) for row in rows])
        put_reports({row["replica"]: _numbers(row["pipelines"]) for row in rows})
    for row in rows:
        if row["pipelines"] is None:
            stands = (
                "`edge deploy logs` says why" if row["state"] == "running" else "it does not run"
            )
            say(f"replica {row['replica']}: nothing is reported; {stands}", style="yellow")


def logs(workload: "Workload", replica: str | None, since: float, follow: bool) -> None:
    """Print the logs that the engine keeps."""
    if replica is not None and replica not in workload.pipelines:
        known = ", ".join(workload.pipelines)
        raise DefinitionError(f"--replica: must be one of {known}, got {replica!r}")
    for line in _processors(workload, None).logs(replica, since, follow):
        put(printable(line))


def destroy(workload: "Workload", data: bool, yes: bool) -> None:
    """Remove the containers; the volumes with what was not delivered only where `data` says so."""
    processors = _processors(workload, None)
    if not yes:
        what = "with the outboxes and all rows not delivered" if data else "and keep its outboxes"
        question = f"Remove site {workload.site.site} from this engine, {what}?"
        typer.confirm(question, abort=True, err=True)
    processors.destroy(data, say)


def _processors(workload: "Workload", profile: str | None) -> "Processors":
    from edge.deploy.engine import Engine
    from edge.deploy.local.processors import Processors

    return Processors(Engine.connect(), workload, _given(workload, profile))


def _given(workload: "Workload", profile: str | None) -> "Given":
    """Secrets from this shell, and the keys of whoever deploys where a pipeline asks AWS."""
    from edge.deploy.local.container import Given

    site = workload.site
    missing = [
        site.fault(("secrets", name), f"is not set in this shell; `export {name}=...` first")
        for name in site.secrets
        if name not in os.environ
    ]
    if missing:
        raise DefinitionError(*missing)
    secrets = {name: os.environ[name] for name in site.secrets}
    asks = bool(workload.permissions()) and site.docker.credentials_uri is None
    return Given(secrets, _keys(profile) if asks else {})


def _keys(profile: str | None) -> Mapping[str, str]:
    from edge.deploy.account import open_session

    found = open_session(profile).get_credentials()
    if found is None:
        return {}
    frozen = found.get_frozen_credentials()
    keys = {
        "AWS_ACCESS_KEY_ID": frozen.access_key,
        "AWS_SECRET_ACCESS_KEY": frozen.secret_key,
        "AWS_SESSION_TOKEN": frozen.token,
    }
    return {name: value for name, value in keys.items() if value}


def _tell_change(change: "Change") -> None:
    say(f"{_WORDS[change.action]} container {change.name}")


def _tell_standing(standing: "Standing") -> None:
    words = f": {standing.words}" if standing.words else ""
    good = standing.state in ("running", "starting")
    style = "green" if good else "red"
    say(printable(f"replica {standing.replica}: {standing.state}{words}"), style=style)


def _numbers(pipelines: Mapping[str, Any] | None) -> "Sequence[Measure]":
    """What `edge status --json` says inside, this moment."""
    from edge.outbox.measures import measures

    return [
        {**row, "reported_seconds": 0.0}
        for name, found in (pipelines or {}).items()
        for row in measures(name, found["running"], found)
    ]


def _row(row: Mapping[str, Any]) -> Sequence[object]:
    state = row["state"]
    if row["exit_code"]:
        state = f"{state} ({row['exit_code']})"
    return (
        row["replica"],
        row["container"],
        state,
        row["health"],
        row["since"],
        row["restarts"],
        row["page"],
    )
