"""The sections of a site file: hosts, resources, network, logs, mounts, what one target needs."""

import re
from collections.abc import Mapping
from datetime import timedelta
from typing import Annotated, Any, Literal, NamedTuple

from pydantic import AfterValidator, Field, model_validator
from pydantic_core import core_schema

from edge.component import PositiveDuration, Size, format_duration, parse_duration, parse_size
from edge.pipeline.model import Site as Name
from edge.pipeline.options import Options

Driver = Literal[
    "awslogs", "json-file", "syslog", "fluentd", "none", "journald", "gelf", "splunk", "awsfirelens"
]

# CreateLogGroup takes no other numbers of days.
_RETENTIONS = (1, 3, 5, 7, 14, 30, 60, 90, 120, 150, 180, 365, 400, 545, 731, 1096, 1827, 3653)
_SET_BY_DEPLOY = ("EDGE_SITE", "EDGE_REPLICA", "EDGE_STATE_DIR", "EDGE_ACKNOWLEDGE", "AWS_REGION")


class _Matches(NamedTuple):
    """The check of a text, its words in a message, and its JSON Schema."""

    pattern: str
    wanted: str

    def check(self, text: str) -> str:
        if not re.fullmatch(self.pattern, text):
            raise ValueError(f"must be {self.wanted}, got {text!r}")
        return text

    def __get_pydantic_core_schema__(self, source: Any, handler: Any) -> Any:
        return core_schema.no_info_after_validator_function(self.check, handler(source))

    def __get_pydantic_json_schema__(self, schema: Any, handler: Any) -> dict[str, Any]:
        return {**handler(schema), "pattern": f"^(?:{self.pattern})$"}


Region = Annotated[str, _Matches(r"[a-z]{2}(-[a-z]+)+-\d", "an AWS region such as eu-central-1")]
Cluster = Annotated[str, _Matches(r"[A-Za-z0-9_-]{1,255}", "the name of an ECS cluster")]
Account = Annotated[
    str, _Matches(r"\d{12}", "the 12 digits of an AWS account in quotes such as '111122223333'")
]


def _never_moved(image: str) -> str:
    if image.endswith(":latest"):
        raise ValueError(
            f"must have a tag that is never moved, got {image!r}; a host keeps what it has pulled"
        )
    return image


Image = Annotated[
    str,
    _Matches(
        r"[a-z0-9][a-z0-9.:/_-]*(:[A-Za-z0-9_][A-Za-z0-9._-]*|@sha256:[0-9a-f]{64})",
        "an image with a tag or a digest such as registry.example.com/edge:1.4.2",
    ),
    AfterValidator(_never_moved),
]


def _free(name: str) -> str:
    if name in _SET_BY_DEPLOY:
        raise ValueError(f"{name!r} is set by the deployment; leave it out")
    if name.startswith("AWS_") and any(word in name for word in ("KEY", "TOKEN", "CREDENTIALS")):
        raise ValueError(f"{name!r} is a credential; leave it out, the task has a role of its own")
    return name


Variable = Annotated[
    str,
    _Matches(r"[A-Za-z_][A-Za-z0-9_]*", "a name of letters, digits and _"),
    AfterValidator(_free),
]
Secret = Annotated[
    str,
    _Matches(
        r"arn:[a-z-]+:(secretsmanager:[a-z0-9-]+:\d{12}:secret:|ssm:[a-z0-9-]+:\d{12}:parameter/)\S+",
        "the ARN of a secret or a parameter such as arn:aws:ssm:REGION:ACCOUNT:parameter/mqtt",
    ),
]
Absolute = Annotated[str, _Matches(r"/[^:]*[^:/]", "an absolute path such as /srv/data")]


class Hosts(Options):
    """The machines of a site; each runs one processor, which is its replica."""

    names: tuple[Name, ...] = Field(
        (),
        description="Replica of each host, which is its attribute `replica`; default one, `0`.",
    )
    count: int | None = Field(
        None, ge=1, le=1000, description="Short for the names 0, 1, 2 and so on."
    )
    where: str | None = Field(
        None, description="What else a host must be, as a cluster query: `attribute:rack == a`."
    )
    schedule: Literal["daemon", "replica"] = Field(
        "daemon", description="ECS strategy of the service of each host."
    )

    @model_validator(mode="after")
    def _are_told_apart(self) -> "Hosts":
        if self.names and self.count is not None:
            raise ValueError("must have names or a count, got both; leave out `count`")
        if len(set(self.names)) < len(self.names):
            raise ValueError("two hosts have one name, and would share rows and session")
        return self

    def replicas(self) -> tuple[str, ...]:
        """The replica of every host."""
        return self.names or tuple(map(str, range(self.count or 1)))


def _room_to_run(size: Size) -> Size:
    if size < parse_size("128MiB"):
        raise ValueError(f"must be at least 128MiB, got '{size}'")
    return size


class Resources(Options):
    """What a processor may use of its machine."""

    cpu: int = Field(512, ge=128, le=196_608, description="Units of which a core has 1024.")
    memory: Annotated[Size, AfterValidator(_room_to_run)] = Field(
        Size(parse_size("512MiB")), description="Hard limit, from 128MiB."
    )
    gpu: int = Field(0, ge=0, le=16, description="Whole GPUs.")


