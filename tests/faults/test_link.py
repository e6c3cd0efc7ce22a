"""Whatever happens between here and the cloud: rows wait, the reason is told, and then they go."""

import re
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from datetime import timedelta
from pathlib import Path
from typing import NamedTuple

import pytest

from edge.aws import service as aws
from tests.agent import Agent
from tests.certificates import Certificates
from tests.cloud import Cloud, Failure
from tests.faults.way import ROWS, Deaf, Way
from tests.portal import Portal
from tests.proxy import Mode

Block = Callable[[Way], AbstractContextManager[None]]


class Fault(NamedTuple):
    """What is wrong inside the block, what is said of it, and how the cloud is reached.

    said: a pattern; `by`: as of `Way`; patience: the timeouts of the client, seconds, short where
    one of them is what ends the wait, else as in life, so that on a busy machine none does.
    """

    block: Block
    said: str
    by: str = "http"
    patience: float = 30.0


def line(mode: Mode, **options: int) -> Block:
    @contextmanager
    def block(way: Way) -> Iterator[None]:
        way.proxy.set(mode, **options)
        yield
        way.proxy.set("up")
        way.proxy.cut()

    return block


@contextmanager
def deaf(way: Way) -> Iterator[None]:
    way.proxy.set("refuse")  # frees the port
    with Deaf(way.proxy.port):
        yield
    way.proxy.set("up")


@contextmanager
def nameless(way: Way) -> Iterator[None]:
    way.dns = False
    yield
    way.dns = True


def failing(s3: Failure, sqs: Failure) -> Block:
    @contextmanager
    def block(way: Way) -> Iterator[None]:
        way.fail(s3, sqs)
        yield
        way.cloud.mend()

    return block


def page(status: int, **headers: str) -> Block:
    @contextmanager
    def block(way: Way) -> Iterator[None]:
        with Portal(status, **headers) as portal, way.led_to(portal.address):
            yield

    return block


def certified(host: str | None = None, since: float = -0.1) -> Block:
    @contextmanager
    def block(way: Way) -> Iterator[None]:
        with way.certified(way.pem, host, since) as server, way.led_to(server):
            yield

    return block


@contextmanager
def self_made(way: Way) -> Iterator[None]:
    (way.folder / "other").mkdir(exist_ok=True)
    other = Certificates(way.folder / "other")
    with way.certified(other) as server, way.led_to(server):
        yield


@contextmanager
def proxy_down(way: Way) -> Iterator[None]:
    way.tunnel.set("refuse")
    yield
    way.tunnel.set("up")


def proxy_says(refusal: str) -> Block:
    @contextmanager
    def block(way: Way) -> Iterator[None]:
        way.tunnel.refusal = f"HTTP/1.1 {refusal}\r\n\r\n".encode()
        yield
        way.tunnel.refusal = b""

    return block


def agent(break_it: Callable[[Agent], object]) -> Block:
    @contextmanager
    def block(way: Way) -> Iterator[None]:
        break_it(way.agent)
        yield
        way.agent.mend()

    return block


@contextmanager
def keyless(way: Way) -> Iterator[None]:
    way.write_key(None)
    way.forget_credentials()
    yield
    way.write_key("test")


@contextmanager
def keys_replaced(way: Way) -> Iterator[None]:
    way.cloud.key = f"{way.cloud.key}-new"
    yield
    way.write_key(way.cloud.key)


@contextmanager
def clock_wrong(way: Way) -> Iterator[None]:
    way.cloud.ahead = 3600
    yield
    way.cloud.ahead = 0


@contextmanager
def destroyed(way: Way) -> Iterator[None]:
    way.destroy()
    yield
    way.make()


def both(code: str, status: int = 400) -> Block:
    return failing(Failure(code, status), Failure(code, status))


