"""The hosts of a site: how they are, and leaving ECS in an order that leaves no unseen writer."""

from collections.abc import Callable, Mapping, Sequence
from datetime import datetime
from typing import Any, NamedTuple

from edge.deploy.account import Account, absent, told
from edge.deploy.instances import Instance, instances_of
from edge.deploy.script import script
from edge.errors import DefinitionError, DeployFailed

_LOOK_AGAIN = 3.0  # seconds between two looks at a host that drains

Tell = Callable[[str], None]


class Host(NamedTuple):
    """A machine as ECS and SSM know it.

    registered: when; seen: when SSM heard of it last, None where it never did; attributes: its own
    ones, without those of ECS; tasks: name and state of each.
    """

    instance: Instance
    registered: datetime | None
    seen: datetime | None
    name: str | None
    agent: str | None
    attributes: Mapping[str, str]
    tasks: Sequence[str]


def hosts_of(account: Account) -> Sequence[Host]:
    """Every machine of the site, by replica."""
    with told("hosts"):
        instances = instances_of(account)
        if not instances:
            return []
        details = _details(account, [each.arn for each in instances])
        known = _known_to_ssm(account, [each.id for each in instances])
        return [
            _host(each, details.get(each.arn, {}), known.get(each.id, {}), _tasks(account, each))
            for each in instances
        ]


def find(account: Account, name: str) -> Instance:
    """The host with that id (`mi-...`) or replica. Raises DefinitionError where it is not one."""
    with told("hosts"):
        instances = instances_of(account)
    found = [each for each in instances if name in (each.id, each.replica)]
    if len(found) == 1:
        return found[0]
    names = ", ".join(f"{each.replica} ({each.id})" for each in found or instances) or "none"
    what = "several are called" if found else f"site {account.site.site} has no host"
    raise DefinitionError(f"{what} {name!r}; take one of: {names}")


def drain(account: Account, host: Instance, patience: float, tell: Tell) -> int:
    """Have ECS stop the host's tasks; returns how many still run after `patience` seconds.

    An offline host hears of it when its link is back; it is not waited for.
    """
    with told(f"host {host.id}"):
        if host.status == "ACTIVE":
            tell(f"drains {host.replica} ({host.id})")
            account.client("ecs").update_container_instances_state(
                cluster=account.site.cluster, containerInstances=[host.arn], status="DRAINING"
            )
        clock = account.clock
        deadline = clock.steady() + patience
        while (running := _running(account, host)) and host.connected:
            if (left := deadline - clock.steady()) <= 0:
                break
            clock.pause(min(_LOOK_AGAIN, left))
        return running


def undrain(account: Account, host: Instance, tell: Tell) -> None:
    """Let ECS start tasks on it again."""
    with told(f"host {host.id}"):
        account.client("ecs").update_container_instances_state(
            cluster=account.site.cluster, containerInstances=[host.arn], status="ACTIVE"
        )
    tell(f"{host.replica} ({host.id}) takes tasks again")


def remove(account: Account, host: Instance, patience: float, force: bool, tell: Tell) -> str:
    """Drain, then take the host out of ECS and SSM; returns the script that cleans the machine up.

    Raises DeployFailed where tasks still run, unless `force`: they would go on, and nobody would
    know of them.
    """
    running = drain(account, host, patience, tell)
    if running and not force:
        state = "runs" if host.connected else "is offline, and as ECS last heard runs"
        raise DeployFailed(
            f"host {host.replica} ({host.id}) {state} {running} task(s), which would go on unseen; "
            "wait for them, or give --force and run the script on the machine at once"
        )
    with told(f"host {host.id}"):
        tell(f"deregisters {host.id} from ECS")
        account.client("ecs").deregister_container_instance(
            cluster=account.site.cluster, containerInstance=host.arn, force=force
        )
        tell(f"deregisters {host.id} from SSM")
        with absent("InvalidInstanceId"):
            account.client("ssm").deregister_managed_instance(InstanceId=host.id)
    return cleaning(account)


def cleaning(account: Account) -> str:
    """The script that takes the agents off a machine; the outbox stays."""
    site = account.site
    purpose = f"Takes the agents of ECS Anywhere off a former host of site {site.site}."
    return script("remove", purpose, {"CLUSTER": site.cluster, "OUTBOX": site.outbox})


def _details(account: Account, arns: Sequence[str]) -> Mapping[str, Mapping[str, Any]]:
    ecs = account.client("ecs")
    found: dict[str, Mapping[str, Any]] = {}
    for start in range(0, len(arns), 100):  # as many as a call takes
        answer = ecs.describe_container_instances(
            cluster=account.site.cluster, containerInstances=arns[start : start + 100]
        )
        found |= {each["containerInstanceArn"]: each for each in answer["containerInstances"]}
    return found


def _known_to_ssm(account: Account, ids: Sequence[str]) -> Mapping[str, Mapping[str, Any]]:
    """ECS does not say since when a host is away; SSM says when it heard of it last."""
    found: dict[str, Mapping[str, Any]] = {}
    for start in range(0, len(ids), 100):
        pages = account.client("ssm").get_paginator("describe_instance_information")
        wanted = [{"Key": "InstanceIds", "Values": list(ids[start : start + 100])}]
        for page in pages.paginate(Filters=wanted):
            found |= {each["InstanceId"]: each for each in page["InstanceInformationList"]}
    return found


def _tasks(account: Account, host: Instance) -> Sequence[str]:
    ecs, cluster = account.client("ecs"), account.site.cluster
    arns = ecs.list_tasks(cluster=cluster, containerInstance=host.arn)["taskArns"]
    if not arns:
        return []
    answer = ecs.describe_tasks(cluster=cluster, tasks=arns)
    return [
        f"{each['taskDefinitionArn'].rpartition('/')[2]} {each['lastStatus']}"
        for each in answer["tasks"]
    ]


def _host(
    instance: Instance, found: Mapping[str, Any], known: Mapping[str, Any], tasks: Sequence[str]
) -> Host:
    return Host(
        instance,
        found.get("registeredAt"),
        known.get("LastPingDateTime"),
        known.get("ComputerName"),
        found.get("versionInfo", {}).get("agentVersion"),
        {
            each["name"]: each.get("value", "")
            for each in found.get("attributes", ())
            if not each["name"].startswith(("ecs.", "com.amazonaws.ecs."))
        },
        tasks,
    )


def _running(account: Account, host: Instance) -> int:
    answer = account.client("ecs").describe_container_instances(
        cluster=account.site.cluster, containerInstances=[host.arn]
    )
    return sum(each.get("runningTasksCount", 0) for each in answer["containerInstances"])
