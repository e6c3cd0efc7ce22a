"""Commands about the machines of a site: host activate, list, drain, remove, standby."""

from datetime import timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

import typer

from edge.cli.deploy import Json, Profile, Site
from edge.cli.screen import FAILED, Commands, complain, put, put_json, put_table, say

if TYPE_CHECKING:
    from edge.deploy.account import Account
    from edge.deploy.hosts import Host

Name = Annotated[str, typer.Argument(metavar="HOST", help="Its replica, or its id (mi-...).")]
Replica = Annotated[str | None, typer.Option(help="Which host of the site; default all.")]
Wait = Annotated[str, typer.Option(help="How long to wait for its tasks.")]
To = Annotated[
    Path | None,
    typer.Option("--out", help="A new file for the script, mode 0600; default standard output."),
]


def add_to(app: typer.Typer) -> None:
    """Register the group of commands of this module."""
    group = typer.Typer(
        cls=Commands,
        no_args_is_help=True,
        help="Make machines hosts of a site, and no hosts again.",
    )
    group.command()(activate)
    group.command("list")(list_hosts)
    for command in (drain, remove, standby):
        group.command()(command)
    app.add_typer(group, name="host")


def activate(
    site: Site,
    replica: Replica = None,
    expires: Annotated[str, typer.Option(help="How long machines may register, to 30d.")] = "24h",
    cpu: Annotated[
        Literal["baseline", "compat"], typer.Option(help="As the image was built.")
    ] = "baseline",
    reserved: Annotated[
        int, typer.Option(min=0, help="MiB of memory that ECS leaves to the machine.")
    ] = 256,
    role: Annotated[str, typer.Option(help="IAM role of the machines.")] = "ecsAnywhereRole",
    out: To = None,
    profile: Profile = None,
) -> None:
    """Print a script that makes a machine a host, to run there as root.

    It holds an activation code, which is a password until it expires and is shown this once.
    """
    from edge.deploy import activation
    from edge.deploy.account import Account
    from edge.deploy.site import load_site

    loaded = load_site(site)
    chosen = activation.choose(loaded, replica)
    wanted = activation.Wanted(chosen, _span(expires, "--expires"), role, cpu, reserved)
    _free(out)
    _hand_over(activation.activate(Account(loaded, profile), wanted, say), out)


def list_hosts(site: Site, profile: Profile = None, as_json: Json = False) -> None:
    """Show each host: its agent, since when, attributes, tasks."""
    from edge.deploy.hosts import hosts_of

    account = _account(site, profile)
    hosts = hosts_of(account)
    if as_json:
        put_json([_as_dict(host) for host in hosts])
        return
    put_table(_COLUMNS, [_row(host) for host in hosts])
    there = {host.instance.replica for host in hosts}
    for replica in account.site.hosts.replicas():
        if replica not in there:
            say(f"{replica}: not registered; `edge host activate {site} --replica {replica}`")


def drain(
    site: Site,
    host: Name,
    undo: Annotated[bool, typer.Option("--undo", help="Let it take tasks again.")] = False,
    wait: Wait = "5m",
    profile: Profile = None,
) -> None:
    """Have ECS stop the tasks of a host and start none there.

    Exits with 1 when some still run at the end. Rows that are not delivered stay on its disk.
    """
    from edge.deploy import hosts

    account = _account(site, profile)
    found = hosts.find(account, host)
    if undo:
        hosts.undrain(account, found, say)
        return
    running = hosts.drain(account, found, _span(wait, "--wait").total_seconds(), say)
    if running:
        state = "still run" if found.connected else "run as ECS last heard; it is offline"
        complain(f"{found.replica}: {running} task(s) {state}")
        raise typer.Exit(FAILED)
    say(f"{found.replica}: no task runs")


