"""What is answered over HTTP, to whom, and that it never stands in the way of the rows."""

import asyncio
import http.client
import json
import os
import socket
import ssl
import subprocess
import sys
import time
import urllib.parse
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest

from edge.clock import Clock
from edge.dashboard.picture import Picture
from edge.newest import MOST_KEYS
from edge.secrets import Secrets
from tests.certificates import Certificates
from tests.dashboard.plant import Plant, running
from tests.dashboard.test_state import settled
from tests.loop import in_loop

TOKEN = "0123456789abcdef0123"


@asynccontextmanager
async def events(plant: Plant, last: str | None = None) -> AsyncIterator[asyncio.StreamReader]:
    address = urllib.parse.urlsplit(plant.dashboard.url)
    reader, writer = await asyncio.open_connection(address.hostname, address.port, limit=2**24)
    resume = f"Last-Event-ID: {last}\r\n" if last else ""
    writer.write(f"GET /events HTTP/1.1\r\nHost: localhost\r\n{resume}\r\n".encode())
    try:
        yield reader
    finally:
        writer.close()


async def next_event(reader: asyncio.StreamReader) -> tuple[str, Any]:
    """Id and state of the next event."""
    number = ""
    while True:
        line = (await reader.readline()).decode()
        assert line, "the server ended the connection"
        if line.startswith("id: "):
            number = line[4:].strip()
        if line.startswith("data: "):
            return number, json.loads(line[6:])


def _times(url: str, count: int) -> list[float]:
    """Seconds until each of `count` answers on one connection was there."""
    connection = http.client.HTTPConnection(urllib.parse.urlsplit(url).netloc)
    times = []
    for _ in range(count):
        began = time.monotonic()
        connection.request("GET", "/healthz")
        assert connection.getresponse().read() == b"ok\n"
        times.append(time.monotonic() - began)
    connection.close()
    return times


@in_loop
async def test_an_answer_does_not_wait_until_its_head_is_acknowledged(tmp_path: Path) -> None:
    async with running(tmp_path) as plant:
        url = plant.dashboard.url
        assert url
        times = await asyncio.to_thread(_times, url, 60)
    delayed_ack = 0.04  # Linux's shortest; the first ones on a connection come at once
    assert min(times[-20:]) < delayed_ack, times


@in_loop
async def test_the_first_event_is_whole_and_later_ones_have_what_is_new(tmp_path: Path) -> None:
    async with running(tmp_path) as plant:
        await settled(plant)
        async with events(plant) as reader:
            last, first = await next_event(reader)
            assert first["partial"] is False
            before = lines(first)
            assert {*before} == {"d0", "d1", "d2"}
            plant.write([{"ts": 1_700_000_090_000, "device": "d1", "temp": 99.0}])
            rows: list[Any] = []
            while not rows:
                last, later = await next_event(reader)
                rows = later["pipelines"][0]["newest"]["rows"]
            assert later["partial"] is True
            assert [row["values"]["temp"] for row in rows] == [99.0]
            assert lines(later) == {"d1": [99.0]}
            whole = lines((await plant.get("state")).json())
            assert whole == before | {"d1": [*before["d1"], 99.0]}
        plant.write([{"ts": 1_700_000_091_000, "device": "d2", "temp": 98.0}])
        async with events(plant, last) as reader:
            rows = []
            while not rows:
                _, resumed = await next_event(reader)
                rows = resumed["pipelines"][0]["newest"]["rows"]
            assert resumed["partial"] is True
            assert lines(resumed) == {"d2": [98.0]}


def lines(state: Any) -> dict[str, list[float]]:
    """The points of each key's line."""
    (pipeline,) = state["pipelines"]
    return {row["key"][0]: row["spark"] for row in pipeline["newest"]["rows"]}


@in_loop
async def test_an_event_of_another_life_of_the_processor_begins_anew(tmp_path: Path) -> None:
    async with running(tmp_path) as plant:
        await settled(plant)
        async with events(plant, "0badcafe-12") as reader:
            _, state = await next_event(reader)
    assert state["partial"] is False
    assert state["pipelines"][0]["definition"]


