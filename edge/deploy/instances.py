"""The machines of a site as ECS knows them, and which replica runs on which."""

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

from edge.deploy.account import Account, absent
from edge.deploy.site import REPLICA_ATTRIBUTE, SITE_ATTRIBUTE
from edge.errors import DeployFailed


class Instance(NamedTuple):
    """A registered machine. id: of SSM (`mi-...`) or EC2; connected: its agent reaches ECS now."""

    id: str
    arn: str
    replica: str
    connected: bool
    status: str
    tasks: int


def instances_of(account: Account) -> Sequence[Instance]:
    """The machines with the site's attribute, by replica; none on Fargate."""
    if account.site.target == "fargate":
        return []
    ecs, cluster = account.client("ecs"), account.site.cluster
    found: list[Instance] = []
    with absent("ClusterNotFoundException"):
        pages = ecs.get_paginator("list_container_instances").paginate(
            cluster=cluster, filter=f"attribute:{SITE_ATTRIBUTE} == {account.site.site}"
        )
        for page in pages:
            if arns := page["containerInstanceArns"]:
                answer = ecs.describe_container_instances(cluster=cluster, containerInstances=arns)
                found += [
                    _instance(each)
                    for each in answer["containerInstances"]
                    if _is_at(account, each)
                ]
    return sorted(found, key=lambda instance: (instance.replica, instance.id))


def by_replica(account: Account) -> Mapping[str, Instance]:
    """The one machine of each replica that has one.

    Raises DeployFailed where two would run the same replica, and share rows and session.
    """
    taken: dict[str, Instance] = {}
    for instance in instances_of(account):
        other = taken.setdefault(instance.replica, instance)
        if other is not instance:
            raise DeployFailed(
                f"hosts {other.id} and {instance.id} are both replica {instance.replica!r} of"
                f" {account.site.site}, and would share rows and session; give one another"
                f" attribute `{REPLICA_ATTRIBUTE}`, or deregister it"
            )
    return taken


def _is_at(account: Account, instance: Mapping[str, Any]) -> bool:
    return _attributes(instance).get(SITE_ATTRIBUTE) == account.site.site


def _instance(found: Mapping[str, Any]) -> Instance:
    return Instance(
        found.get("ec2InstanceId", "?"),
        found["containerInstanceArn"],
        _attributes(found).get(REPLICA_ATTRIBUTE, "0"),
        bool(found.get("agentConnected")),
        found.get("status", "?"),
        found.get("runningTasksCount", 0),
    )


def _attributes(instance: Mapping[str, Any]) -> Mapping[str, str]:
    return {each["name"]: each.get("value", "") for each in instance.get("attributes", ())}
