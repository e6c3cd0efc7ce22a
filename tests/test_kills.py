"""A processor killed twenty times delivers what an undisturbed one would, row for row."""

from pathlib import Path

import pytest

from tests.cloud import Cloud
from tests.kills import SCENARIOS


@pytest.mark.parametrize("scenario", sorted(SCENARIOS))
def test_nothing_is_lost_or_doubled(scenario: str, tmp_path: Path, cloud: Cloud) -> None:
    verdict = SCENARIOS[scenario](tmp_path, cloud, 20, 20240217)
    assert verdict.faults == []
