"""How a site stands: service, task, host and log of every replica, and what each reports."""

import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from datetime import UTC, datetime
from typing import Any

from edge.deploy import instances, numbers
from edge.deploy.account import Account, absent, told
from edge.deploy.site import Site
from edge.deploy.task import CONTAINER
from edge.errors import DeployFailed

_EVERY = 2.0  # seconds between two looks at a log that is followed


def report(account: Account) -> Sequence[Mapping[str, Any]]:
    """One mapping per replica: `replica`, `host`, `connected`, `service`, `task`, `last_log`.

    `connected` is None where no host is known; `last_log` a time in UTC. `numbers` is what its
    processor reported last, by pipeline and sink; where there is nothing, `unreported` says why.
    """
    with told("hosts"):
        hosts = {each.replica: each for each in instances.instances_of(account)}
    rows = []
    for replica in account.site.hosts.replicas():
        with told(f"service {account.site.service(replica)}"):
            service, task = _service(account, replica), _task(account, replica)
        host = hosts.get(replica)
        found, last = _reported(account, replica, task)
        rows.append(
            {
                "replica": replica,
                "host": host.id if host else None,
                "connected": host.connected if host else None,
                "service": service,
                "task": task,
                "last_log": last,
                "numbers": found,
                "unreported": None if found else _remedy(account.site),
            }
        )
    return rows


def _reported(
    account: Account, replica: str, task: Mapping[str, Any] | None
) -> tuple[numbers.Numbers, str | None]:
    """The newest numbers, and the time of the newest log line."""
    found: numbers.Numbers = []
    last = None
    with told("log"):
        if stream := _stream(account, replica, task):
            found, last = numbers.from_log(account, stream)
    if not found:
        with told("metrics"):
            found = numbers.from_metrics(account, replica)
    return found, _utc(last)


def _remedy(site: Site) -> str:
    if site.logs.driver == "awslogs" and site.environment.get("EDGE_LOG_METRICS") == "1":
        return "nothing is reported yet; a processor does at its start and once a minute"
    way = 'set EDGE_LOG_METRICS: "1" in `environment` and apply, or '
    if site.logs.driver != "awslogs":
        way = ""
    return f"nothing is reported; {way}add the pipeline of docs/cloudwatch.md"


def events(
    account: Account,
    replica: str | None,
    since: float,
    follow: bool = False,
    sleep: Callable[[float], None] = time.sleep,
) -> Iterator[str]:
    """Lines of the log from `since` (seconds of 1970) on, oldest first, each behind its replica."""
    if account.site.logs.driver != "awslogs":
        raise DeployFailed(
            f"logs: are not in CloudWatch but with {account.site.logs.driver!r}; look on the host:"
            " docker logs $(docker ps -qf label=edge.site)"
        )
    start, seen = round(since * 1000), set[str]()
    while True:
        for event in _events(account, replica, start):
            if event["eventId"] not in seen:
                seen.add(event["eventId"])
                start = max(start, event["timestamp"])
                yield f"{event['logStreamName'].partition('/')[0]} {event['message']}"
        if not follow:
            return
        sleep(_EVERY)


def _events(account: Account, replica: str | None, start: int) -> Iterator[Mapping[str, Any]]:
    wanted: dict[str, Any] = {"logGroupName": account.site.log_group(), "startTime": start}
    if replica is not None:
        wanted["logStreamNamePrefix"] = f"{replica}/"
    with told("log"), absent("ResourceNotFoundException"):
        for page in account.client("logs").get_paginator("filter_log_events").paginate(**wanted):
            yield from page["events"]


def _service(account: Account, replica: str) -> Mapping[str, Any] | None:
    name = account.site.service(replica)
    with absent("ClusterNotFoundException"):
        answer = account.client("ecs").describe_services(
            cluster=account.site.cluster, services=[name]
        )
        for found in answer["services"]:
            if found["status"] != "INACTIVE":
                return _summary(found)
    return None


def _summary(service: Mapping[str, Any]) -> Mapping[str, Any]:
    newest: Mapping[str, Any] = next(
        (each for each in service.get("deployments", ()) if each["status"] == "PRIMARY"), {}
    )
    events = service.get("events", ())
    return {
        "status": service["status"],
        "running": service["runningCount"],
        "pending": service["pendingCount"],
        "definition": service["taskDefinition"].rpartition("/")[2],
        "rollout": newest.get("rolloutState"),
        "failed_tasks": newest.get("failedTasks", 0),
        "event": events[0]["message"] if events else None,
    }


def _task(account: Account, replica: str) -> Mapping[str, Any] | None:
    """The newest task of a replica that ECS wants to run."""
    ecs, cluster = account.client("ecs"), account.site.cluster
    with absent("ClusterNotFoundException"):
        arns = ecs.list_tasks(cluster=cluster, family=account.site.service(replica))["taskArns"]
        if arns:
            tasks = ecs.describe_tasks(cluster=cluster, tasks=arns)["tasks"]
            newest = max(tasks, key=lambda task: str(task.get("createdAt", "")))
            return {
                "id": newest["taskArn"].rpartition("/")[2],
                "status": newest["lastStatus"],
                "health": newest.get("healthStatus"),
                "started": _utc(newest.get("startedAt")),
            }
    return None


def _stream(account: Account, replica: str, task: Mapping[str, Any] | None) -> str | None:
    """The log stream of the task; where none runs, that of the last one that did."""
    if account.site.logs.driver != "awslogs":
        return None
    if task:
        return f"{replica}/{CONTAINER}/{task['id']}"
    streams = account.client("logs").get_paginator("describe_log_streams")
    asked = {
        "logGroupName": account.site.log_group(),
        "logStreamNamePrefix": f"{replica}/{CONTAINER}/",
    }
    with absent("ResourceNotFoundException"):
        found = [each for page in streams.paginate(**asked) for each in page["logStreams"]]
        newest = max(found, key=lambda each: each["creationTime"], default=None)
        return newest and str(newest["logStreamName"])
    return None


def _utc(moment: datetime | None) -> str | None:
    if moment is None:
        return None
    return moment.astimezone(UTC).isoformat(timespec="seconds").replace("+00:00", "Z")