class Network(Options):
    """How the container is connected."""

    mode: Literal["bridge", "host", "none", "awsvpc"] | None = Field(
        None, description="Default bridge; awsvpc on fargate."
    )
    subnets: tuple[str, ...] = Field((), description="Subnets of awsvpc.")
    security_groups: tuple[str, ...] = Field((), description="Security groups of awsvpc.")
    public_ip: bool = Field(False, description="A public address in awsvpc, without a NAT gateway.")


def _one_that_is_known(span: timedelta) -> timedelta:
    if span not in [timedelta(days=days) for days in _RETENTIONS]:
        days = ", ".join(f"{days}d" for days in _RETENTIONS)
        raise ValueError(f"must be one of {days}, got '{format_duration(span)}'")
    return span


class Logs(Options):
    """Where the processor's log goes."""

    driver: Driver = Field("awslogs", description="Log driver of the container.")
    group: str | None = Field(None, description="CloudWatch log group; default /edge/<site>.")
    retention: Annotated[PositiveDuration, AfterValidator(_one_that_is_known)] = Field(
        timedelta(days=30), description="How long CloudWatch keeps it: 1d, 3d, 7d, 14d, 30d ..."
    )
    buffer: Size = Field(
        Size(parse_size("4MiB")), description="Kept while CloudWatch cannot be reached; then lost."
    )
    options: Mapping[str, str] = Field({}, description="More options of the driver.")


def _period(span: timedelta) -> timedelta:
    if span % timedelta(minutes=1) or not timedelta(minutes=1) <= span <= timedelta(days=1):
        got = format_duration(span)
        raise ValueError(f"must be whole minutes between 1m and 24h, got '{got}'")
    return span


Period = Annotated[PositiveDuration, AfterValidator(_period)]


class Alarms(Options):
    """Alarms of CloudWatch on the numbers of each processor."""

    notify: tuple[
        Annotated[str, _Matches(r"arn:[a-z-]+:\S+", "an ARN such as that of an SNS topic")], ...
    ] = Field(
        (), description="ARNs that are told, such as an SNS topic; also when it is well again."
    )
    namespace: str = Field("edge", description="Namespace of the metrics.")
    oldest: PositiveDuration = Field(
        parse_duration("15m"), description="How long a row may wait for its delivery."
    )
    link_down: Period = Field(parse_duration("15m"), description="How long a link may be down.")
    no_data: Period | None = Field(
        parse_duration("15m"),
        description="How long no row may be read, or nothing be heard; null: no such alarm.",
    )


class Folder(Options):
    """A folder from outside, in the container."""

    container: Absolute = Field(description="Where the container sees it.")
    read_only: bool = Field(True, description="Whether the container may not write.")


class Mount(Folder):
    """A folder of the host that the container sees."""

    host: Absolute = Field(description="Folder on the host; a share is mounted there.")


class Efs(Folder):
    """A folder of an EFS file system, for datasets; an outbox never lies there."""

    file_system: Annotated[
        str, _Matches(r"fs-[0-9a-f]{8,40}", "an id such as fs-0123456789abcdef0")
    ] = Field(description="Id of the file system.")
    access_point: Annotated[
        str, _Matches(r"fsap-[0-9a-f]{8,40}", "an id such as fsap-0123456789abcdef0")
    ] = Field(description="Id of the access point, which says the folder and the user.")


class Docker(Options):
    """What only the Docker engine of this machine asks."""

    networks: tuple[str, ...] = Field(
        (), description="Networks of the engine to join, instead of its default one."
    )
    credentials_uri: (
        Annotated[
            str, _Matches(r"https?://[^\s/]+(/\S*)?", "a URL such as http://169.254.170.2/v2")
        ]
        | None
    ) = Field(
        None,
        description="Where the container asks for credentials, as it asks the agent of ECS; by"
        " default it gets the keys of whoever deploys.",
    )


class Kubernetes(Options):
    """What only a Kubernetes cluster asks."""

    namespace: Annotated[
        str, _Matches(r"[a-z0-9]([a-z0-9-]{0,61}[a-z0-9])?", "a namespace such as edge")
    ] = Field("edge", description="Namespace, which is there.")
    identity: Literal["irsa", "pod-identity", "secret"] = Field(
        "irsa",
        description="How pods get their AWS role: by the service account, by EKS Pod Identity, or"
        " no role but keys in the Secret `edge-<site>-aws`.",
    )
    oidc_provider: (
        Annotated[
            str,
            _Matches(r"[a-z0-9.-]+(/[A-Za-z0-9._-]+)*", "an issuer without https:// such as a.b/c"),
        ]
        | None
    ) = Field(None, description="Issuer of the cluster, for the trust policy of `irsa`.")
    storage: Size = Field(
        Size(parse_size("10GiB")), description="Size of a claim, where outboxes lie on claims."
    )
    storage_class: str | None = Field(
        None, description="Storage class of claims, of block or local disks; default the cluster's."
    )
    nodes: Mapping[str, str] = Field({}, description="Labels of the nodes that may be used.")
    definitions: Literal["image", "configmap"] = Field(
        "image", description="Where the pods find the pipelines."
    )
    pull_secret: str | None = Field(None, description="Secret to pull the image with.")
