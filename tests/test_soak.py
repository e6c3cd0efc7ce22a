"""Everything at once, for a moment: the equations hold, what arrived is what was published."""

from pathlib import Path

from tests.cloud import Cloud
from tests.soak import make_plan, play

SECONDS = 20.0


def test_whatever_happens_nothing_is_lost_or_doubled(tmp_path: Path, cloud: Cloud) -> None:
    verdict = play(make_plan(7, SECONDS), tmp_path, cloud)
    assert verdict.faults == []
    assert verdict.rows > 0


def test_a_seed_always_gives_the_same_plan() -> None:
    assert make_plan(7, 600) == make_plan(7, 600)
    assert make_plan(8, 600) != make_plan(7, 600)
