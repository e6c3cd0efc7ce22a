"""What `--slim` and `--cpu compat` change in an image."""

import subprocess
import sys
from pathlib import Path

import pytest

from edge.cli.image import _show
from edge.deploy import image
from edge.deploy.content import _AWS_PACKAGES, _UNUSED, _copy_definitions, requirements
from edge.errors import DefinitionError

PLAIN = """\
name: plain
source: {dataset: {path: rows.csv}}
record: {format: csv, key: device, fields: {device: str, value: float}}
operators:
  - deadband: {column: value, change: 1}
sinks:
  out: {file: {path: out, compression: zstd}}
"""
BY_MQTT = '  again: {mqtt: {url: "mqtt://localhost:1", topic: a}}\n'


@pytest.mark.parametrize(
    ("part", "needed"),
    [
        ("file: {path: out}", False),
        ("s3: {bucket: lake}", True),
        ("sqs: {queue: alarms}", True),
        ("cloudwatch: {namespace: plant}", True),
    ],
)
def test_boto3_stays_where_a_definition_names_a_part_that_needs_it(
    tmp_path: Path, part: str, needed: bool
) -> None:
    definition = tmp_path / "plain.yaml"
    definition.write_text(PLAIN.replace("file: {path: out, compression: zstd}", part))
    (tmp_path / "to").mkdir()
    assert _copy_definitions(tmp_path / "to", [definition]) is needed
    assert _copy_definitions(tmp_path / "to", [tmp_path]) is needed


def test_what_uses_no_aws_runs_without_its_packages_and_without_what_nothing_uses(
    tmp_path: Path,
) -> None:
    (tmp_path / "rows.csv").write_text("device,value\na,1\na,1.5\na,3\n")
    (tmp_path / "plain.yaml").write_text(PLAIN)
    (tmp_path / "both.yaml").write_text(PLAIN + BY_MQTT)
    gone = f"import sys; sys.modules.update(dict.fromkeys({(*_AWS_PACKAGES, *_UNUSED)}))"
    program = f"{gone}; from edge.cli import main; main()"
    commands = ["--help", "check both.yaml", "run --once plain.yaml", "status plain.yaml"]
    for words in [*commands, "outbox ledger plain.yaml", "describe window"]:
        command = [sys.executable, "-c", program, *words.split()]
        done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, timeout=300)
        assert done.returncode == 0, done.stderr
    assert len([*tmp_path.glob("out/**/*.zst")]) == 1


def test_an_image_for_processors_without_avx2_has_the_other_runtime_of_polars() -> None:
    (more,) = set(requirements(compat=True)) - set(requirements(compat=False))
    assert more.startswith("polars[rtcompat]")


@pytest.mark.parametrize(
    ("wanted", "words"),
    [
        (image.Wanted("Edge"), "--tag: must be a name in lower case, a colon and a version"),
        (image.Wanted("e:1", platforms=["linux/s390x"]), "--platform: must be linux/amd64 or"),
        (image.Wanted("e:1", slim=True), "--slim: leaves out what no definition uses, got none"),
        (image.Wanted("e:1", definitions=[Path("nope.yaml")]), "nope.yaml: there is no such file"),
    ],
)
def test_what_no_image_can_be_made_of_is_refused_before_an_engine_is_asked(
    wanted: image.Wanted, words: str
) -> None:
    with pytest.raises(DefinitionError, match=f"^{words}"):
        image.check(wanted)


def test_what_was_built_is_told_by_layer_and_by_package(
    capsys: pytest.CaptureFixture[str],
) -> None:
    layers = [
        image.Layer(154_000_000, "debootstrap"),
        image.Layer(0, "USER 10001:10001"),
        image.Layer(230_000_000, "COPY / /"),
    ]
    contents = [("polars", 180_000_000), ("edge", 4_100_000)]
    _show(image.Built("e:1", "linux/amd64", "sha256:1", layers, 154_000_000, contents), "sha256:1")
    assert capsys.readouterr().out.splitlines() == [
        "size      layer",
        "154.0 MB  debootstrap",
        "230.0 MB  COPY / /",
        "size      of",
        "180.0 MB  polars",
        "4.1 MB    edge",
        "154.0 MB  the base image",
        "e:1 linux/amd64: 384.0 MB unpacked, sha256:1",
    ]
