"""The state as JSON tells what happens to every row; tests/dashboard/state.json is one example.

`python -m tests.dashboard.test_state` writes the example anew.
"""

import asyncio
import json
import sys
import tempfile
from pathlib import Path
from typing import Any

import pytest

from edge.dashboard.picture import Json
from tests.broker import Broker
from tests.dashboard.plant import Plant, running
from tests.loop import in_loop

EXAMPLE = Path(__file__).with_name("state.json")
ROWS = [
    {"ts": 1_700_000_000_000 + 1000 * n, "device": f"d{n % 3}", "temp": 20.0 + n} for n in range(30)
]

LISTENS = """
edge: 1
name: press
source:
  mqtt: {url: URL, topics: [t]}
sinks:
  lake:
    file: {path: out}
"""


def has_settled(pipeline: Json) -> bool:
    """All rows that can be are delivered, the others wait because the link is down."""
    if not pipeline["sinks"]:
        return False
    lake, latency = pipeline["sinks"]["lake"], pipeline["latency"]
    return bool(
        pipeline["flow"]["stages"][0]["counters"].get("read") == len(ROWS) + 1
        and latency["durable"]["count"] == len(ROWS)
        and lake["delivered_rows"]
        and not lake["buffered_rows"]
        and latency["delivered"]["sinks"]["lake"]["count"] == lake["delivered_rows"]
        and pipeline["links"]["away"]["state"] == "down"
        and {row["values"]["temp"] for row in pipeline["newest"]["rows"]} == {47.0, 48.0, 49.0}
    )


async def settled(plant: Plant) -> Any:
    plant.write([*ROWS, "rubbish"])
    await plant.until(has_settled)
    return (await plant.get("state")).json()


def shape(value: Any) -> Any:
    """Names and types, without values: null goes with every type, as it says nothing of it."""
    if isinstance(value, dict):
        return {name: shape(inner) for name, inner in value.items()}
    if isinstance(value, list):
        return [shape(value[0])] if value else []
    if isinstance(value, bool):
        return "bool"
    return "number" if isinstance(value, int | float) else type(value).__name__


def differences(example: Any, found: Any, place: str = "state") -> list[str]:
    if isinstance(example, dict) and isinstance(found, dict):
        return [
            line
            for name in sorted({*example, *found})
            for line in (
                differences(example[name], found[name], f"{place}.{name}")
                if name in example and name in found
                else [f"{place}.{name}: only in {'the example' if name in example else 'state'}"]
            )
        ]
    if isinstance(example, list) and isinstance(found, list):
        return differences(example[0], found[0], f"{place}[]") if example and found else []
    if "NoneType" in (example, found) or example == found:
        return []
    return [f"{place}: {example} in the example, {found} in the state"]


@pytest.fixture(scope="module")
def state(tmp_path_factory: pytest.TempPathFactory) -> Any:
    return asyncio.run(_make(tmp_path_factory.mktemp("plant")))


@pytest.fixture
def pipeline(state: Any) -> Any:
    (only,) = state["pipelines"]
    return only


def test_the_state_is_as_its_example_says(state: Any) -> None:
    assert differences(shape(json.loads(EXAMPLE.read_text())), shape(state)) == []


def test_every_row_is_somewhere_in_the_flow(pipeline: Any) -> None:
    arrows = {(each["from"], each["to"]): each["rows"] for each in pipeline["flow"]["arrows"]}
    kept = arrows["lake/deadband", "sink:lake"]
    assert arrows == {
        ("source", "common/filter"): 30,
        ("common/filter", "lake/deadband"): 30,
        ("lake/deadband", "sink:lake"): kept,
        ("common/filter", "away/when"): 30,
        ("away/when", "sink:away"): 19,
    }
    stages = {each["id"]: each for each in pipeline["flow"]["stages"]}
    assert [*stages] == ["source", *(end for _, end in arrows)]
    assert stages["source"]["counters"] == {"read": 31, "rejected": 1, "taken": 30}
    assert stages["lake/deadband"]["counters"]["unchanged"] == 30 - kept
    assert "refuse" in stages["sink:away"]["problem"]
    assert all(each["balanced"] for each in pipeline["ledger"])
    assert [each["part"] for each in pipeline["ledger"]] == [*stages]


def test_a_rejected_payload_is_told_with_its_reason(pipeline: Any) -> None:
    (reject,) = pipeline["rejects"]
    assert (reject["rows"], reject["sample"]) == (1, "rubbish")
    assert [each["kind"] for each in pipeline["losses"]] == ["rejected"]


def test_the_newest_row_of_each_key_is_shown(pipeline: Any) -> None:
    newest = pipeline["newest"]
    assert {row["key"][0]: row["values"]["temp"] for row in newest["rows"]} == {
        "d0": 47.0,
        "d1": 48.0,
        "d2": 49.0,
    }
    assert newest["rows"][0]["time"] == "2023-11-14T22:13:49Z"
    assert (newest["key"], newest["time"], newest["spark"]) == (["device"], "ts", "temp")


def test_latencies_count_every_row(pipeline: Any) -> None:
    latency = pipeline["latency"]
    assert latency["durable"]["count"] == 30
    assert latency["durable"]["p50"] <= latency["durable"]["p99"]
    delivered = pipeline["sinks"]["lake"]["delivered_rows"]
    assert latency["delivered"]["sinks"]["lake"]["count"] == delivered
    assert latency["delivered"]["sinks"]["away"]["p50"] is None


def test_a_link_that_is_down_says_why_and_when_it_tries_again(pipeline: Any) -> None:
    down, up = pipeline["links"]["away"], pipeline["links"]["lake"]
    assert down["retries"] >= 1
    assert down["next_try"] > down["since"] - 1
    assert {each["state"] for each in down["timeline"]} == {"down"}
    assert down["why"] in {each["why"] for each in down["timeline"]}
    assert up["last_delivery"] >= up["since"] - 1
    assert (up["state"], up["why"], up["next_try"]) == ("up", None, None)


@in_loop
async def test_a_source_is_told_with_since_when_it_is_connected_or_not(tmp_path: Path) -> None:
    broker = Broker(tmp_path / "broker")
    async with running(tmp_path, LISTENS.replace("URL", broker.url)) as plant:
        never = await plant.until(lambda pipeline: pipeline["source"]["connected"] is False)
        await asyncio.to_thread(broker.start)
        try:
            found = await plant.until(lambda pipeline: pipeline["source"]["connected"])
        finally:
            broker.kill()
        lost = await plant.until(lambda pipeline: not pipeline["source"]["connected"])
    times = [each["source"]["since"] for each in (never, found, lost)]
    assert times == sorted({*times})


def test_no_secret_is_in_the_state(state: Any) -> None:
    assert "hunter2" not in json.dumps(state)
    assert "password: ***\n" in state["pipelines"][0]["definition"]


async def _make(folder: Path) -> Any:
    async with running(folder) as plant:
        return await settled(plant)


if __name__ == "__main__":
    with tempfile.TemporaryDirectory() as folder:
        made = json.dumps(asyncio.run(_make(Path(folder))), indent=1)
    EXAMPLE.write_text(made.replace(folder, "/plant") + "\n")
    sys.exit()
