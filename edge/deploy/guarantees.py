"""What becomes of a site file on its target, and of the promises when the link goes."""

from collections.abc import Iterator, Sequence
from typing import NamedTuple

from edge.deploy.kubernetes import rules
from edge.deploy.local import rules as local
from edge.deploy.site import Site
from edge.deploy.task import FARGATE_STOP, sized
from edge.deploy.workload import Workload, is_loopback
from edge.sources.mqtt import MqttSource

LINK_LOSS = {
    "ecs-anywhere": (
        "link away: the processor goes on and buffers; ECS starts and replaces nothing",
        "host reboots while the link is away: nothing starts until it is back; `edge host standby`"
        " fills the gap",
        "task ends: rows are on the disk of the host, the next task there goes on",
    ),
    "ec2": (
        "link away: as on a host of yours, where the instance is far from its region; else rare",
        "instance lost: what was not delivered is lost with its disk",
        "task ends: rows are on the disk of the instance, the next task there goes on",
    ),
    "fargate": (
        "there is no disk that outlives a task: the source is told to forget only what every sink"
        " has settled (acknowledge: delivered)",
        "task ends: rows not delivered come again from the source; what dedupe, deadband and an sqs"
        " source remember starts anew, so a repeat may pass",
        "operators that hold rows back (window, compress) are refused: no source would bring them"
        " again",
        "link away: the source keeps the rows, not the outbox: its queue must hold them",
    ),
    "docker": (
        "link away: the processor goes on and buffers; the engine restarts a container that ends",
        "machine restarts, with or without a link: the engine starts the container again",
        "container ends or is replaced: rows are in its volume, the next one goes on",
    ),
    "kubernetes": (
        "link away: the processor goes on and buffers; the kubelet restarts a container that ends",
        "node reboots while the link is away: the pod starts where the control plane is at the"
        " site; where it is in the cloud nothing starts until the link is back",
        "pod ends: rows are on its claim, or on the disk of its node, the next pod there goes on",
        "node lost: on a claim the next pod waits until the node is back or is declared out of"
        " service; on a node's disk what was not delivered is lost with it",
    ),
}


class Note(NamedTuple):
    """What was done with a field that the target takes otherwise."""

    field: str
    words: str

    def __str__(self) -> str:
        return f"{self.field}: {self.words}"


def notes(workload: Workload) -> Sequence[Note]:
    """Every field that does not reach the target as it is written, or has a price there."""
    site = workload.site
    if site.target == "kubernetes":
        of_cluster = (Note(*each) for each in rules.notes(workload))
        return [*_twice(workload), *of_cluster, *_foreign_notes(site)]
    if site.target == "docker":
        return [
            *_twice(workload),
            *(Note(*each) for each in local.notes(site)),
            *_foreign_notes(site),
        ]
    of_target = _fargate_notes(site) if site.target == "fargate" else _host_notes(site)
    return [*_twice(workload), *of_target, *_foreign_notes(site)]


def _twice(workload: Workload) -> Iterator[Note]:
    """Several processors that subscribe to the same topics each get every message."""
    readers: dict[tuple[object, ...], list[str]] = {}
    for replica, pipelines in workload.pipelines.items():
        for source in [pipeline.source for pipeline in pipelines]:
            if isinstance(source, MqttSource) and not source.share and not is_loopback(source):
                readers.setdefault((source.url, *source.topics), []).append(replica)
    for (url, *_), replicas in readers.items():
        if len(replicas) > 1:
            who = f"{' and '.join(replicas)} each read every message of {url}"
            words = "and count it twice, unless each has another broker there; set `share`"
            yield Note("hosts", f"{who}, {words}")


def _foreign_notes(site: Site) -> Iterator[Note]:
    for name in ("docker", "kubernetes"):
        if name != site.target and name in site.model_fields_set:
            yield Note(name, f"left out: belongs to that target, this is {site.target}")


def _host_notes(site: Site) -> Iterator[Note]:
    if site.secrets:
        yield Note("secrets", "are fetched when a task starts: none starts while the link is away")
    if site.logs.driver == "awslogs":
        yield Note("logs", f"beyond {site.logs.buffer} are lost while the link is away")
    if site.logs.driver == "none":
        yield Note("logs", "are nowhere; `edge deploy logs` will find nothing")
    if site.resources.gpu and site.target == "ecs-anywhere":
        yield Note("resources.gpu", "needs hosts that are registered with --enable-gpu")


def _fargate_notes(site: Site) -> Iterator[Note]:
    cpu, memory = sized(site)
    if (cpu, memory) != (site.resources.cpu, site.resources.memory // 2**20):
        yield Note("resources", f"rounded up to {cpu} units and {memory} MiB, a size that there is")
    if site.stop_timeout.total_seconds() > FARGATE_STOP:
        yield Note("stop_timeout", f"cut to {FARGATE_STOP} s, the longest there")
    if site.hosts.schedule == "daemon":
        yield Note("hosts.schedule", "one task per replica: there are no hosts for daemons")
    yield Note("hosts", "placement on hosts is left out; the subnets say where")
    yield Note("network.mode", "awsvpc, the only one there")
    yield Note("outbox", "on the disk of the task, which is gone with it; EFS is not for outboxes")
    yield Note("environment", "EDGE_ACKNOWLEDGE=delivered is set")
    if site.architecture is None:
        yield Note("architecture", "amd64, as none is named")
