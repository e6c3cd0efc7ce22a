"""The pipelines of a site as its processors will read them, and what they ask of AWS."""

import posixpath
from collections.abc import Iterator, Mapping, Sequence
from ipaddress import ip_address
from pathlib import PurePosixPath
from typing import NamedTuple
from urllib.parse import urlsplit

from edge.clock import Clock
from edge.component import Component, Permission
from edge.deploy.site import Site
from edge.errors import DefinitionError, Fault
from edge.operators import Operator
from edge.pipeline import Pipeline, load
from edge.pipeline.binding import Place, kind_of
from edge.pipeline.model import Named
from edge.sinks.cloudwatch import CloudwatchSink
from edge.sinks.file import FileSink
from edge.sources.metrics import NAMED, MetricsSource

DEFINITIONS = PurePosixPath("/pipelines")
"""Where the image has the definitions, each under the name of its file."""
STATE = PurePosixPath("/var/lib/edge")
"""Where the container sees the folder of the outboxes, which belongs to its user 10001."""

_SECRET = "edge-secret-known-to-the-task-only"


class Workload(NamedTuple):
    """What runs at a site: by replica, the pipelines with that processor's environment."""

    site: Site
    pipelines: Mapping[str, Sequence[Pipeline]]

    def command(self) -> list[str]:
        """What follows `edge` in the container."""
        names = [str(DEFINITIONS / path.name) for path in self.site.pipelines]
        return ["run", "--log-format", "json", *names]

    def permissions(self) -> Sequence[Permission]:
        """What all pipelines ask of AWS, each once."""
        found = [
            permission
            for pipelines in self.pipelines.values()
            for pipeline in pipelines
            for part, path in _parts(pipeline)
            for permission in part.permissions(path)
        ]
        return [each for place, each in enumerate(found) if each not in found[:place]]


def environment(site: Site, replica: str) -> dict[str, str]:
    """The variables of one processor, but for its secrets."""
    given = {
        **site.environment,
        "AWS_REGION": site.region,
        "EDGE_REPLICA": replica,
        "EDGE_SITE": site.site,
        "EDGE_STATE_DIR": str(STATE),
    }
    if site.target == "fargate":  # no disk that outlives the task: see guarantees.py
        given["EDGE_ACKNOWLEDGE"] = "delivered"
    return dict(sorted(given.items()))


def load_workload(site: Site) -> Workload:
    """Load every pipeline as each host will, and check that none gets in another's way.

    Raises DefinitionError with every fault; opens nothing but the files.
    """
    faults: list[Fault] = []
    loaded: dict[str, list[Pipeline]] = {}
    secrets = dict.fromkeys(site.secrets, _SECRET)
    for replica in site.hosts.replicas():
        given = {**environment(site, replica), **secrets}
        loaded[replica] = []
        for path in site.pipelines:
            try:
                pipeline = load(site.folder / path, given)
                pipeline.bind(Clock())
            except DefinitionError as error:
                faults += [fault for fault in error.faults if fault not in faults]
            else:
                loaded[replica].append(pipeline)
    workload = Workload(site, loaded)
    faults += [fault for fault in _collisions(workload) if fault not in faults]
    if faults:
        raise DefinitionError(*faults)
    return workload


def _parts(pipeline: Pipeline) -> Iterator[tuple[Component, str]]:
    """Every part, with what the keys of its rows start with."""
    path = f"{pipeline.site}/{pipeline.name}"
    yield pipeline.source, f"{path}/source"
    yield from ((step.operator, path) for step in pipeline.operators)
    for name, branch in pipeline.sinks.items():
        yield from ((step.operator, path) for step in branch.operators)
        yield branch.sink, f"{path}/{name}"


def _collisions(workload: Workload) -> Iterator[Fault]:
    site = workload.site
    files = [path.name for path in site.pipelines]
    for place, name in enumerate(files):
        if name in files[:place]:
            yield site.fault(
                ("pipelines", place), f"has the file name of another, {name!r}; rename one of them"
            )
    for replica, pipelines in workload.pipelines.items():
        names = [pipeline.name for pipeline in pipelines]
        for place, pipeline in enumerate(pipelines):
            if pipeline.name in names[:place]:
                message = f"{pipeline.name!r} is the name of another pipeline of this site; rename"
                yield pipeline.fault(("name",), message)
            yield from _identity_faults(site, replica, pipeline)
            yield from _place_faults(site, pipeline)
            if site.target == "fargate":
                yield from _memory_faults(pipeline)
    if site.alarms and not _are_measured(site.alarms.namespace, workload):
        message = (
            f"look at namespace {site.alarms.namespace!r}, into which no pipeline puts numbers"
        )
        yield site.fault(
            ("alarms",),
            f"{message}; add that of docs/cloudwatch.md, or EDGE_LOG_METRICS: '1' to `environment`",
        )
    for permission in workload.permissions():
        if _SECRET in permission.resource:
            message = "must not name a queue, a bucket or a prefix; put it into `environment`"
            yield site.fault(("secrets",), message)


