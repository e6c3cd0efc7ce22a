"""Commands that bring a site to where it runs: deploy plan, apply, status, logs, destroy."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from edge.cli import local
from edge.cli.reports import put_reports
from edge.cli.screen import (
    FAILED,
    Commands,
    complain,
    printable,
    put,
    put_json,
    put_table,
    say,
    terminal,
)
from edge.errors import DefinitionError

if TYPE_CHECKING:
    from edge.deploy.account import Account
    from edge.deploy.plan import Change, Plan
    from edge.deploy.site import Site as SiteFile
    from edge.deploy.watch import Standing
    from edge.deploy.workload import Workload


def _sites(incomplete: str) -> list[str]:
    """Names of the site files that begin so, for the shell."""
    found = Path("deploy/sites").glob("*.yaml")
    return sorted(file.stem for file in found if file.stem.startswith(incomplete))


Site = Annotated[
    str,
    typer.Argument(
        metavar="SITE",
        help="A site file, or the name of one in deploy/sites.",
        autocompletion=_sites,
    ),
]
Profile = Annotated[
    str | None, typer.Option(help="Profile of the AWS configuration files; default AWS_PROFILE.")
]
Json = Annotated[bool, typer.Option("--json", help="Print JSON for programs.")]
_SIGNS = {"create": ("+", "green"), "update": ("~", "yellow"), "remove": ("-", "red")}
_STYLES = {
    "running": "green",
    "starting": "",
    "offline": "yellow",
    "draining": "yellow",
    "no host": "yellow",
}


def add_to(app: typer.Typer) -> None:
    """Register the commands of this module."""
    group = typer.Typer(
        cls=Commands, no_args_is_help=True, help="Bring a site to where it runs and look after it."
    )
    for command in (plan, apply, status, logs, destroy):
        group.command()(command)
    app.add_typer(group, name="deploy")


def plan(
    site: Site,
    profile: Profile = None,
    as_json: Json = False,
    out: Annotated[
        Path | None, typer.Option(help="Folder for manifests, with target kubernetes.")
    ] = None,
) -> None:
    """Show what `apply` would change, and change nothing.

    Everything in the site file and its pipelines is checked before AWS is asked. With target
    kubernetes print manifests for kubectl, notes apart.
    """
    from edge.deploy.plan import make_plan

    account, workload = _prepare(site, profile)
    if account.site.target == "docker":
        local.plan(workload, profile, as_json)
        return
    if account.site.target == "kubernetes":
        _put_manifests(workload, as_json, out)
        return
    if out is not None:
        raise DefinitionError("--out: is for manifests of target kubernetes; leave it out")
    made = make_plan(account, workload)
    if as_json:
        put_json(_as_json(made))
    else:
        _put_plan(account, made)
    if made.problems:
        complain(*made.problems)
        raise typer.Exit(FAILED)


def apply(
    site: Site,
    profile: Profile = None,
    wait: Annotated[
        str, typer.Option(help="How long to wait for the hosts; 0s: not at all.")
    ] = "10m",
) -> None:
    """Make AWS, or this engine, what the site file says, and wait for the hosts.

    Cut off anywhere, it goes on where it stopped when it is run again. Hosts that are offline are
    told and get it later; exits with 1 where new tasks crash, and puts back what ran before.
    """
    from edge.deploy.apply import apply as make
    from edge.deploy.watch import watch

    patience = _seconds(wait)
    account, workload = _prepare(site, profile)
    if account.site.target == "docker":
        local.apply(workload, profile, patience)
        return
    _leave_to_kubectl(account.site, "kubectl apply -f DIR")
    stock = make(account, workload, _tell_change)
    if not patience:
        return
    services = stock.services()
    standings = watch(account, services, patience, _tell_standing)
    if any(each.state in ("crashes", "rolled back") for each in standings):
        raise typer.Exit(FAILED)


def status(site: Site, profile: Profile = None, as_json: Json = False) -> None:
    """Show service, task and host of every replica, and what its processor reported last."""
    from edge.deploy.account import Account
    from edge.deploy.report import report
    from edge.deploy.site import load_site

    loaded = load_site(site)
    if loaded.target == "docker":
        local.status(_prepare(site, profile)[1], as_json)
        return
    _leave_to_kubectl(loaded, "kubectl {names} get pods -l edge.site={site} -o wide")
    rows = report(Account(loaded, profile))
    if as_json:
        put_json(rows)
    else:
        put_table(_COLUMNS, [_row(row) for row in rows])
        put_reports({row["replica"]: row["numbers"] for row in rows})
    for row in rows:
        if row["unreported"]:
            say(f"replica {row['replica']}: {row['unreported']}", style="yellow")


def logs(
    site: Site,
    replica: Annotated[str | None, typer.Option(help="Only of this replica.")] = None,
    since: Annotated[str, typer.Option(help="How far back.")] = "1h",
    follow: Annotated[bool, typer.Option("--follow", help="Go on with what comes.")] = False,
    profile: Profile = None,
) -> None:
    """Print the log from CloudWatch or the engine, each line behind its replica."""
    import time

    from edge.deploy.account import Account
    from edge.deploy.report import events
    from edge.deploy.site import load_site

    account = Account(load_site(site), profile)
    _leave_to_kubectl(account.site, "kubectl {names} logs -l edge.site={site} --prefix --since 1h")
    start = time.time() - _seconds(since)
    try:
        if account.site.target == "docker":
            local.logs(_prepare(site, profile)[1], replica, start, follow)
            return
        for line in events(account, replica, start, follow):
            put(printable(line.rstrip("\n")))
    except KeyboardInterrupt:
        raise typer.Exit(0) from None


def destroy(
    site: Site,
    data: Annotated[
        bool,
        typer.Option("--data", help="Also queues, buckets, images and logs, with all in them."),
    ] = False,
    yes: Annotated[bool, typer.Option("--yes", help="Do not ask.")] = False,
    profile: Profile = None,
) -> None:
    """Remove what was made for the site; data stays unless `--data` is given.

    Tasks are stopped in order. What hosts have not delivered stays on their disks.
    """
    from edge.deploy.apply import destroy as remove
    from edge.deploy.plan import stock_of

    account, workload = _prepare(site, profile)
    if account.site.target == "docker":
        local.destroy(workload, data, yes)
        return
    _leave_to_kubectl(account.site, "kubectl delete -f DIR")
    home = account.home
    if not yes:
        what = "with its queues, buckets, images and logs" if data else "and keep its data"
        question = f"Remove site {account.site.site} from account {home.account}, {home.region},"
        typer.confirm(f"{question} {what}?", abort=True, err=True)
    remove(stock_of(account, workload), data, say)
    say(f"rows that are not delivered stay on the hosts, in {account.site.outbox}")


def _prepare(site: str, profile: str | None) -> "tuple[Account, Workload]":
    """Everything that can be checked without AWS."""
    from edge.deploy.account import Account
    from edge.deploy.site import load_site
    from edge.deploy.validate import check_target
    from edge.deploy.workload import load_workload

    loaded = load_site(site)
    check_target(loaded)
    return Account(loaded, profile), load_workload(loaded)


def _leave_to_kubectl(site: "SiteFile", command: str) -> None:
    """Refuse what a cluster's own tool does; command: with `{names}` for the namespace."""
    if site.target != "kubernetes":
        return
    words = command.format(site=site.site, names=f"-n {site.kubernetes.namespace}")
    first = ""
    if words.endswith(" DIR"):
        first = f"write manifests with `edge deploy plan {site.file} --out DIR`, then run "
    raise DefinitionError(
        site.fault(("target",), f"'kubernetes' is looked after by kubectl; {first}`{words}`")
    )


