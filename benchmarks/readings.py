"""The readings every benchmark works on: made up, and the same on every machine."""

import random
from collections.abc import Iterator

DEVICES = 200
PAYLOAD = 115
"""Bytes of a reading as an MQTT payload; the topic makes it a PUBLISH of 145 bytes."""
ROW = 114
"""Bytes of a reading as a line of the dataset, its end included."""
START = 1_764_000_000_000
"""Time of the first reading, milliseconds; the next ones follow every 5 ms."""
OFFLINE_RATE = 1000
"""Readings a second of simulated time."""

FIELDS = """\
    ts: timestamp_ms
    seq: int
    status: str
    temperature: float
    humidity: float
    pressure: float
    load: float
"""
ROW_FIELDS = """\
    ts: timestamp_ms
    device: str
    seq: int
    status: str
    temperature: float
    humidity: float
"""
OPERATORS = """\
operators:
  - filter: status = 'ok' AND temperature > 15
  - derive:
      fahrenheit: ROUND(temperature * 1.8 + 32, 2)
"""
WINDOWS = """\
operators:
  - filter: status = 'ok' AND temperature > 15
  - window:
      size: 10s
      aggregate:
        peak: MAX(temperature)
        mean: AVG(temperature)
        n: COUNT(*)
"""


def topic(device: int) -> bytes:
    """Where that device publishes, 25 bytes; in a definition `plant/{line}/{device}/values`."""
    return b"plant/l%d/press-%03d/values" % (device // 20, device)


def passes(number: int) -> bool:
    """Whether reading `number` is one the filter keeps: 99 of 100 are."""
    return number % 100 != 0


def payload(number: int, time: int, noise: random.Random) -> bytes:
    """The JSON of reading `number` (below 9,000,000) at `time` (milliseconds), 115 bytes."""
    temperature = 55 + number % DEVICES / 10 + _wobble(noise, 5)
    return (
        b'{"ts":%d,"seq":%d,"status":"%b","temperature":%.2f,"humidity":%.1f,'
        b'"pressure":%.4f,"load":%.3f}'
    ) % (
        time,
        1_000_000 + number,
        b"ok" if passes(number) else b"no",
        temperature,
        45 + _wobble(noise, 3),
        1.0132 + _wobble(noise, 0.002),
        0.5 + _wobble(noise, 0.1),
    )


def payloads(count: int) -> Iterator[bytes]:
    """The first `count` readings; device `n % DEVICES` sends number n."""
    noise = random.Random(1)
    return (payload(number, START + 5 * number, noise) for number in range(count))


def spoil(number: int, good: bytes) -> bytes:
    """The same reading as something no record takes: cut, of a wrong type, or not UTF-8."""
    match number % 3:
        case 0:
            return good[:-1] + b","
        case 1:
            before, name, after = good.partition(b'"temperature":')
            return before + name + b'"hot"' + after[5:]
        case _:
            return good.replace(b'"ok"', b'"\xff\xfe"', 1)


def rows(count: int, first: int = 0) -> Iterator[bytes]:
    """`count` lines of the dataset from number `first` on, 114 bytes each."""
    noise = random.Random(2)
    for number in range(first, first + count):
        yield (
            b'{"ts":%d,"device":"plant-1-press-%03d","seq":%d,"status":"%b","temperature":%.2f,'
            b'"humidity":%.1f}\n'
        ) % (
            START + 5 * number,
            number % DEVICES,
            1_000_000 + number,
            b"ok" if passes(number) else b"no",
            55 + number % DEVICES / 10 + _wobble(noise, 5),
            45 + _wobble(noise, 3),
        )


def _wobble(noise: random.Random, most: float) -> float:
    """About normal, and never beyond `most`, so that every reading has the same length."""
    return (noise.random() + noise.random() + noise.random() - 1.5) / 1.5 * most
