"""A project of the user's own: definitions, containers, sites and tests, ready to run."""

import json
import os
import re
import tempfile
from collections.abc import Iterator, Mapping
from importlib.resources import files
from importlib.resources.abc import Traversable
from pathlib import Path
from shutil import rmtree
from typing import Literal, NamedTuple

import edge
from edge.deploy.image import packed
from edge.deploy.site import site_schema
from edge.errors import DefinitionError
from edge.pipeline.schema import definition_schema, tests_schema

Origin = Literal["mqtt", "dataset", "sqs"]

_TEMPLATES = ("any",)  # what every project has; the rest is in a folder of the origin's name
_DOTTED = ("gitignore",)


class Kind(NamedTuple):
    """What differs between projects beside their files. run: the first command to try."""

    what: str
    run: str
    needs: str | None = None


KINDS: Mapping[Origin, Kind] = {
    "mqtt": Kind(
        "From topics of an MQTT broker to files, or to S3 and SQS.",
        "edge run pipelines/{name}.yaml",
        "a broker on localhost:1883, or BROKER=mqtt://HOST:1883",
    ),
    "dataset": Kind(
        "From files to files, or to S3 and SQS. `pipelines/data/readings.csv` is made up.",
        "edge run --once pipelines/{name}.yaml",
    ),
    "sqs": Kind(
        "From an SQS queue to files, or to S3.",
        "edge run pipelines/{name}.yaml",
        "the queue {name}, or QUEUE=NAME, with a region and credentials as boto3 finds them",
    ),
}


def create(folder: Path, origin: Origin) -> list[Path]:
    """Make a project in `folder`, named as its last part; the paths of its files below it.

    It appears whole, or not at all. Raises DefinitionError where the name cannot be one, or where
    something is there already.
    """
    name = folder.resolve().name
    _check(folder, name)
    folder.parent.mkdir(parents=True, exist_ok=True)
    made = Path(tempfile.mkdtemp(prefix=f".{name}-", dir=folder.parent))
    try:
        for path, text in _texts(name, origin):
            target = made / path
            target.parent.mkdir(parents=True, exist_ok=True)
            target.write_text(text)
        made.chmod(0o777 & ~_umask())
        made.rename(folder)  # also over a folder that is empty
    except BaseException:
        rmtree(made, ignore_errors=True)
        raise
    return sorted(path.relative_to(folder) for path in folder.rglob("*") if path.is_file())


def _check(folder: Path, name: str) -> None:
    if not re.fullmatch(r"[a-z0-9][a-z0-9-]{0,62}", name):
        raise DefinitionError(
            f"{folder}: must end in 1 to 63 characters of a-z, 0-9 and -, which name the pipeline "
            f"and its image, got {name!r}"
        )
    if folder.exists() and not folder.is_dir():
        raise DefinitionError(f"{folder}: is there already, a file; choose another name")
    if folder.exists() and any(folder.iterdir()):
        raise DefinitionError(f"{folder}: is there already and not empty; choose another name")


def _umask() -> int:
    """There is no other way to ask than to set it."""
    now = os.umask(0o022)
    os.umask(now)
    return now


def _texts(name: str, origin: Origin) -> Iterator[tuple[str, str]]:
    """Every file of a project: its path and its text."""
    kind = KINDS[origin]
    words = {
        "name": name,
        "version": edge.__version__,
        "what": kind.what,
        "run": kind.run.format(name=name),
    }
    root = files("edge") / "project" / "template"
    for template in (*_TEMPLATES, origin):
        for path, file in _below(root / template):
            yield _filled(path, words), _filled(file.read_text("utf-8"), words)
    yield "containers/Dockerfile", packed("Dockerfile").read_text()
    if origin == "mqtt":
        yield "containers/mosquitto.conf", packed("mosquitto.conf").read_text()
    schemas = {"pipeline": definition_schema(), "tests": tests_schema(), "site": site_schema()}
    for path, schema in schemas.items():
        yield f"schemas/{path}.json", json.dumps(schema, indent=2, ensure_ascii=False) + "\n"


def _below(folder: Traversable, before: str = "") -> Iterator[tuple[str, Traversable]]:
    for entry in sorted(folder.iterdir(), key=lambda entry: entry.name):
        name = f".{entry.name}" if entry.name in _DOTTED else entry.name
        if entry.is_dir():
            yield from _below(entry, f"{before}{name}/")
        else:
            yield f"{before}{name}", entry


def _filled(text: str, words: Mapping[str, str]) -> str:
    for word, meaning in words.items():
        text = text.replace(f"@{word}@", meaning)
    return text
