"""The demo tells the truth: it fails when a row is missing, doubled or wrong."""

import asyncio
import contextlib
import json
import os
import signal
import subprocess
import sys
import time
import urllib.request
from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from edge.demo import DATA, expected, verdict
from edge.demo.children import Child, DemoError
from edge.demo.children import free_port as demo_port
from edge.demo.cloud import Arrived
from edge.demo.proxy import Proxy
from edge.demo.stage import checkout
from tests.ports import free_port

MAD_TOPIC = "plant/line-2/press-7/vibration"
SERIES = expected.readings(checkout() / DATA)


def checks(lake: list[tuple[str, expected.Row]]) -> dict[str, verdict.Check]:
    due = [row for _, row in arrived()]
    return {check.what: check for check in verdict.lake_checks(due, Arrived(1, lake))}


def arrived() -> list[tuple[str, expected.Row]]:
    return [(f"a/b/c/1-{n}", row) for n, row in enumerate(expected.lake(SERIES[:500]))]


def test_the_series_is_the_whole_series() -> None:
    assert len(SERIES) == 22_695
    assert SERIES[0].payload == (
        b'{"ts":"2013-12-02T21:15:00Z","reading":1,"temperature":73.96732207}'
    )


def test_rows_that_arrived_once_pass() -> None:
    assert all(check.holds for check in checks(arrived()).values())


def test_a_missing_row_is_found() -> None:
    found = checks(arrived()[1:])
    assert not found["rows"].holds
    assert found["missing"].found == 1


def test_a_doubled_row_is_found() -> None:
    found = checks([*arrived(), arrived()[7]])
    assert found["duplicates"].found == 1


def test_a_missing_and_a_doubled_row_do_not_cancel_out() -> None:
    found = checks([*arrived()[1:], arrived()[7]])
    assert found["rows"].holds
    assert (found["missing"].found, found["duplicates"].found) == (1, 1)


def test_a_wrong_value_is_found() -> None:
    (edge_id, row), *others = arrived()
    found = checks([(edge_id, row._replace(margin=row.margin + 1e-9)), *others])
    assert found["not due, or with a wrong value"].found == 1


def test_a_repeated_message_counts_as_a_repeat_and_not_as_a_row() -> None:
    rows = arrived()
    due = [row for _, row in rows]
    found = [*verdict.alarm_checks(due, Arrived(len(rows) + 1, [*rows, rows[3]]))]
    assert all(check.holds for check in found)
    assert next(check.found for check in found if check.what.startswith("repeats")) == 1


def test_a_message_with_a_new_id_for_an_old_row_is_a_duplicate() -> None:
    rows = arrived()
    due = [row for _, row in rows]
    found = verdict.alarm_checks(due, Arrived(1, [*rows, ("a/b/c/1-9999", rows[3][1])]))
    assert next(check.found for check in found if check.what == "duplicates") == 1


def test_the_ledgers_equations_are_written_out() -> None:
    ledger = {
        "source": {"read": 10, "taken": 8, "redelivered": 2},
        "lake/deadband": {"in": 8, "out": 5, "unchanged": 3},
        "sink:lake": {"appended": 5, "delivered": 4},
    }
    assert [*verdict.ledger_checks(ledger)] == [
        verdict.Check("ledger", "source: read = taken + redelivered", 10, 10),
        verdict.Check("ledger", "lake/deadband: in = out + unchanged", 8, 8),
        verdict.Check("ledger", "sink:lake: appended = delivered", 5, 4),
    ]


@dataclass
class Echo:
    """A server that answers in capitals and remembers what it was asked."""

    port: int
    asked: list[bytes]


@contextlib.asynccontextmanager
async def echo() -> AsyncIterator[tuple[Echo, Proxy]]:
    asked: list[bytes] = []

    async def answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with contextlib.suppress(OSError):
            while line := await reader.readline():
                asked.append(line)
                writer.write(line.upper())
        await close(writer)

    server = await asyncio.start_server(answer, "127.0.0.1", 0)
    port = server.sockets[0].getsockname()[1]
    proxy = Proxy(port)
    await proxy.start()
    try:
        yield Echo(port, asked), proxy
    finally:
        await proxy.close()
        server.close()


async def ask(proxy: Proxy, line: bytes) -> bytes:
    reader, writer = await asyncio.open_connection("127.0.0.1", proxy.port)
    try:
        return await answer_to(line, reader, writer)
    finally:
        await close(writer)


async def answer_to(
    line: bytes, reader: asyncio.StreamReader, writer: asyncio.StreamWriter
) -> bytes:
    """What comes back; empty when the connection is lost, however that shows."""
    with contextlib.suppress(ConnectionError):
        writer.write(line)
        return await reader.readline()
    return b""


async def close(writer: asyncio.StreamWriter) -> None:
    writer.close()
    with contextlib.suppress(ConnectionError):
        await writer.wait_closed()


def test_the_link_carries_until_it_is_cut_and_again_after() -> None:
    async def story() -> None:
        async with echo() as (_, proxy):
            assert await ask(proxy, b"one\n") == b"ONE\n"
            proxy.cut(answers=0)
            assert await ask(proxy, b"two\n") == b""
            proxy.restore()
            assert await ask(proxy, b"three\n") == b"THREE\n"

    asyncio.run(story())


def test_a_cut_loses_the_answer_and_not_the_question() -> None:
    async def story() -> None:
        async with echo() as (server, proxy):
            reader, writer = await asyncio.open_connection("127.0.0.1", proxy.port)
            assert await answer_to(b"one\n", reader, writer) == b"ONE\n"
            proxy.cut()
            assert await answer_to(b"two\n", reader, writer) == b""
            assert server.asked == [b"one\n", b"two\n"]
            assert proxy.answers_lost == 1
            await close(writer)

    asyncio.run(story())


