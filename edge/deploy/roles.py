"""The two roles of a task: what its pipelines ask for and nothing else, and what starts it."""

import re
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, NamedTuple

from edge.component import Permission
from edge.deploy.site import Site
from edge.deploy.workload import Workload

Document = Mapping[str, Any]

_ECR = re.compile(r"(\d{12})\.dkr\.ecr\.([a-z0-9-]+)\.amazonaws\.[a-z.]+/([^:@]+)[:@](.+)")
_SHELL = (  # of ECS Exec; they have no resources
    "ssmmessages:CreateControlChannel",
    "ssmmessages:CreateDataChannel",
    "ssmmessages:OpenControlChannel",
    "ssmmessages:OpenDataChannel",
)


class Home(NamedTuple):
    """Where a site's resources are: partition (`aws`, `aws-cn`), region and account."""

    partition: str
    region: str
    account: str

    def arn(self, service: str, name: str, region: str | None = None) -> str:
        """The ARN of something of this account; region "" for what has none."""
        place = self.region if region is None else region
        return f"arn:{self.partition}:{service}:{place}:{self.account}:{name}"

    def fill(self, resource: str) -> str:
        """An ARN of `Permission` with its placeholders filled in; only before the name."""
        *head, name = resource.split(":", 5)
        given = {"{partition}": self.partition, "{region}": self.region, "{account}": self.account}
        return ":".join([*(given.get(part, part) for part in head), name])


class Repository(NamedTuple):
    """An image in ECR, taken apart; version: its tag or digest."""

    account: str
    region: str
    name: str
    version: str


def repository_of(image: str) -> Repository | None:
    """Where in ECR an image lies; None for another registry."""
    found = _ECR.fullmatch(image)
    return Repository(*found.groups()) if found else None


def task_role(site: Site) -> str:
    """Name of the role that the pipelines have."""
    return f"edge-{site.site}-task"


def execution_role(site: Site) -> str:
    """Name of the role that starts the container: pulls, logs, reads secrets."""
    return f"edge-{site.site}-execution"


def trust(home: Home) -> Document:
    """Only tasks of this account and region may take a role."""
    condition = {
        "StringEquals": {"aws:SourceAccount": home.account},
        "ArnLike": {"aws:SourceArn": home.arn("ecs", "*")},
    }
    statement = {
        "Effect": "Allow",
        "Principal": {"Service": "ecs-tasks.amazonaws.com"},
        "Action": "sts:AssumeRole",
        "Condition": condition,
    }
    return _policy([statement])


def task_policy(workload: Workload, home: Home) -> Document | None:
    """What the parts of the pipelines say they ask for; None where they ask for nothing."""
    permissions = [*_merged(workload.permissions(), home), *_datasets(workload.site, home)]
    if workload.site.exec:
        permissions.append(Permission(_SHELL, "*"))
    return _policy([_statement(each) for each in permissions]) if permissions else None


def execution_policy(site: Site, home: Home) -> Document | None:
    """To pull the image, write the log and read the secrets, each by its ARN."""
    permissions = [*_pull(site, home), *_logs(site, home), *_secrets(site)]
    return _policy([_statement(each) for each in permissions]) if permissions else None


def _merged(permissions: Sequence[Permission], home: Home) -> Iterator[Permission]:
    """One statement per set of actions and resource."""
    seen: dict[tuple[str, str], Permission] = {}
    for each in permissions:
        resource = home.fill(each.resource)
        key = (resource, repr(each.condition))
        before = seen[key].actions if key in seen else ()
        actions = tuple(dict.fromkeys([*before, *each.actions]))
        seen[key] = Permission(actions, resource, each.condition)
    yield from seen.values()


def _pull(site: Site, home: Home) -> Iterator[Permission]:
    if (image := repository_of(site.image)) is None:
        return
    yield Permission(("ecr:GetAuthorizationToken",), "*")  # takes no resource
    place = home._replace(account=image.account, region=image.region)
    yield Permission(
        ("ecr:BatchCheckLayerAvailability", "ecr:BatchGetImage", "ecr:GetDownloadUrlForLayer"),
        place.arn("ecr", f"repository/{image.name}"),
    )


def _logs(site: Site, home: Home) -> Iterator[Permission]:
    if site.logs.driver == "awslogs":
        streams = home.arn("logs", f"log-group:{site.log_group()}:log-stream:*")
        yield Permission(("logs:CreateLogStream", "logs:PutLogEvents"), streams)


def _secrets(site: Site) -> Iterator[Permission]:
    for arn in sorted(set(site.secrets.values())):
        if ":secretsmanager:" in arn:
            # Behind the ARN may stand `:key:stage:version`, which is no part of the resource.
            resource = ":".join(arn.split(":")[:7])
            yield Permission(("secretsmanager:GetSecretValue",), resource)
        else:
            yield Permission(("ssm:GetParameters",), arn)


def _datasets(site: Site, home: Home) -> Iterator[Permission]:
    """To mount EFS folders, each by its access point."""
    for efs in site.efs:
        actions = ["elasticfilesystem:ClientMount"]
        if not efs.read_only:
            actions.append("elasticfilesystem:ClientWrite")
        point = home.arn("elasticfilesystem", f"access-point/{efs.access_point}")
        system = home.arn("elasticfilesystem", f"file-system/{efs.file_system}")
        condition = {"StringEquals": {"elasticfilesystem:AccessPointArn": point}}
        yield Permission(tuple(actions), system, condition)


def _statement(permission: Permission) -> Document:
    made: dict[str, Any] = {
        "Effect": "Allow",
        "Action": sorted(permission.actions),
        "Resource": permission.resource,
    }
    return {**made, "Condition": permission.condition} if permission.condition else made


def _policy(statements: Sequence[Document]) -> Document:
    return {"Version": "2012-10-17", "Statement": list(statements)}
