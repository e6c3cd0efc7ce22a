"""What a target cannot do is refused before any call, with what to do instead."""

from collections.abc import Mapping
from pathlib import Path

import pytest

from edge.deploy.guarantees import notes
from edge.deploy.roles import Home, execution_policy, task_policy
from edge.deploy.site import Site
from edge.deploy.task import task_definition
from edge.deploy.validate import check_target, fargate_size
from edge.deploy.workload import load_workload
from edge.errors import DefinitionError
from tests.deploy.sites import PIPELINE, make

HOME = Home("aws", "eu-west-1", "123456789012")
EFS = (
    "efs: [{file_system: fs-0123456789abcdef0, access_point: fsap-0123456789abcdef0,"
    " container: /in}]"
)
MOUNTS = "mounts: [{host: /srv/data, container: /in}]"
FARGATE = {
    "ecs-anywhere": "fargate",
    "{mode: bridge}": "{subnets: [subnet-1]}",
    "outbox: /var/lib/edge\n": "",
    MOUNTS: EFS,
}
EC2 = {"ecs-anywhere": "ec2"}
KUBERNETES = {"ecs-anywhere": "kubernetes", "create: [repository, queues, buckets]\n": ""}
DOCKER = {**KUBERNETES, "ecs-anywhere": "docker"}
DELIVERED = PIPELINE.replace(
    "  mqtt:\n", "  acknowledge: ${EDGE_ACKNOWLEDGE:-committed}\n  mqtt:\n", 1
)

