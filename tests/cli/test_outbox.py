"""status and outbox: what waits, what was lost and why, seen from outside."""

import contextlib
import json
import signal
import sqlite3
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from edge.outbox.owner import Owner
from tests.broker import Broker
from tests.cli.conftest import Edge


@pytest.fixture
def ran(edge: Edge, press: Path) -> Path:
    """The definition after a run in which one of its two sinks could not deliver."""
    import asyncio

    from edge.clock import Clock
    from edge.pipeline import load
    from edge.runner import Runner

    (press.parent / "hot").write_text("a file where the sink's folder should be")

    async def run() -> None:
        runner = Runner(load(press), Clock())
        await runner.open()
        while await runner.step():
            pass
        await runner.close()

    asyncio.run(run())
    return press


def test_status_counts_what_waits(edge: Edge, ran: Path) -> None:
    found = json.loads(edge("status", ran, "--json").out)["press"]

    assert found["rows_read"] == 4
    assert found["rows_rejected"] == 1
    assert found["sinks"]["lake"]["buffered_rows"] == 2
    assert found["sinks"]["hot"]["buffered_rows"] == 1
    assert found["outbox"]["max_bytes"] == 2 * 2**30
    assert {"hours_until_full", "bytes"} <= set(found["outbox"])


def test_status_without_a_file_shows_every_outbox(edge: Edge, ran: Path) -> None:
    done = edge("status")

    assert done.code == 0
    assert done.out.startswith("press: not running; 4 rows read, 1 rejected; outbox ")
    assert [line.split()[0] for line in done.out.splitlines()[2:]] == ["sink", "lake", "hot"]


def test_status_is_told_by_the_name_of_the_pipeline(edge: Edge, press: Path) -> None:
    press.write_text(press.read_text() + "outbox: {path: elsewhere}\n")
    assert edge("run", "--once", press).code == 0

    assert list(json.loads(edge("status", press, "--json").out)) == ["press"]
    assert list(json.loads(edge("status", press.parent / "elsewhere", "--json").out)) == [
        "elsewhere"
    ]


def test_status_says_whether_a_processor_runs_and_which_links_were_never_tried(
    edge: Edge, ran: Path
) -> None:
    owner = Owner(ran.parent / "state" / "press" / "lock")
    owner.take(wait=0)
    lines = edge("status", ran).out.splitlines()
    owner.leave()

    assert lines[0].startswith("press: running; ")
    assert [line.split("  ")[1].strip() for line in lines[3:]] == ["not tried", "not tried"]
    assert "  1 row  " in lines[4]
    assert edge("status", ran).out.startswith("press: not running; ")


def test_status_says_how_far_a_dataset_is(edge: Edge, ran: Path) -> None:
    size = (ran.parent / "readings.ndjson").stat().st_size

    assert edge("status", ran).out.splitlines()[1] == "source dataset: all read, 1 file"
    assert json.loads(edge("status", ran, "--json").out)["press"]["source"] == {
        "kind": "dataset",
        "file": None,
        "files": 1,
        "files_done": 1,
        "bytes_done": size,
        "bytes_total": size,
    }


def test_status_says_whether_the_source_is_connected(
    edge: Edge, press: Path, tmp_path: Path
) -> None:
    broker = Broker(tmp_path)
    press.write_text(
        f"name: press\nsource: {{mqtt: {{url: '{broker.url}', topics: [a]}}}}\n"
        "record: {fields: {t: float}}\nsinks: {o: {console: }}\n"
    )
    process = subprocess.Popen([sys.executable, "-m", "edge", "run", str(press)])

    def source() -> str:
        assert process.poll() is None
        return edge("status", press).out

    try:
        refused = "Connection refused; is the broker running on that host and port?"
        _wait_for(lambda: f"source mqtt: not connected: {broker.url}: {refused}\n" in source())
        with broker:
            _wait_for(lambda: f"source mqtt: connected to {broker.url}\n" in source())
            process.kill()
            process.wait()
        assert "mqtt: not connected: the processor does not run" in edge("status", press).out
    finally:
        process.kill()
        process.wait()


def _wait_for(condition: Callable[[], bool]) -> None:
    deadline = time.monotonic() + 240
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.05)


