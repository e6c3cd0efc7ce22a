"""The container of one processor: its settings, and how the engine is asked for it."""

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

from edge.deploy.site import Site
from edge.deploy.workload import STATE, Workload, environment

Settings = Mapping[str, Any]

PAGE = 8080
"""Where a processor tells of itself inside its container, unless the site says otherwise."""
_WATCHED = {"EDGE_HTTP": f"0.0.0.0:{PAGE}", "EDGE_HTTP_TOKEN_FILE": f"{STATE}/http-token"}
_ROTATED = {"max-size": "10m", "max-file": "5"}


class Given(NamedTuple):
    """What the site file does not hold: values of its secrets, and AWS keys, by variable."""

    secrets: Mapping[str, str]
    keys: Mapping[str, str]

    def known_to(self, environment: Sequence[str]) -> bool:
        """Whether a container has all of it; environment: its `NAME=value`."""
        return {f"{name}={value}" for name, value in {**self.secrets, **self.keys}.items()} <= {
            *environment
        }


def settings(workload: Workload, replica: str, given: Given, image: str) -> Settings:
    """What the container is made of, without a secret, as it is compared; image: its id."""
    site = workload.site
    made: dict[str, Any] = {
        "image": site.image,
        "image_id": image,
        "command": workload.command(),
        "environment": (_WATCHED if _published(site) else {}) | environment(site, replica),
        "published": [PAGE] if _published(site) else [],
        "secrets": sorted({**given.secrets, **given.keys}),
        "cpu_shares": site.resources.cpu,
        "memory": int(site.resources.memory),
        "gpu": site.resources.gpu,
        "network": site.network.mode or "bridge",
        "networks": list(site.docker.networks),
        "log": _log(site),
        "folders": _folders(site, replica),
        "stop_timeout": int(site.stop_timeout.total_seconds()),
        "platform": site.architecture and f"linux/{site.architecture}",
    }
    if site.docker.credentials_uri:
        uri = {"AWS_CONTAINER_CREDENTIALS_FULL_URI": site.docker.credentials_uri}
        made["environment"] = made["environment"] | uri
    return {name: value for name, value in made.items() if value not in (None, 0, [], {})}


def creation(api: Any, made: Settings, given: Given) -> Mapping[str, Any]:
    """What `create_container` of the SDK's low-level client is given, names and labels aside.

    As the agent of ECS runs it: read-only root, no capability, an init, its own health check.
    """
    alone = made["network"] == "host" or not made.get("networks")
    network = made["network"] if alone else made["networks"][0]
    gpus = (
        [{"Driver": "", "Count": made["gpu"], "Capabilities": [["gpu"]]}] if "gpu" in made else []
    )
    host = api.create_host_config(
        binds=made["folders"],
        network_mode=network,
        # A name for this machine; networks of one's own have names for what is in them.
        extra_hosts={"host.docker.internal": "host-gateway"} if network == "bridge" else None,
        init=True,
        read_only=True,
        cap_drop=["ALL"],
        security_opt=["no-new-privileges"],
        restart_policy={"Name": "unless-stopped"},
        # On this machine alone, at a port that is free.
        port_bindings=dict.fromkeys(made.get("published", []), ("127.0.0.1", None)),
        log_config={"Type": made["log"]["driver"], "Config": made["log"]["options"]},
        mem_limit=made["memory"],
        cpu_shares=made["cpu_shares"],
        device_requests=gpus or None,
    )
    return {
        "image": made["image"],
        "command": made["command"],
        "environment": {**made["environment"], **given.secrets, **given.keys},
        "host_config": host,
        "ports": made.get("published"),
        "stop_timeout": made["stop_timeout"],
        "platform": made.get("platform"),
    }


def outbox_of(site: Site, replica: str) -> str:
    """A folder of this machine where the site file names one, else the name of a volume."""
    if "outbox" in site.model_fields_set:
        return f"{site.outbox}/{replica}"
    return site.service(replica)


def _published(site: Site) -> bool:
    """Whether the page is published: a site that says where to listen has its own reasons."""
    return site.network.mode != "host" and "EDGE_HTTP" not in site.environment


def _log(site: Site) -> Settings:
    driver = "json-file" if site.logs.driver == "awslogs" else site.logs.driver
    options = {} if site.logs.driver == "awslogs" else site.logs.options
    bound = _ROTATED if driver == "json-file" else {}
    return {"driver": driver, "options": {**bound, **options}}


def _folders(site: Site, replica: str) -> Settings:
    found = {outbox_of(site, replica): {"bind": str(STATE), "mode": "rw"}}
    for mount in site.mounts:
        found[mount.host] = {"bind": mount.container, "mode": "ro" if mount.read_only else "rw"}
    return found
