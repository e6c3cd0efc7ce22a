"""An apply makes what the site says and nothing else, and goes on wherever it was cut off."""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest

from edge.deploy.account import Account
from edge.deploy.apply import apply, destroy
from edge.deploy.plan import make_plan, stock_of
from edge.deploy.site import Site
from edge.deploy.workload import load_workload
from edge.errors import DeployFailed
from tests.cloud import Cloud, Failure
from tests.deploy.aws import Aws, CutOff
from tests.deploy.sites import SITE, make

IMAGE = {
    "123456789012.dkr.ecr.eu-west-1.amazonaws.com/edge:1.4.2": "registry.example.com/edge:1.4.2"
}
ELSEWHERE = {**IMAGE, "[repository, queues, buckets]": "[queues, buckets]"}
DOCKERFILE = Path("containers/Dockerfile").read_text()
OWNER = {"edge:site": "osaka"}
TAGS = [{"Key": "edge:site", "Value": "osaka"}]
SMALL_TAGS = [{"key": "edge:site", "value": "osaka"}]
ROLE = "arn:aws:iam::123456789012:role/edge-osaka"


@pytest.fixture
def site(tmp_path: Path) -> Site:
    """A site whose image lies in another registry, where nobody can look for it."""
    return make(tmp_path, ELSEWHERE)


@pytest.fixture(scope="module")
def first(cloud_server: Cloud, tmp_path_factory: pytest.TempPathFactory) -> Aws:
    """An account in which the site was applied once; its requests are looked at by many tests."""
    cloud_server.reset()
    with pytest.MonkeyPatch.context() as environment:
        environment.setenv("AWS_ENDPOINT_URL", cloud_server.url)
        aws = Aws(cloud_server)
        run(aws.account(make(tmp_path_factory.mktemp("first"), ELSEWHERE)))
    return aws


def run(account: Account) -> list[str]:
    """Apply; what it says that it does."""
    told: list[str] = []
    workload = load_workload(account.site)
    apply(account, workload, lambda change: told.append(f"{change.action} {change.resource}"))
    return told


def only(aws: Aws, operation: str) -> Mapping[str, Any]:
    (parameters,) = aws.of(operation)
    return parameters


def document(parameters: Mapping[str, Any], name: str = "PolicyDocument") -> list[Any]:
    statements: list[Any] = json.loads(parameters[name])["Statement"]
    return statements


def test_an_empty_account_gets_everything_in_order(aws: Aws, site: Site) -> None:
    assert run(aws.account(site)) == [
        "create queue plant-alarms-dead",
        "create queue plant-alarms",
        "create bucket plant-lake",
        "create log group /edge/osaka",
        "create role edge-osaka-task",
        "create role edge-osaka-execution",
        "create cluster plants",
        "create task definition edge-osaka-gw-1",
        "create service edge-osaka-gw-1",
    ]
    assert [str(call) for call in aws.writes()] == [
        "sqs:CreateQueue",
        "sqs:CreateQueue",
        "s3:CreateBucket",
        "s3:PutPublicAccessBlock",
        "s3:PutBucketEncryption",
        "s3:PutBucketLifecycleConfiguration",
        "logs:CreateLogGroup",
        "logs:PutRetentionPolicy",
        "iam:CreateRole",
        "iam:PutRolePolicy",
        "iam:CreateRole",
        "iam:PutRolePolicy",
        "ecs:CreateCluster",
        "ecs:RegisterTaskDefinition",
        "ecs:CreateService",
    ]


def test_queues_keep_messages_and_set_aside_what_nobody_can_take(first: Aws) -> None:
    dead, queue = first.of("CreateQueue")
    kept = {"MessageRetentionPeriod": "1209600", "SqsManagedSseEnabled": "true"}
    assert dead == {"QueueName": "plant-alarms-dead", "Attributes": kept, "tags": OWNER}
    redrive = json.loads(queue["Attributes"].pop("RedrivePolicy"))
    arn = "arn:aws:sqs:eu-west-1:123456789012:plant-alarms-dead"
    assert redrive == {"deadLetterTargetArn": arn, "maxReceiveCount": 5}
    assert queue == {"QueueName": "plant-alarms", "Attributes": kept, "tags": OWNER}


