"""The AWS of the tests of deployments: moto's server, with what it lacks of external hosts.

moto refuses launch type EXTERNAL and managed instances, forgets half of what a service is given and
starts no tasks; what the tests of hosts and deployments need of that is put in its place here.
"""

import functools
import json
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

import xmltodict
from boto3 import Session
from moto.core.utils import utcnow
from moto.ecs.exceptions import InvalidParameterException
from moto.ecs.models import (
    ContainerInstance,
    EC2ContainerServiceBackend,
    Service,
    Task,
    TaskDefinition,
    ecs_backends,
)
from moto.ecs.responses import EC2ContainerServiceResponse
from moto.s3.responses import S3Response

from edge.clock import Clock
from edge.deploy.account import Account
from edge.deploy.site import Site
from tests.cloud import ACCOUNT, REGION, Cloud

READS = ("Describe", "List", "Get", "Head", "Filter", "Simulate")
_ECHOED = {
    "deploymentConfiguration": "deployment_configuration",
    "placementConstraints": "placement_constraints",
    "availabilityZoneRebalancing": "availability_zone_rebalancing",
    "enableExecuteCommand": "enable_execute_command",
    "capacityProviderStrategy": "capacity_provider_strategy",
    "networkConfiguration": "network_configuration",
}


class Call(NamedTuple):
    """One request as it goes out."""

    service: str
    operation: str
    parameters: Mapping[str, Any]

    @property
    def writes(self) -> bool:
        """Whether it may change anything."""
        return not self.operation.startswith(READS)

    def __str__(self) -> str:
        return f"{self.service}:{self.operation}"


class CutOff(BaseException):
    """The command was killed here."""


class Hurried(Clock):
    """A clock that waits for nobody."""

    def __init__(self) -> None:
        self._now = 0.0

    def steady(self) -> float:
        return self._now

    def pause(self, seconds: float) -> None:
        self._now += seconds


class Aws:
    """One region of one account, empty; every request of its sessions is noted in `calls`."""

    def __init__(self, cloud: Cloud) -> None:
        _install()
        self.cloud = cloud
        self.calls: list[Call] = []
        self._left: int | None = None
        _session.watched = self

    def account(self, site: Site) -> Account:
        """The account as a command sees it, with a session that is watched and no time to lose."""
        return Account(site, session=self.session(), clock=Hurried())

    def session(self, *_: object) -> Any:
        """The session that is watched."""
        return _session()

    def cut_after(self, writes: int) -> None:
        """Kill the command once so many changes were made."""
        self._left = writes

    def forget(self) -> None:
        """Begin a new list of calls."""
        self.calls.clear()

    def writes(self) -> list[Call]:
        """The requests that may have changed something."""
        return [call for call in self.calls if call.writes]

    def of(self, operation: str) -> list[Mapping[str, Any]]:
        """What the requests of one operation held, in order."""
        return [call.parameters for call in self.calls if call.operation == operation]

    def register_host(self, cluster: str, number: int = 1, **attributes: str) -> Any:
        """A machine that has registered itself; returns moto's record of it."""
        backend = ecs_backends[ACCOUNT][REGION]
        if cluster not in backend.clusters:
            backend.create_cluster(cluster)
        host = backend.register_container_instance(cluster, f"mi-{number:017x}")
        host.attributes |= attributes
        return host

    def push_image(self, repository: str, tag: str) -> None:
        """An image under `tag`, as after a push."""
        kind = "application/vnd.docker.distribution.manifest.v2+json"
        config = {"mediaType": kind, "digest": f"sha256:{'0' * 64}", "size": 1}
        manifest = {"schemaVersion": 2, "mediaType": kind, "config": config, "layers": []}
        self.cloud.client("ecr").put_image(
            repositoryName=repository, imageTag=tag, imageManifest=json.dumps(manifest)
        )

    def service(self, name: str, cluster: str = "plants") -> Any:
        """moto's record of a service."""
        return ecs_backends[ACCOUNT][REGION].services[f"{cluster}:{name}"]

    def roll_out(self, name: str, state: str = "COMPLETED", **details: Any) -> None:
        """The newest deployment of a service came so far."""
        newest = self.service(name).deployments[0]
        newest |= {"rolloutState": state, "runningCount": int(state == "COMPLETED"), **details}
        self.service(name).running_count = newest["runningCount"]

    def run_task(self, service: str, cluster: str = "plants", **details: Any) -> Any:
        """A task of a service; details: attributes of moto's record, such as `last_status`."""
        backend = ecs_backends[ACCOUNT][REGION]
        definition = backend.describe_task_definition(service)
        held = backend.clusters[cluster]
        task = Task(held, definition, None, None, backend, f"service:{service}", "EXTERNAL")
        for name, value in details.items():
            setattr(task, name, value)
        backend.tasks.setdefault(cluster, {})[task.task_arn] = task
        return task

    def note(self, params: Mapping[str, Any], model: Any, **_: Any) -> None:
        """Called before each request."""
        service = model.service_model.service_name
        self.calls.append(Call(service, model.name, json.loads(json.dumps(params, default=str))))

    def cut_off(self, model: Any, **_: Any) -> None:
        """Called after each request."""
        if self._left is None or model.name.startswith(READS):
            return
        self._left -= 1
        if self._left <= 0:
            self._left = None
            raise CutOff


