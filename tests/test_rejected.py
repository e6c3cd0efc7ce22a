"""A log alone tells that payloads are rejected and why, in few lines."""

import logging

import pytest

from edge.outbox.model import Reject
from edge.rejected import RejectedLog
from tests.scripted import HandClock


def rejected(reason: str, count: int = 1) -> list[Reject]:
    return [Reject(reason, b"secret", "plant/a")] * count


def test_rejected_payloads_are_a_line_at_once_and_one_a_minute(
    caplog: pytest.LogCaptureFixture,
) -> None:
    clock = HandClock()
    lines = RejectedLog("press", clock, "payload rejected", "payloads rejected")
    with caplog.at_level(logging.WARNING, "edge.rejected"):
        lines.add(rejected("payload is not JSON: unexpected end", 3))
        lines.add(rejected("field 'x' is missing", 400))
        clock.advance(59)
        lines.add(rejected("field 'y' is missing", 12))
        assert len(caplog.records) == 1
        clock.advance(1)
        lines.tell()
        clock.advance(100)
        lines.tell()
        lines.add(rejected("field 'z' is missing"))
        lines.add(rejected("field 'z' is missing"))
        lines.tell(at_once=True)
    more = "; see `edge outbox ledger`"
    assert [record.getMessage() for record in caplog.records] == [
        "pipeline 'press': 3 payloads rejected, the first from plant/a: "
        f"payload is not JSON: unexpected end{more}",
        f"pipeline 'press': 412 more since, the first from plant/a: field 'x' is missing{more}",
        *[f"pipeline 'press': 1 more since, the first from plant/a: field 'z' is missing{more}"]
        * 2,
    ]
    assert "secret" not in caplog.text
