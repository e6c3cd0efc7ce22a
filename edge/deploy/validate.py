"""What a target cannot do, refused before any call, with what to do instead."""

from collections.abc import Iterator, Mapping

from edge.deploy.kubernetes import rules
from edge.deploy.local import rules as local
from edge.deploy.site import Site
from edge.errors import DefinitionError, Fault

# What the agent of an external host offers unless its configuration says otherwise, and Fargate.
_DRIVERS: Mapping[str, tuple[str, ...]] = {
    "ecs-anywhere": ("awslogs", "json-file", "syslog", "fluentd", "none"),
    "ec2": ("awslogs", "json-file", "syslog", "fluentd", "none", "journald", "gelf", "splunk"),
    "fargate": ("awslogs", "splunk"),
}
FARGATE_MEMORY: Mapping[int, range] = {
    256: range(512, 2049, 512),
    512: range(1024, 4097, 1024),
    1024: range(2048, 8193, 1024),
    2048: range(4096, 16385, 1024),
    4096: range(8192, 30721, 1024),
    8192: range(16384, 61441, 4096),
    16384: range(32768, 122881, 8192),
}
"""MiB that each number of CPU units may have."""


def check_target(site: Site) -> None:
    """Raise DefinitionError with everything that the site asks and its target cannot do."""
    if faults := list(_faults(site)):
        raise DefinitionError(*faults)


def fargate_size(cpu: int, mebibytes: int) -> tuple[int, int] | None:
    """The smallest size that has both; None if there is none."""
    for units, memory in FARGATE_MEMORY.items():
        if units >= cpu and (enough := [size for size in memory if size >= mebibytes]):
            return units, enough[0]
    return None


def _faults(site: Site) -> Iterator[Fault]:
    yield from _taken(site)
    if site.target == "docker":
        yield from (site.fault(place, words) for place, words in local.faults(site))
        return
    if site.target == "kubernetes":
        yield from rules.faults(site)
        return
    yield from _network(site)
    yield from _logs(site)
    yield from _folders(site)
    yield from _scheduling(site)
    if "repository" in site.create and ".dkr.ecr." not in site.image:
        message = "has a repository that is not made here: the image is not in ECR; leave it out"
        yield site.fault(("create", site.create.index("repository")), message)
    for name, arn in site.secrets.items():
        if arn.split(":")[3] != site.region and arn.split(":")[2] == "ssm":
            message = f"must be a parameter of {site.region}, got {arn!r}; copy it there"
            yield site.fault(("secrets", name), message)


def _network(site: Site) -> Iterator[Fault]:
    mode, network = site.network.mode, site.network
    if mode == "none":
        message = "'none' leads neither to a broker nor to AWS; use bridge or host"
        yield site.fault(("network", "mode"), message)
    if site.target == "ecs-anywhere" and mode == "awsvpc":
        message = "'awsvpc' needs network interfaces of EC2, which no external host has; use bridge"
        yield site.fault(("network", "mode"), f"{message} or host")
    if site.target == "fargate" and mode in ("bridge", "host"):
        yield site.fault(("network", "mode"), f"{mode!r} is not on fargate; leave it out")
    in_vpc = site.target == "fargate" or (site.target == "ec2" and mode == "awsvpc")
    if in_vpc and not network.subnets:
        message = "is missing; add the subnets that lead to broker and AWS"
        yield site.fault(("network", "subnets"), message)
    for name in ("subnets", "security_groups", "public_ip"):
        if getattr(network, name) and not in_vpc:
            message = "belongs to awsvpc, which this site does not use; leave it out"
            yield site.fault(("network", name), message)
    if site.target == "ec2" and in_vpc and network.public_ip:
        message = "is only on fargate; route the subnet through a NAT gateway"
        yield site.fault(("network", "public_ip"), message)


def _logs(site: Site) -> Iterator[Fault]:
    known = _DRIVERS[site.target]
    if site.logs.driver not in known:
        message = f"{site.logs.driver!r} is not on {site.target}; use one of {', '.join(known)}"
        yield site.fault(("logs", "driver"), message)
    if site.logs.group and site.logs.driver != "awslogs":
        message = "is only of awslogs; leave it out, or use `driver: awslogs`"
        yield site.fault(("logs", "group"), message)


def _folders(site: Site) -> Iterator[Fault]:
    if site.target == "ecs-anywhere" and site.efs:
        message = "is not on external hosts; mount it there and name the folder in `mounts`"
        yield site.fault(("efs",), message)
    if site.target == "fargate" and site.mounts:
        yield site.fault(("mounts",), "need a host, which fargate has not; name an `efs`")
    if site.target == "fargate" and "outbox" in site.model_fields_set:
        message = "is a folder of a host, which fargate has not; leave it out: rows are kept by the"
        yield site.fault(("outbox",), f"{message} source until they are delivered")


def _taken(site: Site) -> Iterator[Fault]:
    taken = ["/var/lib/edge", "/pipelines", "/app", "/dev/shm"]
    for section, given in site.folders().items():
        for place, mount in enumerate(given):
            if mount.container in taken:
                message = f"{mount.container!r} is taken; choose another place"
                yield site.fault((section, place, "container"), message)
            taken.append(mount.container)


def _scheduling(site: Site) -> Iterator[Fault]:
    if site.target == "ecs-anywhere" and site.capacity_provider:
        message = "is not for external hosts; leave it out, the launch type is EXTERNAL"
        yield site.fault(("capacity_provider",), message)
    if site.target == "ec2" and site.capacity_provider and site.hosts.schedule == "daemon":
        message = "cannot have a capacity provider with 'daemon'; use 'replica'"
        yield site.fault(("hosts", "schedule"), message)
    if site.target != "fargate":
        return
    if site.resources.gpu:
        yield site.fault(("resources", "gpu"), "is not on fargate; use ec2 or ecs-anywhere")
    if site.hosts.where:
        message = "places on hosts, which fargate has not; choose subnets instead"
        yield site.fault(("hosts", "where"), message)
    if fargate_size(site.resources.cpu, site.resources.memory // 2**20) is None:
        message = "is more than the largest size of fargate, 16384 units with 120GiB; use ec2"
        yield site.fault(("resources",), message)