class _Session:
    """One session for all tests, as reading what boto3 knows of a service takes 50 ms."""

    watched: Aws

    @functools.cache  # noqa: B019
    def __call__(self) -> Any:
        session = Session(aws_access_key_id="test", aws_secret_access_key="test")
        session.events.register("before-parameter-build", lambda **at: self.watched.note(**at))
        session.events.register("after-call", lambda **at: self.watched.cut_off(**at))
        return session


_session = _Session()


@functools.cache
def _install() -> None:
    _wrap(TaskDefinition, "__init__", _external_definition)
    _wrap(ContainerInstance, "__init__", _managed_instance)
    _wrap(EC2ContainerServiceBackend, "create_service", _external_service)
    _wrap(EC2ContainerServiceBackend, "update_service", _new_deployment)
    _wrap(EC2ContainerServiceResponse, "create_service", _remembered)
    _wrap(S3Response, "_bucket_response_put", _tagged_bucket)


def _wrap(owner: type, name: str, around: Callable[..., Any]) -> None:
    setattr(owner, name, functools.partialmethod(around, getattr(owner, name)))


def _external_definition(self: Any, original: Any, *arguments: Any, **options: Any) -> None:
    original(self, *arguments, **options)
    if self.requires_compatibilities == ["EXTERNAL"]:
        self.network_mode = options.get("network_mode") or "bridge"
        self.compatibilities = ["EC2", "EXTERNAL"]


def _managed_instance(
    self: Any, original: Any, instance: str, *arguments: Any, **more: Any
) -> None:
    if not instance.startswith("mi-"):
        original(self, instance, *arguments, **more)
        return
    from moto.ecs import models

    class Machine:
        image_id = availability_zone = instance_type = ""
        platform = "linux"

    lookup, models.ec2_backends = models.ec2_backends, _Anything(Machine)  # type: ignore[assignment]
    try:
        original(self, instance, *arguments, **more)
    finally:
        models.ec2_backends = lookup
    self.attributes = {"ecs.os-type": "linux", "ecs.capability.external": ""}


class _Anything(dict[Any, Any]):
    """An EC2 that has every instance."""

    def __init__(self, machine: type) -> None:
        self._machine = machine

    def __getitem__(self, name: Any) -> Any:
        return self

    def get_instance(self, name: str) -> Any:
        return self._machine()


def _external_service(
    self: Any, original: Any, cluster: str, name: str, count: int, *arguments: Any, **options: Any
) -> Any:
    held = self.services.get(f"{cluster}:{name}")
    if held and held.status != "INACTIVE":
        raise InvalidParameterException("Creation of service was not idempotent.")
    given = list(arguments)
    launch_type, given[5] = given[5], None if given[5] == "EXTERNAL" else given[5]
    service = original(self, cluster, name, count, *given, **options)
    service.launch_type = launch_type
    return service


def _remembered(self: Any, original: Any) -> Any:
    result = original(self)
    name = f"{self._get_param('cluster')}:{self._get_param('serviceName')}"
    service: Service = self.ecs_backend.services[name]
    for parameter, attribute in _ECHOED.items():
        if (value := self._get_param(parameter)) is not None:
            setattr(service, attribute, value)
    return result


def _new_deployment(self: Any, original: Any, properties: dict[str, Any]) -> Any:
    revision = properties.get("task_definition")
    service = original(self, properties)
    if revision:
        newest = {**service.deployments[0], "taskDefinition": revision, "status": "PRIMARY"}
        newest |= {"rolloutState": "IN_PROGRESS", "failedTasks": 0, "runningCount": 0}
        newest |= {"createdAt": utcnow(), "updatedAt": utcnow()}
        service.deployments = [newest]
    return service


def _tagged_bucket(self: Any, original: Any, request: Any, bucket: str, querystring: Any) -> Any:
    answer = original(self, request, bucket, querystring)
    if not querystring and b"<Tag>" in (self.body or b""):
        tags = xmltodict.parse(self.body, force_list=["Tag"])["CreateBucketConfiguration"]["Tags"]
        pairs = {tag["Key"]: tag["Value"] for tag in tags["Tag"]}
        self.backend.put_bucket_tagging(bucket, pairs)
    return answer
