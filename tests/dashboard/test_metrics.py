"""Metrics follow Prometheus' conventions, stay few, and are those that the alerts ask for."""

import asyncio
import re
from contextlib import aclosing
from pathlib import Path
from typing import Any

import pytest
import yaml
from prometheus_client.parser import text_string_to_metric_families

from edge.dashboard.hub import Hub
from edge.dashboard.metrics import CONTENT_TYPE, Metrics
from edge.secrets import Secrets
from tests.dashboard.plant import running
from tests.dashboard.test_state import settled
from tests.loop import in_loop
from tests.scripted import HandClock

ALERTS = Path(__file__).parents[2] / "deploy" / "prometheus" / "alerts.yaml"
LABELS = {"pipeline", "sink", "stage", "counter", "le", "version"}
FUNCTIONS = {"rate", "increase", "predict_linear", "and", "on", "instance", "pipeline", "counter"}


async def _asked(folder: Path) -> tuple[str, str]:
    async with running(folder) as plant:
        await settled(plant)
        answer = await plant.get("metrics")
        return answer.body.decode(), answer.headers["content-type"]


@pytest.fixture(scope="module")
def answer(tmp_path_factory: pytest.TempPathFactory) -> tuple[str, str]:
    return asyncio.run(_asked(tmp_path_factory.mktemp("plant")))


@pytest.fixture
def families(answer: tuple[str, str]) -> dict[str, Any]:
    return {family.name: family for family in text_string_to_metric_families(answer[0])}


def value(families: dict[str, Any], name: str, **labels: str) -> float:
    samples = (sample for family in families.values() for sample in family.samples)
    found = [s.value for s in samples if s.name == name and labels.items() <= s.labels.items()]
    assert len(found) == 1, (name, labels, found)
    return float(found[0])


def test_prometheus_is_told_what_the_ledger_and_the_links_say(families: dict[str, Any]) -> None:
    assert value(families, "edge_rows_read_total") == 31
    assert value(families, "edge_rows_rejected_total") == 1
    assert value(families, "edge_rows_total", stage="away/when", counter="filtered") == 11
    assert value(families, "edge_link_up", sink="lake") == 1
    assert value(families, "edge_link_up", sink="away") == 0
    assert value(families, "edge_link_retries_total", sink="away") >= 1
    assert value(families, "edge_rows_waiting", sink="away") == 19
    assert value(families, "edge_oldest_row_age_seconds", sink="away") > 0
    assert value(families, "edge_oldest_row_age_seconds", sink="lake") == 0
    assert value(families, "edge_ledger_imbalances") == 0
    assert 0 < value(families, "edge_outbox_bytes") < value(families, "edge_outbox_max_bytes")
    assert value(families, "edge_durable_latency_seconds_count") == 30
    assert value(families, "edge_durable_latency_seconds_bucket", le="+Inf") == 30
    assert value(families, "edge_commit_seconds_count") >= 1
    assert value(families, "process_cpu_seconds_total") > 0


def test_names_follow_the_conventions(answer: tuple[str, str], families: dict[str, Any]) -> None:
    assert answer[1] == CONTENT_TYPE
    for name, family in families.items():
        assert re.fullmatch(r"(edge|process)(_[a-z]+)*", name), name
        assert family.documentation, name
        for sample in family.samples:
            assert family.type != "counter" or sample.name.endswith("_total"), sample.name


def test_there_is_no_series_per_key_topic_or_reason(families: dict[str, Any]) -> None:
    labels = {name for family in families.values() for s in family.samples for name in s.labels}
    assert labels == LABELS


def test_a_pipeline_that_waits_for_its_outbox_has_metrics_too() -> None:
    assert b"edge_info" in Metrics(Hub([], Secrets()).pictures).text()


@in_loop
async def test_a_scrape_makes_no_state() -> None:
    clock = HandClock()
    hub = Hub([], Secrets(), clock)
    for _ in range(3):
        await hub.look()
        clock.advance(10)
    async with aclosing(hub.events(None)) as events:
        assert (await anext(events)).startswith(b"retry")
        assert re.match(rb"id: \w+-1\n", await anext(events))


def test_every_alert_asks_for_metrics_that_exist_and_says_what_to_do(
    families: dict[str, Any],
) -> None:
    known = {s.name for family in families.values() for s in family.samples} | {"up"}
    (group,) = yaml.safe_load(ALERTS.read_text())["groups"]
    for rule in group["rules"]:
        bare = re.sub(r'"[^"]*"|\[\w+\]|\bjob\b', "", rule["expr"])
        asked = set(re.findall(r"[a-z_]{2,}", bare)) - FUNCTIONS
        assert asked, rule["alert"]
        assert asked <= known, rule["alert"]
        assert rule["labels"]["severity"] in ("warning", "critical")
        assert set(rule["annotations"]) == {"summary", "description"}
