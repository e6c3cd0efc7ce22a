"""What happens in the demo and when: publish, cut the link, kill, start again, restore, stop."""

import asyncio
import time
from collections.abc import Callable

from edge.demo import expected, verdict
from edge.demo.children import DemoError
from edge.demo.screen import Screen
from edge.demo.stage import Stage
from edge.demo.verdict import Check

CUT, KILL, RESTORE = 0.30, 0.50, 0.75  # of the readings
_PATIENCE = 180.0  # seconds until something that must happen counts as failed
_UNHEARD = 10.0  # seconds; where nothing is taken for so long, all in flight was committed before
_STILL = 90.0  # seconds without any progress; longer than a link ever pauses


class Story:
    """One performance, told on the screen as it goes."""

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
        await self._drained()
        await stage.processor.stop()
        say("the processor was told to stop (SIGTERM) and did")

    async def _trouble(self) -> None:
        stage, say = self._stage, self._screen.say
        await self._published(CUT)
        stage.link.cut()
        say("the link to S3 and SQS is cut; first only the answers get lost", "yellow")
        await self._published(KILL)
        stage.field.mute = True
        await self._committed_unheard()
        await stage.processor.kill()
        stage.field.mute = False
        say("the last PUBACKs get lost and the processor is killed (SIGKILL)", "red")
        await asyncio.sleep(1.0)
        await stage.processor.start()
        say("the processor is started again, still without a link", "yellow")
        await self._published(RESTORE)
        stage.link.restore()
        say("the link is back", "green")

    async def _committed_unheard(self) -> None:
        """Until rows are committed whose PUBACKs are lost: after the kill these come again."""
        before = (await asyncio.to_thread(self._stage.standing)).taken
        deadline = time.monotonic() + _UNHEARD
        while (await asyncio.to_thread(self._stage.standing)).taken == before:
            if time.monotonic() > deadline:
                return
            await asyncio.sleep(0.05)

    async def _heard(self) -> None:
        deadline = time.monotonic() + _PATIENCE
        while not await self._stage.sensor.begin(self._series[0]):
            self._stage.processor.must_run()
            if time.monotonic() > deadline:
                raise DemoError(f"demo: nobody subscribed in {_PATIENCE:.0f} s")
            await asyncio.sleep(0.1)

    async def _drained(self) -> None:
        """Until all is delivered, or nothing has moved for so long that it never will."""
        last, since = self._stage.standing(), time.monotonic()
        while not last.drained(len(self._series)):
            if time.monotonic() - since > _STILL:
                self._screen.say(f"nothing has moved for {_STILL:.0f} s: giving up", "red")
                return
            self._stage.processor.must_run()
            await self._show()
            await asyncio.sleep(0.1)
            now = await asyncio.to_thread(self._stage.standing)
            if now != last:
                last, since = now, time.monotonic()
        self._screen.say("everything is delivered", "green")

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
        up = "up" if self._stage.link.up else "[yellow]cut[/]"
        state = "running" if self._stage.processor.running else "[red]dead[/]"
        lines = [
            ("sensor", f"{sensor.published:,} published, {sensor.acknowledged:,} acknowledged"),
            ("processor", f"{state}, {standing.taken:,} taken and committed"),
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
        Check("link", "requests that arrived, answer lost", None, stage.link.answers_lost),
        *verdict.lake_checks(expected.lake(series), lake),
        *verdict.alarm_checks(expected.alarms(series), alarms),
        *verdict.ledger_checks(ledger),
    ]
