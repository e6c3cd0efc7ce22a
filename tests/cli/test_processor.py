"""run: ends when the data ends, says who is in the way, and stops when it is told to."""

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import polars as pl
import pytest

from edge.clock import Clock
from edge.outbox import Limits, Outbox
from tests.cli.conftest import DEFINITION, Done, Edge


def command(*words: object, **environment: str) -> Done:
    """A command in a process of its own."""
    done = subprocess.run(
        [sys.executable, "-m", "edge", *map(str, words)],
        capture_output=True,
        text=True,
        timeout=60,
        env={**os.environ, **environment},
    )
    return Done(done.returncode, done.stdout, done.stderr)


def test_run_once_ends_when_everything_is_delivered(press: Path) -> None:
    done = command("run", "--once", press, "--log-format", "json")

    assert done.code == 0, done.err
    events = [json.loads(line) for line in done.err.splitlines()]
    assert {event["logger"] for event in events} >= {"edge.runner"}
    rows = pl.concat(map(pl.read_ndjson, press.parent.glob("out/**/*.ndjson")))
    assert rows["temperature"].sort().to_list() == [20.5, 90.0]
    assert len(list(press.parent.glob("hot/**/*.*"))) == 1


def test_a_definition_with_a_fault_opens_nothing(edge: Edge, press: Path) -> None:
    other = press.with_name("other.yaml")
    other.write_text(DEFINITION.replace("dataset", "datset"))

    done = edge("run", "--once", press, other)

    assert done.code == 2
    assert "no source is called 'datset'; did you mean 'dataset'?" in done.err
    assert not (press.parent / "state").exists()


def test_two_pipelines_cannot_share_an_outbox(edge: Edge, press: Path) -> None:
    other = press.with_name("other.yaml")
    other.write_text(DEFINITION)

    done = edge("run", press, other)

    assert done.code == 2
    assert done.err == (
        f"{other}: outbox: shares the outbox {press.parent / 'state' / 'press'} with {press}; "
        "give it another name or path\n"
    )


def test_an_outbox_that_cannot_be_made_is_one_line(edge: Edge, press: Path) -> None:
    press.write_text(press.read_text() + "outbox: {path: readings.ndjson/box}\n")
    done = edge("run", "--once", press)

    assert done.code == 1
    place = press.parent / "readings.ndjson" / "box"
    assert done.err.splitlines()[-1] == (
        f"{place}: cannot be used: Not a directory; look at the path, its owner and its permissions"
    )


def test_a_second_processor_of_one_outbox_exits_with_3(
    edge: Edge, press: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(Outbox.open, "__defaults__", (0.0,))  # else it waits for 90 s
    owner = Outbox(press.parent / "state/press", limits=Limits(), sinks={}, clock=Clock())
    owner.open()
    try:
        done = edge("run", "--once", press)
    finally:
        owner.close()

    assert done.code == 3
    assert "state/press: another process owns it; waiting for it to leave" in caplog.text
    assert "state/press" in done.err.splitlines()[-1]


def test_a_processor_that_waits_for_its_outbox_stops_when_it_is_told_to(press: Path) -> None:
    owner = Outbox(press.parent / "state/press", limits=Limits(), sinks={}, clock=Clock())
    owner.open()
    words = [sys.executable, "-m", "edge", "run", str(press)]
    process = subprocess.Popen(words, stderr=subprocess.PIPE, text=True)
    try:
        deadline = time.monotonic() + 60
        while not _catches(process.pid, signal.SIGTERM):
            assert time.monotonic() < deadline
            assert process.poll() is None
            time.sleep(0.02)
        process.send_signal(signal.SIGTERM)
        _, said = process.communicate(timeout=60)
    finally:
        process.kill()
        process.communicate()
        owner.close()
    assert process.returncode == 0
    assert f"told to stop while it waited; outbox {press.parent / 'state/press'}" in said


def _catches(pid: int, number: int) -> bool:
    """Whether a process has a handler for a signal."""
    status = Path(f"/proc/{pid}/status").read_text()
    return bool(int(status.partition("SigCgt:")[2].split()[0], 16) & 1 << (number - 1))


def test_a_processor_stops_when_it_is_told_to(press: Path) -> None:
    press.write_text(
        "name: press\nsource: {mqtt: {url: 'mqtt://127.0.0.1:1', topics: [a]}}\n"
        "record: {fields: {t: float}}\nsinks: {o: {console: }}\n"
    )
    process = subprocess.Popen([sys.executable, "-m", "edge", "run", str(press)])
    try:
        deadline = time.monotonic() + 60
        while not (press.parent / "state/press/outbox.sqlite").exists():
            assert time.monotonic() < deadline
            assert process.poll() is None
            time.sleep(0.02)
        process.send_signal(signal.SIGTERM)
        assert process.wait(60) == 0
    finally:
        process.kill()
        process.wait()


def test_help_is_there_at_once_and_without_polars() -> None:
    code = "import sys; from edge.cli import application; application()(['--help'])"
    done = subprocess.run(
        [sys.executable, "-X", "importtime", "-c", code], capture_output=True, text=True
    )
    assert "Exit codes: 0 done" in done.stdout
    assert "polars" not in done.stderr


def test_polars_gets_one_thread_unless_the_user_says_otherwise() -> None:
    code = (
        "import sys; sys.argv = ['edge', '--help']\nfrom edge.cli import main\n"
        "try: main()\nexcept SystemExit: pass\n"
        "import polars; print(polars.thread_pool_size())"
    )
    free = {name: value for name, value in os.environ.items() if name != "POLARS_MAX_THREADS"}

    def threads(**more: str) -> str:
        done = subprocess.run(
            [sys.executable, "-c", code], capture_output=True, text=True, env=free | more
        )
        return done.stdout.splitlines()[-1]

    assert threads() == "1"
    assert threads(POLARS_MAX_THREADS="2") == "2"


def test_a_misspelt_command_is_recognised() -> None:
    done = command("chek")
    assert done.code == 2
    assert "Did you mean 'check'" in done.err


def test_python_runs_a_pipeline_too(press: Path) -> None:
    code = f"import edge; edge.run(edge.load({str(press)!r}), once=True)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert len(list(press.parent.glob("out/**/*.*"))) == 1


def test_python_shows_the_page_where_it_is_told_to(press: Path) -> None:
    code = (
        "import logging, edge; logging.basicConfig(level='INFO')\n"
        f"edge.run(edge.load({str(press)!r}), once=True, http='127.0.0.1:0')"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert "http: listens on http://127.0.0.1:" in done.stderr


def test_python_shows_other_machines_no_page_without_a_token(press: Path) -> None:
    code = f"import edge; edge.run(edge.load({str(press)!r}), once=True, http='0.0.0.0:0')"
    free = {name: value for name, value in os.environ.items() if "EDGE_HTTP" not in name}
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, env=free)
    assert "everybody there could look; set EDGE_HTTP_TOKEN" in done.stderr
    assert not list(press.parent.glob("out/**/*.*"))
