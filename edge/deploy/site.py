"""The site file: where pipelines run, on which machines, and what they may use there."""

import os
from collections.abc import Mapping, Sequence
from datetime import timedelta
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import AfterValidator, Field, PrivateAttr, ValidationError, model_validator

from edge.component import Duration, format_duration, parse_duration
from edge.deploy.foreign import FOREIGN
from edge.deploy.sections import (
    Absolute,
    Account,
    Alarms,
    Cluster,
    Docker,
    Efs,
    Folder,
    Hosts,
    Image,
    Kubernetes,
    Logs,
    Mount,
    Network,
    Region,
    Resources,
    Secret,
    Variable,
)
from edge.errors import DefinitionError, Fault
from edge.pipeline.binding import Place, dotted, line_of
from edge.pipeline.document import Document, parse
from edge.pipeline.model import Site as Name
from edge.pipeline.options import Options
from edge.pipeline.reading import read_text
from edge.pipeline.schema import file_schema
from edge.pipeline.wording import described

Target = Literal["ecs-anywhere", "ec2", "fargate", "docker", "kubernetes"]
Made = Literal["repository", "queues", "buckets"]

FOLDER = Path("deploy/sites")
"""Where a site is looked for by its name."""
SITE_ATTRIBUTE, REPLICA_ATTRIBUTE = "site", "replica"
"""Custom attributes of a container instance: which site it stands at, which replica runs on it."""

# Trees that cleaning up a host deletes, or a reboot.
_NOT_KEPT = ("/var/lib/ecs", "/etc/ecs", "/var/log/ecs", "/var/lib/amazon/ssm", "/tmp", "/run")


def _outside_of_trees(path: str) -> str:
    for tree in _NOT_KEPT:
        if path == tree or path.startswith(f"{tree}/"):
            raise ValueError(f"must not lie in {tree}, which is not kept, got {path!r}")
    return path


def _seconds(span: timedelta) -> timedelta:
    if span < timedelta(seconds=2) or span.microseconds:
        got = format_duration(span)
        raise ValueError(f"must be whole seconds and at least 2s, to commit and leave, got '{got}'")
    return span


class Site(Options):
    """Where pipelines run: one processor for all of them on each host."""

    edge: Literal[1] = Field(1, description="Version of the site file's format.")
    site: Name = Field(description="EDGE_SITE of the pipelines: [a-z0-9-]{1,32}.")
    region: Region = Field(description="AWS region.")
    account: Account | None = Field(None, description="AWS account; any other is refused.")
    cluster: Cluster = Field("edge", description="ECS cluster, made where it is missing.")
    target: Target = Field("ecs-anywhere", description="What runs the container.")
    image: Image = Field(description="Image with a tag that is never moved, or a digest.")
    pipelines: tuple[Path, ...] = Field(min_length=1, description="Definitions, by path.")
    hosts: Hosts = Field(Hosts(), description="The machines.")
    resources: Resources = Field(Resources(), description="What it may use of a machine.")
    architecture: Literal["amd64", "arm64"] | None = Field(
        None, description="Only hosts of this; left out where the image has all."
    )
    environment: dict[Variable, str] = Field({}, description="What `${NAME}` means to pipelines.")
    secrets: dict[Variable, Secret] = Field(
        {}, description="The same by ARN, of Secrets Manager or Parameter Store."
    )
    network: Network = Field(Network(), description="How the container is connected.")
    logs: Logs = Field(Logs(), description="Where the log goes.")
    alarms: Alarms | None = Field(
        None, description="Alarms of CloudWatch; needs a pipeline that puts metrics there."
    )
    outbox: Annotated[Absolute, AfterValidator(_outside_of_trees)] = Field(
        "/var/lib/edge", description="Folder of the host for the outboxes, on a local disk."
    )
    stop_timeout: Annotated[Duration, AfterValidator(_seconds)] = Field(
        parse_duration("60s"), description="From SIGTERM to SIGKILL."
    )
    mounts: tuple[Mount, ...] = Field((), description="Folders of the host, for datasets.")
    efs: tuple[Efs, ...] = Field((), description="EFS folders, for datasets in the cloud.")
    capacity_provider: str | None = Field(
        None, description="Instead of a launch type, in the cloud: FARGATE_SPOT."
    )
    exec: bool = Field(False, description="Allow ECS Exec, a shell in the container.")
    create: tuple[Made, ...] = Field(
        (), description="What is made where it is missing: repository, queues, buckets."
    )
    docker: Docker = Field(Docker(), description="What only target docker asks.")
    kubernetes: Kubernetes = Field(Kubernetes(), description="What only Kubernetes asks.")
    file: str | None = Field(None, description="The file it was read from.", exclude=True)
    _lines: Mapping[Place, int] = PrivateAttr({})

    @model_validator(mode="after")
    def _variables_are_said_once(self) -> "Site":
        twice = [
            Fault(f"environment.{name}", "is among the secrets too; leave one of the two out")
            for name in self.environment
            if name in self.secrets
        ]
        if twice:
            raise DefinitionError(*twice)
        return self

    @property
    def folder(self) -> Path:
        """Where relative paths of the site file start."""
        return Path(self.file).parent if self.file else Path()

    def folders(self) -> Mapping[str, Sequence[Folder]]:
        """Folders from outside, by the section that names them."""
        return {"mounts": self.mounts, "efs": self.efs}

    def log_group(self) -> str:
        """The CloudWatch log group."""
        return self.logs.group or f"/edge/{self.site}"

    def service(self, replica: str) -> str:
        """Name of the ECS service and of the task family of one host."""
        return f"edge-{self.site}-{replica}"

    def constraint(self, replica: str) -> str:
        """What a container instance must be to run `replica`, in ECS cluster query language."""
        terms = [
            f"attribute:{SITE_ATTRIBUTE} == {self.site}",
            f"attribute:{REPLICA_ATTRIBUTE} == {replica}",
        ]
        if self.architecture:
            name = {"amd64": "x86_64", "arm64": "arm64"}[self.architecture]
            terms.append(f"attribute:ecs.cpu-architecture == {name}")
        if self.hosts.where:
            terms.append(f"({self.hosts.where})")
        return " and ".join(terms)

    def fault(self, place: Place, message: str) -> Fault:
        """A fault at `place`, with its line where the site came from a file."""
        return Fault(dotted(place), message, self.file, line_of(place, self._lines))


