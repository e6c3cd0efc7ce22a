"""A process that empties an outbox into a broker: `python -m tests.sinks.drain FOLDER URL`."""

import asyncio
import random
import sys
from datetime import timedelta
from pathlib import Path

from edge.clock import Clock
from edge.link import Link
from edge.outbox import Limits, Outbox, SinkLimits
from edge.sinks import Roll, publication
from edge.sinks.mqtt import MqttSink
from tests.sinks.places import PATH, STREAM


class HastyClock(Clock):
    """Ten times as fast as the world, so that nobody waits long between two attempts."""

    def steady(self) -> float:
        return super().steady() * 10

    async def sleep(self, seconds: float) -> None:
        await asyncio.sleep(seconds / 10)


async def drain(folder: Path, url: str) -> None:
    clock = HastyClock()
    outbox = Outbox(folder, limits=Limits(), sinks={"lake": SinkLimits()}, clock=clock)
    outbox.open()
    mqtt = MqttSink(url=url, topic="plant/{line}/clean", max_inflight=50)
    mqtt.bind(None, STREAM, True, "all")
    roll = Roll(2**30, timedelta(0))
    link = Link(
        "lake",
        mqtt,
        outbox,
        path=PATH,
        roll=roll,
        order="all",
        clock=clock,
        chance=random.Random(1),
    )
    print("draining", flush=True)
    while outbox.depth("lake").rows:
        await clock.sleep(await link.step())
    await mqtt.close()
    outbox.close()


if __name__ == "__main__":
    publication.MESSAGES = 200
    asyncio.run(drain(Path(sys.argv[1]), sys.argv[2]))
