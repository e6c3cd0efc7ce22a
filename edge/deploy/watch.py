"""What becomes of a deployment, host by host: a site that is partly offline is an ordinary one."""

import time
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Literal, NamedTuple

from edge.deploy import instances
from edge.deploy.account import Account, told
from edge.deploy.resources.tasks import Service

State = Literal["running", "starting", "offline", "draining", "no host", "crashes", "rolled back"]

CRASHES = 3
"""Tasks of a new revision that may fail before the one before it is started again."""
_EVERY = 5.0  # seconds between two looks
_ENDS = 10  # stopped tasks that are looked at for their reason


class Standing(NamedTuple):
    """How one replica stands."""

    replica: str
    host: str
    state: State
    words: str = ""


def watch(
    account: Account,
    services: Mapping[str, Service],
    seconds: float,
    tell: Callable[[Standing], None],
    sleep: Callable[[float], None] = time.sleep,
) -> Sequence[Standing]:
    """Wait until every replica runs, cannot, or has no host that ECS reaches now.

    tell: called with each change. One that keeps crashing is taken back to what ran before.
    """
    end = time.monotonic() + seconds
    seen: dict[str, Standing] = {}
    while True:
        with told("hosts"):
            hosts = instances.by_replica(account)
        for replica, service in services.items():
            with told(str(service)):
                standing = _look(account, replica, service, hosts.get(replica))
            if seen.get(replica) != standing:
                tell(standing)
            seen[replica] = standing
        if all(each.state != "starting" for each in seen.values()) or time.monotonic() >= end:
            return list(seen.values())
        sleep(_EVERY)


def _look(
    account: Account, replica: str, service: Service, host: instances.Instance | None
) -> Standing:
    found = service.describe() or {}
    deployments = found.get("deployments", [])
    newest: Mapping[str, Any] = next((d for d in deployments if d["status"] == "PRIMARY"), {})
    name = host.id if host else ("fargate" if account.site.target == "fargate" else "-")
    if newest.get("taskDefinition") not in (None, service.target()):
        return Standing(replica, name, "rolled back", _why(account, service))
    if newest.get("rolloutState") == "FAILED" or newest.get("failedTasks", 0) >= CRASHES:
        return _give_up(account, replica, name, service)
    if account.site.target != "fargate" and host is None:
        words = f"run `edge host activate {account.site.site}` for it"
        return Standing(replica, name, "no host", words)
    if host is not None and host.status == "DRAINING":
        return Standing(replica, name, "draining", "takes no task until it is active again")
    if host is not None and not host.connected:
        return Standing(replica, name, "offline", "gets it when its link is back")
    if newest.get("rolloutState") == "COMPLETED" and newest.get("runningCount", 0) >= 1:
        return Standing(replica, name, "running")
    return Standing(replica, name, "starting", _event(found))


def _give_up(account: Account, replica: str, host: str, service: Service) -> Standing:
    """The deployment has failed: back to what ran before, where something did."""
    why = _why(account, service)
    if service.before in (None, service.target()):
        return Standing(replica, host, "crashes", why)
    service.go_back(str(service.before))
    return Standing(replica, host, "rolled back", why)


def _why(account: Account, service: Service) -> str:
    """What the last tasks that stopped said at their end."""
    ecs, cluster = account.client("ecs"), account.site.cluster
    arns = ecs.list_tasks(
        cluster=cluster, family=service.name, desiredStatus="STOPPED", maxResults=_ENDS
    )["taskArns"]
    if not arns:
        return "no task has left a reason"
    tasks = ecs.describe_tasks(cluster=cluster, tasks=arns)["tasks"]
    reasons = [_reason(task) for task in tasks]
    return max(reasons, key=reasons.count)


def _reason(task: Mapping[str, Any]) -> str:
    said = [task.get("stoppedReason", "")]
    for container in task.get("containers", ()):
        if "exitCode" in container:
            said.append(f"exit code {container['exitCode']}")
        said.append(container.get("reason", ""))
    return ", ".join(filter(None, said)) or "no reason is known"


def _event(service: Mapping[str, Any]) -> str:
    events = service.get("events", [])
    return str(events[0]["message"]) if events else ""
