"""What runs the processor of a host while ECS cannot: the settings of its program and its unit."""

import shlex
from collections.abc import Mapping, Sequence
from datetime import timedelta

from edge.deploy.script import assigned, packed, script
from edge.deploy.site import Site
from edge.deploy.task import network_mode, sized, stop_timeout
from edge.deploy.workload import STATE, Workload, environment
from edge.errors import DefinitionError, Fault

AFTER = timedelta(seconds=60)
"""How long the outbox is left alone: longer than an update or a restart in place takes."""
WITHDRAW = timedelta(minutes=15)
"""How long ECS may answer and want no task here until the standby takes that for its will."""

_UNIT = """\
[Unit]
Description=edge standby of {family}: runs its processor while ECS cannot
After=docker.service
Wants=docker.service

[Service]
# For HTTP_PROXY, where the host needs one.
EnvironmentFile=-/etc/ecs/ecs.config
ExecStart=/usr/local/lib/edge/standby watch
Restart=always
RestartSec=5
# It stops its container itself, which may take the stop timeout of the site.
KillMode=process
TimeoutStopSec={stop}

[Install]
WantedBy=multi-user.target
"""


def install_script(workload: Workload, replica: str, after: timedelta = AFTER) -> str:
    """The script that installs the standby on the host of `replica`, to run as root.

    Asks nothing of AWS. Raises DefinitionError for what cannot be written into an environment file.
    """
    site = workload.site
    return script(
        "install-standby",
        f"Installs the standby of host {replica} of site {site.site}.",
        {"SITE": site.site, "REPLICA": replica},
        {
            "conf": conf(workload, replica, after),
            "environment": variables(site, replica),
            "command_line": "\n".join(workload.command()),
            "standby": packed("standby"),
            "unit": _UNIT.format(family=site.service(replica), stop=stop_timeout(site) + 30),
        },
    )


def conf(
    workload: Workload,
    replica: str,
    after: timedelta = AFTER,
    changes: Mapping[str, str] | None = None,
) -> str:
    """What the program reads first: its settings, and how it runs an image.

    changes: settings that differ, as in tests.
    """
    site = workload.site
    domain = "amazonaws.com.cn" if site.region.startswith("cn-") else "amazonaws.com"
    settings = {
        "SITE": site.site,
        "FAMILY": site.service(replica),
        "OUTBOX": site.outbox,
        "SECRETS": " ".join(sorted(site.secrets)),
        "OWNER": "0",
        "AGENT": "http://127.0.0.1:51678",
        "CONTROL": f"https://ecs.{site.region}.{domain}/ping",
        "STATE": "/var/lib/edge-standby",
        "AFTER": str(int(after.total_seconds())),
        "WITHDRAW": str(int(WITHDRAW.total_seconds())),
        "EVERY": "2",
        "ASK": "30",
    }
    options = shlex.join(_options(site, replica))
    files = '--env-file "$etc/environment"' + (' --env-file "$etc/secrets"' if site.secrets else "")
    command = shlex.join(workload.command())
    run = f'docker run --detach --name "$1" {options} {files} "$2" {command}'
    return f"{assigned(settings | dict(changes or {}))}\nrun_image() {{\n    {run}\n}}\n"


def variables(site: Site, replica: str) -> str:
    """The variables of the task, a line each as Docker reads them, without its secrets."""
    given = environment(site, replica)
    faults = [
        site.fault(("environment", name), "must be one line for a standby; leave the rest out")
        for name, value in given.items()
        if "\n" in value
    ]
    if faults:
        raise DefinitionError(*faults)
    return "\n".join(f"{name}={value}" for name, value in given.items())


def check(site: Site) -> None:
    """Refuse what no standby can be for. Raises DefinitionError."""
    if site.target != "ecs-anywhere":
        raise DefinitionError(
            Fault("target", f"{site.target!r} needs no standby; only hosts of ecs-anywhere do")
        )


def _options(site: Site, replica: str) -> Sequence[str]:
    """As in the task definition, but for what takes AWS: its credentials and its log."""
    cpu, memory = sized(site)
    options = {
        "label": f"edge.standby={site.site}",
        "pull": "never",
        "network": network_mode(site),
        "cap-drop": "ALL",
        "cpu-shares": str(cpu),
        "memory": f"{memory}m",
        "stop-timeout": str(stop_timeout(site)),
        "log-driver": "json-file",
        # No task, no credentials; without this each try would wait for those of an EC2 instance.
        "env": "AWS_EC2_METADATA_DISABLED=true",
    }
    if site.resources.gpu:
        options["gpus"] = str(site.resources.gpu)
    made = [f"--{name}={value}" for name, value in options.items()]
    made += ["--init", "--read-only", "--log-opt=max-size=10m", "--log-opt=max-file=3"]
    made.append(f"--mount=type=bind,source={site.outbox},target={STATE}")
    for mount in site.mounts:
        place = f"--mount=type=bind,source={mount.host},target={mount.container}"
        made.append(f"{place},readonly" if mount.read_only else place)
    return made