def _identity_faults(site: Site, replica: str, pipeline: Pipeline) -> Iterator[Fault]:
    if pipeline.site != site.site:
        message = f"must be {site.site!r} here, got {pipeline.site!r}"
        yield pipeline.fault(("site",), f"{message}; write `site: ${{EDGE_SITE:-local}}`")
    if pipeline.replica != replica:
        message = f"must be {replica!r} on that host, got {pipeline.replica!r}: hosts would share"
        remedy = "rows and session; write `replica: ${EDGE_REPLICA:-0}`"
        yield pipeline.fault(("replica",), f"{message} {remedy}")


def _are_measured(namespace: str, workload: Workload) -> bool:
    """Whether the numbers of every processor get to where alarms look for them."""
    logged = workload.site.environment.get("EDGE_LOG_METRICS") == "1"
    if logged and workload.site.logs.driver == "awslogs" and namespace == "edge":
        return True
    return all(
        any(
            isinstance(pipeline.source, MetricsSource)
            and isinstance(branch.sink, CloudwatchSink)
            and branch.sink.namespace == namespace
            and {*(branch.sink.dimensions or pipeline.record.key)} == {*NAMED}
            for pipeline in pipelines
            for branch in pipeline.sinks.values()
        )
        for pipelines in workload.pipelines.values()
    )


def _memory_faults(pipeline: Pipeline) -> Iterator[Fault]:
    """What is lost where the outbox, and with it all memory, is gone with the task."""
    if pipeline.acknowledge != "delivered":
        yield pipeline.fault(
            ("source", "acknowledge"),
            "must be 'delivered' on fargate, whose disk is gone with the task; write"
            " `acknowledge: ${EDGE_ACKNOWLEDGE:-committed}` below `source:`",
        )
    lists: dict[Place, Sequence[Named]] = {("operators",): pipeline.operators}
    for name, branch in pipeline.sinks.items():
        lists["sinks", name, "operators"] = branch.operators
    for place, steps in lists.items():
        for index, step in enumerate(steps):
            if type(step.operator).flush is not Operator.flush:
                kind = kind_of(step.operator)
                yield pipeline.fault(
                    (*place, index, kind),
                    f"{kind!r} holds rows back in memory, which on fargate is gone with the task"
                    " when their source has long forgotten them; use ecs-anywhere or ec2",
                )


def _place_faults(site: Site, pipeline: Pipeline) -> Iterator[Fault]:
    path = pipeline.outbox.path
    if path is not None and not _is_below(str(path), str(STATE)):
        message = f"must lie below {STATE} in the container, got '{path}'; leave it out"
        yield pipeline.fault(("outbox", "path"), message)
    if site.network.mode != "host" and is_loopback(pipeline.source):
        yield pipeline.fault(("source",), _OWN_LOOPBACK)
    for name, branch in pipeline.sinks.items():
        if site.network.mode != "host" and is_loopback(branch.sink):
            yield pipeline.fault(("sinks", name), _OWN_LOOPBACK)
        if isinstance(branch.sink, FileSink) and not _is_writable(site, str(branch.sink.path)):
            yield pipeline.fault(
                ("sinks", name, "file", "path"),
                f"must lie {_writable_places(site)}, got '{branch.sink.path}'",
            )


_OWN_LOOPBACK = (
    "is on localhost, which is the container itself in this network; set `network: {mode: host}`"
    " in the site file, or name the host"
)


def is_loopback(part: Component) -> bool:
    """Whether a part connects to the machine, or container, that it runs in."""
    host = urlsplit(str(getattr(part, "url", ""))).hostname or ""
    try:
        return ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"


def _writable_places(site: Site) -> str:
    mount = "in a mount with `read_only: false`"
    return mount if site.target == "fargate" else f"below {STATE} or {mount}"


def _is_writable(site: Site, path: str) -> bool:
    folders = [folder for section in site.folders().values() for folder in section]
    writable = [folder.container for folder in folders if not folder.read_only]
    if site.target != "fargate":  # there the state is gone with the task
        writable.append(str(STATE))
    return any(_is_below(path, place) for place in writable)


def _is_below(path: str, place: str) -> bool:
    normal = posixpath.normpath(path)
    return normal == place or normal.startswith(f"{place}/")
