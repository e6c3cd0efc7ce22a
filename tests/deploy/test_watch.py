"""After an apply each host is told by itself: running, offline, or back on what ran before."""

import time
from pathlib import Path

import pytest

from edge.deploy.apply import apply
from edge.deploy.plan import Stock
from edge.deploy.report import events, report
from edge.deploy.site import Site
from edge.deploy.watch import Standing, watch
from edge.deploy.workload import load_workload
from edge.errors import DeployFailed
from tests.deploy.aws import Aws
from tests.deploy.sites import make
from tests.deploy.test_apply import ELSEWHERE

NAME = "edge-osaka-gw-1"


def applied(aws: Aws, site: Site) -> Stock:
    return apply(aws.account(site), load_workload(site), lambda _: None)


class Look:
    """A sleep that lets the world go on instead."""

    def __init__(self, *steps: object) -> None:
        self.steps = list(steps)

    def __call__(self, seconds: float) -> None:
        step = self.steps.pop(0)
        assert callable(step)
        step()


def watched(
    aws: Aws, site: Site, stock: Stock, *steps: object, seconds: float = 60
) -> list[Standing]:
    told: list[Standing] = []
    last = watch(aws.account(site), stock.services(), seconds, told.append, Look(*steps))
    assert set(last) <= set(told)
    return list(last)


@pytest.fixture
def site(tmp_path: Path) -> Site:
    return make(tmp_path, ELSEWHERE)


def test_it_is_waited_for_until_the_task_runs(aws: Aws, site: Site) -> None:
    aws.register_host("plants", site="osaka", replica="gw-1")
    stock = applied(aws, site)
    (last,) = watched(aws, site, stock, lambda: None, lambda: aws.roll_out(NAME))
    assert last == Standing("gw-1", f"mi-{1:017x}", "running")


def test_a_host_that_is_offline_is_told_and_not_waited_for(aws: Aws, tmp_path: Path) -> None:
    site = make(tmp_path, {**ELSEWHERE, "[gw-1]": "[gw-1, gw-2, gw-3, gw-4]"})
    aws.register_host("plants", 1, site="osaka", replica="gw-1")
    aws.register_host("plants", 2, site="osaka", replica="gw-2").agent_connected = False
    aws.register_host("plants", 3, site="kyoto", replica="gw-3")
    stock = applied(aws, site)
    aws.roll_out(NAME)
    aws.register_host("plants", 4, site="osaka", replica="gw-4").status = "DRAINING"
    standings = watched(aws, site, stock)
    assert [(each.replica, each.state) for each in standings] == [
        ("gw-1", "running"),
        ("gw-2", "offline"),
        ("gw-3", "no host"),
        ("gw-4", "draining"),
    ]


def test_a_task_that_does_not_start_in_time_is_told_as_such(aws: Aws, site: Site) -> None:
    aws.register_host("plants", site="osaka", replica="gw-1")
    (last,) = watched(aws, site, applied(aws, site), seconds=0)
    assert last.state == "starting"


def crash(aws: Aws) -> None:
    aws.run_task(NAME, desired_status="STOPPED", stopped_reason="Essential container exited")
    aws.roll_out(NAME, "IN_PROGRESS", failedTasks=3)


def test_what_crashes_is_taken_back_to_what_ran_before(
    aws: Aws, site: Site, tmp_path: Path
) -> None:
    aws.register_host("plants", site="osaka", replica="gw-1")
    applied(aws, site)
    aws.roll_out(NAME)
    stock = applied(aws, make(tmp_path, {**ELSEWHERE, "256MiB": "384MiB"}))
    aws.forget()

    (last,) = watched(aws, site, stock, lambda: crash(aws))

    assert (last.state, last.words) == ("rolled back", "Essential container exited, exit code 0")
    (back,) = aws.of("UpdateService")
    assert back["taskDefinition"].endswith(f"{NAME}:1")


def test_what_ecs_has_taken_back_itself_is_only_told(aws: Aws, site: Site, tmp_path: Path) -> None:
    aws.register_host("plants", site="osaka", replica="gw-1")
    applied(aws, site)
    stock = applied(aws, make(tmp_path, {**ELSEWHERE, "256MiB": "384MiB"}))
    before = aws.service(NAME).deployments[0]["taskDefinition"].replace(":2", ":1")
    aws.forget()
    (last,) = watched(aws, site, stock, lambda: aws.roll_out(NAME, taskDefinition=before))
    assert last.state == "rolled back"
    assert aws.writes() == []


def test_a_first_deployment_that_crashes_has_nothing_to_go_back_to(aws: Aws, site: Site) -> None:
    aws.register_host("plants", site="osaka", replica="gw-1")
    stock = applied(aws, site)
    aws.forget()
    (last,) = watched(aws, site, stock, lambda: crash(aws))
    assert last.state == "crashes"
    assert aws.writes() == []


def test_two_hosts_of_one_replica_are_refused(aws: Aws, site: Site) -> None:
    aws.register_host("plants", 1, site="osaka", replica="gw-1")
    aws.register_host("plants", 2, site="osaka", replica="gw-1")
    with pytest.raises(DeployFailed, match="are both replica 'gw-1' of osaka, and would share"):
        applied(aws, site)
    assert aws.writes() == []


def test_a_report_joins_service_task_and_host(aws: Aws, site: Site) -> None:
    aws.register_host("plants", site="osaka", replica="gw-1").agent_connected = False
    (nothing,) = report(aws.account(site))
    assert (nothing["service"], nothing["task"], nothing["connected"]) == (None, None, False)

    applied(aws, site)
    aws.roll_out(NAME)
    task = aws.run_task(NAME, health_status="HEALTHY")
    stream = f"gw-1/edge/{task.id}"
    logs = aws.cloud.client("logs")
    logs.create_log_stream(logGroupName="/edge/osaka", logStreamName=stream)
    event = {"timestamp": round(time.time() * 1000), "message": "started"}
    logs.put_log_events(logGroupName="/edge/osaka", logStreamName=stream, logEvents=[event])

    (row,) = report(aws.account(site))
    assert row["host"] == f"mi-{1:017x}"
    assert row["service"]["rollout"] == "COMPLETED"
    assert row["service"]["definition"] == f"{NAME}:1"
    assert row["task"]["id"] == task.id
    assert row["last_log"].endswith("Z")


def test_logs_come_from_all_replicas_or_one(aws: Aws, site: Site) -> None:
    applied(aws, site)
    logs, now = aws.cloud.client("logs"), round(time.time() * 1000)
    for replica in ("gw-1", "gw-2"):
        stream = f"{replica}/edge/1"
        logs.create_log_stream(logGroupName="/edge/osaka", logStreamName=stream)
        event = {"timestamp": now, "message": f"hello of {replica}"}
        logs.put_log_events(logGroupName="/edge/osaka", logStreamName=stream, logEvents=[event])
    account = aws.account(site)
    since = now / 1000 - 60
    assert sorted(events(account, None, since)) == ["gw-1 hello of gw-1", "gw-2 hello of gw-2"]
    list(events(account, "gw-2", since))
    assert aws.of("FilterLogEvents")[-1]["logStreamNamePrefix"] == "gw-2/"
    assert list(events(account, None, now / 1000 + 60)) == []


def test_logs_that_are_not_in_cloudwatch_are_said_to_be_elsewhere(aws: Aws, tmp_path: Path) -> None:
    site = make(tmp_path, {"{retention: 30d}": "{driver: json-file}"})
    with pytest.raises(DeployFailed, match="are not in CloudWatch but with 'json-file'"):
        list(events(aws.account(site), None, 0))
