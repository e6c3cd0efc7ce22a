"""`edge host`: machines become hosts and leave again, in an order that leaves no unseen writer."""

import json
import os
import re
import shutil
import stat
import subprocess
from collections.abc import Mapping
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from edge.deploy import activation, hosts
from edge.deploy.activation import Activation, Wanted
from edge.deploy.roles import Home
from edge.deploy.script import packed
from edge.deploy.site import load_site
from edge.deploy.task import task_definition
from edge.deploy.workload import load_workload
from edge.errors import DefinitionError, DeployFailed
from tests.cli.conftest import Edge
from tests.cli.conftest import edge as edge  # a fixture
from tests.deploy.aws import Aws
from tests.deploy.policy import asked, granted
from tests.deploy.sites import make, write
from tests.deploy.ssm import CODE, SEEN, Machines

TWO = {"names: [gw-1]": "names: [gw-1, gw-2]"}
MACHINE = f"mi-{1:017x}"


@pytest.fixture
def machines(aws: Aws) -> Machines:
    return Machines()


def test_an_activation_makes_what_is_missing_and_is_good_for_the_hosts_of_the_site(
    aws: Aws, machines: Machines, tmp_path: Path
) -> None:
    said: list[str] = []
    account = aws.account(make(tmp_path, TWO))
    activation.activate(account, Wanted(("gw-1", "gw-2")), said.append)

    (role,) = aws.of("CreateRole")
    assert role["RoleName"] == "ecsAnywhereRole"
    (statement,) = json.loads(role["AssumeRolePolicyDocument"])["Statement"]
    assert statement["Principal"] == {"Service": "ssm.amazonaws.com"}
    assert statement["Condition"] == {"StringEquals": {"aws:SourceAccount": "123456789012"}}
    assert [each["PolicyArn"] for each in aws.of("AttachRolePolicy")] == [
        "arn:aws:iam::aws:policy/AmazonSSMManagedInstanceCore",
        "arn:aws:iam::aws:policy/service-role/AmazonEC2ContainerServiceforEC2Role",
    ]
    assert aws.of("CreateCluster") == [{"clusterName": "plants"}]
    (made,) = aws.of("CreateActivation")
    until = datetime.fromisoformat(made["ExpirationDate"]) - datetime.now(UTC)
    assert timedelta(hours=23) < until <= timedelta(hours=24)
    assert {name: made[name] for name in made if name != "ExpirationDate"} == {
        "Description": "edge hosts of site osaka",
        "DefaultInstanceName": "edge-osaka",
        "IamRole": "ecsAnywhereRole",
        "RegistrationLimit": 2,
        "Tags": [{"Key": "edge:site", "Value": "osaka"}],
    }
    assert CODE not in " ".join(said)

    aws.forget()
    activation.activate(account, Wanted(("gw-1",)), said.append)
    assert [str(call) for call in aws.writes()] == ["ssm:CreateActivation"]


def test_cut_off_anywhere_an_activation_goes_on_when_it_is_run_again(
    aws: Aws, machines: Machines, tmp_path: Path
) -> None:
    from tests.deploy.aws import CutOff

    account = aws.account(make(tmp_path))
    for writes in (1, 1, 1):
        aws.cut_after(writes)
        with pytest.raises(CutOff):
            activation.activate(account, Wanted(("gw-1",)), str)
    activation.activate(account, Wanted(("gw-1",)), str)
    assert len(aws.of("CreateRole")) == 1
    assert len({each["PolicyArn"] for each in aws.of("AttachRolePolicy")}) == 2