def load_site(file: Path | str, environment: Mapping[str, str] | None = None) -> Site:
    """The site of a file, or by its name the one of deploy/sites.

    environment: what `${NAME}` means, by default that of the process. Opens nothing but the file.
    Raises DefinitionError with every fault, each with its line.
    """
    path = Path(file)
    if not path.exists() and not path.suffix and path.name == str(file):
        path = FOLDER / f"{file}.yaml"
    return read_site(read_text(path), str(path), os.environ if environment is None else environment)


def read_site(text: str, file: str, environment: Mapping[str, str]) -> Site:
    """As `load_site`, from YAML text; `file` names it in messages and says where paths start."""
    document, faults = parse(file, text, environment, first="site")
    return _Reader(document, faults).site()


def site_schema() -> dict[str, Any]:
    """JSON Schema of a site file, for editors."""
    return file_schema(Site, "edge site", unwritten=["file"])


class _Reader:
    """Makes the site of one document, and notes what is wrong on the way."""

    def __init__(self, document: Document, faults: list[Fault]) -> None:
        self._document = document
        self._faults = faults
        self._unreadable = {fault.path for fault in faults}

    def site(self) -> Site:
        values = dict(self._document.values)
        for name in [name for name in values if name in FOREIGN]:
            del values[name]
            self._note((name,), FOREIGN[name], (name,))
        site = self._make(values)
        if self._faults or site is None:
            raise DefinitionError(*sorted(self._faults, key=lambda fault: fault.line or 0))
        site._lines = self._document.lines
        return site

    def _make(self, values: dict[str, Any]) -> Site | None:
        if "file" in values:
            self._note(("file",), "is this file; leave it out", ("file",))
        try:
            return Site.model_validate(values | {"file": self._document.file})
        except ValidationError as error:
            for place, message, line in described(error, Site, values):
                self._note(place, message, line)
        except DefinitionError as error:
            for fault in error.faults:
                place = tuple(fault.path.split("."))
                self._note(place, fault.message, place)
        return None

    def _note(self, place: Place, message: str, line: Place) -> None:
        if dotted(place) not in self._unreadable or place != line:
            number = line_of(line, self._document.lines)
            self._faults.append(Fault(dotted(place), message, self._document.file, number))