def remove(
    site: Site,
    host: Name,
    force: Annotated[
        bool, typer.Option("--force", help="Also while tasks run, which then go on unseen.")
    ] = False,
    yes: Annotated[bool, typer.Option("--yes", help="Do not ask.")] = False,
    wait: Wait = "5m",
    out: To = None,
    profile: Profile = None,
) -> None:
    """Take a host out of ECS, and print the script that cleans the machine up.

    The outbox stays on its disk, with what was not delivered.
    """
    from edge.deploy import hosts

    account = _account(site, profile)
    found = hosts.find(account, host)
    _free(out)
    if not yes:
        question = f"Take {found.replica} ({found.id}) out of cluster {account.site.cluster}?"
        typer.confirm(question, abort=True, err=True)
    patience = _span(wait, "--wait").total_seconds()
    _hand_over(hosts.remove(account, found, patience, force, say), out)


def standby(
    site: Site,
    replica: Replica = None,
    after: Annotated[
        str, typer.Option(help="How long nobody must hold the outbox before it stands in.")
    ] = "60s",
    out: To = None,
) -> None:
    """Print a script that installs what runs the processor while ECS cannot.

    It buffers, and delivers nothing to AWS: only a task has credentials. Asks nothing of AWS.
    """
    from edge.deploy import standby as made
    from edge.deploy.activation import choose
    from edge.deploy.site import load_site
    from edge.deploy.validate import check_target
    from edge.deploy.workload import load_workload
    from edge.errors import DefinitionError

    loaded = load_site(site)
    made.check(loaded)
    check_target(loaded)
    chosen = choose(loaded, replica)
    if len(chosen) > 1:
        raise DefinitionError(
            f"--replica: site {loaded.site} has several hosts; say which of {', '.join(chosen)}"
        )
    workload = load_workload(loaded)
    _free(out)
    _hand_over(made.install_script(workload, chosen[0], _span(after, "--after")), out)
    if loaded.secrets:
        names = " ".join(sorted(loaded.secrets))
        say(f"on the host, write {names} to /etc/edge/standby/secrets (NAME=value), mode 0600")


def _account(site: str, profile: str | None) -> "Account":
    from edge.deploy.account import Account
    from edge.deploy.site import load_site

    return Account(load_site(site), profile)


def _span(text: str, option: str) -> timedelta:
    from edge.component import parse_duration
    from edge.errors import DefinitionError

    try:
        return parse_duration(text)
    except ValueError as error:
        raise DefinitionError(f"{option}: {error}") from error


def _free(out: Path | None) -> None:
    """Before anything is done: a script that cannot be written is lost, with its password."""
    from edge.errors import DefinitionError

    if out is not None and out.exists():
        raise DefinitionError(f"--out: {out} is there already; name a new file")
    if out is not None and not out.parent.is_dir():
        raise DefinitionError(f"--out: {out.parent} is no folder; make it first")


def _hand_over(script: str, out: Path | None) -> None:
    if out is None:
        put(script.rstrip("\n"))
        return
    out.touch(mode=0o600, exist_ok=False)
    out.write_text(script, encoding="utf-8")
    say(f"wrote {out}; copy it to the machine and run it there as root: sh {out.name}")


_COLUMNS = (
    "replica",
    "host",
    "name",
    "agent",
    "status",
    "registered",
    "last seen",
    "tasks",
    "also",
)


def _row(host: "Host") -> tuple[object, ...]:
    found = host.instance
    own = {name: value for name, value in host.attributes.items() if name not in _KNOWN}
    return (
        found.replica,
        found.id,
        host.name,
        "connected" if found.connected else "offline",
        found.status,
        f"{host.registered:%Y-%m-%d %H:%M}" if host.registered else None,
        f"{host.seen:%Y-%m-%d %H:%M}" if host.seen else None,
        ", ".join(host.tasks),
        " ".join(f"{name}={value}" for name, value in own.items()),
    )


_KNOWN = ("site", "replica")


def _as_dict(host: "Host") -> dict[str, object]:
    found = host._asdict() | {"running": host.instance.tasks}
    return {**host.instance._asdict(), **{k: v for k, v in found.items() if k != "instance"}}
