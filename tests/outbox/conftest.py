"""An outbox in a temporary folder, and the clock whose hands the test moves."""

from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from edge.clock import Clock
from edge.outbox import Limits, Outbox, SinkLimits

OpenOutbox = Callable[..., Outbox]


class HandClock(Clock):
    """Stands still until the test moves it."""

    def __init__(self) -> None:
        self.micros = 1_700_000_000_000_000

    def now(self) -> int:
        return self.micros

    def steady(self) -> float:
        return self.micros / 1e6

    def pass_seconds(self, seconds: float) -> None:
        self.micros += round(seconds * 1e6)


@pytest.fixture
def clock() -> HandClock:
    return HandClock()


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return tmp_path / "press-line"


@pytest.fixture
def open_outbox(folder: Path, clock: HandClock) -> Iterator[OpenOutbox]:
    """Opens an outbox with sinks `lake` and `alarms`; whatever was opened is closed at the end."""
    opened: list[Outbox] = []

    def open_one(place: Path = folder, **options: object) -> Outbox:
        settings = {
            "limits": Limits(64 * 2**20),
            "sinks": {"lake": SinkLimits(), "alarms": SinkLimits()},
            "clock": clock,
        }
        outbox = Outbox(place, **{**settings, **options})  # type: ignore[arg-type]
        outbox.open(0)
        opened.append(outbox)
        return outbox

    yield open_one
    for outbox in opened:
        outbox.close()


@pytest.fixture
def outbox(open_outbox: OpenOutbox) -> Outbox:
    return open_outbox()