PORTAL = r"cannot be reached .*what answers is not AWS \(HTTP {}\).*captive portal.*log in"
LATER = timedelta(hours=-1)
FAULTS = {
    "refused": Fault(line("refuse"), r"127.0.0.1:\d+ refuses connections .*check endpoint_url"),
    "unanswered": Fault(
        line("black_hole"), r"was reached, but did not answer in time", patience=0.3
    ),
    "SYN dropped": Fault(
        deaf, r"127.0.0.1:\d+ does not answer \(ConnectTimeout.*firewall", patience=0.3
    ),
    "cut in mid body": Fault(line("reset", after=100_000), r"connection to .* broke"),
    "answer lost": Fault(line("lose_answer"), r"connection to .* broke"),
    "50 bytes a second": Fault(
        line("slow", rate=50), r"did not answer in time .*too slow", patience=0.3
    ),
    "name server gone": Fault(nameless, r"the name \S+amazonaws.com:\d+ is not found", "name"),
    "5xx": Fault(both("InternalError", 500), r"trouble of its own with .* \(InternalError\)"),
    "gateway": Fault(page(502), PORTAL.format(502)),
    "throttled": Fault(
        failing(Failure("SlowDown", 503), Failure("ThrottlingException")),
        r"is busy and put off .*lower link.bandwidth",
    ),
    "portal with TLS": Fault(
        certified("portal.example"), r"shows the certificate of somebody else.*log in", "tls"
    ),
    "unknown authority": Fault(self_made, r"nobody trusted here has signed.*AWS_CA_BUNDLE", "tls"),
    "clock before certificate": Fault(certified(since=5), r"not valid yet .*set its clock", "tls"),
    "clock after certificate": Fault(certified(since=-5), r"has expired .*check the clock", "tls"),
    "portal, 200": Fault(page(200, ETag='"0"'), PORTAL.format(200)),
    "portal, 302": Fault(page(302, Location="http://portal.example"), PORTAL.format(302)),
    "portal, 403": Fault(page(403), PORTAL.format(403)),
    "proxy down": Fault(
        proxy_down, r"the proxy http://\*\*\*:\*\*\*@\S+ cannot be reached.*HTTPS_PROXY", "tunnel"
    ),
    "proxy wants a password": Fault(
        proxy_says("407 Proxy Authentication Required"), r"wants a name and a password", "tunnel"
    ),
    "proxy forbids": Fault(
        proxy_says("403 Forbidden"), r"lets nothing through \(403 Forbidden\)", "tunnel"
    ),
    "expired credentials with 200": Fault(
        agent(lambda it: setattr(it, "left", LATER)), r"have expired .*check the link", "agent"
    ),
    "credentials endpoint 503": Fault(
        agent(lambda it: setattr(it, "status", 503)), r"no credentials .*503.*ECS agent", "agent"
    ),
    "credentials endpoint gone": Fault(
        agent(Agent.hang_up), r"no credentials .* now.*asked for again", "agent"
    ),
    "credentials are a page": Fault(
        agent(lambda it: setattr(it, "body", b"<html>")), r"Unable to parse JSON", "agent"
    ),
    "credentials without keys": Fault(
        agent(lambda it: setattr(it, "body", b"{}")), r"not understood, KeyError", "agent"
    ),
    "credentials without sense": Fault(
        agent(lambda it: setattr(it, "body", b"[]")), r"not understood, TypeError", "agent"
    ),
    "no credentials": Fault(keyless, r"no credentials .*give the task a role", "file"),
    "keys replaced": Fault(
        keys_replaced, r"does not accept the credentials .*looked up again", "file"
    ),
    "clock an hour wrong": Fault(clock_wrong, r"does not accept the time of this machine .*NTP"),
    "secret wrong": Fault(
        both("SignatureDoesNotMatch", 403), r"does not accept the signature .*secret access key"
    ),
    "destroyed": Fault(destroyed, r"has no (bucket 'lake'|queue 'alarms') .*create it"),
    "permission taken": Fault(
        both("AccessDenied", 403), r"refused access .*grant (s3:PutObject|sqs:SendMessage) to"
    ),
    "key disabled": Fault(both("KMS.DisabledException"), r"cannot use the encryption key"),
}


@pytest.mark.usefixtures("hasty")
@pytest.mark.parametrize("kind", ["s3", "sqs"])
@pytest.mark.parametrize("name", FAULTS)
def test_rows_wait_and_go_later(
    name: str,
    kind: str,
    tmp_path: Path,
    cloud: Cloud,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    """Once before anything was ever delivered, and once when all went well before."""
    fault = FAULTS[name]
    monkeypatch.setattr(aws, "CONNECT_TIMEOUT", fault.patience)
    monkeypatch.setattr(aws, "READ_TIMEOUT", fault.patience)
    with Way(kind, tmp_path, cloud, monkeypatch, fault.by) as way:
        for life in (1, 2):
            caplog.clear()
            with fault.block(way):
                way.append()
                assert way.step() > 0, "a link that is down waits"
                sends = way.sends
                assert way.step() > 0
                assert way.sends == sends, "and does not try again before"
                found = way.status()
                assert found["link"] == "down"
                assert re.search(fault.said, str(found["link_reason"])), found["link_reason"]
                assert (found["buffered_rows"], found["quarantined_rows"]) == (ROWS, 0)
                assert f"tried again: {found['link_reason']}" in caplog.text
                told = [each for each in caplog.records if each.name.startswith("edge")]
                assert not any(each.exc_info for each in told)
            way.drain()
            assert way.arrived() == list(range(life * ROWS))
            assert (way.status()["link"], way.status()["link_reason"]) == ("up", None)