def _put_manifests(workload: "Workload", as_json: bool, out: Path | None) -> None:
    """Objects to stdout or into a folder, what people should know to stderr."""
    from edge.deploy.guarantees import LINK_LOSS, notes
    from edge.deploy.kubernetes.objects import manifests

    made, told = manifests(workload), notes(workload)
    if as_json:
        promises = LINK_LOSS["kubernetes"]
        notes_of = [note._asdict() for note in told]
        put_json(made._asdict() | {"site": made.site.site, "notes": notes_of, "promises": promises})
    elif out is None:
        put(made.text().rstrip("\n"))
    else:
        for path in made.write(out):
            say(f"wrote {path}")
    for note in told:
        say(f"note {note}")
    for line in LINK_LOSS["kubernetes"]:
        say(f"promise {line}")


def _seconds(text: str) -> float:
    from edge.component import parse_duration

    try:
        return parse_duration(text).total_seconds()
    except ValueError as error:
        raise DefinitionError(str(error)) from error


def _put_plan(account: "Account", made: "Plan") -> None:
    from edge.deploy.guarantees import LINK_LOSS

    site = account.site
    console = terminal()
    for change in made.changes:
        sign, style = _SIGNS[change.action]
        console.print(f"{sign} {change.resource}", style=style, markup=False)
        for line in change.lines:
            console.print(
                f"    {line}", style={"+": "green", "-": "red"}.get(line[0], ""), markup=False
            )
    if not made.changes:
        put("nothing to change")
    for replica in site.hosts.replicas():
        put(f"host {replica}: {_host_words(account, made, replica)}")
    for note in made.notes:
        put(f"note {note}")
    for line in LINK_LOSS[site.target]:
        put(f"promise {line}")


def _host_words(account: "Account", made: "Plan", replica: str) -> str:
    if account.site.target == "fargate":
        return "a task of its own"
    host = made.hosts.get(replica)
    if host is None:
        return f"not registered; `edge host activate {account.site.site}`"
    return f"{host.id}, {'connected' if host.connected else 'offline'}"


def _as_json(made: "Plan") -> Mapping[str, Any]:
    return {
        "changes": [
            {"action": each.action, "resource": str(each.resource), "lines": each.lines}
            for each in made.changes
        ],
        "problems": made.problems,
        "notes": [note._asdict() for note in made.notes],
        "hosts": {replica: host._asdict() for replica, host in made.hosts.items()},
    }


def _tell_change(change: "Change") -> None:
    words = {"create": "creates", "update": "changes", "remove": "removes"}[change.action]
    detail = f": {', '.join(change.settings)}" if change.action == "update" else ""
    say(f"{words} {change.resource}{detail}")


def _tell_standing(standing: "Standing") -> None:
    words = f": {standing.words}" if standing.words else ""
    line = f"replica {standing.replica} on {standing.host}: {standing.state}{words}"
    say(printable(line), style=_STYLES.get(standing.state, "red"))


_COLUMNS = ("replica", "host", "agent", "service", "definition", "task", "health", "since", "log")


_AGENT = {True: "connected", False: "offline", None: "not registered"}


def _row(row: Mapping[str, Any]) -> Sequence[object]:
    service, task = row["service"] or {}, row["task"] or {}
    return (
        row["replica"],
        row["host"],
        _AGENT[row["connected"]],
        service.get("rollout") or service.get("status") or "not deployed",
        service.get("definition"),
        task.get("status"),
        task.get("health"),
        task.get("started"),
        row["last_log"],
    )
