"""Whether a processor makes progress: it touches a file while it does, and this looks at its age.

`python3 -I -S health.py` is a health check that costs 10 ms and knows nothing of the link.
"""

import os
import sys
import time

VARIABLE = "EDGE_HEALTH_FILE"
"""Names the file, best on a memory file system; without it none is touched."""
EVERY = 5.0
"""Seconds between two touches."""
STALE = 60.0
"""Seconds without one after which a processor is not healthy, or without a step of a pipeline."""


def touch(path: str) -> None:
    """Say that all is well."""
    with open(path, "ab"):
        os.utime(path)


def complaint(path: str | None) -> str | None:
    """What is wrong; None if all is well."""
    if not path:
        return f"{VARIABLE} is not set, so the processor says nothing"
    try:
        age = time.time() - os.stat(path).st_mtime
    except OSError as error:
        return f"{path}: {error.strerror}; no pipeline has started"
    # A clock set back makes the file younger than now; it is touched again within seconds.
    return f"{path}: no progress for {age:.0f} s" if age > STALE else None


if __name__ == "__main__":
    sys.exit(complaint(os.environ.get(VARIABLE)))