def test_a_role_of_others_is_used_as_it_is_and_refused_where_ssm_may_not_assume_it(
    aws: Aws, machines: Machines, tmp_path: Path
) -> None:
    account, iam = aws.account(make(tmp_path)), aws.cloud.client("iam")
    for name, service in (("theirs", "ssm"), ("other", "ec2")):
        statement = {"Effect": "Allow", "Principal": {"Service": f"{service}.amazonaws.com"}}
        policy = {"Version": "2012-10-17", "Statement": [statement | {"Action": "sts:AssumeRole"}]}
        iam.create_role(RoleName=name, AssumeRolePolicyDocument=json.dumps(policy))
    activation.activate(account, Wanted(("gw-1",), role="theirs"), str)
    assert not aws.of("AttachRolePolicy")
    with pytest.raises(DeployFailed, match=r"role other: does not trust ssm.amazonaws.com"):
        activation.activate(account, Wanted(("gw-1",), role="other"), str)


def test_a_role_that_is_not_known_everywhere_yet_is_waited_for_and_not_for_ever(
    aws: Aws, machines: Machines, tmp_path: Path
) -> None:
    machines.unknown_role = 3
    account = aws.account(make(tmp_path))
    activation.activate(account, Wanted(("gw-1",)), str)
    assert len(aws.of("CreateActivation")) == 4

    machines.unknown_role = 1000
    for role, waited in (("another", 30), ("another", 0)):  # just made, and there already
        before = account.clock.steady()
        with pytest.raises(DeployFailed, match="Nonexistent role"):
            activation.activate(account, Wanted(("gw-1",), role=role), str)
        assert account.clock.steady() - before == waited


def test_the_code_is_in_the_script_and_nowhere_else(
    aws: Aws, machines: Machines, edge: Edge, tmp_path: Path
) -> None:
    file = write(tmp_path)
    done = edge("host", "activate", file)
    assert done.code == 0
    assert CODE in done.out
    assert CODE not in done.err
    assert CODE not in repr(Activation("id", CODE))

    out = tmp_path / "host.sh"
    assert edge("host", "activate", file, "--out", out).code == 0
    assert stat.S_IMODE(out.stat().st_mode) == 0o600
    assert CODE in out.read_text()
    aws.forget()
    again = edge("host", "activate", file, "--out", out)
    assert (again.code, aws.calls) == (2, [])
    assert "is there already; name a new file" in again.err


def test_a_host_that_the_site_has_not_is_refused_before_any_call(
    aws: Aws, edge: Edge, tmp_path: Path
) -> None:
    file = write(tmp_path)
    for words in (["--replica", "gw-9"], ["--expires", "31d"], ["--expires", "soon"]):
        done = edge("host", "activate", file, *words)
        assert (done.code, done.err.count("\n")) == (2, 1)
    assert not aws.calls


def test_the_hosts_of_a_site_are_listed_with_agent_and_when_it_was_seen(
    aws: Aws, machines: Machines, edge: Edge, tmp_path: Path
) -> None:
    away = aws.register_host("plants", 1, site="osaka", replica="gw-1", rack="a")
    away.agentConnected = False
    aws.register_host("plants", 2, site="lima", replica="gw-1")
    machines.known = {MACHINE}
    file = write(tmp_path, TWO_HOSTS)

    (host,) = json.loads(edge("host", "list", file, "--json").out)
    assert (host["id"], host["replica"], host["connected"]) == (MACHINE, "gw-1", False)
    assert host["seen"].startswith(f"{SEEN:%Y-%m-%d}")
    assert host["attributes"] == {"site": "osaka", "replica": "gw-1", "rack": "a"}
    table = edge("host", "list", file)
    assert re.search(rf"gw-1 +{MACHINE} +gateway +offline +ACTIVE .*2026-03-01 12:00", table.out)
    assert "rack=a" in table.out
    assert "gw-2: not registered; `edge host activate" in table.err


TWO_HOSTS = (Path(__file__).parent / "sites.py").read_text().split('SITE = """\\\n')[1]
TWO_HOSTS = TWO_HOSTS.split('"""')[0].replace("names: [gw-1]", "names: [gw-1, gw-2]")


