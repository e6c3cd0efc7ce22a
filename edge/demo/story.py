"""What happens in the demo and when: publish, cut the link, kill, start again, restore, stop."""

import asyncio
import contextlib
import os
import shutil
import time
from collections.abc import Callable
from pathlib import Path

from edge.demo import expected, verdict
from edge.demo.broker import start_broker
from edge.demo.children import DemoError
from edge.demo.cloud import BUCKET, QUEUE, Cloud
from edge.demo.processor import Processor
from edge.demo.proxy import Proxy
from edge.demo.screen import Screen
from edge.demo.sensor import Sensor
from edge.demo.standing import Standing, read_standing
from edge.demo.verdict import Check

CUT, KILL, RESTORE = 0.30, 0.50, 0.75  # of the readings
ROLL = "2s"  # instead of the definition's minute, so that there is something to see
_PATIENCE = 60.0  # seconds until something that must happen counts as failed

_FOLDERS = ("broker", "logs", "s3", "sqs", "state")


def checkout() -> Path:
    """The folder with `pipelines/` and `containers/`."""
    here = Path(__file__).resolve()
    for folder in (here.parents[2], here.parent):
        if (folder / "pipelines" / "machine-temperature.yaml").exists():
            return folder
    raise DemoError(
        "demo: needs the folders pipelines/ and containers/, which are not beside the package; "
        "run it from a clone of the project, with `make run`"
    )


class Stage:
    """Everything that takes part, made in `set_up` and taken down by the exit stack."""

    def __init__(self, out: Path) -> None:
        self.out = out
        self.proxy: Proxy
        self.cloud: Cloud
        self.sensor: Sensor
        self.processor: Processor

    async def set_up(self, stack: contextlib.AsyncExitStack) -> None:
        """Broker, cloud, the link between, the publisher's connection. Nothing leaves 127.0.0.1."""
        for name in _FOLDERS:
            shutil.rmtree(self.out / name, ignore_errors=True)
        logs = self.out / "logs"
        self.cloud = await Cloud.start(logs / "moto.log")
        stack.push_async_callback(self.cloud.close)
        await asyncio.to_thread(self.cloud.furnish)
        self.proxy = Proxy(self.cloud.port)
        await self.proxy.start()
        stack.push_async_callback(self.proxy.close)
        url = os.environ.get("EDGE_DEMO_BROKER")
        if not url:
            configuration = checkout() / "containers" / "mosquitto.conf"
            broker, url = await start_broker(
                configuration, self.out / "broker", logs / "mosquitto.log"
            )
            stack.push_async_callback(broker.kill)
        self.sensor = Sensor(url)
        await self.sensor.start()
        stack.callback(self.sensor.close)
        self.processor = Processor(
            checkout() / "pipelines" / "machine-temperature.yaml",
            self.out / "state",
            logs / "processor.log",
            {
                "EDGE_SITE": f"demo-{os.getpid()}",
                "EDGE_DEMO_BROKER": url,
                "EDGE_DEMO_BUCKET": BUCKET,
                "EDGE_DEMO_QUEUE": QUEUE,
                "EDGE_DEMO_ROLL": ROLL,
                "AWS_ENDPOINT_URL": f"http://127.0.0.1:{self.proxy.port}",
            },
        )
        stack.push_async_callback(self.processor.kill)

    def standing(self) -> Standing:
        return read_standing(self.processor.folder)


class Story:
    """One performance. `play` returns what is to be checked at its end."""

    def __init__(self, stage: Stage, screen: Screen, series: list[expected.Reading]) -> None:
        self._stage = stage
        self._screen = screen
        self._series = series
        self._replay: asyncio.Task[None] | None = None

    async def play(self, seconds: float) -> None:
        stage, say = self._stage, self._screen.say
        await stage.processor.start()
        await self._heard()
        say(f"the processor has subscribed; the sensor sends {len(self._series):,} readings")
        self._replay = asyncio.create_task(stage.sensor.replay(self._series, seconds))
        try:
            await self._trouble()
            await self._until("all published", self._replay.done)
            await self._replay
        finally:
            self._replay.cancel()
        say("all readings are published and acknowledged by the broker")
        await self._until("drained", lambda: stage.standing().drained(len(self._series)))
        await stage.processor.stop()
        say("everything is delivered; the processor was told to stop (SIGTERM) and did")

    async def _trouble(self) -> None:
        stage, say = self._stage, self._screen.say
        await self._published(CUT)
        stage.proxy.cut()
        say("the link to S3 and SQS is cut; first only the answers get lost", "yellow")
        await self._published(KILL)
        await stage.processor.kill()
        say("the processor is killed (SIGKILL); the sensor goes on", "red")
        await asyncio.sleep(1.0)
        await stage.processor.start()
        say("the processor is started again, still without a link", "yellow")
        await self._published(RESTORE)
        stage.proxy.restore()
        say("the link is back", "green")

    async def _heard(self) -> None:
        deadline = time.monotonic() + _PATIENCE
        while not await self._stage.sensor.begin(self._series[0]):
            self._stage.processor.must_run()
            if time.monotonic() > deadline:
                raise DemoError(f"demo: nobody subscribed in {_PATIENCE:.0f} s")
            await asyncio.sleep(0.1)

    async def _published(self, share: float) -> None:
        goal = int(share * len(self._series))
        await self._until(
            f"{goal} readings published", lambda: self._stage.sensor.published >= goal
        )

    async def _until(self, what: str, condition: Callable[[], bool]) -> None:
        deadline = time.monotonic() + _PATIENCE
        while not await asyncio.to_thread(condition):
            self._stage.processor.must_run()
            if self._replay and self._replay.done():
                await self._replay
            if time.monotonic() > deadline:
                raise DemoError(f"demo: not {what} after {_PATIENCE:.0f} s, see {self._stage.out}")
            await self._show()
            await asyncio.sleep(0.1)

    async def _show(self) -> None:
        sensor = self._stage.sensor
        standing = await asyncio.to_thread(self._stage.standing)
        up = "up" if self._stage.proxy.up else "[yellow]cut[/]"
        lines = [
            ("sensor", f"{sensor.published:,} published, {sensor.acknowledged:,} acknowledged"),
            ("processor", f"{standing.taken:,} taken and committed"),
            *(
                (name, f"{d:,} rows delivered, {b:,} kept")
                for name, (d, b) in standing.sinks.items()
            ),
            ("link", up),
        ]
        self._screen.show(sensor.published, lines)


def verify(stage: Stage, series: list[expected.Reading]) -> list[Check]:
    """Read back what arrived, past the proxy, and compare with what the CSV says must be there."""
    ledger = stage.standing().ledger
    lake = stage.cloud.lake(stage.out / "s3")
    alarms = stage.cloud.alarms(stage.out / "sqs")
    return [
        *verdict.sensor_checks(len(series), stage.sensor, ledger),
        Check("link", "requests that arrived, answer lost", None, stage.proxy.answers_lost),
        *verdict.lake_checks(expected.lake(series), lake),
        *verdict.alarm_checks(expected.alarms(series), alarms),
        *verdict.ledger_checks(ledger),
    ]