REFUSED: list[tuple[Mapping[str, str], Mapping[str, str], str]] = [
    ({}, {"mode: bridge": "mode: awsvpc"}, ":13: network.mode: 'awsvpc' needs network interfaces"),
    ({}, {"mode: bridge": "mode: none"}, ":13: network.mode: 'none' leads neither to a broker"),
    ({}, {"mode: bridge": "subnets: [a]"}, ":13: network.subnets: belongs to awsvpc"),
    ({}, {MOUNTS: EFS}, ":17: efs: is not on external hosts; mount it there"),
    ({}, {"stop_timeout": "capacity_provider: FARGATE\nstop_timeout"}, "is not for external hosts"),
    ({}, {"{retention: 30d}": "{driver: journald}"}, ":14: logs.driver: 'journald' is not on ecs-"),
    ({}, {"{retention: 30d}": "{driver: awsfirelens}"}, "use one of awslogs, json-file, syslog"),
    ({}, {"{retention: 30d}": "{driver: syslog, group: a}"}, ":14: logs.group: is only of awslogs"),
    ({}, {"container: /in": "container: /app"}, ":17: mounts.0.container: '/app' is taken"),
    ({}, {"ssm:eu-west-1": "ssm:eu-west-2"}, ":12: secrets.MQTT_PASSWORD: must be a parameter of"),
    (
        {},
        {"123456789012.dkr.ecr.eu-west-1.amazonaws.com": "quay.io"},
        "is not in ECR; leave it out",
    ),
    ({}, {"ecs-anywhere": "docker"}, ":18: create: asks for things in AWS, where nothing"),
    (DOCKER, {"mode: bridge": "mode: awsvpc"}, ":13: network.mode: 'awsvpc' is of ECS; use bridge"),
    (DOCKER, {"mode: bridge": "subnets: [a]"}, ":13: network.subnets: belongs to awsvpc"),
    (DOCKER, {MOUNTS: EFS}, ":17: efs: is not mounted by Docker; mount it and name the folder"),
    (DOCKER, {"[gw-1]": "[gw-1], where: 'attribute:a == b'"}, ":9: hosts.where: is a query of"),
    (
        DOCKER,
        {"stop_timeout": "capacity_provider: a\nstop_timeout"},
        "capacity_provider: is of ECS",
    ),
    (DOCKER, {"{retention: 30d}": "{driver: awsfirelens}"}, "'awsfirelens' is not of Docker; use"),
    (
        DOCKER,
        {"stop_timeout": "docker: {credentials_uri: 'http://10.0.0.1/v2'}\nstop_timeout"},
        "docker.credentials_uri: must be https, or http on loopback, 169.254.170.2 or",
    ),
    (
        DOCKER,
        {"{mode: bridge}": "{mode: host}", "stop_timeout": "docker: {networks: [a]}\nstop_timeout"},
        "docker.networks: has no meaning with `network: {mode: host}`",
    ),
    (EC2, {"mode: bridge": "mode: awsvpc"}, ":13: network.subnets: is missing"),
    (EC2, {"mode: bridge": "mode: awsvpc, subnets: [a], public_ip: true"}, "is only on fargate"),
    (
        EC2,
        {"stop_timeout": "capacity_provider: a\nstop_timeout"},
        "cannot have a capacity provider",
    ),
    (FARGATE, {"{subnets: [subnet-1]}": "{mode: host, subnets: [a]}"}, "'host' is not on fargate"),
    (FARGATE, {"{subnets: [subnet-1]}": "{}"}, "network.subnets: is missing; add the subnets"),
    (FARGATE, {EFS: MOUNTS}, "mounts: need a host, which fargate has not; name an `efs`"),
    (FARGATE, {"stop_timeout": "outbox: /a\nstop_timeout"}, "outbox: is a folder of a host"),
    (FARGATE, {"memory: 256MiB": "memory: 256MiB, gpu: 1"}, "resources.gpu: is not on fargate"),
    (FARGATE, {"memory: 256MiB": "memory: 200GiB"}, "resources: is more than the largest size"),
    (FARGATE, {"[gw-1]": "[gw-1], where: 'attribute:a == b'"}, "hosts.where: places on hosts"),
    (FARGATE, {"{retention: 30d}": "{driver: json-file}"}, "use one of awslogs, splunk"),
    ({}, {"ecs-anywhere": "kubernetes"}, ":18: create: asks for things in AWS, where nothing"),
    (KUBERNETES, {"mode: bridge": "mode: awsvpc"}, ":13: network.mode: 'awsvpc' is of ECS"),
    (KUBERNETES, {"mode: bridge": "subnets: [a]"}, ":13: network.subnets: belongs to awsvpc"),
    (KUBERNETES, {MOUNTS: EFS}, ":17: efs: is not mounted in pods; mount it on the nodes"),
    (KUBERNETES, {"[gw-1]": "[gw-1], where: a"}, ":9: hosts.where: is a query of ECS; name labels"),
    (KUBERNETES, {"[gw-1]": "[gw-1, gw-]"}, ":9: hosts.names.1: must begin and end with a letter"),
    (KUBERNETES, {"site: osaka": "site: -osaka"}, ":2: site: must begin and end with a letter or"),
    (
        {**KUBERNETES, "site: osaka": f"site: {'o' * 32}"},
        {"[gw-1]": f"[{'g' * 15}]"},
        "must be at most 52 characters; shorten it or `site`",
    ),
    (KUBERNETES, {"names: [gw-1]": "count: 2"}, ":15: outbox: is a folder of a node, and these"),
    (
        KUBERNETES,
        {"stop_timeout": "kubernetes: {storage: 20GiB}\nstop_timeout"},
        ":16: kubernetes.storage: is of claims, and these outboxes lie on nodes; leave it out",
    ),
    (KUBERNETES, {"stop_timeout": "exec: true\nstop_timeout"}, "exec: is of ECS; leave it out"),
]


@pytest.mark.parametrize(
    ("target", "changes", "words"), REFUSED, ids=[words for *_, words in REFUSED]
)
def test_what_a_target_cannot_do_is_refused_in_one_line(
    tmp_path: Path, target: Mapping[str, str], changes: Mapping[str, str], words: str
) -> None:
    site = make(tmp_path, {**target, **changes})
    with pytest.raises(DefinitionError) as raised:
        check_target(site)
    (line,) = str(raised.value).splitlines()
    assert line.startswith(str(tmp_path / "osaka.yaml"))
    assert words in line


def workload_faults(site: Site) -> list[str]:
    with pytest.raises(DefinitionError) as raised:
        load_workload(site)
    return str(raised.value).splitlines()