def test_a_bucket_is_closed_encrypted_and_swept(first: Aws) -> None:
    assert only(first, "CreateBucket")["CreateBucketConfiguration"] == {
        "LocationConstraint": "eu-west-1",
        "Tags": TAGS,
    }
    closed = only(first, "PutPublicAccessBlock")["PublicAccessBlockConfiguration"]
    assert len(closed) == 4
    assert all(closed.values())
    (rule,) = only(first, "PutBucketEncryption")["ServerSideEncryptionConfiguration"]["Rules"]
    assert rule == {"ApplyServerSideEncryptionByDefault": {"SSEAlgorithm": "AES256"}}
    (swept,) = only(first, "PutBucketLifecycleConfiguration")["LifecycleConfiguration"]["Rules"]
    assert swept["AbortIncompleteMultipartUpload"] == {"DaysAfterInitiation": 7}
    assert swept["Status"] == "Enabled"


def test_the_roles_allow_what_the_pipelines_ask_and_nothing_else(first: Aws) -> None:
    for role in first.of("CreateRole"):
        (statement,) = document(role, "AssumeRolePolicyDocument")
        assert statement["Principal"] == {"Service": "ecs-tasks.amazonaws.com"}
        assert statement["Condition"]["StringEquals"] == {"aws:SourceAccount": "123456789012"}
        assert role["Tags"] == TAGS
    task, execution = first.of("PutRolePolicy")
    assert task["RoleName"] == "edge-osaka-task"
    assert document(task) == [
        {
            "Effect": "Allow",
            "Action": ["s3:GetObject", "s3:PutObject"],
            "Resource": "arn:aws:s3:::plant-lake/readings/osaka/press/lake/*",
        },
        {
            "Effect": "Allow",
            "Action": ["sqs:GetQueueAttributes", "sqs:GetQueueUrl", "sqs:SendMessage"],
            "Resource": "arn:aws:sqs:eu-west-1:123456789012:plant-alarms",
        },
    ]
    logs = "arn:aws:logs:eu-west-1:123456789012:log-group:/edge/osaka:log-stream:*"
    assert {each["Resource"]: each["Action"] for each in document(execution)} == {
        logs: ["logs:CreateLogStream", "logs:PutLogEvents"],
        "arn:aws:ssm:eu-west-1:123456789012:parameter/mqtt": ["ssm:GetParameters"],
    }


def test_the_task_is_what_an_external_host_can_run(first: Aws) -> None:
    made = dict(only(first, "RegisterTaskDefinition"))
    (container,) = made.pop("containerDefinitions")
    assert made == {
        "family": "edge-osaka-gw-1",
        "requiresCompatibilities": ["EXTERNAL"],
        "networkMode": "bridge",
        "taskRoleArn": f"{ROLE}-task",
        "executionRoleArn": f"{ROLE}-execution",
        "volumes": [
            {"name": "outbox", "host": {"sourcePath": "/var/lib/edge"}},
            {"name": "mounts-0", "host": {"sourcePath": "/srv/data"}},
        ],
        "tags": SMALL_TAGS,
    }
    environment = {each["name"]: each["value"] for each in container.pop("environment")}
    assert environment == {
        "AWS_REGION": "eu-west-1",
        "EDGE_REPLICA": "gw-1",
        "EDGE_SITE": "osaka",
        "EDGE_STATE_DIR": "/var/lib/edge",
        "PLANT": "osaka",
    }
    assert container.pop("dockerLabels").keys() == {"edge.site", "edge.replica", "edge.digest"}
    health = container.pop("healthCheck")
    assert " ".join(json.dumps(word) for word in health["command"][1:]) in DOCKERFILE.replace(
        ",", ""
    )
    assert container == {
        "name": "edge",
        "image": "registry.example.com/edge:1.4.2",
        "essential": True,
        "command": ["run", "--log-format", "json", "/pipelines/press.yaml"],
        "cpu": 256,
        "memory": 256,
        "secrets": [
            {
                "name": "MQTT_PASSWORD",
                "valueFrom": "arn:aws:ssm:eu-west-1:123456789012:parameter/mqtt",
            }
        ],
        "mountPoints": [
            {"sourceVolume": "outbox", "containerPath": "/var/lib/edge", "readOnly": False},
            {"sourceVolume": "mounts-0", "containerPath": "/in", "readOnly": True},
        ],
        "readonlyRootFilesystem": True,
        "stopTimeout": 60,
        "restartPolicy": {"enabled": True, "restartAttemptPeriod": 60},
        "linuxParameters": {"initProcessEnabled": True, "capabilities": {"drop": ["ALL"]}},
        "logConfiguration": {
            "logDriver": "awslogs",
            "options": {
                "awslogs-group": "/edge/osaka",
                "awslogs-region": "eu-west-1",
                "awslogs-stream-prefix": "gw-1",
                "mode": "non-blocking",
                "max-buffer-size": "4m",
            },
        },
    }