def test_a_host_is_drained_then_taken_out_of_ecs_then_of_ssm(
    aws: Aws, machines: Machines, edge: Edge, tmp_path: Path
) -> None:
    aws.register_host("plants", 1, site="osaka", replica="gw-1")
    machines.known = {MACHINE}
    done = edge("host", "remove", write(tmp_path), "gw-1", "--yes")
    assert done.code == 0, done.err
    assert [call.operation for call in aws.writes()] == [
        "UpdateContainerInstancesState",
        "DeregisterContainerInstance",
        "DeregisterManagedInstance",
    ]
    assert aws.of("UpdateContainerInstancesState")[0]["status"] == "DRAINING"
    assert aws.of("DeregisterContainerInstance")[0]["force"] is False
    assert machines.known == set()
    assert "rm -rf" in done.out


@pytest.mark.parametrize("connected", [True, False])
def test_a_host_whose_task_runs_is_not_removed_unless_forced(
    aws: Aws, machines: Machines, edge: Edge, tmp_path: Path, connected: bool
) -> None:
    host = aws.register_host("plants", 1, site="osaka", replica="gw-1")
    host.agentConnected, host.runningTasksCount = connected, 1
    file = write(tmp_path)
    done = edge("host", "remove", file, MACHINE, "--yes", "--wait", "1ms")
    assert done.code == 1
    assert ("runs 1 task(s)" if connected else "is offline") in done.err
    assert [call.operation for call in aws.writes()] == ["UpdateContainerInstancesState"]
    assert edge("host", "drain", file, "gw-1", "--wait", "1ms").code == 1

    done = edge("host", "remove", file, "gw-1", "--yes", "--wait", "1ms", "--force")
    assert done.code == 0, done.err
    assert aws.of("DeregisterContainerInstance")[0]["force"] is True


def test_a_drained_host_can_take_tasks_again(
    aws: Aws, machines: Machines, edge: Edge, tmp_path: Path
) -> None:
    aws.register_host("plants", 1, site="osaka", replica="gw-1")
    file = write(tmp_path)
    assert "no task runs" in edge("host", "drain", file, "gw-1").err
    assert edge("host", "drain", file, "gw-1", "--undo").code == 0
    states = [each["status"] for each in aws.of("UpdateContainerInstancesState")]
    assert states == ["DRAINING", "ACTIVE"]


def test_a_host_is_found_by_what_it_is_called_or_all_are_named(
    aws: Aws, machines: Machines, tmp_path: Path
) -> None:
    aws.register_host("plants", 1, site="osaka", replica="gw-1")
    account = aws.account(make(tmp_path))
    assert hosts.find(account, MACHINE) == hosts.find(account, "gw-1")
    with pytest.raises(DefinitionError, match=rf"has no host 'x'; take one of: gw-1 \({MACHINE}\)"):
        hosts.find(account, "x")


def test_the_policy_of_the_user_of_hosts_is_exactly_what_is_asked(
    aws: Aws, machines: Machines, edge: Edge, tmp_path: Path
) -> None:
    file = write(tmp_path)
    aws.register_host("other")  # so that the cluster of the site is made
    machines.known = {MACHINE}
    assert edge("host", "activate", file).code == 0
    host = aws.register_host("plants", 1, site="osaka", replica="gw-1")
    workload = load_workload(load_site(file, {}))
    definition = task_definition(workload, "gw-1", Home("aws", "eu-west-1", "123456789012"))
    aws.cloud.client("ecs").register_task_definition(**definition)
    aws.run_task("edge-osaka-gw-1", container_instance_arn=host.container_instance_arn)
    assert edge("host", "list", file).code == 0
    assert edge("host", "drain", file, "gw-1").code == 0
    assert edge("host", "drain", file, "gw-1", "--undo").code == 0
    assert edge("host", "standby", file, "--replica", "gw-1").code == 0
    assert edge("host", "remove", file, "gw-1", "--yes").code == 0
    assert granted("docs/hosts.md") == asked(aws)


