"""A process that commits, rolls and settles until it is killed; it says what is durable."""

import random
import sys
from pathlib import Path

from edge.clock import Clock
from edge.outbox import Commit, Limits, NewEntry, Outbox, Parcel, Remembered, SinkLimits

LIMITS = Limits(64 * 2**20)
SINKS = {"lake": SinkLimits(), "alarms": SinkLimits()}


def main(folder: Path, seed: int) -> None:
    chance = random.Random(seed)
    outbox = Outbox(folder, limits=LIMITS, sinks=SINKS, clock=Clock())
    outbox.open(10)
    number = int(outbox.restore().position or 0)
    print("open", number, flush=True)
    while True:
        number += 1
        commit(outbox, number, chance)
        print("committed", number, flush=True)
        sink = chance.choice(["lake", "alarms"])
        if chance.random() < 0.3:
            roll(outbox, sink)
        if chance.random() < 0.4:
            settle(outbox, sink)


def commit(outbox: Outbox, number: int, chance: random.Random) -> None:
    size = chance.choice([100, 5_000, 60_000])
    entries = [NewEntry(sink, 3, size, chance.randbytes(size)) for sink in SINKS]
    memory = [Remembered("count", "s", number % 10 == 0 or number == 1, b"%d" % number)]
    counts = {("source", "read"): 3, ("source", "taken"): 3}
    outbox.commit(Commit(entries, b"%d" % number, memory, counts))


def roll(outbox: Outbox, sink: str) -> None:
    entries = outbox.take_entries(sink, 200_000)
    parcels = [Parcel(f"{e.first}", e.first, e.first + 2, 3, e.body) for e in entries]
    if entries:
        outbox.roll(sink, entries, parcels)


def settle(outbox: Outbox, sink: str) -> None:
    parcels = outbox.take_parcels(sink, 4)
    for parcel in parcels:
        print("sent", sink, parcel.first, flush=True)
    outbox.settle(sink, [parcel.id for parcel in parcels])


if __name__ == "__main__":
    main(Path(sys.argv[1]), int(sys.argv[2]))
