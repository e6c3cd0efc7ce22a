"""The log says what is new at once, what comes again once a minute, and a secret never."""

import json
import logging
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from urllib.parse import quote

import pytest

from edge.cli.journal import JsonLines, TextLines
from edge.cli.repeats import EVERY, Repeats
from edge.pipeline import loads
from edge.secrets import MASK, Secrets, secrets_of
from tests.broker import Broker
from tests.processor import Processor, until
from tests.scripted import HandClock


class Lines(logging.Handler):
    """What was written, with how often it stands for."""

    def __init__(self) -> None:
        super().__init__()
        self.texts: list[str] = []

    def emit(self, record: logging.LogRecord) -> None:
        said = getattr(record, "said", "")
        self.texts.append(f"{record.getMessage()}{said and f' x{said}'}")


@pytest.fixture
def clock() -> HandClock:
    return HandClock()


@pytest.fixture
def lines() -> Lines:
    return Lines()


Log = Callable[..., logging.Logger]


@pytest.fixture
def log(clock: HandClock, lines: Lines) -> Log:
    """`log("name")` is a logger whose complaints are written sparingly."""
    repeats = Repeats(lines, clock.steady)
    made: list[logging.Logger] = []

    def logger(name: str = "edge.link") -> logging.Logger:
        made.append(logging.Logger(name, logging.DEBUG))
        made[-1].addHandler(repeats)
        return made[-1]

    logger.repeats = repeats  # type: ignore[attr-defined]
    return logger


def close(log: Log) -> None:
    log.repeats.close()  # type: ignore[attr-defined]


def test_a_complaint_said_again_is_counted_and_written_once_a_minute(
    log: Log, lines: Lines, clock: HandClock
) -> None:
    link = log()
    for number in range(413):
        link.warning("sink %r: %d rows wait: %s", "lake", number, "no route")
        clock.advance(0.1)
    assert lines.texts == ["sink 'lake': 0 rows wait: no route"]
    clock.advance(EVERY)
    link.warning("sink %r: %d rows wait: %s", "lake", 500, "no route")
    assert lines.texts[1:] == ["sink 'lake': 412 rows wait: no route x412"]
    close(log)
    assert lines.texts[2:] == ["sink 'lake': 500 rows wait: no route"]


def test_what_is_new_is_never_held_back(log: Log, lines: Lines) -> None:
    said = [("lake", "no route"), ("lake", "HTTP 403"), ("lake", "HTTP 404"), ("hot", "no route")]
    for sink, why in said + said:
        log().warning("sink %r: %s", sink, why)
    log("edge.mqtt").warning("sink %r: %s", *said[0])
    log().error("it is worse: %r", ValueError("a"))
    log().error("it is worse: %r", ValueError("b"))
    assert lines.texts == [
        *(f"sink {sink!r}: {why}" for sink, why in [*said, said[0]]),
        "it is worse: ValueError('a')",
        "it is worse: ValueError('b')",
    ]


def test_each_exception_is_another_complaint(log: Log, lines: Lines) -> None:
    for error in (ValueError("a"), ValueError("b"), ValueError("a")):
        try:
            raise error
        except ValueError:
            log().exception("back to the last commit")
    assert len(lines.texts) == 2


def test_good_news_make_a_complaint_new_again(log: Log, lines: Lines) -> None:
    link = log()
    for _ in range(3):
        link.warning("down")
        link.warning("down")
        link.debug("looking")
        link.info("up")
    assert lines.texts == ["down", "looking", "down", "up"] * 3


def test_what_came_again_is_written_though_nothing_more_is_said(
    log: Log, lines: Lines, clock: HandClock
) -> None:
    for _ in range(4):
        log().warning("down")
    clock.advance(EVERY)
    log.repeats.tell()  # type: ignore[attr-defined]
    assert lines.texts == ["down", "down x3"]
    clock.advance(EVERY)
    log().warning("down")
    assert lines.texts[2:] == ["down"]


