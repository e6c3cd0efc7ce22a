"""On every target each field of a site file is mapped, noted or refused; none is dropped unseen."""

import json
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, get_args

import pytest
import yaml
from pydantic import BaseModel

from edge.deploy import roles
from edge.deploy.account import Account
from edge.deploy.guarantees import LINK_LOSS, notes
from edge.deploy.kubernetes.objects import manifests
from edge.deploy.local.container import Given, settings
from edge.deploy.resources.tasks import Definition, Service
from edge.deploy.site import Site, read_site
from edge.deploy.task import task_definition
from edge.deploy.validate import check_target
from edge.deploy.workload import load_workload
from edge.errors import DefinitionError
from tests.deploy.test_validate import DELIVERED

BASE = {
    "edge": 1,
    "site": "osaka",
    "region": "eu-west-1",
    "image": "registry.example.com/edge:1",
    "pipelines": ["press.yaml"],
    "secrets": {"MQTT_PASSWORD": "arn:aws:ssm:eu-west-1:123456789012:parameter/a"},
}
FARGATE = {"target": "fargate", "network": {"subnets": ["subnet-1"]}}
KUBERNETES = {
    "target": "kubernetes",
    "account": "123456789012",
    "hosts": {"schedule": "daemon"},
}
BASES: Mapping[str, Mapping[str, Any]] = {
    "ecs-anywhere": BASE,
    "ec2": {**BASE, "target": "ec2"},
    "fargate": {**BASE, **FARGATE},
    "kubernetes": {**BASE, **KUBERNETES},
    "docker": {**BASE, "target": "docker"},
}
# Another value of every field.
OTHER: Mapping[str, Any] = {
    "site": "kyoto",
    "region": "eu-west-2",
    "image": "registry.example.com/edge:2",
    "hosts.names": ["gw-1"],
    "hosts.count": 2,
    "hosts.where": "attribute:rack == a",
    "hosts.schedule": "replica",
    "resources.cpu": 2048,
    "resources.memory": "9GiB",
    "resources.gpu": 1,
    "architecture": "arm64",
    "environment": {"A": "b"},
    "secrets": {},
    "network.mode": "host",
    "network.subnets": ["subnet-2"],
    "network.security_groups": ["sg-1"],
    "network.public_ip": True,
    "logs.driver": "splunk",
    "logs.group": "/other",
    "logs.retention": "7d",
    "logs.buffer": "8MiB",
    "logs.options": {"awslogs-multiline-pattern": "x"},
    "outbox": "/data",
    "stop_timeout": "70s",
    "mounts": [{"host": "/srv", "container": "/in"}],
    "efs": [{"file_system": "fs-00000000", "access_point": "fsap-00000000", "container": "/in"}],
    "capacity_provider": "SPOT",
    "exec": True,
    "docker.networks": ["plant"],
    "docker.credentials_uri": "http://169.254.170.2/v2/credentials/a",
    "kubernetes.namespace": "plants",
    "kubernetes.identity": "pod-identity",
    "kubernetes.oidc_provider": "oidc.example.com/id/A",
    "kubernetes.storage": "20GiB",
    "kubernetes.storage_class": "local",
    "kubernetes.nodes": {"rack": "a"},
    "kubernetes.definitions": "configmap",
    "kubernetes.pull_secret": "registry",
}
# What is no setting of a task; test_apply, test_site and test_alarms have it.
ELSEWHERE = {"edge", "account", "cluster", "target", "pipelines", "create", "alarms", "file"}


def leaves(model: type[BaseModel], path: str = "") -> Iterator[str]:
    for name, field in model.model_fields.items():
        kind = field.annotation
        if isinstance(kind, type) and issubclass(kind, BaseModel):
            yield from leaves(kind, f"{name}.")
        else:
            yield f"{path}{name}"


def outcome(values: Mapping[str, Any], folder: Path) -> str:
    """All that AWS or the cluster would be told, and all that the user is."""
    site = read_site(yaml.safe_dump(values), str(folder / "osaka.yaml"), {})
    try:
        check_target(site)
        workload = load_workload(site)
    except DefinitionError as error:
        return f"refused: {error}"
    if site.target == "kubernetes":
        made = manifests(workload)
        return json.dumps([made.text(), made.policies, notes(workload)])
    if site.target == "docker":
        given = Given(dict.fromkeys(site.secrets, "value"), {})
        containers = [
            (site.service(each), settings(workload, each, given, "sha256:0"))
            for each in workload.pipelines
        ]
        return json.dumps([containers, notes(workload)])
    home = roles.Home("aws", site.region, "123456789012")
    account = Account(site)
    account.__dict__["home"] = home
    told: list[Any] = [
        roles.task_policy(workload, home),
        roles.execution_policy(site, home),
        site.log_group(),
        site.logs.retention.days,
        notes(workload),
    ]
    for replica in workload.pipelines:
        told.append(task_definition(workload, replica, home))
        told.append(Service(account, Definition(account, workload, replica), replica).wanted())
    return json.dumps(told)


def test_every_field_is_looked_at() -> None:
    assert set(leaves(Site)) == OTHER.keys() | ELSEWHERE


@pytest.mark.parametrize("target", BASES)
def test_no_field_is_dropped_unseen(tmp_path: Path, target: str) -> None:
    (tmp_path / "press.yaml").write_text(DELIVERED)
    before = outcome(BASES[target], tmp_path)
    assert not before.startswith("refused")
    unseen = []
    for path, value in OTHER.items():
        section, _, name = path.rpartition(".")
        changed = dict(BASES[target])
        if section:
            changed[section] = {**changed.get(section, {}), name: value}
        else:
            changed[name] = value
        if outcome(changed, tmp_path) == before:
            unseen.append(path)
    assert unseen == []


def test_every_target_says_what_becomes_of_the_promises() -> None:
    assert {*LINK_LOSS} == {*BASES} == {*get_args(Site.model_fields["target"].annotation)}
