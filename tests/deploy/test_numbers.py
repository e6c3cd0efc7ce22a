"""The status of a site has what each processor reported last, from its log or from CloudWatch."""

import json
import time
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
from moto.cloudwatch.models import cloudwatch_backends

from edge.outbox import inspection
from tests.cli.conftest import Edge
from tests.cli.conftest import edge as edge  # a fixture
from tests.cloud import ACCOUNT, REGION
from tests.deploy.aws import Aws
from tests.deploy.sites import NUMBERS, SITE, write
from tests.deploy.test_watch import NAME
from tests.processor import Processor, until

PRESS = """\
edge: 1
name: press
site: ${EDGE_SITE:-local}
replica: ${EDGE_REPLICA:-0}
source:
  dataset: {path: readings.ndjson, follow: true}
record: {fields: {n: int}}
sinks:
  lake: {file: {path: out}, roll: {every: 1s}}
  away: {mqtt: {url: "mqtt://127.0.0.1:9", topic: a}, roll: {every: 1s}}
"""
RUNS = {"EDGE_SITE": "osaka", "EDGE_REPLICA": "gw-1", "EDGE_STATE_DIR": "state"}


@pytest.fixture(scope="module")
def plant(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Where a processor has read three rows, delivered them to one sink and not to the other."""
    folder = tmp_path_factory.mktemp("plant")
    (folder / "press.yaml").write_text(PRESS)
    (folder / "readings.ndjson").write_text('{"n": 1}\n{"n": 2}\n{"n": 3}\n')

    def has_tried_both() -> bool:
        sinks = inspection.status(folder / "state" / "press", time.time_ns() // 1000)["sinks"]
        return bool(sinks["lake"]["delivered_rows"] == 3 and sinks["away"]["link"] == "down")

    with Processor(folder / "press.yaml", **RUNS).running():
        until(has_tried_both)
    return folder


@pytest.fixture(scope="module")
def log(plant: Path) -> list[str]:
    """What a processor that is told to writes into its log at its start."""
    processor = Processor(plant / "press.yaml", "--log-metrics", "--log-format", "json", **RUNS)
    with processor.running(b"numbers of sink 'away'"):
        pass
    return processor.said().splitlines()


@pytest.fixture
def site(aws: Aws, tmp_path: Path) -> Path:
    """A site whose host has registered, with the log group that an apply makes."""
    aws.register_host("plants", site="osaka", replica="gw-1")
    aws.cloud.client("logs").create_log_group(logGroupName="/edge/osaka")
    return write(tmp_path, SITE)


def write_log(aws: Aws, stream: str, lines: list[str]) -> None:
    """Lines as the driver `awslogs` sends them, in their order."""
    logs, now = aws.cloud.client("logs"), round(time.time() * 1000)
    logs.create_log_stream(logGroupName="/edge/osaka", logStreamName=stream)
    events = [{"timestamp": now, "message": line} for line in lines]
    logs.put_log_events(logGroupName="/edge/osaka", logStreamName=stream, logEvents=events)


def started(aws: Aws) -> str:
    """The log stream of a task that runs."""
    container = {"name": "edge", "image": "edge:1", "memory": 256}
    aws.cloud.client("ecs").register_task_definition(family=NAME, containerDefinitions=[container])
    return f"gw-1/edge/{aws.run_task(NAME).id}"


def status(edge: Edge, site: Path) -> dict[str, Any]:
    done = edge("deploy", "status", site, "--json")
    assert done.code == 0, done.err
    (row,) = json.loads(done.out)
    assert isinstance(row, dict)
    return row


def by_sink(row: dict[str, Any]) -> dict[str | None, dict[str, Any]]:
    assert row["unreported"] is None
    assert {each["pipeline"] for each in row["numbers"]} == {"press"}
    return {each["sink"]: each for each in row["numbers"]}


def check(found: dict[str | None, dict[str, Any]]) -> None:
    """What the processor of `plant` reports, wherever it was read."""
    whole, away, lake = found[None], found["away"], found["lake"]
    assert (whole["running"], whole["rows_read"], whole["imbalances"]) == (1, 3, 0)
    assert whole["last_read_seconds"] >= 0
    assert (away["link_up"], away["waiting_rows"]) == (0, 3)
    assert away["waiting_bytes"] > 0
    assert away["oldest_seconds"] > 0
    assert (lake["waiting_rows"], lake["delivered_rows"]) == (0, 3)


def test_what_a_processor_has_logged_is_shown_with_its_age(
    aws: Aws, edge: Edge, site: Path, log: list[str]
) -> None:
    write_log(aws, started(aws), log)
    row = status(edge, site)
    check(by_sink(row))
    told = max(json.loads(line)["_aws"]["Timestamp"] for line in log if "_aws" in line) / 1000
    for each in row["numbers"]:
        assert 0 < each["reported_seconds"] <= time.time() - told + 1
    assert row["last_log"] is not None

    done = edge("deploy", "status", site)
    assert done.err == ""
    (line,) = (line for line in done.out.splitlines() if " away " in line)
    words = [word.strip() for word in line.split("  ") if word.strip()]
    assert words[:5] == ["gw-1", "press", "away", "down", "3 rows"]
    assert words[7] == "balances"
    assert words[8].endswith(" before")
    assert words[9].endswith(" ago")


def test_numbers_are_found_behind_many_other_lines(
    aws: Aws, edge: Edge, site: Path, log: list[str]
) -> None:
    write_log(aws, started(aws), [*log, *(["{}", "no JSON"] * 1_500)])
    check(by_sink(status(edge, site)))
    assert len(aws.of("GetLogEvents")) >= 4


def test_where_no_task_runs_the_last_one_is_heard(
    aws: Aws, edge: Edge, site: Path, log: list[str]
) -> None:
    write_log(aws, "gw-1/edge/0", log)
    row = status(edge, site)
    assert row["task"] is None
    check(by_sink(row))


def test_a_sink_that_its_pipeline_has_no_more_is_left_out(
    aws: Aws, edge: Edge, site: Path, log: list[str]
) -> None:
    former = json.loads(next(line for line in log if '"sink": "away"' in line))
    former["_aws"]["Timestamp"] -= 600_000
    lines = [json.dumps({**former, "sink": "former"}), json.dumps({**former, "waiting_rows": 9})]
    write_log(aws, started(aws), [*lines, *log])
    found = by_sink(status(edge, site))
    assert "former" not in found
    check(found)


@pytest.mark.parametrize(
    ("old", "new", "words"),
    [
        ("{PLANT: osaka}", "{PLANT: osaka}", 'set EDGE_LOG_METRICS: "1" in `environment`'),
        ("{PLANT: osaka}", "{EDGE_LOG_METRICS: '1'}", "nothing is reported yet; a processor does"),
        ("{retention: 30d}", "{driver: json-file}", "add the pipeline of docs/cloudwatch.md"),
    ],
)
def test_where_nothing_is_reported_it_says_how(
    aws: Aws, edge: Edge, site: Path, old: str, new: str, words: str
) -> None:
    site.write_text(SITE.replace(old, new))
    started(aws)
    row = status(edge, site)
    assert row["numbers"] == []
    assert words in row["unreported"]
    assert edge("deploy", "status", site).err == f"replica gw-1: {row['unreported']}\n"


def test_what_a_cloudwatch_sink_has_delivered_is_shown_also_days_later(
    aws: Aws, edge: Edge, site: Path, plant: Path
) -> None:
    started(aws)
    numbers = NUMBERS.replace("every: 1m", "every: 1s, pipelines: [press]")
    (plant / "numbers.yaml").write_text(f"{numbers}    roll: {{every: 1s}}\n")
    processor = Processor(
        plant / "press.yaml", "numbers.yaml", **RUNS, AWS_ENDPOINT_URL=aws.cloud.url
    )
    with processor.running():
        until(lambda: len({tuple(at.values()) for _, at, _, _ in aws.cloud.points("edge")}) == 3)
    row = status(edge, site)
    check(by_sink(row))

    for datum in cloudwatch_backends[ACCOUNT][REGION].metric_data:
        datum.timestamp -= timedelta(days=2)
    row = status(edge, site)
    check(by_sink(row))
    assert all(0 < each["reported_seconds"] - 2 * 86_400 < 3_600 for each in row["numbers"])