def test_a_timer_writes_what_came_again(
    log: Log, lines: Lines, clock: HandClock, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("edge.cli.repeats.EVERY", 0.01)
    for _ in range(3):
        log().warning("down")
    clock.advance(1)
    until(lambda: lines.texts == ["down", "down x2"])


def test_ever_new_complaints_take_no_more_memory(log: Log, lines: Lines) -> None:
    for number in range(3000):
        log().warning("%s", f"file {number}")
    assert len(log.repeats._kinds) == 1000  # type: ignore[attr-defined]
    assert len(lines.texts) == 3000


def record(message: str, **more: object) -> logging.LogRecord:
    made = logging.makeLogRecord({"name": "edge.link", "levelno": 30, "levelname": "WARNING"})
    vars(made).update(msg=message, created=1_700_000_000.5, **more)
    return made


def test_a_line_says_how_often_and_since_when() -> None:
    again = record("down", said=1412, since=1_700_000_000.25)
    assert TextLines(Secrets()).format(again) == (
        "2023-11-14T22:13:20.500Z warning edge.link: down"
        " (said 1,412 times since 2023-11-14T22:13:20.250Z)"
    )
    assert json.loads(JsonLines(Secrets()).format(again)) == {
        "time": "2023-11-14T22:13:20.500Z",
        "level": "warning",
        "logger": "edge.link",
        "message": "down",
        "said": 1412,
        "since": "2023-11-14T22:13:20.250Z",
    }


@pytest.mark.parametrize("form", [TextLines, JsonLines])
@pytest.mark.parametrize("shown", [str, repr, lambda secret: quote(secret, safe="")])
def test_a_secret_is_masked_however_it_is_written(
    form: type[TextLines] | type[JsonLines], shown: Callable[[str], str]
) -> None:
    secret = 'pass\'wörd \\ "x"'
    line = form(Secrets([secret])).format(record(f"refused <{shown(secret)}> there"))
    assert "wörd" not in line
    assert "rd%20" not in line
    assert MASK in line
    assert "there" in line


@pytest.mark.parametrize(
    ("text", "masked"),
    [
        ("proxy http://joe:pw@proxy:3128 refused", "proxy http://***@proxy:3128 refused"),
        ("mqtt://host:1883 and ws://x@y", "mqtt://host:1883 and ws://x@y"),
        ("https://b/k?X-Amz-Signature=0aF9&x=1", "https://b/k?X-Amz-Signature=***&x=1"),
    ],
)
def test_what_looks_like_a_secret_is_masked_though_nobody_knows_it(text: str, masked: str) -> None:
    assert Secrets().masked(text) == masked


def test_secret_options_and_variables_named_like_secrets_are_known() -> None:
    pipeline = loads(
        "name: a\nsource: {mqtt: {url: mqtt://h, topics: [t], username: u, password: tiny}}\n"
        "sinks: {o: {mqtt: {url: mqtt://h, topic: x, username: u, password: of-the-sink}}}\n",
        "a.yaml",
        {},
    )
    around = {"EDGE_HTTP_TOKEN": "of-the-page", "DB_PASSWORD": "short", "HOME": "/home/joe-smith"}
    known = secrets_of([pipeline], around)
    text = "tiny of-the-sink of-the-page short /home/joe-smith"
    assert known.masked(text) == "*** *** *** short /home/joe-smith"


SECRETS = {
    "MQTT_PASSWORD": "correct horse battery",
    "SINK_PASSWORD": "staple/of+the%sink",
    "AWS_SECRET_ACCESS_KEY": "wJalrXUtnFEMI/K7MDENG/bPxRfiCYEXAMPLEKEY",
    "AWS_SESSION_TOKEN": "IQoJb3JpZ2luX2VjEXAMPLETOKEN",
    "HTTPS_PROXY": "http://joe:proxy-word@127.0.0.1:1",
    "HTTP_PROXY": "http://joe:proxy-word@127.0.0.1:1",
}
DEFINITION = """\
name: secretive
source:
  mqtt:
    url: mqtt://127.0.0.1:{port}
    topics: [a/+]
    username: reader
    password: ${{MQTT_PASSWORD}}
record:
  fields: {{n: int}}
operators:
  - python: {{function: tell.py:tell}}
sinks:
  lake:
    s3: {{bucket: lake, region: eu-west-1, endpoint_url: "http://bucket.example"}}
    roll: {{every: 10ms}}
  away:
    mqtt:
      url: mqtt://127.0.0.1:{port}
      topic: b
      username: reader
      password: ${{SINK_PASSWORD}}
    roll: {{every: 10ms}}
outbox: {{path: outbox}}
"""
TELL = """\
import os

def tell(frame):
    if 13 in frame["n"]:
        raise ValueError(f"refused with {os.environ['MQTT_PASSWORD']}")
    return frame
"""


def test_no_secret_is_in_the_log_of_a_run_that_logs_all_it_can(tmp_path: Path) -> None:
    passwords = tmp_path / "passwords"
    passwords.write_text(f"reader:{SECRETS['MQTT_PASSWORD']}\n")
    made = ["mosquitto_passwd", "-U", str(passwords)]
    subprocess.run(made, check=True, capture_output=True)
    config = f"allow_anonymous false\npassword_file {passwords}"
    with Broker(tmp_path / "broker", config) as broker:
        (tmp_path / "secretive.yaml").write_text(DEFINITION.format(port=broker.port))
        (tmp_path / "tell.py").write_text(TELL)
        processor = Processor(
            tmp_path / "secretive.yaml", "--log-level", "debug", **SECRETS, NO_PROXY="", no_proxy=""
        )
        with processor.running(b"connected to"):
            send = ["mosquitto_pub", "-p", str(broker.port), "-u", "reader", "-q", "1"]
            send += ["-P", SECRETS["MQTT_PASSWORD"], "-t", "a/x", "-m"]
            for payload in ('{"n": 1}', '{"n": 13}'):
                subprocess.run([*send, payload], check=True)
            wanted = ("refused with", "sink 'lake': link is down", "sink 'away': link is down")
            until(lambda: all(words in processor.said() for words in wanted))
    said = processor.said()
    hidden = ("correct horse", "staple", "wJalrXUtn", "IQoJb3JpZ2lu", "proxy-word")
    assert [secret for secret in hidden if secret in said] == []
    assert f"refused with {MASK}" in said
    assert all(json.loads(line) for line in said.splitlines())


def test_numbers_in_the_log_are_what_cloudwatch_makes_metrics_of(press: Path) -> None:
    follow = press.read_text().replace("readings.ndjson}", "readings.ndjson, follow: true}")
    press.write_text(follow + "outbox: {path: state}\n")
    processor = Processor(press, "--log-metrics", "--log-level", "warning", EDGE_SITE="osaka")
    with processor.running(b"numbers of sink 'hot'"):
        pass
    lines = [json.loads(line) for line in processor.said().splitlines()]
    whole = next(line for line in lines if line["message"] == "pipeline 'press': numbers")
    (about,) = whole["_aws"]["CloudWatchMetrics"]
    assert about["Namespace"] == "edge"
    assert about["Dimensions"] == [["site", "replica", "pipeline"]]
    assert {"Name": "outbox_bytes", "Unit": "Bytes"} in about["Metrics"]
    names = [each["Name"] for each in about["Metrics"]]
    assert all(isinstance(whole[name], int | float) for name in names)
    assert whole["pipeline"] == "press"
    sink = next(line for line in lines if line.get("sink") == "hot")
    assert sink["_aws"]["CloudWatchMetrics"][0]["Dimensions"] == [
        ["site", "replica", "pipeline", "sink"]
    ]
    assert sink["waiting_rows"] >= 0


def test_numbers_are_refused_in_a_log_of_text(press: Path) -> None:
    run = [sys.executable, "-m", "edge", "run", str(press), "--log-metrics", "--log-format", "text"]
    done = subprocess.run(run, capture_output=True, text=True)
    assert done.returncode == 2
    assert done.stderr == ("--log-metrics: are JSON, got a log of text; add --log-format json\n")


def test_without_a_terminal_lines_are_json_unless_told_otherwise(press: Path) -> None:
    run = [sys.executable, "-m", "edge", "run", "--once", str(press)]
    done = subprocess.run(run, capture_output=True, text=True, check=True)
    assert {json.loads(line)["logger"] for line in done.stderr.splitlines()} >= {"edge.runner"}
    run += ["--log-format", "text"]
    done = subprocess.run(run, capture_output=True, text=True, check=True)
    assert " info edge.runner: pipeline 'press': started" in done.stderr