@pytest.mark.parametrize(
    ("old", "new", "words"),
    [
        (
            "replica: ${EDGE_REPLICA:-0}\n",
            "",
            "replica: must be 'gw-1' on that host, got '0': hosts would share rows and session;"
            " write `replica: ${EDGE_REPLICA:-0}`",
        ),
        (
            "site: ${EDGE_SITE:-local}",
            "site: kyoto",
            "site: must be 'osaka' here, got 'kyoto'; write `site: ${EDGE_SITE:-local}`",
        ),
        (
            "mqtt://broker.plant",
            "mqtt://localhost",
            "is on localhost, which is the container itself",
        ),
        ("${MQTT_PASSWORD:-none}", "${OTHER}", "the environment has no OTHER; set it"),
        (
            "plant-alarms",
            "'${MQTT_PASSWORD}'",
            "secrets: must not name a queue, a bucket or a prefix",
        ),
        (
            "s3: {bucket: plant-lake, prefix: readings/}",
            "file: {path: /in/out}",
            "must lie below /var/lib/edge or in a mount with `read_only: false`, got '/in/out'",
        ),
        ("sinks:", "outbox: {path: /data}\nsinks:", "outbox.path: must lie below /var/lib/edge"),
        ("temperature > 80", "temprature > 80", "'temprature'"),
    ],
)
def test_a_pipeline_that_does_not_fit_the_site_is_refused(
    tmp_path: Path, old: str, new: str, words: str
) -> None:
    assert old in PIPELINE
    (line,) = workload_faults(make(tmp_path, pipeline=PIPELINE.replace(old, new)))
    assert words in line


TO_FILES = ("s3: {bucket: plant-lake, prefix: readings/}", "file: {path: /var/lib/edge/out}")


def test_files_may_lie_beside_the_outbox_where_that_outlives_the_task(tmp_path: Path) -> None:
    load_workload(make(tmp_path, pipeline=PIPELINE.replace(*TO_FILES)))

    (line,) = workload_faults(make(tmp_path, FARGATE, DELIVERED.replace(*TO_FILES)))
    assert "sinks.lake.file.path: must lie in a mount with `read_only: false`" in line


def test_hosts_that_would_share_an_identity_are_refused(tmp_path: Path) -> None:
    pipeline = PIPELINE.replace("${EDGE_REPLICA:-0}", "gw-1")
    (line,) = workload_faults(make(tmp_path, {"[gw-1]": "[gw-1, gw-2]"}, pipeline))
    assert "replica: must be 'gw-2' on that host, got 'gw-1': hosts would share rows" in line


def test_two_pipelines_of_one_name_are_refused(tmp_path: Path) -> None:
    (tmp_path / "other.yaml").write_text(PIPELINE)
    (line,) = workload_faults(make(tmp_path, {"[press.yaml]": "[press.yaml, other.yaml]"}))
    assert "name: 'press' is the name of another pipeline of this site; rename" in line


def test_on_the_network_of_the_host_a_broker_may_be_on_localhost(tmp_path: Path) -> None:
    pipeline = PIPELINE.replace("broker.plant", "localhost")
    load_workload(make(tmp_path, {"mode: bridge": "mode: host"}, pipeline))


def test_fargate_takes_only_pipelines_whose_source_waits_for_the_delivery(tmp_path: Path) -> None:
    (line,) = workload_faults(make(tmp_path, FARGATE))
    assert "source.acknowledge: must be 'delivered' on fargate" in line

    workload = load_workload(make(tmp_path, FARGATE, DELIVERED))
    assert workload.pipelines["gw-1"][0].acknowledge == "delivered"


@pytest.mark.parametrize(
    ("operator", "place"),
    [
        ("sinks:", "operators.0.compress: 'compress' holds rows back"),
        ("    sqs:", "sinks.alarms.operators.0.compress: 'compress' holds rows back"),
    ],
)
def test_what_holds_rows_back_is_refused_where_memory_goes_with_the_task(
    tmp_path: Path, operator: str, place: str
) -> None:
    indent = operator[: len(operator) - len(operator.lstrip())]
    step = f"{indent}operators: [{{compress: {{column: temperature, error: 1}}}}]\n"
    pipeline = DELIVERED.replace(operator, step + operator)
    (line,) = workload_faults(make(tmp_path, FARGATE, pipeline))
    assert place in line
    load_workload(make(tmp_path, pipeline=pipeline))


