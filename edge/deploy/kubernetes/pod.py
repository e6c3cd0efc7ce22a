"""The pod of one processor: what it runs, what it may, when it is healthy."""

from collections.abc import Sequence
from typing import Any

from edge.deploy.content import UID
from edge.deploy.kubernetes.identity import Object
from edge.deploy.kubernetes.rules import pinned
from edge.deploy.site import Site
from edge.deploy.workload import DEFINITIONS, STATE, Workload, environment

_HEALTH = {"exec": {"command": ["python3", "-I", "-S", "/app/edge/health.py"]}, "timeoutSeconds": 5}
_LIMIT = "64Mi"  # of /dev/shm, as Docker has it
# A node that its control plane does not hear is no reason to end what runs there.
_STAY = [
    {"key": f"node.kubernetes.io/{state}", "operator": "Exists", "effect": "NoExecute"}
    for state in ("not-ready", "unreachable")
]


def labels(site: Site, replica: str) -> dict[str, str]:
    """By which the objects of one processor are found; the same for the life of the site."""
    return {
        "app.kubernetes.io/name": "edge",
        "app.kubernetes.io/instance": site.service(replica),
        "edge.site": site.site,
        "edge.replica": replica,
    }


def pod(workload: Workload, replica: str, definitions: str | None) -> Object:
    """Metadata and spec; definitions: the ConfigMap that has the pipelines, if not the image."""
    site = workload.site
    security: dict[str, Any] = {
        "runAsNonRoot": True,
        "runAsUser": UID,
        "runAsGroup": UID,
        "seccompProfile": {"type": "RuntimeDefault"},
    }
    if not pinned(site):  # the claim is handed over; a folder of the node is not touched
        security |= {"fsGroup": UID, "fsGroupChangePolicy": "OnRootMismatch"}
    spec: dict[str, Any] = {
        "serviceAccountName": f"edge-{site.site}",
        "automountServiceAccountToken": False,  # it asks nothing of the cluster
        "enableServiceLinks": False,
        "terminationGracePeriodSeconds": int(site.stop_timeout.total_seconds()),
        "securityContext": security,
        "nodeSelector": _nodes(site, replica),
        "tolerations": _STAY,
        "containers": [_container(workload, replica, definitions)],
        "volumes": _volumes(site, definitions),
    }
    if pinned(site):
        spec["affinity"] = _alone(site, replica)
    if site.network.mode == "host":
        spec |= {"hostNetwork": True, "dnsPolicy": "ClusterFirstWithHostNet"}
    if site.kubernetes.pull_secret:
        spec["imagePullSecrets"] = [{"name": site.kubernetes.pull_secret}]
    spec = {name: value for name, value in spec.items() if value != {}}
    return {"metadata": {"labels": labels(site, replica)}, "spec": spec}


def _nodes(site: Site, replica: str) -> dict[str, str]:
    wanted = dict(site.kubernetes.nodes)
    if pinned(site):
        wanted |= {"edge.site": site.site, "edge.replica": replica}
    if site.architecture:
        wanted["kubernetes.io/arch"] = site.architecture
    return wanted


def _alone(site: Site, replica: str) -> Object:
    """Two nodes with the labels of one host would share its rows and session: the second waits."""
    term = {
        "labelSelector": {"matchLabels": {"app.kubernetes.io/instance": site.service(replica)}},
        "topologyKey": "edge.site",
    }
    return {"podAntiAffinity": {"requiredDuringSchedulingIgnoredDuringExecution": [term]}}


def _container(workload: Workload, replica: str, definitions: str | None) -> Object:
    site = workload.site
    return {
        "name": "edge",
        "image": site.image,
        "imagePullPolicy": "IfNotPresent",  # a start needs no registry when the image is there
        "args": workload.command(),
        "env": _variables(workload, replica),
        "resources": _resources(site),
        "securityContext": {
            "allowPrivilegeEscalation": False,
            "readOnlyRootFilesystem": True,
            "capabilities": {"drop": ["ALL"]},
        },
        # The lock of a predecessor is waited for 90 s, hence 150 s until the first step.
        "startupProbe": {**_HEALTH, "periodSeconds": 5, "failureThreshold": 30},
        "livenessProbe": {**_HEALTH, "periodSeconds": 15, "failureThreshold": 3},
        "readinessProbe": {**_HEALTH, "periodSeconds": 15, "failureThreshold": 1},
        "terminationMessagePolicy": "FallbackToLogsOnError",
        "volumeMounts": _mounts(site, definitions),
    }


def _variables(workload: Workload, replica: str) -> Sequence[Object]:
    site, found = workload.site, list[Object]()
    for name, value in environment(site, replica).items():
        found.append({"name": name, "value": value})
    secrets = dict.fromkeys(site.secrets, f"edge-{site.site}")
    if site.kubernetes.identity == "secret" and workload.permissions():
        keys = ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY")
        secrets |= dict.fromkeys(keys, f"edge-{site.site}-aws")
    for name, secret in sorted(secrets.items()):
        found.append({"name": name, "valueFrom": {"secretKeyRef": {"name": secret, "key": name}}})
    return found


def _resources(site: Site) -> Object:
    memory = f"{site.resources.memory // 2**20}Mi"
    limits: dict[str, Any] = {"memory": memory}
    if site.resources.gpu:
        limits["nvidia.com/gpu"] = site.resources.gpu
    cpu = f"{round(site.resources.cpu * 1000 / 1024)}m"
    return {"requests": {"cpu": cpu, "memory": memory}, "limits": limits}


def _volumes(site: Site, definitions: str | None) -> Sequence[Object]:
    volumes: list[Object] = [
        {"name": "memory", "emptyDir": {"medium": "Memory", "sizeLimit": _LIMIT}}
    ]
    if pinned(site):  # without it is claimed, see objects.py
        volumes.append(_host("outbox", site.outbox))
    if definitions:
        volumes.append({"name": "definitions", "configMap": {"name": definitions}})
    for place, mount in enumerate(site.mounts):
        volumes.append(_host(f"mounts-{place}", mount.host))
    return volumes


def _host(name: str, path: str) -> Object:
    """A folder that must be there: one that the kubelet makes belongs to root."""
    return {"name": name, "hostPath": {"path": path, "type": "Directory"}}


def _mounts(site: Site, definitions: str | None) -> Sequence[Object]:
    mounts: list[dict[str, Any]] = [
        {"name": "outbox", "mountPath": str(STATE)},
        {"name": "memory", "mountPath": "/dev/shm"},
    ]
    if definitions:
        mounts.append({"name": "definitions", "mountPath": str(DEFINITIONS), "readOnly": True})
    for place, mount in enumerate(site.mounts):
        made = {"name": f"mounts-{place}", "mountPath": mount.container}
        mounts.append(made | ({"readOnly": True} if mount.read_only else {}))
    return mounts