def test_status_watches_until_it_is_interrupted(ran: Path) -> None:
    words = [sys.executable, "-m", "edge", "status", str(ran), "--watch"]
    with subprocess.Popen(words, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        seen = [next(process.stdout).split()[0] for _ in range(5)]
        process.send_signal(signal.SIGINT)
        assert process.wait(60) == 0
    assert seen == ["press:", "source", "sink", "lake", "hot"]


def test_status_where_nothing_ran_says_so(edge: Edge, press: Path) -> None:
    assert edge("status").code == 2
    assert "there is no outbox below" in edge("status").err


def test_an_outbox_is_looked_for_where_the_processor_was_started(
    edge: Edge, press: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("EDGE_STATE_DIR")
    done = edge("outbox", "drop", press, "lake")

    assert done.code == 2
    assert done.err == (
        f"outbox var/press: there is none below {press.parent}; go to where `edge run` was "
        "started, or set EDGE_STATE_DIR\n"
    )


def test_status_of_an_outbox_that_is_not_there_says_so(edge: Edge, press: Path) -> None:
    assert "there is none" in edge("status", press).err


def test_an_outbox_that_cannot_be_opened_is_one_line(edge: Edge, tmp_path: Path) -> None:
    (tmp_path / "box" / "outbox.sqlite" / "a folder").mkdir(parents=True)
    done = edge("status", tmp_path / "box")

    assert done.code == 1
    assert done.err.startswith("the file of the outbox cannot be used: ")
    assert done.err.endswith("; look at its disk, its owner and its permissions\n")


def test_ls_shows_entries_and_rejected_payloads(edge: Edge, ran: Path) -> None:
    found = json.loads(edge("outbox", "ls", ran, "--json").out)
    only = edge("outbox", "ls", ran, "--sink", "hot").out
    rejected = json.loads(edge("outbox", "ls", ran, "--rejected", "--json").out)

    assert sum(entry["rows"] for entry in found["entries"]) == 3
    assert "hot" in only
    assert "lake" not in only
    assert '"hot"' in rejected[0]["payload"]
    assert "temperature" in edge("outbox", "ls", ran, "--rejected").out


def test_a_payload_cannot_steer_the_terminal(edge: Edge, press: Path) -> None:
    (press.parent / "readings.ndjson").write_text("\x1b[2J\x1b]0;owned\x07 {\n")
    assert edge("run", "--once", press).code == 0

    shown = edge("outbox", "ls", "--rejected", press).out
    assert "\\x1b[2J\\x1b]0;owned\\x07 {" in shown
    assert "\x1b" not in shown


def test_ls_refuses_a_sink_that_is_not_there(edge: Edge, ran: Path) -> None:
    done = edge("outbox", "ls", ran, "--sink", "lak")
    assert done.code == 2
    assert done.err.endswith("has no sink 'lak'; known are hot, lake\n")


def test_ls_refuses_a_number_that_no_file_has(edge: Edge, ran: Path) -> None:
    done = edge("outbox", "ls", ran, "--limit", 10**20)
    assert done.code == 2
    assert "--limit" in done.err


def test_ls_says_that_nothing_waits(edge: Edge, press: Path) -> None:
    (press.parent / "readings.ndjson").write_text(
        '{"ts": 1700000000000, "device": "a", "temperature": 20.5}\n'
    )
    assert edge("run", "--once", press).code == 0

    assert edge("outbox", "ls", press) == (0, "", "nothing waits\n")
    assert edge("outbox", "ls", press, "--rejected") == (0, "", "no payload was rejected\n")


def test_ledger_balances_and_names_losses(edge: Edge, ran: Path) -> None:
    done = edge("outbox", "ledger", ran)

    assert done.code == 0
    assert "rejected" in done.out
    books = json.loads(edge("outbox", "ledger", ran, "--json").out)
    assert books["ledger"]["source"]["read"] == 4
    assert books["imbalances"] == []


def test_verify_finds_a_changed_byte(edge: Edge, ran: Path) -> None:
    assert edge("outbox", "verify", ran).code == 0
    with sqlite3.connect(ran.parent / "state/press/outbox.sqlite") as db:
        db.execute("UPDATE entry SET body = zeroblob(length(body)) WHERE id = 1")
    db.close()

    done = edge("outbox", "verify", ran.parent / "state" / "press")

    assert done.code == 1
    assert "does not match its checksum" in done.err


def test_export_copies_and_takes_nothing(edge: Edge, ran: Path, tmp_path: Path) -> None:
    done = edge("outbox", "export", ran, tmp_path / "copy")

    assert done.code == 0
    assert list((tmp_path / "copy" / "lake").iterdir())
    assert json.loads(edge("status", ran, "--json").out)["press"]["sinks"]["lake"]["buffered_rows"]


def test_drop_asks_first_and_ledgers_what_it_drops(edge: Edge, ran: Path) -> None:
    refused = edge("outbox", "drop", ran, "hot")
    dropped = edge("outbox", "drop", ran, "hot", "--yes")

    assert refused.code == 2
    assert dropped.code == 0
    books = json.loads(edge("outbox", "ledger", ran, "--json").out)
    assert books["ledger"]["sink:hot"]["dropped"] == 1
    assert books["imbalances"] == []
    assert edge("outbox", "drop", ran, "cold", "--yes").code == 2


def test_retry_of_nothing_is_no_failure(edge: Edge, ran: Path) -> None:
    done = edge("outbox", "retry", ran, "hot")
    assert done.code == 0
    assert done.err == "retry: 0 parcels of sink 'hot'\n"


@pytest.mark.parametrize(
    ("known", "found", "words"),
    [
        (1, 2, "by a newer version, got schema 2, this one knows 1; run the newer version or"),
        (2, 1, "by an older version, got schema 1, this one knows 2; run the older version until"),
        (1, 0, "outbox.sqlite is no outbox, it has other tables; move it away or"),
    ],
)
def test_an_outbox_of_another_version_is_refused_and_left_alone(
    edge: Edge, ran: Path, monkeypatch: pytest.MonkeyPatch, known: int, found: int, words: str
) -> None:
    monkeypatch.setattr("edge.outbox.schema.VERSION", known)
    file = ran.parent / "state" / "press" / "outbox.sqlite"
    with contextlib.closing(sqlite3.connect(file)) as db:
        db.execute("ALTER TABLE sink RENAME COLUMN entries TO pieces")
        db.execute(f"PRAGMA user_version = {found}")
    before = {each: each.read_bytes() for each in file.parent.iterdir() if each.is_file()}
    del before[file.with_name("lock")]
    for command in ("run", "status", "outbox ls", "outbox verify", "outbox ledger"):
        done = edge(*command.split(), ran)
        assert (done.code, words in done.err) == (2, True), f"{command}: {done.err}"
    for command, more in (("export", ["copy"]), ("retry", ["lake"]), ("drop", ["lake", "--yes"])):
        done = edge("outbox", command, ran, *more)
        assert (done.code, words in done.err) == (2, True), f"{command}: {done.err}"
    assert {each: each.read_bytes() for each in before} == before
