"""A processor says by a file that it makes progress, and stops saying so when it does not."""

import os
import subprocess
import sys
import time
from pathlib import Path

from edge import health
from edge.clock import Clock
from edge.pipeline import loads
from edge.runner import Runner
from tests.loop import in_loop
from tests.processor import Processor, until


def check(path: Path) -> "subprocess.CompletedProcess[str]":
    """As the image does it."""
    return subprocess.run(
        [sys.executable, "-I", "-S", str(health.__file__)],
        env={health.VARIABLE: str(path)},
        capture_output=True,
        text=True,
    )


def test_a_fresh_file_is_healthy_and_a_missing_or_old_one_is_not(tmp_path: Path) -> None:
    path = tmp_path / "progress"
    missing = check(path)
    assert missing.returncode == 1
    assert "no pipeline has started" in missing.stderr
    health.touch(str(path))
    assert check(path).returncode == 0
    old = time.time() - health.STALE - 5
    os.utime(path, (old, old))
    assert check(path).returncode == 1
    assert f"no progress for {health.STALE + 5:.0f} s" in check(path).stderr


def test_a_clock_set_back_is_no_fault(tmp_path: Path) -> None:
    path = tmp_path / "progress"
    health.touch(str(path))
    os.utime(path, (time.time() + 86_400,) * 2)
    assert health.complaint(str(path)) is None


DEFINITION = """\
edge: 1
name: waiting
source: {mqtt: {url: mqtt://127.0.0.1:1, topics: [plant/+]}}
record: {time: ts, fields: {ts: timestamp_ms, n: int}}
sinks: {lake: {s3: {bucket: nobody, endpoint_url: 'http://127.0.0.1:1'}}}
outbox: {path: outbox}
"""


def test_a_processor_without_broker_and_cloud_is_healthy(tmp_path: Path) -> None:
    definition = tmp_path / "waiting.yaml"
    definition.write_text(DEFINITION)
    path = tmp_path / "progress"
    processor = Processor(definition, **{health.VARIABLE: str(path)})
    with processor.running():
        until(path.exists)
        first = path.stat().st_mtime_ns
        until(lambda: path.stat().st_mtime_ns > first)
        assert check(path).returncode == 0


class Later(Clock):
    """Real time, and some more."""

    more = 0.0

    def steady(self) -> float:
        return super().steady() + self.more


@in_loop
async def test_a_pipeline_is_silent_from_its_last_step_on(tmp_path: Path) -> None:
    clock = Later()
    runner = Runner(loads(DEFINITION, str(tmp_path / "waiting.yaml"), {}), clock)
    await runner.open()
    try:
        await runner.step()
        assert runner.silence() < 100
        clock.more = 300
        assert runner.silence() > 299
        await runner.step()
        assert runner.silence() < 100
    finally:
        await runner.close()
