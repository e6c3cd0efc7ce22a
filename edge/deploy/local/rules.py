"""What of a site file has no meaning on one Docker engine, or another one."""

from collections.abc import Iterator, Mapping
from ipaddress import ip_address
from urllib.parse import urlsplit

from edge.deploy.site import Site

DRIVERS = (
    "awslogs",
    "json-file",
    "syslog",
    "fluentd",
    "journald",
    "gelf",
    "splunk",
    "none",
)
_OF_AWS: Mapping[tuple[str, ...], str] = {
    ("hosts", "where"): "is a query of ECS; leave it out, all containers run on this machine",
    ("capacity_provider",): "is of ECS; leave it out",
    ("efs",): "is not mounted by Docker; mount it and name the folder in `mounts`",
    ("alarms",): "are made for the targets of ECS; make them yourself and leave it out",
    ("create",): "asks for things in AWS, where nothing is made for docker; make them yourself, or"
    " with another target, and leave it out",
    ("network", "subnets"): "belongs to awsvpc; leave it out",
    ("network", "security_groups"): "belongs to awsvpc; leave it out",
    ("network", "public_ip"): "belongs to awsvpc; leave it out",
}
_MODES = {"awsvpc": "is of ECS; use bridge or host", "none": "leads nowhere; use bridge or host"}


def faults(site: Site) -> Iterator[tuple[tuple[str, ...], str]]:
    """What the site asks and an engine cannot do, by its place."""
    for place, words in _OF_AWS.items():
        asked: object = site
        for name in place:
            asked = getattr(asked, name)
        if asked:
            yield place, words
    if site.network.mode in _MODES:
        yield ("network", "mode"), f"{site.network.mode!r} {_MODES[site.network.mode]}"
    if site.docker.networks and site.network.mode == "host":
        yield ("docker", "networks"), "has no meaning with `network: {mode: host}`; leave one out"
    uri = urlsplit(site.docker.credentials_uri or "https:")
    if uri.scheme != "https" and not _is_asked(uri.hostname or ""):
        yield (
            ("docker", "credentials_uri"),
            "must be https, or http on loopback, 169.254.170.2 or 169.254.170.23, which is all that"
            f" AWS clients ask, got {site.docker.credentials_uri!r}",
        )
    if site.logs.driver not in DRIVERS:
        yield (
            ("logs", "driver"),
            f"{site.logs.driver!r} is not of Docker; use one of {', '.join(DRIVERS)}",
        )


def _is_asked(host: str) -> bool:
    """Whether botocore's ContainerMetadataFetcher asks this host over http."""
    try:
        address = ip_address(host)
    except ValueError:
        return host == "localhost"
    return address.is_loopback or host in ("169.254.170.2", "169.254.170.23", "fd00:ec2::23")


def notes(site: Site) -> Iterator[tuple[str, str]]:
    """Every field that does not reach the engine as it is written, with what became of it."""
    yield "hosts", "all on this machine, a container each"
    if "schedule" in site.hosts.model_fields_set:
        yield "hosts.schedule", "left out: there is one machine"
    for name in ("account", "cluster"):
        if name in site.model_fields_set:
            yield name, "left out: ECS is not asked"
    yield "resources.cpu", "a share and no limit, as ECS has it"
    if site.logs.driver == "awslogs":
        given = sorted(site.logs.model_fields_set - {"driver"})
        left = f"; {', '.join(given)} left out" if given else ""
        yield "logs", f"kept by the engine, 5 files of 10 MiB each, not in CloudWatch{left}"
    if site.logs.driver == "none":
        yield "logs", "are nowhere; `edge deploy logs` will find nothing"
    if "outbox" in site.model_fields_set:
        yield "outbox", f"folders of this machine, {site.outbox}/<replica>"
    else:
        yield "outbox", f"volumes of the engine, {site.service('<replica>')}"
    if site.secrets:
        names = ", ".join(site.secrets)
        yield "secrets", f"{names} as this shell has them: not fetched by ARN"
    if site.docker.credentials_uri:
        yield "docker.credentials_uri", "asked for credentials as the agent of ECS is"
    else:
        yield (
            "docker.credentials_uri",
            "none: the keys of whoever deploys, as they are now, and not a role of least privilege",
        )
    if site.network.mode != "host" and not site.docker.networks:
        yield "network.mode", "bridge; this machine is host.docker.internal there"
    if site.exec:
        yield "exec", f"`docker exec -it {site.service('<replica>')} python3`, allowed anyway"
