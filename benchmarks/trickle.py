"""What an operator costs for each batch of a trickle: `python -m benchmarks.trickle --batches 400`.

Five rows come every 55 ms, as from 100 devices that send once a second. In between the caches get
cold, which makes ten times as much of a call as a loop without pauses does. Measured is the
processor time of the operator alone: the rows, and what it writes down for the commit.
"""

import argparse
import os
import random
import statistics
import time
from collections.abc import Iterator
from typing import Any, NamedTuple

os.environ.setdefault("POLARS_MAX_THREADS", "1")  # as `edge run` does

import polars as pl

from edge.component import Stream
from edge.operators import Operator, find_operator

TIME = pl.Datetime("us", "UTC")
COLUMNS = pl.Schema(
    {"ts": TIME, "device": pl.String(), "temperature": pl.Float64(), "edge_received": TIME}
)
START = 1_764_000_000_000_000
ROWS, PAUSE = 5, 0.055
WARM_UP = 80  # batches; by then `window` has an index of its keys
WINDOW = {
    "size": "10s",
    "aggregate": {"peak": "MAX(temperature)", "mean": "AVG(temperature)", "n": "COUNT(*)"},
}


class Load(NamedTuple):
    """An operator, its options, and how many devices have sent before."""

    operator: str
    options: Any
    devices: int


LOADS = (
    Load("filter", "temperature > 1", 200),
    Load("derive", {"fahrenheit": "temperature * 1.8 + 32"}, 200),
    Load("window", WINDOW, 200),
    Load("window", WINDOW, 100_000),
)


def readings(moment: int, devices: list[int]) -> pl.DataFrame:
    """A reading of each device."""
    received = [moment] * len(devices)
    values = [20.0 + device % 7 for device in devices]
    names = [f"device-{device}" for device in devices]
    return pl.DataFrame([received, names, values, received], COLUMNS, orient="col")


def costs(load: Load, batches: int) -> Iterator[float]:
    """Milliseconds of each batch."""
    operator = find_operator(load.operator).model_validate(load.options)
    assert isinstance(operator, Operator)
    operator.bind(COLUMNS, Stream(time="ts", key=("device",)))
    operator.process(readings(START, list(range(load.devices))))
    operator.snapshot(True)
    chance = random.Random(7)
    for number in range(WARM_UP + batches):
        moment = START + round((1 + number * PAUSE) * 1e6)
        batch = readings(moment, [chance.randrange(load.devices) for _ in range(ROWS)])
        time.sleep(PAUSE)
        begin = time.thread_time()
        operator.process(batch)
        operator.snapshot(False)
        if number >= WARM_UP:
            yield (time.thread_time() - begin) * 1000


def main() -> None:
    """A line for each load."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--batches", type=int, default=400)
    batches = parser.parse_args().batches
    for load in LOADS:
        found = list(costs(load, batches))
        mean, middle = statistics.fmean(found), statistics.median(found)
        name = f"{load.operator}, {load.devices:,} devices"
        print(f"{name:24} {middle:6.2f} ms a batch (median), {mean:.2f} (mean)", flush=True)


if __name__ == "__main__":
    main()
