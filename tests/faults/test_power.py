"""The plug is pulled behind any write: all that was acknowledged is there, once."""

import pytest

from tests.faults.power import pull


@pytest.mark.parametrize("seed", [1, 2])
def test_a_power_cut_behind_any_write_loses_and_doubles_nothing(seed: int) -> None:
    tried, faults = pull(seed, 80)
    assert tried == 160
    assert faults == []
