"""Hybrid activations and managed machines of Systems Manager, which moto does not have."""

import functools
from datetime import UTC, datetime
from typing import Any

from moto.core.responses import ActionResult
from moto.iam.models import AWSManagedPolicy, iam_backends
from moto.ssm.exceptions import ValidationException
from moto.ssm.responses import SimpleSystemManagerResponse

from tests.cloud import ACCOUNT

CODE = "code-that-is-a-password"
SEEN = datetime(2026, 3, 1, 12, tzinfo=UTC)


class Machines:
    """What SSM holds of one account; `unknown_role` times it does not know the role yet."""

    def __init__(self) -> None:
        self.known: set[str] = set()
        self.unknown_role = 0
        _install()
        _Served.machines = self
        policies = iam_backends[ACCOUNT]["aws"].managed_policies
        for name, path in (
            ("AmazonSSMManagedInstanceCore", "/"),
            ("AmazonEC2ContainerServiceforEC2Role", "/service-role/"),
        ):
            data = {"Arn": f"arn:aws:iam::aws:policy{path}{name}", "Path": path}
            data |= {"CreateDate": SEEN.isoformat(), "UpdateDate": SEEN.isoformat()}
            data |= {"DefaultVersionId": "v1", "Document": {}}
            policy = AWSManagedPolicy.from_data(name, ACCOUNT, "us-east-1", data)
            policies[policy.arn] = policy


class _Served:
    machines: Machines


@functools.cache
def _install() -> None:
    for name, answer in (
        ("create_activation", _create_activation),
        ("deregister_managed_instance", _deregister),
        ("describe_instance_information", _describe),
    ):
        setattr(SimpleSystemManagerResponse, name, answer)


def _create_activation(self: Any) -> ActionResult:
    machines = _Served.machines
    if machines.unknown_role:
        machines.unknown_role -= 1
        raise ValidationException("Nonexistent role or missing ssm service principal")
    return ActionResult({"ActivationId": "activation-1", "ActivationCode": CODE})


def _deregister(self: Any) -> ActionResult:
    _Served.machines.known.discard(self._get_param("InstanceId"))
    return ActionResult({})


def _describe(self: Any) -> ActionResult:
    wanted = self._get_param("Filters")[0]["Values"]
    found = [
        {"InstanceId": each, "PingStatus": "ConnectionLost", "LastPingDateTime": SEEN.timestamp()}
        | {"ComputerName": "gateway"}
        for each in wanted
        if each in _Served.machines.known
    ]
    return ActionResult({"InstanceInformationList": found})
