"""What goes into an image: the package, what it needs on the image's platform, definitions."""

import importlib.metadata
import re
import shutil
import subprocess
import sys
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

import edge
from edge.aws import AwsService
from edge.errors import DefinitionError
from edge.pipeline.document import parse
from edge.pipeline.parts import KINDS
from edge.pipeline.reading import is_test_file, read_text

UID = 10001
"""User and group of the processor in the image, and of its outbox on the host."""

_WHEELS = {"linux/amd64": "x86_64", "linux/arm64": "aarch64"}
_GLIBC = ("manylinux_2_28", "manylinux_2_17", "manylinux2014")  # Debian 10 and later have 2.28
_AWS_PACKAGES = ("boto3", "botocore", "s3transfer", "jmespath", "dateutil", "urllib3")
_SIGNING_IN = {"sts", "sso", "sso-oidc"}
_UNUSED = ("bin", "pygments")  # rich colours code with it, which no command prints
_NEWS = 2**20  # bytes below which nobody asks for a package's size
_DEFINITIONS = ("*.yaml", "*.yml")


class Needs(NamedTuple):
    """What the content depends on.

    platform: `linux/amd64` or `linux/arm64`; python: `3.13`; compat: polars for processors without
    AVX2; slim: without what no definition uses; extra: further requirements, as pip has them.
    """

    platform: str
    python: str
    compat: bool = False
    slim: bool = False
    extra: Sequence[str] = ()


def gather(folder: Path, definitions: Sequence[Path], needs: Needs) -> bool:
    """Lay out `app`, `pipelines` and `state` in `folder` for the Dockerfile.

    False if nothing here could make bytecode for that Python, so that every start does it anew.
    Raises DefinitionError if a definition cannot be read or pip finds no wheel.
    """
    for name in ("app", "pipelines", "state"):
        (folder / name).mkdir()
    with_aws = _copy_definitions(folder / "pipelines", definitions) or not needs.slim
    _install(folder / "app", needs)
    _copy_package(folder / "app")
    _prune(folder / "app", with_aws)
    return _compile(folder / "app", needs.python)


def weigh(folder: Path) -> list[tuple[str, int]]:
    """Bytes of every package and of the definitions, the largest first, small ones together."""
    sizes = {"definitions": _bytes_below(folder / "pipelines")}
    for path in (folder / "app").iterdir():
        name = path.name.partition(".")[0] if path.suffix in (".so", ".py") else path.name
        sizes[name] = sizes.get(name, 0) + _bytes_below(path)
    largest = {name: size for name, size in sizes.items() if size >= _NEWS}
    largest["all others"] = sum(sizes.values()) - sum(largest.values())
    return sorted(largest.items(), key=lambda each: -each[1])


def _bytes_below(path: Path) -> int:
    found = path.rglob("*") if path.is_dir() else [path]
    return sum(each.stat().st_size for each in found if each.is_file())


def _copy_definitions(target: Path, given: Sequence[Path]) -> bool:
    """True if one of them has a part that needs boto3."""
    uses_aws = False
    for path in given:
        if path.is_dir():
            shutil.copytree(path, target, dirs_exist_ok=True, ignore=_ignored)
            found = [file for pattern in _DEFINITIONS for file in sorted(path.glob(pattern))]
            files = [file for file in found if not is_test_file(file)]
        else:
            files = [path]
        for file in files:
            uses_aws |= file.suffix == ".py" or not aws_parts().keys().isdisjoint(_parts(file))
            shutil.copyfile(file, target / file.name)
    return uses_aws


def aws_parts() -> dict[str, str]:
    """The parts that need boto3, by name, each with boto3's name of the service it talks to."""
    found = {name: kind.find(name) for kind in KINDS for name in kind.table}
    return {name: part.service for name, part in found.items() if issubclass(part, AwsService)}


