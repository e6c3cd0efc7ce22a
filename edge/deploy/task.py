"""The task definition of one processor, for hosts of the user, for EC2 and for Fargate."""

import hashlib
import json
from collections.abc import Mapping
from typing import Any

from edge.deploy import roles
from edge.deploy.site import Site
from edge.deploy.validate import fargate_size
from edge.deploy.workload import STATE, Workload, environment

Settings = Mapping[str, Any]

CONTAINER = "edge"
LAUNCH = {"ecs-anywhere": "EXTERNAL", "ec2": "EC2", "fargate": "FARGATE"}
DIGEST = "edge.digest"
"""Label by which a task definition is recognised: ECS adds defaults to what it is given."""
FARGATE_STOP = 120
"""The longest stop timeout of Fargate, in seconds."""

_SOON = 60  # s: the shortest attempt period. Offline nobody starts a new task if this one ends
_HEALTH = {
    # As in the image, whose own check ECS does not run: local progress only, never the link.
    "command": ["CMD", "python3", "-I", "-S", "/app/edge/health.py"],
    "interval": 15,
    "timeout": 5,
    "retries": 3,
    "startPeriod": 120,  # the lock of a predecessor is waited for 90 s
}


def task_definition(workload: Workload, replica: str, home: roles.Home) -> Settings:
    """What RegisterTaskDefinition is given, tags aside."""
    site = workload.site
    made: dict[str, Any] = {
        "family": site.service(replica),
        "requiresCompatibilities": [LAUNCH[site.target]],
        "networkMode": network_mode(site),
        "executionRoleArn": home.arn("iam", f"role/{roles.execution_role(site)}", ""),
        "taskRoleArn": home.arn("iam", f"role/{roles.task_role(site)}", ""),
        "volumes": _volumes(site),
        "containerDefinitions": [_container(workload, replica)],
    }
    if site.target == "fargate":
        cpu, memory = sized(site)
        made |= {"cpu": str(cpu), "memory": str(memory), "runtimePlatform": _platform(site)}
    text = json.dumps(made, sort_keys=True)
    labels = {DIGEST: hashlib.sha256(text.encode()).hexdigest()[:16]}
    made["containerDefinitions"][0]["dockerLabels"] |= labels
    return made


def network_mode(site: Site) -> str:
    """The mode of the site file, or the default of its target."""
    return site.network.mode or ("awsvpc" if site.target == "fargate" else "bridge")


def sized(site: Site) -> tuple[int, int]:
    """CPU units and MiB of memory, on Fargate rounded up to a size that there is."""
    cpu, memory = site.resources.cpu, site.resources.memory // 2**20
    return (
        (fargate_size(cpu, memory) or (cpu, memory))
        if site.target == "fargate"
        else (
            cpu,
            memory,
        )
    )


def stop_timeout(site: Site) -> int:
    """Seconds from SIGTERM to SIGKILL."""
    seconds = int(site.stop_timeout.total_seconds())
    return min(seconds, FARGATE_STOP) if site.target == "fargate" else seconds


def _container(workload: Workload, replica: str) -> dict[str, Any]:
    site = workload.site
    cpu, memory = sized(site)
    made: dict[str, Any] = {
        "name": CONTAINER,
        "image": site.image,
        "essential": True,
        "command": workload.command(),
        "cpu": cpu,
        "memory": memory,
        "environment": [
            {"name": name, "value": value} for name, value in environment(site, replica).items()
        ],
        "secrets": [{"name": name, "valueFrom": arn} for name, arn in sorted(site.secrets.items())],
        "mountPoints": _mount_points(site),
        "readonlyRootFilesystem": True,
        "stopTimeout": stop_timeout(site),
        "restartPolicy": {"enabled": True, "restartAttemptPeriod": _SOON},
        "healthCheck": _HEALTH,
        "linuxParameters": {"initProcessEnabled": True, "capabilities": {"drop": ["ALL"]}},
        "dockerLabels": {"edge.site": site.site, "edge.replica": replica},
    }
    if site.logs.driver != "none":
        made["logConfiguration"] = _log(site, replica)
    if site.resources.gpu:
        made["resourceRequirements"] = [{"type": "GPU", "value": str(site.resources.gpu)}]
    return made


def _log(site: Site, replica: str) -> dict[str, Any]:
    driver, more = site.logs.driver, site.logs.options
    options = {
        "awslogs": {
            "awslogs-group": site.log_group(),
            "awslogs-region": site.region,
            "awslogs-stream-prefix": replica,
            # Blocking, a container neither starts nor writes while CloudWatch is away.
            "mode": "non-blocking",
            "max-buffer-size": f"{site.logs.buffer}".removesuffix("iB").lower(),
        },
        "json-file": {"max-size": "10m", "max-file": "5"},
        "fluentd": {"fluentd-async": "true"},
    }.get(driver, {})
    return {"logDriver": driver, "options": {**options, **more}}


def _volumes(site: Site) -> list[dict[str, Any]]:
    if site.target == "fargate":
        volumes: list[dict[str, Any]] = [{"name": "outbox"}]
    else:
        volumes = [{"name": "outbox", "host": {"sourcePath": site.outbox}}]
    for place, mount in enumerate(site.mounts):
        volumes.append({"name": f"mounts-{place}", "host": {"sourcePath": mount.host}})
    for place, efs in enumerate(site.efs):
        configuration = {
            "fileSystemId": efs.file_system,
            "transitEncryption": "ENABLED",
            "authorizationConfig": {"accessPointId": efs.access_point, "iam": "ENABLED"},
        }
        volumes.append({"name": f"efs-{place}", "efsVolumeConfiguration": configuration})
    return volumes


def _mount_points(site: Site) -> list[dict[str, Any]]:
    points = [_point("outbox", str(STATE), False)]
    for section, folders in site.folders().items():
        for place, folder in enumerate(folders):
            points.append(_point(f"{section}-{place}", folder.container, folder.read_only))
    return points


def _point(volume: str, container: str, read_only: bool) -> dict[str, Any]:
    return {"sourceVolume": volume, "containerPath": container, "readOnly": read_only}


def _platform(site: Site) -> dict[str, str]:
    architecture = "ARM64" if site.architecture == "arm64" else "X86_64"
    return {"cpuArchitecture": architecture, "operatingSystemFamily": "LINUX"}