def test_a_mute_link_loses_what_is_sent_and_carries_what_comes_back() -> None:
    async def story() -> None:
        async with echo() as (server, proxy):
            reader, writer = await asyncio.open_connection("127.0.0.1", proxy.port)
            assert await answer_to(b"one\n", reader, writer) == b"ONE\n"
            proxy.mute = True
            writer.write(b"two\n")
            with pytest.raises(TimeoutError):
                await asyncio.wait_for(reader.readline(), 0.2)
            assert server.asked == [b"one\n"]
            await close(writer)

    asyncio.run(story())


def test_a_link_that_ends_with_connections_open_is_no_traceback() -> None:
    complaints: list[dict[str, Any]] = []

    async def story() -> None:
        loop = asyncio.get_running_loop()
        loop.set_exception_handler(lambda _, complaint: complaints.append(complaint))
        async with echo() as (_, proxy):
            reader, writer = await asyncio.open_connection("127.0.0.1", proxy.port)
            assert await answer_to(b"one\n", reader, writer) == b"ONE\n"
            await proxy.close()
            assert await answer_to(b"two\n", reader, writer) == b""
            await close(writer)

    asyncio.run(story())
    assert complaints == []


def test_a_child_that_ends_by_itself_is_an_error_with_its_last_words(tmp_path: Path) -> None:
    async def story() -> None:
        log = tmp_path / "log"
        child = await Child.start("clock", [sys.executable, "-c", "raise SystemExit('no')"], log)
        with pytest.raises(DemoError, match="clock: ended with 1"):
            await child.listening(1)
        assert log.read_text() == "no\n"

    asyncio.run(story())


def test_the_port_of_a_server_is_none_that_a_client_may_be_given() -> None:
    clients = Path("/proc/sys/net/ipv4/ip_local_port_range").read_text()
    assert demo_port() < int(clients.split()[0])


def edge_demo(out: Path, **settings: str) -> "subprocess.Popen[str]":
    command = "import sys; from pathlib import Path; from edge.demo import main; "
    command += f"sys.exit(main(Path({str(out)!r}), seconds=8.0))"
    return subprocess.Popen(
        [sys.executable, "-c", command],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env=os.environ | {"COLUMNS": "120"} | settings,
    )


def test_the_demo_delivers_every_row_once(tmp_path: Path) -> None:
    with edge_demo(tmp_path) as demo:
        table, progress = demo.communicate(timeout=600)
    assert demo.returncode == 0, table + progress
    assert "Every row arrived once." in table
    assert "WRONG" not in table
    assert "read = taken + redelivered" in table
    assert [*tmp_path.glob("s3/plant-lake/readings/**/*.parquet")]
    assert tmp_path.joinpath("sqs/machine-alarms.ndjson").read_text().count("\n") >= 427


def test_ctrl_c_takes_every_child_along(tmp_path: Path) -> None:
    with edge_demo(tmp_path) as demo:
        wait_for(lambda: len(children_of(demo.pid)) == 3)
        children = children_of(demo.pid)
        demo.send_signal(signal.SIGINT)
        _, progress = demo.communicate(timeout=240)
    assert demo.returncode == 1
    assert "demo: stopped" in progress
    assert not [pid for pid in children if Path(f"/proc/{pid}").exists()]


def test_a_broker_that_does_not_answer_is_one_line(tmp_path: Path) -> None:
    with edge_demo(tmp_path, EDGE_DEMO_BROKER="mqtt://127.0.0.1:1") as demo:
        _, progress = demo.communicate(timeout=240)
    assert demo.returncode == 1
    assert "broker 127.0.0.1:1: cannot be reached" in progress
    assert "Traceback" not in progress


def children_of(pid: int) -> list[str]:
    return Path(f"/proc/{pid}/task/{pid}/children").read_text().split()


def wait_for(condition: Callable[[], bool], seconds: float = 240.0) -> None:
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.05)


STAGED: dict[str, Callable[[Any], object]] = {
    "link": lambda p: p["links"]["lake"]["state"] == "down" and p["sinks"]["lake"]["buffered_rows"],
    "rubbish": lambda p: {each["topic"] for each in p["rejects"]} == {MAD_TOPIC},
}


@pytest.mark.parametrize("fault", [*STAGED])
def test_a_fault_is_staged_and_stays_until_ctrl_c(tmp_path: Path, fault: str) -> None:
    address = f"127.0.0.1:{free_port()}"
    command = "import sys; from pathlib import Path; from edge.demo import fault; "
    command += f"sys.exit(fault.main({fault!r}, Path({str(tmp_path)!r}), {address!r}, well=1.0))"
    with subprocess.Popen(
        [sys.executable, "-c", command], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    ) as demo:
        wait_for(lambda: STAGED[fault](state_of(address)))
        children = children_of(demo.pid)
        demo.send_signal(signal.SIGINT)
        _, told = demo.communicate(timeout=240)
    assert f"look at http://{address}/" in told
    assert demo.returncode == 0
    assert "Traceback" not in told
    assert not [pid for pid in children if Path(f"/proc/{pid}").exists()]


def state_of(address: str) -> Any:
    """The only pipeline there; one without anything while nobody answers."""
    try:
        with urllib.request.urlopen(f"http://{address}/state", timeout=60) as answer:
            return json.load(answer)["pipelines"][0]
    except OSError:
        nothing: dict[str, Any] = {"state": None, "buffered_rows": 0}
        return {"links": {"lake": nothing}, "sinks": {"lake": nothing}, "rejects": []}