def test_a_service_never_runs_two_tasks_on_one_outbox(first: Aws) -> None:
    made = dict(only(first, "CreateService"))
    assert made.pop("taskDefinition").endswith(":task-definition/edge-osaka-gw-1:1")
    assert made == {
        "cluster": "plants",
        "serviceName": "edge-osaka-gw-1",
        "launchType": "EXTERNAL",
        "schedulingStrategy": "DAEMON",
        "deploymentConfiguration": {
            "minimumHealthyPercent": 0,
            "maximumPercent": 100,
            "deploymentCircuitBreaker": {"enable": True, "rollback": True},
        },
        "availabilityZoneRebalancing": "DISABLED",
        "placementConstraints": [
            {
                "type": "memberOf",
                "expression": "attribute:site == osaka and attribute:replica == gw-1",
            }
        ],
        "enableExecuteCommand": False,
        "propagateTags": "SERVICE",
        "enableECSManagedTags": True,
        "tags": SMALL_TAGS,
    }


def test_a_replica_service_runs_one_task(aws: Aws, tmp_path: Path) -> None:
    run(aws.account(make(tmp_path, {**ELSEWHERE, "[gw-1]": "[gw-1], schedule: replica"})))
    made = only(aws, "CreateService")
    assert (made["schedulingStrategy"], made["desiredCount"]) == ("REPLICA", 1)
    assert made["deploymentConfiguration"]["maximumPercent"] == 100


def test_every_host_has_a_service_of_its_own(aws: Aws, tmp_path: Path) -> None:
    run(aws.account(make(tmp_path, {**ELSEWHERE, "[gw-1]": "[gw-1, gw-2]"})))
    replicas = [
        next(
            each["value"]
            for each in made["containerDefinitions"][0]["environment"]
            if each["name"] == "EDGE_REPLICA"
        )
        for made in aws.of("RegisterTaskDefinition")
    ]
    assert replicas == ["gw-1", "gw-2"]
    places = [made["placementConstraints"][0]["expression"] for made in aws.of("CreateService")]
    assert [place.rpartition(" ")[2] for place in places] == replicas
    assert len(aws.of("CreateRole")) == 2


def test_a_host_that_is_named_no_more_loses_its_service(aws: Aws, tmp_path: Path) -> None:
    names = "[gw-1, gw-2]"
    run(aws.account(make(tmp_path, {**ELSEWHERE, "[gw-1]": names})))
    (tmp_path / "b").mkdir()
    run(aws.account(make(tmp_path / "b", {**ELSEWHERE, "site: osaka": "site: osaka-gw"})))
    site = make(tmp_path, ELSEWHERE)
    aws.forget()

    (gone,) = make_plan(aws.account(site), load_workload(site)).changes
    assert (gone.action, str(gone.resource)) == ("remove", "service edge-osaka-gw-2")
    assert aws.writes() == []
    assert run(aws.account(site)) == ["remove service edge-osaka-gw-2"]
    assert [str(call) for call in aws.writes()] == [
        "ecs:DeleteService",
        "ecs:DeregisterTaskDefinition",
    ]
    assert run(aws.account(site)) == []


def test_a_role_that_iam_has_not_spread_yet_is_waited_for(aws: Aws, site: Site) -> None:
    early = Failure("ClientException", 400, "ECS was unable to assume the role")
    aws.cloud.fail("CreateService", early, early)
    assert run(aws.account(site))[-1] == "create service edge-osaka-gw-1"
    assert aws.service("edge-osaka-gw-1").status == "ACTIVE"


def test_a_second_run_writes_nothing(aws: Aws, site: Site) -> None:
    run(aws.account(site))
    aws.forget()
    assert run(aws.account(site)) == []
    assert aws.calls
    assert aws.writes() == []


