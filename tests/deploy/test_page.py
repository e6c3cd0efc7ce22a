"""From an empty account to a running site, and a host in and out, as the documents say it."""

import re
import shutil
from pathlib import Path

import pytest

from tests.cli.conftest import Edge
from tests.cli.conftest import edge as edge  # a fixture
from tests.cloud import ACCOUNT, REGION
from tests.deploy.aws import Aws
from tests.deploy.ssm import CODE, Machines

PAGE = Path("docs/deploy.md").read_text().partition("\n## The site file\n")[0]
HOSTS = Path("docs/hosts.md").read_text()
NAME = "edge-press-shop-gw-1"


def here(text: str) -> str:
    """With the account and the region of the tests."""
    return text.replace("111122223333", ACCOUNT).replace("eu-central-1", REGION)


def lay_out(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The pipelines and the site file of the page, where commands are given."""
    shutil.copytree("pipelines", folder / "pipelines", ignore=shutil.ignore_patterns("data"))
    (folder / "deploy" / "sites").mkdir(parents=True)
    (written,) = re.findall(r"```yaml\n(.*?)```", PAGE, re.DOTALL)
    (folder / "deploy/sites/press-shop.yaml").write_text(here(written))
    monkeypatch.chdir(folder)


def test_from_an_empty_account_to_a_running_site(
    aws: Aws, edge: Edge, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    said = [
        PAGE.index(words) for words in ("deploy plan", "deploy apply", "image build", "activate")
    ]
    assert said == sorted(said)
    lay_out(tmp_path, monkeypatch)

    assert edge("deploy", "plan", "press-shop").code == 0
    assert aws.writes() == []

    done = edge("deploy", "apply", "press-shop")
    (tag,) = re.findall(r"REGISTRY=(\S+)", PAGE)
    build = f"edge image build --push --tag {here(tag)}/edge:0.1.0"
    assert (done.code, build in done.err) == (1, True)

    aws.push_image("edge", "0.1.0")
    done = edge("deploy", "apply", "press-shop")
    assert done.code == 0
    assert "replica gw-1 on -: no host: run `edge host activate press-shop` for it" in done.err

    Machines()
    assert edge("host", "activate", "press-shop", "--out", "host.sh").code == 0
    assert CODE in Path("host.sh").read_text()
    host = aws.register_host("plants", site="press-shop", replica="gw-1")
    aws.run_task(NAME, container_instance_arn=host.container_instance_arn)
    aws.roll_out(NAME)
    shown = edge("deploy", "status", "press-shop")
    assert "COMPLETED" in shown.out
    assert host.ec2_instance_id in shown.out
    assert edge("deploy", "logs", "press-shop").code == 0


def test_a_host_comes_stands_in_and_goes(
    aws: Aws, edge: Edge, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    lay_out(tmp_path, monkeypatch)
    activate, standby, drain, remove = re.findall(r"^edge (host [^#\n]*)", HOSTS, re.MULTILINE)
    machines = Machines()
    assert edge(*activate.split()).code == 0
    host = aws.register_host("plants", 1, site="press-shop", replica="gw-1")
    machines.known = {host.ec2_instance_id}
    assert edge(*standby.split()).code == 0
    assert edge(*drain.split()).code == 0
    assert edge(*remove.split(), "--yes").code == 0
    assert machines.known == set()
    assert {"host.sh", "standby.sh", "clean.sh"} <= {path.name for path in tmp_path.iterdir()}
