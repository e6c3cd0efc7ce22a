"""How long a container takes from its start to its first row on disk: `make container-bars`."""

import contextlib
import secrets
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

from edge.clock import Clock
from edge.errors import EdgeError
from edge.outbox.inspection import status
from tests.containers.conftest import build
from tests.engine import NAME, Engine, running
from tests.processor import until

BACKLOG = 2**30
DEFINITION = """
name: bars
site: test
source: {dataset: {path: '/in/*.ndjson', follow: true}}
record: {fields: {text: str}}
sinks:
  lake:
    s3: {bucket: lake, endpoint_url: 'http://127.0.0.1:1', compression: none}
    roll: {size: 8MiB, every: 1s}
outbox: {max_size: 4GiB}
"""


class Bars:
    """One container whose sink is away, what it reads, and its outbox as this machine sees it."""

    def __init__(self, engine: Engine, image: str, folder: Path) -> None:
        self.folder = folder
        self.rows = 0
        self._volume = engine.client.volumes.create(f"{NAME}bars")
        self._outbox = Path(self._volume.attrs["Mountpoint"]) / "bars"
        mounts = {
            self._volume.name: {"bind": "/var/lib/edge", "mode": "rw"},
            str(folder): {"bind": "/in", "mode": "ro"},
        }
        self.container: Any = engine.client.containers.create(
            image, name=f"{NAME}bars", volumes=mounts, network_mode="none", read_only=True
        )

    def add(self, size: int) -> None:
        """One more file of so many bytes that no compression makes smaller."""
        lines = max(1, size // 100_000)
        with (self.folder / f"{self.rows:09}.part").open("w") as file:
            for _ in range(lines):
                file.write(f'{{"text": "{secrets.token_urlsafe(min(size, 100_000) * 3 // 4)}"}}\n')
        self.rows += lines
        Path(file.name).rename(file.name.replace(".part", ".ndjson"))

    def said(self) -> dict[str, Any]:
        with contextlib.suppress(EdgeError):  # it is being made
            return status(self._outbox, Clock().now())
        return {"rows_read": 0}

    def start(self) -> float:
        """Seconds from `docker start` until every row that was added is on disk."""
        began = time.monotonic()
        self.container.start()
        until(lambda: self.said()["rows_read"] >= self.rows, 300)
        return time.monotonic() - began

    def remove(self) -> None:
        self.container.remove(force=True)
        self._volume.remove()


def main() -> int:
    """Measure both; 1 if one is above its bar."""
    with (
        running() as engine,
        tempfile.TemporaryDirectory(dir="/var/tmp") as made,
        tempfile.TemporaryDirectory() as definitions,
    ):
        Path(made).chmod(0o755)
        file = Path(definitions) / "bars.yaml"
        file.write_text(DEFINITION)
        build(engine, f"{NAME}bars:1", engine.base(), str(file))
        bars = Bars(engine, f"{NAME}bars:1", Path(made))
        try:
            bars.add(1_000)
            first = bars.start()
            while bars.said()["outbox"]["bytes"] < BACKLOG:
                bars.add(64 * 2**20)
                until(lambda: bars.said()["rows_read"] >= bars.rows, 300)
            held = bars.said()["outbox"]["bytes"]
            bars.container.stop(timeout=60)
            bars.add(1_000)
            warm = bars.start()
        finally:
            bars.remove()
    print(f"start to first row on disk {first:.1f} s (bar 3 s)")
    print(f"the same with a backlog of {held / 2**30:.2f} GiB {warm:.1f} s (bar 5 s)")
    return int(first > 3 or warm > 5)


if __name__ == "__main__":
    sys.exit(main())
