"""What ECS runs: the task definition of a replica, and the service that keeps one task of it."""

import functools
from collections.abc import Collection, Mapping, Sequence
from typing import Any, ClassVar

from edge.deploy.account import Account, absent, code_of
from edge.deploy.resources import Resource, Settings
from edge.deploy.task import CONTAINER, DIGEST, LAUNCH, network_mode, task_definition
from edge.deploy.workload import Workload
from edge.errors import DeployFailed

_FIXED = ("launchType", "schedulingStrategy")
_SILENT = {"availabilityZoneRebalancing": "DISABLED"}  # what it means that ECS says nothing of it
_SETTLES = 120  # seconds in which ECS may not yet know a new role, or lets an old service go


class Definition(Resource):
    """The newest revision of a task definition; revisions are never changed."""

    kind: ClassVar[str] = "task definition"

    def __init__(self, account: Account, workload: Workload, replica: str) -> None:
        super().__init__(account, workload.site.service(replica))
        self._workload = workload
        self._replica = replica
        self.arn: str | None = None
        """The revision that is as it should be; None until it is known to be there."""

    def wanted(self) -> Settings:
        return task_definition(self._workload, self._replica, self.account.home)

    def read(self) -> Settings | None:
        wanted = self.wanted()
        with absent("ClientException"):  # there is none of this family
            ecs = self.account.client("ecs")
            answer = ecs.describe_task_definition(taskDefinition=self.name)
            found = answer["taskDefinition"]
            if found["status"] != "ACTIVE":
                return None
            if _digest(found) == _digest(wanted):
                self.arn = found["taskDefinitionArn"]
                return wanted
            self.arn = None
            shaped: Settings = _shaped(found, wanted)
            return shaped
        return None

    def create(self) -> None:
        call = functools.partial(
            self.account.client("ecs").register_task_definition,
            **self.wanted(),
            tags=self.account.tags("key", "value"),
        )
        answer = self.account.patiently(call, _passes, _SETTLES)
        self.arn = answer["taskDefinition"]["taskDefinitionArn"]

    def update(self, changed: Collection[str]) -> None:
        self.create()

    def remove(self) -> None:
        _deregister(self.account, self.name)


class Service(Resource):
    """The service that keeps one task of a replica, and never two on one outbox."""

    kind: ClassVar[str] = "service"

    def __init__(self, account: Account, definition: Definition, replica: str) -> None:
        super().__init__(account, definition.name)
        self._definition = definition
        self.replica = replica
        self.before: str | None = None
        """The revision that ran before it was changed, to go back to."""

    def wanted(self) -> Settings:
        site = self.account.site
        daemon = site.hosts.schedule == "daemon" and site.target != "fargate"
        made: dict[str, Any] = {
            "taskDefinition": self._definition.arn or "a new revision",
            "schedulingStrategy": "DAEMON" if daemon else "REPLICA",
            # The old task stops before the new one starts: two would fight for one outbox.
            "deploymentConfiguration": {
                "minimumHealthyPercent": 0,
                "maximumPercent": 100,
                "deploymentCircuitBreaker": {"enable": True, "rollback": True},
            },
            "availabilityZoneRebalancing": "DISABLED",
            "enableExecuteCommand": site.exec,
        }
        if not daemon:
            made["desiredCount"] = 1
        if site.capacity_provider:
            provider = {"capacityProvider": site.capacity_provider, "weight": 1, "base": 0}
            made["capacityProviderStrategy"] = [provider]
        else:
            made["launchType"] = LAUNCH[site.target]
        if site.target != "fargate":
            expression = site.constraint(self.replica)
            made["placementConstraints"] = [{"type": "memberOf", "expression": expression}]
        if network_mode(site) == "awsvpc":
            made["networkConfiguration"] = {"awsvpcConfiguration": self._network()}
        return made

    def read(self) -> Settings | None:
        found = self.describe()
        if found is None or found["status"] == "DRAINING":
            return None
        if not self.account.owns(found.get("tags", [])):
            raise DeployFailed(f"{self}: is there and not this site's; delete it, or rename one")
        self.before = found["taskDefinition"]
        shaped: Settings = _shaped({**_SILENT, **found}, self.wanted())
        return shaped

    def describe(self) -> Mapping[str, Any] | None:
        """All that ECS says of it; None if it is not there."""
        with absent("ClusterNotFoundException"):
            answer = self.account.client("ecs").describe_services(
                cluster=self.account.site.cluster, services=[self.name], include=["TAGS"]
            )
            found = [each for each in answer["services"] if each["status"] != "INACTIVE"]
            return found[0] if found else None
        return None

    def create(self) -> None:
        call = functools.partial(
            self.account.client("ecs").create_service,
            cluster=self.account.site.cluster,
            serviceName=self.name,
            propagateTags="SERVICE",
            enableECSManagedTags=True,
            tags=self.account.tags("key", "value"),
            **self.wanted(),
        )
        self.account.patiently(call, _passes, _SETTLES)

    def update(self, changed: Collection[str]) -> None:
        if fixed := [name for name in changed if name in _FIXED]:
            raise DeployFailed(
                f"{self}: ECS cannot change {' and '.join(fixed)} of a service; run"
                f" `edge deploy destroy {self.account.site.site}`, which keeps all data, and apply"
            )
        wanted = self.wanted()
        self.account.client("ecs").update_service(
            cluster=self.account.site.cluster,
            service=self.name,
            **{name: wanted[name] for name in wanted if name in changed},
        )

    def target(self) -> str | None:
        """The revision that it should run."""
        return self._definition.arn

    def is_ours(self) -> bool:
        found = self.describe()
        if found is None or found["status"] == "DRAINING":
            return False
        return self.account.owns(found.get("tags", []))

    def go_back(self, revision: str) -> None:
        """Run `revision` again."""
        self.account.client("ecs").update_service(
            cluster=self.account.site.cluster, service=self.name, taskDefinition=revision
        )

    def remove(self) -> None:
        self.account.client("ecs").delete_service(
            cluster=self.account.site.cluster, service=self.name, force=True
        )

    def _network(self) -> dict[str, Any]:
        network = self.account.site.network
        made: dict[str, Any] = {
            "subnets": list(network.subnets),
            "securityGroups": list(network.security_groups),
        }
        if self.account.site.target == "fargate":
            made["assignPublicIp"] = "ENABLED" if network.public_ip else "DISABLED"
        return made


