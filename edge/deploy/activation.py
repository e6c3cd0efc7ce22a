"""Registering machines as hosts: the role they have, an activation, and a script that uses it."""

import functools
import json
from collections.abc import Callable, Sequence
from datetime import UTC, datetime, timedelta
from typing import Any, NamedTuple

from edge.deploy.account import Account, absent, code_of, told
from edge.deploy.content import UID
from edge.deploy.resources.ground import Cluster
from edge.deploy.script import script
from edge.deploy.site import Site
from edge.errors import DefinitionError, DeployFailed

ROLE = "ecsAnywhereRole"
LONGEST = timedelta(days=30)
"""An activation expires after it at the latest."""

# https://docs.aws.amazon.com/AmazonECS/latest/developerguide/ecs-anywhere-registration.html
_POLICIES = ("AmazonSSMManagedInstanceCore", "service-role/AmazonEC2ContainerServiceforEC2Role")
_OURS = {"Key": "edge:role", "Value": "host"}
_SETTLES = 30.0  # seconds in which a new role comes to be known everywhere

# What Linux calls the instructions that the runtime of polars is built with (BUILD_FEATURE_FLAGS).
_FLAGS = "avx avx2 fma bmi1 bmi2 abm movbe pclmulqdq popcnt sse4_2 cx16"
_DRIVERS = ("json-file", "syslog", "awslogs", "fluentd", "none")  # of ecs-init on such hosts

Tell = Callable[[str], None]


class Wanted(NamedTuple):
    """replicas: which hosts of the site; cpu: `baseline`, or `compat` as the image was built.

    reserved: MiB of memory that ECS leaves to the machine itself.
    """

    replicas: Sequence[str]
    expires: timedelta = timedelta(days=1)
    role: str = ROLE
    cpu: str = "baseline"
    reserved: int = 256


class Activation(NamedTuple):
    """An id and a code, which is a password until it expires: for the script and nobody else."""

    id: str
    code: str

    def __repr__(self) -> str:
        return f"Activation(id={self.id!r})"


def choose(site: Site, replica: str | None) -> Sequence[str]:
    """The named host, else all of the site. Raises DefinitionError for one it has not."""
    if site.target not in ("ecs-anywhere", "ec2"):
        raise DefinitionError(f"target {site.target!r} has no hosts to register; leave this out")
    known = site.hosts.replicas()
    if replica is None:
        return known
    if replica not in known:
        raise DefinitionError(
            f"--replica: site {site.site} has no host {replica!r}; it has {', '.join(known)}"
        )
    return [replica]


def activate(account: Account, wanted: Wanted, tell: Tell) -> str:
    """Make the role and the cluster where they are missing, then an activation; returns the script.

    The code is in the script and nowhere else. Raises DeployFailed for what AWS refuses.
    """
    _check(account.site, wanted)
    with told(f"role {wanted.role}"):
        made = _ensure_role(account, wanted.role, tell)
    with told(f"cluster {account.site.cluster}"):
        cluster = Cluster(account, account.site.cluster)
        if cluster.read() is None:
            tell(f"creates cluster {account.site.cluster}")
            cluster.create()
    with told("activation"):
        activation = _create_activation(account, wanted, patience=_SETTLES if made else 0.0)
    until = datetime.now(UTC) + wanted.expires
    tell(f"activation {activation.id}: {len(wanted.replicas)} host(s), until {until:%F %H:%M}Z")
    return render(account.site, wanted, activation)


def _check(site: Site, wanted: Wanted) -> None:
    if site.target != "ecs-anywhere":
        raise DefinitionError(
            f"target {site.target!r}: only hosts of ecs-anywhere are activated; an EC2 instance "
            "joins by the ECS agent of its image, with attributes `site` and `replica`"
        )
    if not timedelta(minutes=1) <= wanted.expires <= LONGEST:
        raise DefinitionError("--expires: must be 1m to 30d, got another; write 24h")


def _ensure_role(account: Account, name: str, tell: Tell) -> bool:
    """Whether it was made now. One that others made is taken as it is, if SSM may assume it."""
    iam, partition = account.client("iam"), account.home.partition
    role: dict[str, Any] | None = None
    with absent("NoSuchEntity"):
        role = iam.get_role(RoleName=name)["Role"]
    if role is None:
        tell(f"creates role {name}, for every host of this account")
        iam.create_role(
            RoleName=name,
            AssumeRolePolicyDocument=json.dumps(_trust(account.home.account)),
            Description="Hosts of ECS Anywhere",
            Tags=[_OURS],
        )
    elif "ssm.amazonaws.com" not in json.dumps(role["AssumeRolePolicyDocument"]):
        raise DeployFailed(
            f"role {name}: does not trust ssm.amazonaws.com, so no machine can have it; add that "
            "to its trust policy, or name another with --role"
        )
    elif _OURS not in role.get("Tags", []):
        return False
    attached = iam.list_attached_role_policies(RoleName=name)["AttachedPolicies"]
    there = {policy["PolicyArn"] for policy in attached}
    for policy in _POLICIES:
        if (arn := f"arn:{partition}:iam::aws:policy/{policy}") not in there:
            iam.attach_role_policy(RoleName=name, PolicyArn=arn)
    return role is None


def _trust(account: str) -> dict[str, Any]:
    statement = {
        "Effect": "Allow",
        "Principal": {"Service": "ssm.amazonaws.com"},
        "Action": "sts:AssumeRole",
        "Condition": {"StringEquals": {"aws:SourceAccount": account}},
    }
    return {"Version": "2012-10-17", "Statement": [statement]}


def _create_activation(account: Account, wanted: Wanted, patience: float) -> Activation:
    site = account.site
    call = functools.partial(
        account.client("ssm").create_activation,
        Description=f"edge hosts of site {site.site}",
        DefaultInstanceName=f"edge-{site.site}",
        IamRole=wanted.role,
        RegistrationLimit=len(wanted.replicas),
        ExpirationDate=datetime.now(UTC) + wanted.expires,
        Tags=account.tags(),
    )
    made = account.patiently(call, _is_not_known_yet, patience)
    return Activation(made["ActivationId"], made["ActivationCode"])


def _is_not_known_yet(error: Exception) -> bool:
    # A role is not known everywhere at once: https://docs.aws.amazon.com/IAM/latest/
    # UserGuide/troubleshoot.html#troubleshoot_general_eventual-consistency
    return code_of(error) == "ValidationException"


def render(site: Site, wanted: Wanted, activation: Activation) -> str:
    """The script for the machines, to run as root."""
    drivers = [*_DRIVERS, *({site.logs.driver} - {*_DRIVERS, "awsfirelens"})]
    settings = {
        "SITE": site.site,
        "REPLICAS": " ".join(wanted.replicas),
        "REPLICA": wanted.replicas[0] if len(wanted.replicas) == 1 else "",
        "REGION": site.region,
        "CLUSTER": site.cluster,
        "OUTBOX": site.outbox,
        "OWNER": str(UID),
        "CPU": wanted.cpu,
        "FLAGS": _FLAGS,
        "GPU": "1" if site.resources.gpu else "",
        "RESERVED": str(wanted.reserved),
        "DRIVERS": json.dumps(drivers, separators=(",", ":")),
        "STOP": str(int(site.stop_timeout.total_seconds())),
        "ACTIVATION_ID": activation.id,
        "ACTIVATION_CODE": activation.code,
    }
    purpose = f"Makes this machine a host of site {site.site}. Holds a password: delete it after."
    return script("activate", purpose, settings)