def test_a_plan_shows_what_differs_and_writes_nothing(aws: Aws, site: Site, tmp_path: Path) -> None:
    run(aws.account(site))
    changed = make(tmp_path, {**ELSEWHERE, "256MiB": "384MiB", "retention: 30d": "retention: 7d"})
    aws.forget()

    made = make_plan(aws.account(changed), load_workload(changed))

    assert aws.writes() == []
    shown = {str(change.resource): [*change.lines] for change in made.changes}
    assert shown["log group /edge/osaka"] == ["- retentionInDays: 30", "+ retentionInDays: 7"]
    task = shown["task definition edge-osaka-gw-1"]
    assert {"-   memory: 256", "+   memory: 384"} <= set(task)
    assert any(line.endswith("a new revision") for line in shown["service edge-osaka-gw-1"])
    assert len(shown) == 3


def test_a_change_is_one_new_revision_and_one_update(aws: Aws, site: Site, tmp_path: Path) -> None:
    run(aws.account(site))
    aws.forget()
    changed = make(tmp_path, {**ELSEWHERE, "256MiB": "384MiB"})

    assert run(aws.account(changed)) == [
        "update task definition edge-osaka-gw-1",
        "update service edge-osaka-gw-1",
    ]
    update = only(aws, "UpdateService")
    assert update.keys() == {"cluster", "service", "taskDefinition"}
    assert update["taskDefinition"].endswith("edge-osaka-gw-1:2")


@pytest.mark.parametrize("drift", ["lifecycle", "queue", "policy"])
def test_what_somebody_changed_is_put_right(aws: Aws, site: Site, drift: str) -> None:
    run(aws.account(site))
    if drift == "lifecycle":
        aws.cloud.client("s3").delete_bucket_lifecycle(Bucket="plant-lake")
    elif drift == "queue":
        sqs = aws.cloud.client("sqs")
        url = sqs.get_queue_url(QueueName="plant-alarms")["QueueUrl"]
        sqs.set_queue_attributes(QueueUrl=url, Attributes={"MessageRetentionPeriod": "60"})
    else:
        iam = aws.cloud.client("iam")
        iam.delete_role_policy(RoleName="edge-osaka-task", PolicyName="edge")
    aws.forget()
    assert len(run(aws.account(site))) == 1
    assert len(aws.writes()) == 1


def test_cut_off_after_any_write_it_goes_on_and_makes_nothing_twice(aws: Aws, site: Site) -> None:
    account = aws.account(site)
    writes = 0
    while True:
        writes += 1
        aws.cloud.reset()
        aws.forget()
        aws.cut_after(writes)
        try:
            run(account)
        except CutOff:
            pass
        else:
            break
        run(account)
        assert [str(call) for call in aws.writes()].count("ecs:RegisterTaskDefinition") == 1
        assert len(aws.writes()) == 15
    assert writes == 16  # the last had nothing left to cut


def test_a_service_that_cannot_be_changed_says_what_to_do(
    aws: Aws, site: Site, tmp_path: Path
) -> None:
    run(aws.account(site))
    other = make(tmp_path, {**ELSEWHERE, "[gw-1]": "[gw-1], schedule: replica"})
    with pytest.raises(
        DeployFailed, match="ECS cannot change schedulingStrategy of a service; run"
    ):
        run(aws.account(other))


def test_queues_and_buckets_that_are_not_to_be_made_must_be_there(aws: Aws, tmp_path: Path) -> None:
    site = make(tmp_path, {**IMAGE, "[repository, queues, buckets]": "[]"})
    with pytest.raises(DeployFailed) as raised:
        run(aws.account(site))
    assert str(raised.value).splitlines() == [
        "queue plant-alarms: is not there; make it, or add `queues` to `create`",
        "bucket plant-lake: is not there; make it, or add `buckets` to `create`",
    ]
    assert aws.writes() == []

    aws.cloud.make_queue("plant-alarms")
    aws.cloud.make_bucket("plant-lake")
    assert "create service edge-osaka-gw-1" in run(aws.account(site))
    assert not {"sqs", "s3"} & {call.service for call in aws.writes()}


def test_what_is_not_the_sites_own_is_left_alone(aws: Aws, site: Site) -> None:
    aws.cloud.make_queue("plant-alarms")
    aws.cloud.make_bucket("plant-lake")
    run(aws.account(site))
    destroy(stock_of(aws.account(site), load_workload(site)), True, lambda _: None)
    assert "plant-alarms" in aws.cloud.client("sqs").list_queues()["QueueUrls"][0]
    assert aws.cloud.objects("plant-lake") == {}


