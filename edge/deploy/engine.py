"""The Docker engine of this machine, in the few words that images and tasks need."""

import contextlib
import secrets
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NamedTuple

from edge.errors import DefinitionError, EdgeError


class BaseImage(NamedTuple):
    """size: bytes, unpacked; environment: `NAME=value`."""

    size: int
    environment: Sequence[str]


class BuiltImage(NamedTuple):
    """history: what the engine says of every layer, oldest first."""

    digest: str
    history: Sequence[Mapping[str, Any]]


class Engine:
    """An engine that answers. Raises EdgeError where none does, and for what it refuses."""

    def __init__(self, client: Any) -> None:
        """client: of the docker SDK."""
        self.client = client

    @classmethod
    def connect(cls, timeout: int = 600) -> "Engine":
        """The one that DOCKER_HOST names, else that of this machine."""
        try:
            import docker
        except ImportError as error:
            remedy = "pip install 'PATH-OF-THE-CLONE[deploy]'"
            raise EdgeError(f"docker: the Docker SDK is missing; {remedy}") from error
        try:
            client = docker.from_env(timeout=timeout)
            client.ping()
        except Exception as error:  # urllib3, requests and the SDK each have their own
            raise EdgeError(
                f"docker: no engine answers, {_reason(error)}; start Docker, or set DOCKER_HOST"
            ) from error
        return cls(client)

    def image(self, name: str, platform: str) -> BaseImage:
        """The local image of that platform, else one pulled."""
        from docker.errors import DockerException, ImageNotFound

        try:
            found = self.client.images.get(name)
        except ImageNotFound:
            found = None
        if found is None or _platform(found) != platform:
            try:
                found = self.client.images.pull(name, platform=platform)
            except DockerException as error:
                raise EdgeError(
                    f"docker: {name} for {platform} is not here and cannot be pulled, "
                    f"{_reason(error)}; pull or import it, or name another with --base"
                ) from error
        if _platform(found) != platform:
            raise DefinitionError(
                f"--base: {name} is for {_platform(found)}, must be for {platform}; name another"
            )
        return BaseImage(found.attrs["Size"], found.attrs["Config"].get("Env") or [])

    def pull(self, name: str, platform: str | None = None) -> str:
        """Get an image from its registry; its id."""
        from docker.errors import DockerException

        try:
            return str(self.client.images.pull(name, platform=platform).id)
        except DockerException as error:
            raise EdgeError(
                f"docker: {name} is not here and cannot be pulled, {_reason(error)}; build it with"
                f" `edge image build pipelines --tag {name}`"
            ) from error

    def ask(self, name: str, platform: str, command: Sequence[str]) -> str | None:
        """What a program in the image prints; None if it cannot run here."""
        from docker.errors import DockerException

        try:
            said: bytes = self.client.containers.run(
                name, list(command), entrypoint=[], remove=True, network_disabled=True
            )
        except DockerException:
            return None
        return said.decode(errors="replace").strip()

    def build(
        self, folder: Path, tag: str, platform: str, arguments: Mapping[str, str]
    ) -> BuiltImage:
        """Build the Dockerfile of `folder`, which needs no network."""
        from docker.errors import DockerException

        stage = secrets.token_hex(8)
        try:
            said = self.client.api.build(
                path=str(folder),
                tag=tag,
                platform=platform,
                buildargs={**arguments, "STAGE": stage},
                rm=True,
                forcerm=True,
                network_mode="none",
                decode=True,
            )
            _follow(said)
            found = self.client.images.get(tag)
            history = list(reversed(self.client.api.history(found.id)))
        except DockerException as error:
            raise EdgeError(f"docker: {tag} cannot be built, {_reason(error)}") from error
        finally:
            self._sweep(f"edge.stage={stage}")
        return BuiltImage(found.id, history)

    def _sweep(self, label: str) -> None:
        """Remove the images of stages, each as large as what was copied from it."""
        from docker.errors import DockerException

        with contextlib.suppress(DockerException):
            for image in self.client.images.list(filters={"label": label, "dangling": True}):
                self.client.images.remove(image.id)

    def push(self, tag: str) -> str:
        """Send an image to its registry; `name@sha256:...`."""
        from docker.errors import DockerException

        try:
            _follow(self.client.api.push(tag, stream=True, decode=True))
            digests = self.client.images.get(tag).attrs.get("RepoDigests") or [tag]
        except DockerException as error:
            raise EdgeError(f"docker: {tag} cannot be pushed, {_reason(error)}") from error
        return str(digests[0])


@contextmanager
def told(what: str) -> Iterator[None]:
    """Errors of the engine as EdgeError, with what they are about."""
    from docker.errors import DockerException

    try:
        yield
    except DockerException as error:
        raise EdgeError(f"docker: {what}: {_reason(error)}") from error


def _follow(said: Iterator[Mapping[str, Any]]) -> None:
    for line in said:
        if "error" in line:
            raise EdgeError(f"docker: {str(line['error']).strip()}")


def _platform(image: Any) -> str:
    return f"{image.attrs['Os']}/{image.attrs['Architecture']}"


def _reason(error: Exception) -> str:
    return str(getattr(error, "explanation", None) or error).strip().splitlines()[0]