def test_a_site_becomes_a_fargate_task_and_every_field_is_accounted_for(tmp_path: Path) -> None:
    changes = {**FARGATE, "stop_timeout: 60s": "stop_timeout: 10m", "cpu: 256": "cpu: 300"}
    site = make(tmp_path, changes, DELIVERED)
    check_target(site)
    made = task_definition(load_workload(site), "gw-1", HOME)

    assert (made["cpu"], made["memory"], made["networkMode"]) == ("512", "1024", "awsvpc")
    assert made["runtimePlatform"]["cpuArchitecture"] == "X86_64"
    (container,) = made["containerDefinitions"]
    assert container["stopTimeout"] == 120
    assert {"name": "EDGE_ACKNOWLEDGE", "value": "delivered"} in container["environment"]
    assert not any("host" in volume for volume in made["volumes"])
    efs = made["volumes"][1]["efsVolumeConfiguration"]
    assert efs["transitEncryption"] == "ENABLED"
    fields = {note.field for note in notes(load_workload(site))}
    assert fields == {
        "resources",
        "stop_timeout",
        "hosts.schedule",
        "hosts",
        "network.mode",
        "outbox",
        "environment",
        "architecture",
    }


@pytest.mark.parametrize(("more", "noted"), [("", 1), ("    share: g\n", 0)])
def test_hosts_that_would_count_a_message_twice_are_noted(
    tmp_path: Path, more: str, noted: int
) -> None:
    pipeline = PIPELINE.replace("    username", f"{more}    username")
    site = make(tmp_path, {"[gw-1]": "[gw-1, gw-2]"}, pipeline)
    found = [note.words for note in notes(load_workload(site)) if note.field == "hosts"]
    assert len(found) == noted
    assert all("gw-1 and gw-2 each read every message of mqtt://broker" in it for it in found)


def test_a_site_becomes_an_ec2_task_with_the_same_container(tmp_path: Path) -> None:
    here = task_definition(load_workload(make(tmp_path)), "gw-1", HOME)
    there = task_definition(load_workload(make(tmp_path, EC2)), "gw-1", HOME)
    assert there["requiresCompatibilities"] == ["EC2"]
    for made in (here, there):
        made["containerDefinitions"][0]["dockerLabels"].clear()
    assert there["containerDefinitions"] == here["containerDefinitions"]
    assert there["volumes"] == here["volumes"]


def test_efs_is_mounted_by_its_access_point_only(tmp_path: Path) -> None:
    workload = load_workload(make(tmp_path, FARGATE, DELIVERED))
    policy = task_policy(workload, HOME)
    assert policy is not None
    assert policy["Statement"][-1] == {
        "Effect": "Allow",
        "Action": ["elasticfilesystem:ClientMount"],
        "Resource": "arn:aws:elasticfilesystem:eu-west-1:123456789012:file-system/"
        "fs-0123456789abcdef0",
        "Condition": {
            "StringEquals": {
                "elasticfilesystem:AccessPointArn": "arn:aws:elasticfilesystem:eu-west-1:"
                "123456789012:access-point/fsap-0123456789abcdef0"
            }
        },
    }


def test_a_key_within_a_secret_is_no_part_of_what_may_be_read(tmp_path: Path) -> None:
    arn = "arn:aws:secretsmanager:eu-west-1:123456789012:secret:mqtt-AbCdEf"
    site = make(
        tmp_path, {"arn:aws:ssm:eu-west-1:123456789012:parameter/mqtt": f"{arn}:password::"}
    )
    policy = execution_policy(site, HOME)
    assert policy is not None
    assert policy["Statement"][-1]["Resource"] == arn


def test_a_shell_in_the_container_takes_what_it_takes(tmp_path: Path) -> None:
    site = make(tmp_path, {"stop_timeout": "exec: true\nstop_timeout"})
    policy = task_policy(load_workload(site), HOME)
    assert policy is not None
    assert policy["Statement"][-1]["Action"][0] == "ssmmessages:CreateControlChannel"


@pytest.mark.parametrize(
    ("asked", "given"),
    [
        ((256, 512), (256, 512)),
        ((257, 512), (512, 1024)),
        ((256, 2049), (512, 3072)),
        ((4096, 30720), (4096, 30720)),
        ((4096, 30721), (8192, 32768)),
        ((16384, 122880), (16384, 122880)),
        ((16384, 122881), None),
    ],
)
def test_a_fargate_size_is_the_smallest_that_has_both(
    asked: tuple[int, int], given: tuple[int, int] | None
) -> None:
    assert fargate_size(*asked) == given
