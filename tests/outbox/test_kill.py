import random
import subprocess
import sys
import time
from pathlib import Path

from edge.clock import Clock
from edge.outbox import Outbox
from tests.outbox.busy import LIMITS, SINKS

KILLS = 12
ROWS = 3


def test_a_killed_process_leaves_whole_commits_and_a_balanced_ledger(folder: Path) -> None:
    chance = random.Random(3)
    sent: dict[str, set[int]] = {sink: set() for sink in SINKS}
    for seed in range(KILLS):
        lines = run_and_kill(folder, seed, chance.uniform(0.02, 0.4))
        committed = max((int(line[1]) for line in lines if line[0] == "committed"), default=0)
        for line in lines:
            if line[0] == "sent":
                sent[line[1]].add(int(line[2]))
        check(folder, committed, sent)


def run_and_kill(folder: Path, seed: int, after: float) -> list[list[str]]:
    """Whole lines that the process wrote before SIGKILL came, so long after its first commit."""
    process = subprocess.Popen(
        [sys.executable, "-m", "tests.outbox.busy", str(folder), str(seed)],
        stdout=subprocess.PIPE,
        cwd=Path(__file__).parents[2],
        text=True,
    )
    assert process.stdout
    first = process.stdout.readline() + process.stdout.readline()
    time.sleep(after)  # the moment of the kill, not a wait for something
    process.kill()
    rest, _ = process.communicate()
    return [line.split() for line in (first + rest).splitlines(keepends=True) if line[-1] == "\n"]


def check(folder: Path, committed: int, sent: dict[str, set[int]]) -> None:
    outbox = Outbox(folder, limits=LIMITS, sinks=SINKS, clock=Clock())
    outbox.open(10)
    restored = outbox.restore()
    position = int(restored.position or 0)
    # What was reported is there; at most the one commit that was under way came after.
    assert committed <= position <= committed + 1 or committed == 0
    assert restored.memory["count"].states[-1] == b"%d" % position
    status = outbox.status()
    assert status["imbalances"] == []
    for sink in SINKS:
        assert status["ledger"][f"sink:{sink}"]["appended"] == position * ROWS
        assert outbox.next_sequence(sink) == position * ROWS + 1
        waiting = {e.first for e in outbox.take_entries(sink, 10**12)}
        waiting |= {p.first for p in outbox.take_parcels(sink, 10**6)}
        missing = set(range(1, position * ROWS, ROWS)) - waiting
        assert missing <= sent[sink]
    outbox.close()