class Former(Service):
    """The service of a host that the site file names no more; its rows stay on that host."""

    def __init__(self, account: Account, name: str) -> None:
        Resource.__init__(self, account, name)

    def wanted(self) -> Settings:
        return {}

    def remove(self) -> None:
        super().remove()
        _deregister(self.account, self.name)


def former_services(account: Account, kept: Collection[str]) -> Sequence[Former]:
    """Services that were made for the site and are not among `kept`."""
    ecs, cluster = account.client("ecs"), account.site.cluster
    names: list[str] = []
    with absent("ClusterNotFoundException"):
        for page in ecs.get_paginator("list_services").paginate(cluster=cluster):
            names += [arn.rpartition("/")[2] for arn in page["serviceArns"]]
    ours = account.site.service("")
    found = [Former(account, name) for name in names if name.startswith(ours) and name not in kept]
    return [each for each in found if each.is_ours()]  # and not of a site that starts alike


def _deregister(account: Account, family: str) -> None:
    ecs = account.client("ecs")
    pages = ecs.get_paginator("list_task_definitions").paginate(
        familyPrefix=family, status="ACTIVE"
    )
    for arn in [arn for page in pages for arn in page["taskDefinitionArns"]]:
        if f"/{family}:" in arn:  # and not another family that starts alike
            ecs.deregister_task_definition(taskDefinition=arn)


def _digest(definition: Settings) -> str | None:
    containers = definition["containerDefinitions"]
    found = [each for each in containers if each["name"] == CONTAINER]
    digest: str | None = found[0].get("dockerLabels", {}).get(DIGEST) if found else None
    return digest


def _shaped(found: Any, wanted: Any) -> Any:
    """What was found, without what was not asked for: AWS adds defaults to everything."""
    if isinstance(wanted, Mapping) and isinstance(found, Mapping):
        return {name: _shaped(found.get(name), wanted[name]) for name in wanted}
    if isinstance(wanted, list) and isinstance(found, list) and len(wanted) == len(found):
        if all(isinstance(each, str) for each in found) and set(found) == set(wanted):
            return wanted  # subnets, in whatever order
        return [_shaped(*pair) for pair in zip(found, wanted, strict=True)]
    return found


def _passes(error: Exception) -> bool:
    """Whether it is only a matter of time: a role that IAM has just made, a service that drains."""
    text = str(error)
    return code_of(error) in ("InvalidParameterException", "ClientException") and any(
        words in text for words in ("assume", "ole is not valid", "raining")
    )
