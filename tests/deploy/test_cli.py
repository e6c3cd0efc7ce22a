"""`edge deploy`: a wrong site costs one line and no call, a good one says what it does."""

import json
import time
from pathlib import Path

import pytest

from tests.cli.conftest import Edge
from tests.cli.conftest import edge as edge  # a fixture
from tests.deploy.aws import Aws
from tests.deploy.policy import asked, granted
from tests.deploy.sites import MEASURED, PIPELINE, SITE, write
from tests.deploy.test_apply import ELSEWHERE
from tests.deploy.test_site import WRONG
from tests.deploy.test_watch import NAME


@pytest.fixture
def file(tmp_path: Path) -> Path:
    text = SITE
    for old, new in ELSEWHERE.items():
        text = text.replace(old, new)
    return write(tmp_path, text)


@pytest.mark.parametrize("command", ["plan", "apply", "status", "logs", "destroy"])
def test_a_wrong_site_is_told_and_nothing_is_asked(
    aws: Aws, edge: Edge, file: Path, command: str
) -> None:
    old, new, words = WRONG[2]
    file.write_text(file.read_text().replace(old, new))
    done = edge("deploy", command, file)
    assert done.code == 2
    assert words in done.err
    assert done.err.count("\n") == 1
    assert not aws.cloud.calls


@pytest.mark.parametrize("command", ["plan", "apply", "destroy"])
def test_a_wrong_pipeline_or_target_is_told_and_nothing_is_asked(
    aws: Aws, edge: Edge, file: Path, command: str
) -> None:
    file.with_name("press.yaml").write_text(PIPELINE.replace("name: press", "name: Press"))
    done = edge("deploy", command, file)
    assert (done.code, done.err.count("\n")) == (2, 1)
    file.write_text(SITE.replace("mode: bridge", "mode: awsvpc"))
    done = edge("deploy", command, file)
    assert (done.code, done.err.count("\n")) == (2, 1)
    assert not aws.cloud.calls


def test_plan_apply_status_and_destroy(
    aws: Aws, edge: Edge, file: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    planned = edge("deploy", "plan", file)
    assert planned.code == 0
    assert f"+ service {NAME}\n" in planned.out
    assert "host gw-1: not registered; `edge host activate osaka`\n" in planned.out
    assert "promise host reboots while the link is away: nothing starts" in planned.out

    done = edge("deploy", "apply", file, "--wait", "1s")
    assert done.code == 0
    assert f"creates service {NAME}\n" in done.err
    assert done.err.endswith("replica gw-1 on -: no host: run `edge host activate osaka` for it\n")

    assert edge("deploy", "plan", file).out.startswith("nothing to change\n")
    shown = json.loads(edge("deploy", "plan", file, "--json").out)
    assert shown["changes"] == []

    (row,) = json.loads(edge("deploy", "status", file, "--json").out)
    assert row["service"]["definition"] == f"{NAME}:1"
    assert "not registered" in edge("deploy", "status", file).out
    assert edge("deploy", "logs", file).out == ""

    assert edge("deploy", "destroy", file).code == 1  # nobody answered
    done = edge("deploy", "destroy", file, "--yes")
    assert (done.code, aws.service(NAME).status) == (0, "INACTIVE")
    assert "keeps bucket plant-lake, which holds data\n" in done.err


def test_a_profile_that_is_not_there_is_named(credentials: None, edge: Edge, file: Path) -> None:
    done = edge("deploy", "plan", file, "--profile", "nope")
    assert done.code == 1
    assert done.err.endswith(
        "profile (nope) could not be found; correct --profile or AWS_PROFILE\n"
    )


def test_apply_fails_where_a_new_task_crashes(aws: Aws, edge: Edge, file: Path) -> None:
    aws.register_host("plants", site="osaka", replica="gw-1")
    assert edge("deploy", "apply", file, "--wait", "0s").code == 0
    aws.roll_out(NAME, "FAILED", failedTasks=3)
    done = edge("deploy", "apply", file)
    assert done.code == 1
    assert "crashes: no task has left a reason" in done.err


def test_a_plan_with_something_missing_says_so_and_fails(aws: Aws, edge: Edge, file: Path) -> None:
    file.write_text(file.read_text().replace("[queues, buckets]", "[buckets]"))
    done = edge("deploy", "plan", file)
    assert done.code == 1
    assert "queue plant-alarms: is not there; make it, or add `queues` to `create`" in done.err


def test_the_policy_of_the_deploying_user_is_exactly_what_is_asked(
    aws: Aws, edge: Edge, tmp_path: Path
) -> None:
    file = write(tmp_path, MEASURED)
    aws.register_host("other")  # so that the cluster of the site is made
    assert edge("deploy", "plan", file).code == 0
    assert edge("deploy", "status", file).code == 0  # no task runs
    assert edge("deploy", "apply", file).code == 1  # there is no image yet
    aws.push_image("edge", "1.4.2")
    host = aws.register_host("plants", site="osaka", replica="gw-1")
    assert edge("deploy", "apply", file, "--wait", "0s").code == 0
    drift(aws)
    file.write_text(MEASURED.replace("256MiB", "384MiB"))
    aws.run_task(NAME, desired_status="STOPPED")
    host.agent_connected = False
    assert edge("deploy", "apply", file, "--wait", "1s").code == 0
    aws.roll_out(NAME, "FAILED")
    assert edge("deploy", "apply", file, "--wait", "1s").code == 1
    aws.run_task(NAME)
    report_of_a_sink(aws)
    assert edge("deploy", "status", file).code == 0
    assert edge("deploy", "logs", file).code == 0
    aws.cloud.client("s3").put_object(Bucket="plant-lake", Key="a", Body=b"a")
    assert edge("deploy", "destroy", file, "--yes", "--data").code == 0

    assert granted("docs/deploy.md") == asked(aws)


def report_of_a_sink(aws: Aws) -> None:
    """A number is in CloudWatch, so that it is asked for."""
    about = {"site": "osaka", "replica": "gw-1", "pipeline": "press"}
    datum = {
        "MetricName": "running",
        "Dimensions": [{"Name": name, "Value": value} for name, value in about.items()],
        "Timestamp": time.time(),
        "Value": 1.0,
    }
    aws.cloud.client("cloudwatch").put_metric_data(Namespace="edge", MetricData=[datum])


def drift(aws: Aws) -> None:
    """Somebody changes what is not his to change."""
    sqs, iam = aws.cloud.client("sqs"), aws.cloud.client("iam")
    url = sqs.get_queue_url(QueueName="plant-alarms")["QueueUrl"]
    sqs.set_queue_attributes(QueueUrl=url, Attributes={"MessageRetentionPeriod": "60"})
    trust = iam.get_role(RoleName="edge-osaka-task")["Role"]["AssumeRolePolicyDocument"]
    del trust["Statement"][0]["Condition"]
    iam.update_assume_role_policy(RoleName="edge-osaka-task", PolicyDocument=json.dumps(trust))
    ecr = aws.cloud.client("ecr")
    ecr.put_image_tag_mutability(repositoryName="edge", imageTagMutability="MUTABLE")
    ecr.put_image_scanning_configuration(
        repositoryName="edge", imageScanningConfiguration={"scanOnPush": False}
    )
