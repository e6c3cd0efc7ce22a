"""Container images of the processor, built by a Docker engine from wheels of any platform."""

import re
import tempfile
from collections.abc import Callable, Sequence
from importlib.resources import files
from pathlib import Path
from shutil import copyfile
from typing import NamedTuple

import edge
from edge.deploy.content import Needs, gather, weigh
from edge.deploy.engine import BaseImage, Engine
from edge.errors import DefinitionError

PLATFORMS = ("linux/amd64", "linux/arm64")
BASE = "python:3.13-slim-bookworm"
OLDEST_PYTHON = (3, 11)

Tell = Callable[[str], None]


class Layer(NamedTuple):
    """size: bytes, unpacked; made_by: the line of the Dockerfile."""

    size: int
    made_by: str


class Built(NamedTuple):
    """An image that an engine has. digest: of its content, `sha256:...`."""

    tag: str
    platform: str
    digest: str
    layers: Sequence[Layer]
    base: int
    """Bytes of the layers that the base image brought."""
    contents: Sequence[tuple[str, int]]
    """What lies on top of it, by package, with bytes; the largest first."""

    @property
    def size(self) -> int:
        """Bytes, unpacked, with the base."""
        return sum(layer.size for layer in self.layers)


class Wanted(NamedTuple):
    """definitions: files and folders that go to /pipelines; python: `3.13`, None: the base says."""

    tag: str
    definitions: Sequence[Path] = ()
    platforms: Sequence[str] = PLATFORMS[:1]
    base: str = BASE
    python: str | None = None
    compat: bool = False
    slim: bool = False
    extra: Sequence[str] = ()
    dockerfile: Path | None = None

    def tag_of(self, platform: str) -> str:
        """The tag itself, or one for each of several platforms."""
        return self.tag if len(self.platforms) == 1 else f"{self.tag}-{platform.rpartition('/')[2]}"


def check(wanted: Wanted) -> None:
    """Refuse what cannot work. Raises DefinitionError with the remedy."""
    if not re.fullmatch(r"[a-z0-9][a-z0-9.:/_-]*:[A-Za-z0-9_][A-Za-z0-9._-]*", wanted.tag):
        raise DefinitionError(
            f"--tag: must be a name in lower case, a colon and a version, got {wanted.tag!r}; "
            f"write edge:{edge.__version__}"
        )
    for platform in wanted.platforms:
        if platform not in PLATFORMS:
            raise DefinitionError(
                f"--platform: must be linux/amd64 or linux/arm64, got {platform!r}; polars has no "
                "wheels for others"
            )
    if missing := [path for path in wanted.definitions if not path.exists()]:
        raise DefinitionError(
            f"{missing[0]}: there is no such file or folder; name definitions, or folders of them"
        )
    if wanted.compat and "linux/amd64" not in wanted.platforms:
        raise DefinitionError(
            "--cpu: compat is for x86-64 processors without AVX2; leave it out for linux/arm64"
        )
    if wanted.slim and not wanted.definitions:
        raise DefinitionError(
            "--slim: leaves out what no definition uses, got none; name the files after the command"
        )


def build(engine: Engine, wanted: Wanted, tell: Tell) -> list[Built]:
    """Build one image for each platform; `tell` gets a line for every step.

    Raises DefinitionError for what cannot work and EdgeError for what the engine says.
    """
    check(wanted)
    return [_build_one(engine, wanted, platform, tell) for platform in wanted.platforms]


def _build_one(engine: Engine, wanted: Wanted, platform: str, tell: Tell) -> Built:
    tell(f"{platform}: base {wanted.base}")
    base = engine.image(wanted.base, platform)
    python = wanted.python or _python_of(engine, base, wanted.base, platform)
    compat = wanted.compat and platform == "linux/amd64"
    with tempfile.TemporaryDirectory(prefix="edge-image-") as made:
        folder = Path(made)
        tell(f"{platform}: packages for Python {python}{', without AVX2' if compat else ''}")
        needs = Needs(platform, python, compat, wanted.slim, wanted.extra)
        if not gather(folder, wanted.definitions, needs):
            tell(f"{platform}: no python{python} here makes bytecode; starts take a second longer")
        copyfile(wanted.dockerfile or _dockerfile(), folder / "Dockerfile")
        tag = wanted.tag_of(platform)
        tell(f"{platform}: build {tag}")
        arguments = {"BASE": wanted.base, "VERSION": edge.__version__, "PYTHON": python}
        built = engine.build(folder, tag, platform, arguments)
        contents = weigh(folder)
    layers = [Layer(each["Size"], _line(each["CreatedBy"])) for each in built.history]
    return Built(tag, platform, built.digest, layers, base.size, contents)


def _python_of(engine: Engine, base: BaseImage, name: str, platform: str) -> str:
    """Version of the base's python3: what its environment says, else what it answers."""
    variables = dict(each.split("=", 1) for each in base.environment)
    answer = variables.get("PYTHON_VERSION") or engine.ask(
        name, platform, ["python3", "-c", "import sys; print('%d.%d' % sys.version_info[:2])"]
    )
    found = re.match(r"(\d+)\.(\d+)", answer or "")
    if not found:
        raise DefinitionError(
            f"--base: {name} does not tell its Python for {platform}; say it with --python 3.13"
        )
    version = int(found[1]), int(found[2])
    if version < OLDEST_PYTHON:
        raise DefinitionError(
            f"--base: must have Python 3.11 or later, got {found[0]} in {name}; take {BASE}"
        )
    return found[0]


def _dockerfile() -> Path:
    """containers/Dockerfile of the folder one stands in, else that of the package."""
    own = Path("containers/Dockerfile")
    return own if own.is_file() else packed("Dockerfile")


def packed(name: str) -> Path:
    """A file of `containers/` as the installed package has it, or the clone it runs from."""
    inside = Path(str(files("edge"))) / "deploy" / name
    return inside if inside.is_file() else Path(edge.__file__).parents[1] / "containers" / name


def _line(made_by: str) -> str:
    line = made_by.removeprefix("/bin/sh -c #(nop) ").strip()
    return re.sub(r"\b(?:dir|file|multi):[0-9a-f]{12,}", "", line)
