"""Alarms of a site: made once, kept as the site says, removed with it; nobody else's touched."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest

from edge.deploy.account import Account
from edge.deploy.apply import apply, destroy
from edge.deploy.plan import make_plan, stock_of
from edge.deploy.site import Site, load_site
from edge.deploy.validate import check_target
from edge.deploy.workload import load_workload
from edge.errors import DefinitionError, DeployFailed
from tests.deploy.aws import Aws
from tests.deploy.sites import ALARMS, MEASURED, write

STEM = "edge-osaka-gw-1"
ELSEWHERE = MEASURED.replace("123456789012.dkr.ecr.eu-west-1.amazonaws.com", "example.com").replace(
    "[repository, queues, buckets]", "[queues, buckets]"
)


def make(folder: Path, text: str = ELSEWHERE) -> Site:
    return load_site(write(folder, text), {})


def run(account: Account) -> list[str]:
    told: list[str] = []
    workload = load_workload(account.site)
    apply(account, workload, lambda change: told.append(f"{change.action} {change.resource}"))
    return [line for line in told if " alarm " in line]


def alarms(aws: Aws) -> dict[str, Mapping[str, Any]]:
    """What CloudWatch has, by name."""
    found = aws.cloud.client("cloudwatch").describe_alarms()["MetricAlarms"]
    return {each["AlarmName"]: each for each in found}


def test_every_host_pipeline_and_sink_has_its_alarms_once(aws: Aws, tmp_path: Path) -> None:
    site = make(tmp_path)
    made = run(aws.account(site))
    names = ["press-ledger", "press-no-data"]
    names += [f"press-{sink}-{what}" for sink in ("lake", "alarms") for what in ("backlog", "link")]
    names += ["numbers-ledger", "numbers-no-data", "numbers-cloud-backlog", "numbers-cloud-link"]
    assert made == [f"create alarm {STEM}-{name}" for name in names]
    aws.forget()
    assert run(aws.account(site)) == []
    assert aws.writes() == []


def test_an_alarm_looks_at_the_series_that_the_pipeline_makes(aws: Aws, tmp_path: Path) -> None:
    run(aws.account(make(tmp_path)))
    found = alarms(aws)
    backlog = found[f"{STEM}-press-lake-backlog"]
    about = {"site": "osaka", "replica": "gw-1", "pipeline": "press", "sink": "lake"}
    assert {each["Name"]: each["Value"] for each in backlog["Dimensions"]} == about
    told = ("Namespace", "MetricName", "Statistic", "ComparisonOperator", "Threshold", "Period")
    assert [backlog[name] for name in told] == [
        "edge", "oldest_seconds", "Minimum", "GreaterThanThreshold", 900, 300,
    ]  # fmt: skip
    link = found[f"{STEM}-press-lake-link"]
    assert [link[name] for name in told] == [
        "edge", "link_up", "Maximum", "LessThanThreshold", 1, 900,
    ]  # fmt: skip
    silent = found[f"{STEM}-press-no-data"]
    assert silent["TreatMissingData"] == "breaching"
    assert silent["Metrics"][0]["Expression"] == "DIFF(total)"
    topic = ["arn:aws:sns:eu-west-1:123456789012:plant"]
    assert all(each["AlarmActions"] == each["OKActions"] == topic for each in found.values())


def test_what_somebody_changed_is_planned_and_mended(aws: Aws, tmp_path: Path) -> None:
    site = make(tmp_path)
    run(aws.account(site))
    name = f"{STEM}-press-ledger"
    kept = {key: value for key, value in alarms(aws)[name].items() if key in _SETTABLE}
    aws.cloud.client("cloudwatch").put_metric_alarm(**{**kept, "Threshold": 7.0})
    (change,) = make_plan(aws.account(site), load_workload(site)).changes
    assert (change.action, [*change.lines]) == ("update", ["- Threshold: 7.0", "+ Threshold: 0.0"])
    assert run(aws.account(site)) == [f"update alarm {name}"]
    assert run(aws.account(site)) == []


_SETTABLE = {
    "AlarmName", "AlarmDescription", "ActionsEnabled", "AlarmActions", "OKActions", "MetricName",
    "Namespace", "Statistic", "Dimensions", "Period", "EvaluationPeriods", "Threshold",
    "ComparisonOperator", "TreatMissingData",
}  # fmt: skip


def test_what_is_asked_for_no_more_is_removed(aws: Aws, tmp_path: Path) -> None:
    run(aws.account(make(tmp_path)))
    fewer = make(tmp_path, ELSEWHERE.replace("alarms: {", "alarms: {no_data: null, "))
    assert sorted(run(aws.account(fewer))) == [
        f"remove alarm {STEM}-numbers-no-data",
        f"remove alarm {STEM}-press-no-data",
    ]
    none = make(tmp_path, ELSEWHERE.replace(ALARMS, ""))
    assert len(run(aws.account(none))) == 8
    assert alarms(aws) == {}


def test_destroy_leaves_the_alarms_of_others(aws: Aws, tmp_path: Path) -> None:
    site = make(tmp_path)
    account = aws.account(site)
    run(account)
    other = f"{STEM}-press-mine"
    aws.cloud.client("cloudwatch").put_metric_alarm(
        AlarmName=other,
        Namespace="edge",
        MetricName="link_up",
        Statistic="Maximum",
        Period=60,
        EvaluationPeriods=1,
        Threshold=1,
        ComparisonOperator="LessThanThreshold",
    )
    assert run(account) == []
    destroy(stock_of(account, load_workload(site)), False, lambda _: None)
    assert [*alarms(aws)] == [other]


def test_an_alarm_of_that_name_that_is_not_ours_is_refused(aws: Aws, tmp_path: Path) -> None:
    site = make(tmp_path)
    name = f"{STEM}-press-ledger"
    run(aws.account(site))
    cloudwatch = aws.cloud.client("cloudwatch")
    arn = alarms(aws)[name]["AlarmArn"]
    cloudwatch.untag_resource(ResourceARN=arn, TagKeys=["edge:site"])
    with pytest.raises(DeployFailed, match=f"alarm {name}: is there and not this site's"):
        run(aws.account(site))


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        ("[press.yaml, numbers.yaml]", "[press.yaml]", "into which no pipeline puts numbers; add"),
        ("alarms: {", "alarms: {namespace: mine, ", "look at namespace 'mine'"),
        ("alarms: {", "alarms: {no_data: 90s, ", "must be whole minutes between 1m and 24h"),
        ("alarms: {", "alarms: {notify: [plant], x: ", "an ARN such as that of an SNS topic"),
    ],
)
def test_alarms_that_could_never_ring_are_refused(
    tmp_path: Path, old: str, new: str, message: str
) -> None:
    text = ELSEWHERE.replace(old, new).replace("x: notify: ", "x: ")
    with pytest.raises(DefinitionError, match=message):
        load_workload(make(tmp_path, text))


def test_numbers_in_the_log_are_numbers_too(tmp_path: Path) -> None:
    text = ELSEWHERE.replace("[press.yaml, numbers.yaml]", "[press.yaml]")
    logged = text.replace("{PLANT: osaka}", "{PLANT: osaka, EDGE_LOG_METRICS: '1'}")
    assert load_workload(make(tmp_path, logged)).pipelines
    with pytest.raises(DefinitionError, match="into which no pipeline puts numbers"):
        load_workload(make(tmp_path, logged.replace("{retention", "{driver: json-file, retention")))


@pytest.mark.parametrize("target", ["docker", "kubernetes"])
def test_alarms_are_for_the_targets_of_ecs(tmp_path: Path, target: str) -> None:
    with pytest.raises(DefinitionError, match="alarms: are made for the targets of ECS"):
        check_target(make(tmp_path, ELSEWHERE.replace("target: ecs-anywhere", f"target: {target}")))


def test_the_task_may_put_metrics_into_the_namespace_and_no_other(aws: Aws, tmp_path: Path) -> None:
    run(aws.account(make(tmp_path)))
    policy = aws.of("PutRolePolicy")[0]["PolicyDocument"]
    assert '"cloudwatch:PutMetricData"' in policy
    assert '{"StringEquals": {"cloudwatch:namespace": "edge"}}' in policy
