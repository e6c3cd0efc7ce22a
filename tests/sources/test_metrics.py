"""metrics: the numbers of processors as rows, which an outage of the link leaves no hole in."""

import asyncio
from collections.abc import Callable
from pathlib import Path

import polars as pl
import pytest

from edge.clock import Clock
from edge.codec import Record
from edge.component import Stream
from edge.errors import DefinitionError
from edge.outbox import Limits, Outbox
from edge.outbox.measures import OF_PIPELINE, OF_SINK
from edge.outbox.model import Commit, NewEntry, SinkLimits
from edge.outbox.schema import FILE
from edge.pipeline import loads
from edge.runner import Runner
from edge.sources import Arrival, Batch
from edge.sources.metrics import MetricsSource
from tests.cloud import Cloud
from tests.proxy import Proxy
from tests.scripted import HandClock


@pytest.fixture
def state(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("EDGE_STATE_DIR", str(tmp_path / "state"))
    monkeypatch.setenv("EDGE_SITE", "osaka")
    monkeypatch.delenv("EDGE_REPLICA", raising=False)
    return tmp_path / "state"


def press(state: Path) -> Outbox:
    """An outbox that is open and holds three rows for `lake`."""
    outbox = Outbox(state / "press", limits=Limits(), sinks={"lake": SinkLimits()}, clock=Clock())
    outbox.open()
    counts = {("source", "read"): 5, ("source", "rejected"): 2, ("source", "taken"): 3}
    outbox.commit(Commit([NewEntry("lake", 3, 100, b"x" * 100)], counts=counts))
    return outbox


def look(*pipelines: str, folder: Path = Path()) -> pl.DataFrame:
    """What one look gives."""

    async def first() -> pl.DataFrame:
        source = MetricsSource(pipelines=pipelines)
        source.bind(Record(), Stream(folder=folder), "edge-a-b-0", Batch(), HandClock())
        arrivals = source.arrivals(None)
        try:
            arrival = await anext(arrivals)
        finally:
            await arrivals.aclose()
        assert arrival is not None
        assert arrival.read == arrival.frame.height
        return arrival.frame

    return asyncio.run(first())


def test_a_pipeline_and_each_of_its_sinks_is_a_row(state: Path) -> None:
    outbox = press(state)
    try:
        whole, sink = look().rows(named=True)
    finally:
        outbox.close()
    told = {"site": "osaka", "replica": "0", "pipeline": "press"}
    assert {name: whole[name] for name in told} == {name: sink[name] for name in told} == told
    assert (whole["sink"], sink["sink"]) == (None, "lake")
    numbers = {"running": 1, "rows_read": 5, "rows_rejected": 2, "rows_failed": 0, "imbalances": 0}
    assert {name: whole[name] for name in numbers} == numbers
    assert whole["outbox_max_bytes"] == Limits().max_size
    assert (sink["waiting_rows"], sink["delivered_rows"], sink["link_up"]) == (3, 0, None)
    assert sink["oldest_seconds"] >= 0
    assert [whole[name] for name in OF_SINK] == [None] * len(OF_SINK)
    assert [sink[name] for name in OF_PIPELINE] == [None] * len(OF_PIPELINE)


def test_a_processor_that_does_not_run_is_told(state: Path) -> None:
    press(state).close()
    assert look()["running"].to_list() == [0, None]
    assert look("press", "frost").select("pipeline", "running").rows() == [
        ("press", 0),
        ("press", None),
        ("frost", 0),
    ]


def test_an_outbox_elsewhere_is_named_by_its_folder(state: Path) -> None:
    press(state).close()
    found = look("./state/press", folder=state.parent)
    assert found["pipeline"].to_list() == ["press", "press"]


def test_a_damaged_outbox_is_told_and_the_others_are_read(
    state: Path, caplog: pytest.LogCaptureFixture
) -> None:
    press(state).close()
    (state / "bad").mkdir()
    (state / "bad" / FILE).write_bytes(b"no database" * 1000)
    assert look()["pipeline"].to_list() == ["bad", "press", "press"]
    assert f"outbox {state / 'bad'}: cannot be read" in caplog.text


def test_one_look_an_interval_and_an_answer_each_second(state: Path) -> None:
    press(state).close()

    async def times() -> list[float]:
        clock = HandClock()
        source = MetricsSource(every="10s")
        source.bind(Record(), Stream(), "edge-a-b-0", Batch(), clock)
        looked, before = [], clock.steady()
        async for arrival in source.arrivals(None):
            assert clock.steady() - before <= 1
            before = clock.steady()
            looked += [clock.steady()] if isinstance(arrival, Arrival) else []
            if len(looked) == 3:
                break
        return [moment - looked[0] for moment in looked]

    assert asyncio.run(times()) == [0, 10, 20]


def test_its_columns_are_its_own() -> None:
    text = "name: a\nsource: {metrics: {}}\nrecord: {fields: {n: int}}\nsinks: {o: {console: {}}}\n"
    with pytest.raises(DefinitionError, match="are given by `metrics`; leave them out"):
        loads(text, "a.yaml", {}).bind(Clock())


DEFINITION = """\
name: numbers
source:
  metrics: {{every: 50ms}}
record:
  key: [site, replica, pipeline, sink]
sinks:
  cloud:
    cloudwatch: {{namespace: edge, endpoint_url: "{url}"}}
    roll: {{every: 10ms}}
"""


def test_an_outage_of_the_link_leaves_no_hole(state: Path, cloud: Cloud) -> None:
    async def measure(proxy: Proxy) -> int:
        runner = Runner(loads(DEFINITION.format(url=proxy.url), str(state / "a.yaml"), {}))
        stop = asyncio.Event()
        await runner.open()
        proxy.set("refuse")
        running = asyncio.create_task(runner.run(stop))
        await became(lambda: runner.outbox.depth("cloud").rows > 20)
        proxy.set("up")
        runner.links["cloud"]._try_at = 0.0  # not after a back-off of seconds
        waiting = runner.outbox.depth("cloud").rows
        await became(lambda: len(points(cloud)) >= waiting)
        stop.set()
        await running
        taken: int = await runner.outbox.call("look", lambda db, *_: taken_rows(db))
        left = runner.outbox.depth("cloud").rows
        await runner.close()
        return taken - left

    with Proxy(("127.0.0.1", cloud.port)) as proxy:
        delivered = asyncio.run(measure(proxy))
    assert len(points(cloud)) >= delivered


def taken_rows(db) -> int:  # type: ignore[no-untyped-def]
    query = "SELECT value FROM ledger WHERE part = 'source' AND counter = 'taken'"
    return int(db.execute(query).fetchone()[0])


def points(cloud: Cloud) -> set[tuple[str, float]]:
    """Sink (empty: the pipeline) and time of what CloudWatch has."""
    return {(told.get("sink", ""), time) for _, told, time, _ in cloud.points("edge")}


async def became(so: Callable[[], object]) -> None:
    async with asyncio.timeout(120):
        while not so():  # noqa: ASYNC110  # what is waited for has no event
            await asyncio.sleep(0.01)
