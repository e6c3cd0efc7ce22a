"""A processor killed again and again delivers what an undisturbed one would, row for row."""

from pathlib import Path

import pytest

from tests.cloud import Cloud
from tests.kills import SCENARIOS

KILLS = {"dataset": 20, "mqtt": 20, "sqs": 5}


@pytest.mark.parametrize("scenario", sorted(SCENARIOS))
def test_nothing_is_lost_or_doubled(scenario: str, tmp_path: Path, cloud: Cloud) -> None:
    verdict = SCENARIOS[scenario](tmp_path, cloud, KILLS[scenario], 20240217)
    assert verdict.faults == []
