"""A collector near a share, a queue, an aggregator: each row arrives once, whatever happens."""

import io
import json
import shutil
from pathlib import Path

import polars as pl

from edge.clock import Clock
from edge.outbox.inspection import status
from tests.cloud import Cloud, Failure
from tests.processor import Processor, until

PIPELINES = Path(__file__).parents[1] / "pipelines"
ROWS = 3_000


def write(share: Path, numbers: range) -> None:
    """A finished file, as one who writes it elsewhere and moves it."""
    lines = [
        json.dumps(
            {"at": f"2026-03-01T06:{n // 60:02}:{n % 60:02}Z", "station": "s1", "part": f"p{n}"}
            | {"width": 12 + n % 7 / 5}
        )
        for n in numbers
    ]
    part = share / f"{numbers.start:05}.part"
    part.write_text("\n".join(lines) + "\n")
    part.rename(part.with_suffix(".ndjson"))


def arrived(cloud: Cloud, sink: str) -> list[str]:
    """`part` of every row that a sink of the aggregator has brought to its bucket."""
    found = []
    for key, body in cloud.objects("inspection-results").items():
        if f"/share-aggregator/{sink}/" in key:
            found += pl.read_parquet(io.BytesIO(body))["part"].to_list()
    return found


def test_each_row_of_the_share_arrives_once(cloud: Cloud, tmp_path: Path) -> None:
    cloud.make_queue("inspections")
    cloud.make_bucket("inspection-results")
    shutil.copytree(PIPELINES, tmp_path / "pipelines")
    (tmp_path / "share").mkdir()
    around = {"AWS_ENDPOINT_URL": cloud.url, "EDGE_STATE_DIR": str(tmp_path / "var")}
    collector = Processor(tmp_path / "pipelines" / "share-collector.yaml", **around)
    (tmp_path / "elsewhere").mkdir()
    definition = shutil.copy(
        tmp_path / "pipelines" / "share-aggregator.yaml", tmp_path / "elsewhere"
    )
    aggregator = Processor(Path(definition), **around)

    def read() -> int:
        outbox = tmp_path / "var" / "share-collector"
        return int(status(outbox, Clock().now())["rows_read"]) if outbox.exists() else 0

    outside = [f"p{n}" for n in range(ROWS) if n % 7 > 5]
    with aggregator.running():
        with collector.running():
            write(tmp_path / "share", range(1000))
            until(lambda: read() == 1000)
        cloud.fail("SendMessageBatch", always=Failure("ExpiredToken", 403))
        with collector.running():
            write(tmp_path / "share", range(1000, 2000))
            until(lambda: read() == 2000)
        with collector.running():
            cloud.mend()
            write(tmp_path / "share", range(2000, ROWS))
            until(lambda: len(arrived(cloud, "parts")) >= ROWS)
            until(lambda: len(arrived(cloud, "outside")) >= len(outside))
    assert sorted(arrived(cloud, "parts")) == sorted(f"p{n}" for n in range(ROWS))
    assert sorted(arrived(cloud, "outside")) == sorted(outside)
