"""What of a site file has no meaning on Kubernetes, or another one."""

import re
from collections.abc import Iterator, Mapping

from edge.deploy.sections import Logs
from edge.deploy.site import Site
from edge.deploy.workload import Workload
from edge.errors import Fault

LONGEST_NAME = 52
"""Characters of a StatefulSet's name: its pods get a label of it, 10 digits and a dash."""
CONFIG_MAP = 2**20 - 2**14
"""Bytes of definitions in a ConfigMap, which has 1 MiB for everything."""

_LABEL = r"[a-z0-9]([a-z0-9-]*[a-z0-9])?"
_OF_ECS: Mapping[tuple[str, ...], str] = {
    ("hosts", "where"): "is a query of ECS; name labels of nodes in `kubernetes.nodes`",
    ("capacity_provider",): "is of ECS; leave it out, the cluster has its own nodes",
    ("efs",): "is not mounted in pods; mount it on the nodes and name the folder in `mounts`",
    ("alarms",): "are made for the targets of ECS; make them yourself and leave it out",
    ("create",): "asks for things in AWS, where nothing is made for kubernetes; make queues and"
    " buckets yourself and leave it out",
    ("exec",): "is of ECS; leave it out, `kubectl exec` is a right that the cluster gives",
    ("network", "subnets"): "belongs to awsvpc; leave it out",
    ("network", "security_groups"): "belongs to awsvpc; leave it out",
    ("network", "public_ip"): "belongs to awsvpc; leave it out",
}
_MODES = {"awsvpc": "is of ECS; use bridge or host", "none": "leads nowhere; use bridge or host"}


def pinned(site: Site) -> bool:
    """Whether each processor has a node of its own and its outbox there: where hosts are named.

    `hosts.schedule`, where it is written, decides instead.
    """
    if "schedule" in site.hosts.model_fields_set:
        return site.hosts.schedule == "daemon"
    return bool(site.hosts.names)


def faults(site: Site) -> Iterator[Fault]:
    """What the site asks and a cluster cannot do."""
    for place, words in _OF_ECS.items():
        asked: object = site
        for name in place:
            asked = getattr(asked, name)
        if asked:
            yield site.fault(place, words)
    if site.network.mode in _MODES:
        words = f"{site.network.mode!r} {_MODES[site.network.mode]}"
        yield site.fault(("network", "mode"), words)
    if "outbox" in site.model_fields_set and not pinned(site):
        words = "is a folder of a node, and these outboxes lie on claims; leave it out, or name the"
        yield site.fault(("outbox",), f"{words} nodes in `hosts.names`")
    for name in ("storage", "storage_class"):
        if name in site.kubernetes.model_fields_set and pinned(site):
            words = "is of claims, and these outboxes lie on nodes; leave it out, or write"
            yield site.fault(("kubernetes", name), f"{words} `schedule: replica` in `hosts`")
    yield from _name_faults(site)


def _name_faults(site: Site) -> Iterator[Fault]:
    if not re.fullmatch(_LABEL, site.site):
        words = f"must begin and end with a letter or digit on kubernetes, got {site.site!r}"
        yield site.fault(("site",), words)
    for place, replica in enumerate(site.hosts.replicas()):
        name = site.service(replica)
        if not re.fullmatch(_LABEL, replica):
            words = f"must begin and end with a letter or digit on kubernetes, got {replica!r}"
            yield site.fault(("hosts", "names", place), words)
        elif len(name) > LONGEST_NAME:
            words = f"makes the name {name!r}, must be at most {LONGEST_NAME} characters"
            yield site.fault(("hosts", "names", place), f"{words}; shorten it or `site`")


def workload_faults(workload: Workload) -> Iterator[Fault]:
    """What the pipelines ask and the site does not give."""
    site = workload.site
    if workload.permissions() and site.account is None and site.kubernetes.identity != "secret":
        yield site.fault(("account",), "is missing; the ARN of the pods' role has it")
    held = max(sum(p.outbox.max_size for p in each) for each in workload.pipelines.values())
    if not pinned(site) and site.kubernetes.storage < held:
        words = (
            f"must have room for the outboxes, at least {held} B, got '{site.kubernetes.storage}'"
        )
        yield site.fault(("kubernetes", "storage"), words)
    if site.kubernetes.definitions == "image":
        return
    files = [site.folder / path for path in site.pipelines]
    if sum(file.stat().st_size for file in files) > CONFIG_MAP:
        words = "'configmap' has room for 1 MiB; put the definitions into the image"
        yield site.fault(("kubernetes", "definitions"), words)
    for place, file in enumerate(files):
        if not re.fullmatch(r"[A-Za-z0-9._-]{1,253}", file.name):
            words = f"must be letters, digits, '.', '_' and '-', got {file.name!r}; rename the file"
            yield site.fault(("pipelines", place), words)


def notes(workload: Workload) -> Iterator[tuple[str, str]]:
    """Every field that does not reach the cluster as it is written, with what became of it."""
    site, kube = workload.site, workload.site.kubernetes
    yield from _placement_notes(site)
    if site.network.mode == "host":
        yield "network.mode", "hostNetwork, which a namespace must allow"
    yield "resources.cpu", "requested and not a limit, so that a processor is never throttled"
    yield "logs", _log_words(site.logs)
    if "cluster" in site.model_fields_set:
        yield "cluster", "left out: kubectl's context says which cluster"
    if site.secrets:
        names = ", ".join(site.secrets)
        yield "secrets", f"read from Secret edge-{site.site}, keys {names}: not fetched by ARN"
    if kube.definitions == "configmap":
        yield "kubernetes.definitions", "only the definitions; files they name must be in the image"
    if workload.permissions():
        yield "kubernetes.identity", _identity_words(site)


def _placement_notes(site: Site) -> Iterator[tuple[str, str]]:
    if pinned(site):
        labels = f"edge.site={site.site} edge.replica=<name>"
        yield "hosts", f"a DaemonSet each, on the node that is labelled {labels}"
        yield "outbox", f"hostPath: make {site.outbox} there for user 10001; no sharing with others"
    else:
        yield "hosts", "a StatefulSet each, of one pod; never scale one, name more hosts"
        yield (
            "outbox",
            f"a ReadWriteOncePod claim of {site.kubernetes.storage} each (Kubernetes 1.29)",
        )
    if site.mounts:
        yield "mounts", "hostPath: a pod waits where its node has not the folder"


def _log_words(logs: Logs) -> str:
    given = sorted(logs.model_fields_set)
    left = f"; {', '.join(given)} left out" if given else ""
    return f"to stdout, where the cluster collects it{left}"


def _identity_words(site: Site) -> str:
    kube, role = site.kubernetes, f"edge-{site.site}-task"
    if kube.identity == "secret":
        return (
            f"keys of an IAM user in Secret edge-{site.site}-aws; a role needs no long-lived keys"
        )
    if kube.identity == "pod-identity":
        return f"make role {role} and associate it with service account edge-{site.site}"
    trust = "" if kube.oidc_provider else "; its trust policy needs `kubernetes.oidc_provider`"
    return f"make role {role}, which service account edge-{site.site} names{trust}"