def _parts(file: Path) -> Iterator[str]:
    """Names of the parts of one definition, whatever its variables will mean."""
    document, faults = parse(str(file), read_text(file), _Anything())
    if faults:
        raise DefinitionError(*faults)
    yield from _keys(document.values)


def _keys(value: object) -> Iterator[str]:
    if isinstance(value, Mapping):
        for key, inner in value.items():
            yield str(key)
            yield from _keys(inner)
    elif isinstance(value, list | tuple):
        for inner in value:
            yield from _keys(inner)


class _Anything(dict[str, str]):
    """Every variable is set, to something that nothing depends on."""

    def __contains__(self, key: object) -> bool:
        return True

    def __missing__(self, key: str) -> str:
        return "1"

    def get(self, key: str, default: str | None = None) -> str:  # type: ignore[override]
        return "1"


def _install(target: Path, needs: Needs) -> None:
    """Wheels of the image's platform, whatever this one is; nothing is compiled."""
    machine = _WHEELS[needs.platform]
    command = [sys.executable, "-m", "pip", "install", "--quiet", "--disable-pip-version-check"]
    command += ["--target", str(target), "--only-binary", ":all:", "--no-compile"]
    command += ["--implementation", "cp", "--python-version", needs.python]
    for glibc in _GLIBC:
        command += ["--platform", f"{glibc}_{machine}"]
    done = subprocess.run(
        [*command, *requirements(needs.compat), *needs.extra], capture_output=True
    )
    if done.returncode:
        lines = done.stderr.decode(errors="replace").splitlines()
        said = [line for line in lines if line.startswith("ERROR")] or lines[-1:]
        raise DefinitionError(
            f"image: pip cannot install for {needs.platform} and Python {needs.python}: "
            f"{said[0] if said else 'no reason given'}; every package needs a wheel for it"
        )


def requirements(compat: bool) -> list[str]:
    """What the installed package requires, and HTTP; with `compat` polars' other runtime."""
    found = importlib.metadata.requires("edge") or []
    plain = [each for each in found if "extra ==" not in each]
    extras = re.compile(f"extra == ['\"](http{'|compat' if compat else ''})['\"]")
    return plain + [each.partition(";")[0].strip() for each in found if extras.search(each)]


def _copy_package(target: Path) -> None:
    source = Path(edge.__file__).parent
    shutil.copytree(source, target / "edge", ignore=_ignored)
    shutil.rmtree(target / "edge" / "demo")  # plays with a broker and a cloud of its own


def _prune(app: Path, with_aws: bool) -> None:
    """Take out what no processor uses."""
    if (app / "_polars_runtime_compat").exists():
        shutil.rmtree(app / "_polars_runtime_32", ignore_errors=True)
    for name in _UNUSED:
        shutil.rmtree(app / name, ignore_errors=True)
    for tests in [*app.glob("*/tests"), *app.glob("*/*/tests")]:
        shutil.rmtree(tests)
    if not with_aws:
        for name in _AWS_PACKAGES:
            shutil.rmtree(app / name, ignore_errors=True)
        return
    kept = _SIGNING_IN.union(aws_parts().values())  # of 400 that botocore describes, in 30 MB
    for service in (app / "botocore" / "data").iterdir():
        if service.is_dir() and service.name not in kept:
            shutil.rmtree(service)


def _compile(app: Path, version: str) -> bool:
    """Bytecode, which a read-only image cannot keep later; the same for every processor."""
    here = "{}.{}".format(*sys.version_info)
    python = sys.executable if version == here else shutil.which(f"python{version}")
    if python is None:
        return False
    command = [python, "-m", "compileall", "-q", "--invalidation-mode", "unchecked-hash", str(app)]
    subprocess.run(command, capture_output=True, check=False)  # some files are for later versions
    return True


def _ignored(folder: str, names: list[str]) -> set[str]:
    return {
        name
        for name in names
        if name == "__pycache__" or name.startswith(".") or is_test_file(Path(name))
    }
