"""The machines of a hall, each with a vibration sensor; one of them may go mad."""

import asyncio
import json
import random
import time
from collections.abc import Iterator
from datetime import UTC, datetime

from edge.demo.sensor import Sensor

MACHINES = [f"press-{n}" for n in range(1, 25)]
MAD = "press-7"
"""The machine whose sensor sends rubbish from some moment on."""

_RUBBISH = (b'{"ts": "20', b"\x00\xff\x17ERR 0x4f", b"NaN,NaN,NaN", b'{"velocity": "overload"}')
_WAVE = 32  # characters of a wave form, in ordinary times


class Hall:
    """Publishes a reading of each machine, `rounds` times a second."""

    def __init__(self, sensor: Sensor) -> None:
        self.rubbish = False
        self.wave = _WAVE
        self.rounds = 1.0
        self._sensor = sensor
        self._chance = random.Random(7)
        self._velocity = {name: 1.8 + 0.12 * n for n, name in enumerate(MACHINES)}

    async def run(self) -> None:
        """Until it is cancelled."""
        due = time.monotonic()
        while True:
            for machine, payload in self._round():
                self._sensor.publish(
                    f"plant/line-{1 + int(machine[6:]) % 3}/{machine}/vibration", payload
                )
            due = max(due + 1 / self.rounds, time.monotonic())
            await asyncio.sleep(due - time.monotonic())

    def _round(self) -> Iterator[tuple[str, bytes]]:
        now = datetime.now(UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")
        for machine, before in self._velocity.items():
            middle = 1.8 + 0.12 * MACHINES.index(machine)
            velocity = before + 0.1 * (middle - before) + self._chance.gauss(0, 0.12)
            self._velocity[machine] = velocity = max(0.1, velocity)
            row = {
                "ts": now,
                "velocity": round(velocity, 2),
                "bearing": round(40 + 3 * velocity + self._chance.gauss(0, 0.1), 1),
                "wave": self._chance.randbytes(self.wave // 2).hex(),
            }
            if self.rubbish and machine == MAD:
                yield machine, self._chance.choice(_RUBBISH)
            else:
                yield machine, json.dumps(row).encode()
