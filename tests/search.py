"""How far the tests search: `TEST_DEPTH=20 make test` tries twenty times as much, at random.

Left alone they try the same every time, so that what passed once does not fail by chance.
"""

import os

from hypothesis import HealthCheck, settings

DEPTH = int(os.environ.get("TEST_DEPTH", "1"))


def examples(number: int) -> settings:
    """So many for each unit of depth. However slow a busy machine is: that is no failure."""
    return settings(
        max_examples=number * DEPTH,
        derandomize=DEPTH == 1,
        deadline=None,
        suppress_health_check=[HealthCheck.too_slow],
    )