class Root:
    """A machine as a script finds it, below a folder; its programs note what they are told."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self._bin = folder / "bin"
        self._bin.mkdir()
        for path in ("run/systemd/system", "proc", "etc"):
            (folder / path).mkdir(parents=True)
        self.processor("avx avx2 fma bmi1 bmi2 abm movbe pclmulqdq popcnt sse4_2 cx16")
        for name in ("systemctl", "chown", "docker", "apt-get", "flock", "bash"):
            self.program(name)
        self.program("id", "echo 0")
        self.program("uname", "echo x86_64")
        self.program("curl", 'while [ "$1" != --output ]; do shift; done; echo ran >"$2"')

    def program(self, name: str, does: str = "") -> None:
        file = self._bin / name
        file.write_text(f'#!/bin/sh\necho "{name} $*" >>"$EDGE_ROOT/told"\n{does}\n')
        file.chmod(0o755)

    def processor(self, flags: str) -> None:
        (self.folder / "proc/cpuinfo").write_text(f"processor : 0\nflags : fpu {flags}\n")

    def run(self, script: str, *arguments: str) -> "subprocess.CompletedProcess[str]":
        return subprocess.run(
            ["sh", "-s", "--", *arguments],
            input=script,
            env={"PATH": f"{self._bin}:{os.environ['PATH']}", "EDGE_ROOT": str(self.folder)},
            capture_output=True,
            text=True,
        )

    def told(self) -> list[str]:
        told = self.folder / "told"
        return told.read_text().splitlines() if told.exists() else []


@pytest.fixture
def root(tmp_path: Path) -> Root:
    (tmp_path / "root").mkdir()
    return Root(tmp_path / "root")


def rendered(tmp_path: Path, changes: Mapping[str, str] = {}, **wanted: str) -> str:
    site = make(tmp_path, changes)
    names = site.hosts.replicas()
    return activation.render(site, Wanted(names, **wanted), Activation("id-1", CODE))  # type: ignore[arg-type]


def test_the_script_makes_folder_and_settings_before_it_registers(
    root: Root, tmp_path: Path
) -> None:
    done = root.run(rendered(tmp_path))
    assert done.returncode == 0, done.stderr
    assert (root.folder / "var/lib/edge").is_dir()
    assert f"chown 10001:10001 {root.folder}/var/lib/edge" in root.told()
    config = (root.folder / "etc/ecs/ecs.config").read_text().splitlines()
    assert 'ECS_INSTANCE_ATTRIBUTES={"site":"osaka","replica":"gw-1"}' in config
    assert "ECS_IMAGE_PULL_BEHAVIOR=prefer-cached" in config
    assert "ECS_CONTAINER_STOP_TIMEOUT=60s" in config
    drivers = '["json-file","syslog","awslogs","fluentd","none"]'
    assert f"ECS_AVAILABLE_LOGGING_DRIVERS={drivers}" in config
    assert re.fullmatch(
        r"bash \S+ --region eu-west-1 --cluster plants --activation-id id-1"
        rf" --activation-code {CODE}",
        root.told()[-1],
    )


def test_one_script_serves_several_hosts_that_say_which_they_are(
    root: Root, tmp_path: Path
) -> None:
    script = rendered(tmp_path, TWO)
    assert "is one of several hosts; say which" in root.run(script).stderr
    assert "got 'gw-3', the site has gw-1 gw-2" in root.run(script, "gw-3").stderr
    assert root.told() == []
    assert root.run(script, "gw-2").returncode == 0
    assert '"replica":"gw-2"' in (root.folder / "etc/ecs/ecs.config").read_text()


def test_what_would_not_work_is_refused_before_anything_is_made(root: Root, tmp_path: Path) -> None:
    script = rendered(tmp_path)

    def refusal() -> str:
        done = root.run(script)
        assert done.returncode == 1
        assert not (root.folder / "var/lib/edge").exists()
        return done.stderr

    root.processor("avx")
    assert "this processor lacks avx2, which polars needs" in refusal()
    root.program("uname", "echo armv7l")
    assert "processor of type armv7l" in refusal()
    root.program("uname", "echo aarch64")
    root.program("getenforce", "echo Enforcing")
    assert "SELinux" in refusal()
    root.program("getenforce", "echo Permissive")
    (root.folder / "root/.aws").mkdir(parents=True)
    (root.folder / "root/.aws/credentials").touch()
    assert "would get in the way of the machine's own" in refusal()
    (root.folder / "var/lib/ecs/data").mkdir(parents=True)
    (root.folder / "var/lib/ecs/data/agent.db").touch()
    assert "is registered with ECS already" in refusal()
    root.program("id", "echo 1000")
    assert "must run as root" in refusal()


def test_a_processor_without_avx2_is_taken_with_the_image_for_it(
    root: Root, tmp_path: Path
) -> None:
    root.processor("avx")
    assert root.run(rendered(tmp_path, cpu="compat")).returncode == 0


def test_a_gpu_is_asked_for_where_the_site_has_one(root: Root, tmp_path: Path) -> None:
    script = rendered(tmp_path, {"cpu: 256": "gpu: 1"})
    assert "nvidia-smi is not here" in root.run(script).stderr
    root.program("nvidia-smi")
    assert root.run(script).returncode == 0
    assert root.told()[-1].endswith("--enable-gpu")


def test_cleaning_up_stops_who_writes_first_and_leaves_the_outbox(
    aws: Aws, root: Root, tmp_path: Path
) -> None:
    for path in ("var/lib/ecs/data", "etc/ecs", "var/lib/edge", "etc/systemd/system"):
        (root.folder / path).mkdir(parents=True)
    (root.folder / "etc/systemd/system/edge-standby.service").touch()
    root.program("docker", '[ "$1" != ps ] || echo abc')
    done = root.run(hosts.cleaning(aws.account(make(tmp_path))))
    assert done.returncode == 0, done.stderr
    assert root.told() == [
        "id -u",
        "systemctl disable --now edge-standby",
        "systemctl daemon-reload",
        "systemctl stop ecs amazon-ssm-agent",
        "docker ps --quiet --filter label=com.amazonaws.ecs.cluster=plants",
        "docker stop abc",
        "apt-get remove --yes amazon-ecs-init amazon-ssm-agent",
    ]
    assert (root.folder / "var/lib/edge").exists()
    assert not (root.folder / "var/lib/ecs").exists()


def test_the_standby_is_installed_on_its_own_host_only(
    edge: Edge, root: Root, tmp_path: Path
) -> None:
    file = write(tmp_path)
    made = edge("host", "standby", file)
    assert made.code == 0, made.err
    assert "write MQTT_PASSWORD to /etc/edge/standby/secrets" in made.err
    assert "is not host gw-1" in root.run(made.out).stderr
    (root.folder / "etc/ecs").mkdir()
    config = 'ECS_INSTANCE_ATTRIBUTES={"site":"osaka","replica":"gw-1"}\n'
    (root.folder / "etc/ecs/ecs.config").write_text(config)
    done = root.run(made.out)
    assert done.returncode == 0, done.stderr
    assert "secrets is missing; write NAME=value lines for MQTT_PASSWORD" in done.stderr
    etc = root.folder / "etc/edge/standby"
    assert stat.S_IMODE(etc.stat().st_mode) == 0o700
    assert "EDGE_REPLICA=gw-1" in (etc / "environment").read_text().splitlines()
    assert "MQTT_PASSWORD" not in (etc / "environment").read_text()
    assert (root.folder / "usr/local/lib/edge/standby").read_text() == packed("standby")
    assert "systemctl enable edge-standby" in root.told()


def test_every_script_is_one_that_a_posix_shell_can_read() -> None:
    for name in ("activate", "remove", "install-standby", "standby"):
        checked = subprocess.run(["sh", "-n"], input=packed(name), text=True, capture_output=True)
        assert checked.returncode == 0, checked.stderr
    assert shutil.which("sh")