@in_loop
async def test_a_link_that_goes_down_is_told_at_once_not_with_the_next_state(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("edge.dashboard.hub.EVERY", 3600.0)
    async with running(tmp_path) as plant, events(plant) as reader, asyncio.timeout(120):
        _, state = await next_event(reader)
        plant.write([{"ts": 1_700_000_000_000, "device": "d1", "temp": 40.0}])
        while state["pipelines"][0]["links"]["away"]["state"] != "down":
            _, state = await next_event(reader)
        assert state["pipelines"][0]["links"]["away"]["why"]


@in_loop
async def test_who_does_not_read_holds_up_nobody(tmp_path: Path) -> None:
    async with running(tmp_path) as plant:
        await settled(plant)
        async with events(plant):  # never read
            plant.write([{"ts": 1_700_000_100_000, "device": "d9", "temp": 97.0}])
            await plant.until(lambda pipeline: pipeline["newest"]["total"] == 4)


@in_loop
async def test_who_asks_for_nothing_is_shown_out(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("edge.dashboard.server.SILENT", 1.0)
    async with running(tmp_path) as plant, events(plant) as listening:
        address = urllib.parse.urlsplit(plant.dashboard.url)
        reader, writer = await asyncio.open_connection(address.hostname, address.port)
        writer.write(b"GET /state HTTP/1.1\r\nHost: localh")
        assert await reader.read() == b""
        writer.close()
        await next_event(listening)
        await next_event(listening)


@in_loop
async def test_the_end_does_not_wait_for_who_looks(tmp_path: Path) -> None:
    async with running(tmp_path) as plant, events(plant) as reader:
        await next_event(reader)
        began = asyncio.get_running_loop().time()
        plant.beside.cancel()
        await asyncio.gather(plant.beside, return_exceptions=True)
        assert asyncio.get_running_loop().time() - began < 30
        while await reader.read(2**16):
            pass


@in_loop
async def test_more_keys_than_are_kept_are_no_trouble(tmp_path: Path) -> None:
    rows = [{"ts": 1_700_000_000_000, "device": f"d{n}", "temp": 1.0} for n in range(5_500)]
    async with running(tmp_path) as plant:
        plant.write(rows)
        await plant.until(lambda pipeline: pipeline["newest"]["total"] == MOST_KEYS)
        async with events(plant) as reader:
            _, first = await next_event(reader)
            assert len(first["pipelines"][0]["newest"]["rows"]) == MOST_KEYS
            _, later = await next_event(reader)
            assert len(later["pipelines"][0]["newest"]["rows"]) < MOST_KEYS


@in_loop
async def test_nothing_can_be_changed(tmp_path: Path) -> None:
    async with running(tmp_path) as plant:
        for method in ("POST", "PUT", "DELETE", "PATCH", "OPTIONS"):
            for path in ("", "state", "healthz", "elsewhere"):
                answer = await plant.get(path, method)
                assert (answer.status, answer.headers["allow"]) == (405, "GET, HEAD")
        for path in ("", "state", "events", "metrics", "healthz"):
            answer = await plant.get(path, "HEAD")
            assert (answer.status, answer.body) == (200, b""), path
        assert (await plant.get("elsewhere")).status == 404
        assert (await plant.get("page/..%2fserver.py")).status == 404


@in_loop
async def test_a_browser_is_told_to_trust_nothing_else(tmp_path: Path) -> None:
    async with running(tmp_path) as plant:
        for path in ("", "state", "metrics", "healthz", "elsewhere"):
            headers = (await plant.get(path)).headers
            assert "default-src 'none'" in headers["content-security-policy"]
            assert headers["x-content-type-options"] == "nosniff"
            assert headers["x-frame-options"] == "DENY"
            assert headers["referrer-policy"] == "no-referrer"
            assert headers["cache-control"] == "no-store"


@in_loop
async def test_a_name_of_elsewhere_that_resolves_to_this_machine_sees_nothing(
    tmp_path: Path,
) -> None:
    async with running(tmp_path) as plant:
        for host in ("evil.example", "evil.example:80", "127.0.0.1.evil.example", "192.168.1.2"):
            assert (await plant.get("state", Host=host)).status == 421, host
        for host in ("localhost:9999", "127.0.0.1", "[::1]:80", "LOCALHOST"):
            assert (await plant.get("state", Host=host)).status == 200, host


@in_loop
async def test_a_token_is_asked_for_and_remembered_by_a_browser(tmp_path: Path) -> None:
    async with running(tmp_path, token=TOKEN) as plant:
        for path in ("", "state", "events", "metrics", "page/index.html"):
            answer = await plant.get(path)
            assert (answer.status, b"edge" in answer.body) == (401, False), path
        assert (await plant.get("state", Authorization="Bearer wrong")).status == 401
        assert (await plant.get("state", Authorization=f"Bearer {TOKEN}")).status == 200
        assert (await plant.get("?token=wrong")).status == 401
        let_in = await plant.get(f"?token={TOKEN}")
        assert (let_in.status, let_in.headers["location"]) == (303, "/")
        cookie = let_in.headers["set-cookie"]
        assert {"HttpOnly", "SameSite=strict"} <= {part.strip() for part in cookie.split(";")}
        assert TOKEN not in cookie
        assert (await plant.get("state", Cookie=cookie.partition(";")[0])).status == 200
        name = cookie.partition("=")[0]
        assert (await plant.get("state", Cookie=f"{name}={TOKEN}")).status == 401
        assert (await plant.get("healthz")).body == b"ok\n"  # probes know no token


@in_loop
async def test_only_who_has_a_certificate_gets_in(tmp_path: Path) -> None:
    made = Certificates(tmp_path)
    files: dict[str, Any] = {"certificate": made.server, "key": made.server_key}
    async with running(tmp_path, **files, client_ca=made.ca) as plant:
        trusting = ssl.create_default_context(cafile=made.ca)
        trusting.check_hostname = False  # it is issued for localhost, the address is 127.0.0.1
        with pytest.raises(OSError, match=r"certificate required|reset|EOF|closed"):
            await plant.get("state", tls=trusting)
        trusting.load_cert_chain(made.client, made.client_key)
        answer = await plant.get("state", tls=trusting, Host="plant.example")
        assert answer.json()["pipelines"][0]["pipeline"] == "press"


@in_loop
async def test_health_is_progress_here_and_readiness_that_rows_can_come(tmp_path: Path) -> None:
    async with running(tmp_path) as plant:
        await settled(plant)  # one link is down
        assert (await plant.get("healthz")).status == 200
        assert (await plant.get("readyz")).status == 200
        plant.runner.running = False
        assert (await plant.get("healthz")).status == 503
        assert (await plant.get("readyz")).status == 503
        plant.runner.running = True


@in_loop
async def test_a_warning_of_the_log_is_shown(tmp_path: Path) -> None:
    async with running(tmp_path) as plant:
        state = await settled(plant)
    line = next(each for each in state["log"] if each["logger"] == "edge.link")
    assert line["level"] == "warning"
    assert "sink 'away': link is down" in line["message"]


def delivered(state: Any) -> int:
    return int(state["pipelines"][0]["sinks"]["lake"]["delivered_rows"])


@in_loop
async def test_two_may_look_at_the_same_time(tmp_path: Path) -> None:
    async with running(tmp_path) as plant:
        picture = Picture(plant.runner, Clock(), Secrets())
        await asyncio.gather(picture.look(), picture.look(), picture.look())
        assert picture.seen is not None


@in_loop
async def test_an_outbox_that_hangs_keeps_nobody_waiting(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("edge.dashboard.picture.PATIENCE", 0.1)
    async with running(tmp_path) as plant:
        before = await settled(plant)
        go_on = asyncio.Event()
        call = plant.runner.outbox.call

        async def hang(*arguments: Any, **options: Any) -> Any:
            await go_on.wait()
            return await call(*arguments, **options)

        monkeypatch.setattr(plant.runner.outbox, "call", hang)
        state = before
        while state["process"]["now"] == before["process"]["now"]:
            state = (await plant.get("state")).json()
        assert delivered(state) == delivered(before) > 0
        assert (await plant.get("healthz")).status == 200
        monkeypatch.undo()
        go_on.set()


ONCE = """
name: once
source: {dataset: {path: rows.ndjson}}
record: {fields: {v: int}}
sinks: {out: {file: {path: out}}}
"""


def run(folder: Path, *arguments: str, **environment: str) -> "subprocess.CompletedProcess[str]":
    (folder / "once.yaml").write_text(ONCE)
    (folder / "rows.ndjson").write_text('{"v": 1}\n')
    command = [sys.executable, "-m", "edge", "run", "--once", *arguments, "once.yaml"]
    around = {**os.environ, **environment}
    return subprocess.run(
        command, cwd=folder, env=around, capture_output=True, text=True, timeout=120
    )


def test_a_port_that_is_taken_stops_no_pipeline(tmp_path: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        done = run(tmp_path, "--http", f"127.0.0.1:{port}")
    assert done.returncode == 0, done.stderr
    assert f"cannot listen on 127.0.0.1:{port}, tried again" in done.stderr
    assert [*tmp_path.glob("out/**/*.ndjson")]


def test_a_token_that_cannot_be_made_stops_no_pipeline(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    token_file = tmp_path / "file" / "http-token"
    done = run(tmp_path, "--http", "0.0.0.0:0", EDGE_HTTP_TOKEN_FILE=str(token_file))
    assert done.returncode == 0, done.stderr
    assert f"http: is off, {token_file} cannot be made or read" in done.stderr
    assert [*tmp_path.glob("out/**/*.ndjson")]


def test_what_is_not_safe_is_refused_before_anything_opens(tmp_path: Path) -> None:
    done = run(tmp_path, "--http", "0.0.0.0:0")
    assert (done.returncode, "set EDGE_HTTP_TOKEN" in done.stderr) == (2, True)
    assert not (tmp_path / "var").exists()