def test_a_role_of_somebody_else_is_never_taken_over(aws: Aws, site: Site) -> None:
    aws.cloud.client("iam").create_role(RoleName="edge-osaka-task", AssumeRolePolicyDocument="{}")
    with pytest.raises(DeployFailed, match="role edge-osaka-task: is there and not this site's"):
        run(aws.account(site))


def test_a_repository_is_made_and_no_task_starts_before_its_image(aws: Aws, tmp_path: Path) -> None:
    site = make(tmp_path)
    with pytest.raises(DeployFailed, match="is not in its repository; build and push it"):
        run(aws.account(site))
    made = only(aws, "CreateRepository")
    assert (made["repositoryName"], made["imageTagMutability"]) == ("edge", "IMMUTABLE")
    assert aws.of("CreateService") == []

    aws.push_image("edge", "1.4.2")
    assert run(aws.account(site)) == ["create service edge-osaka-gw-1"]


@pytest.mark.parametrize(
    "other", ["111122223333.dkr.ecr.eu-west-1", "123456789012.dkr.ecr.eu-west-2"]
)
def test_a_repository_of_another_account_or_region_is_not_made(
    aws: Aws, tmp_path: Path, other: str
) -> None:
    changes = {"123456789012.dkr.ecr.eu-west-1": other}
    with pytest.raises(DeployFailed) as raised:
        run(aws.account(make(tmp_path, changes)))
    assert str(raised.value) == (
        f"image {other}.amazonaws.com/edge:1.4.2: its repository cannot be made by account"
        " 123456789012 in eu-west-1; correct `image`, or take `repository` out of `create`"
    )
    assert aws.writes() == []
    changes["[repository, queues, buckets]"] = "[queues, buckets]"
    assert "create service edge-osaka-gw-1" in run(aws.account(make(tmp_path, changes)))


def test_another_account_is_refused(aws: Aws, tmp_path: Path) -> None:
    site = make(tmp_path, {**ELSEWHERE, 'account: "123456789012"': 'account: "999999999999"'})
    with pytest.raises(DeployFailed, match="credentials are those of account 123456789012"):
        run(aws.account(site))
    assert aws.writes() == []


def test_a_refused_call_names_itself_and_where_the_policy_stands(aws: Aws, site: Site) -> None:
    aws.cloud.fail("CreateRole", Failure("AccessDenied", 403, "no"))
    with pytest.raises(DeployFailed) as raised:
        run(aws.account(site))
    assert str(raised.value) == (
        "role edge-osaka-task: CreateRole is not allowed (AccessDenied: no);"
        " docs/deploy.md has the policy"
    )


def test_destroy_keeps_data_unless_it_is_told(aws: Aws, site: Site) -> None:
    account, workload = aws.account(site), load_workload(site)
    run(account)
    aws.cloud.client("s3").put_object(Bucket="plant-lake", Key="readings/a", Body=b"a")
    aws.forget()

    told: list[str] = []
    destroy(stock_of(account, workload), False, told.append)

    assert told == [
        "removes service edge-osaka-gw-1",
        "removes task definition edge-osaka-gw-1",
        "removes role edge-osaka-execution",
        "removes role edge-osaka-task",
        "keeps log group /edge/osaka, which holds data",
        "keeps bucket plant-lake, which holds data",
        "keeps queue plant-alarms, which holds data",
        "keeps queue plant-alarms-dead, which holds data",
    ]
    assert only(aws, "DeleteService")["force"] is True
    assert aws.cloud.objects("plant-lake")

    destroy(stock_of(account, workload), True, told.append)
    assert [line for line in told if line.startswith("removes bucket")]
    assert aws.cloud.client("s3").list_buckets()["Buckets"] == []
    assert "QueueUrls" not in aws.cloud.client("sqs").list_queues()


def test_a_site_that_was_destroyed_can_be_applied_again(aws: Aws, site: Site) -> None:
    account = aws.account(site)
    run(account)
    destroy(stock_of(account, load_workload(site)), False, lambda _: None)
    assert run(account) == [
        "create role edge-osaka-task",
        "create role edge-osaka-execution",
        "create task definition edge-osaka-gw-1",
        "create service edge-osaka-gw-1",
    ]


def test_the_fixture_site_names_the_image(aws: Aws) -> None:
    assert next(iter(IMAGE)) in SITE
