"""The processor under test: `edge run` as a process of its own, started, killed, started again."""

import os
import sys
from pathlib import Path

from edge.demo.children import Child, DemoError
from edge.demo.cloud import KEYS, REGION


class Processor:
    """`edge run DEFINITION` with its outbox in `folder`; what it logs is appended to `log`."""

    def __init__(self, definition: Path, folder: Path, log: Path, env: dict[str, str]) -> None:
        self.folder = folder
        self._definition = definition
        self._log = log
        self._env = _clean_environment() | env
        self._child: Child | None = None

    @property
    def running(self) -> bool:
        return self._child is not None and self._child.running

    async def start(self) -> None:
        command = [sys.executable, "-m", "edge", "run", str(self._definition)]
        self._child = await Child.start("processor", command, self._log, self._env)

    async def kill(self) -> None:
        """SIGKILL, at whatever it is doing."""
        if self._child:
            await self._child.kill()

    async def stop(self) -> None:
        """SIGTERM; raises DemoError when it does not exit with 0 in time."""
        assert self._child is not None
        code = await self._child.stop()
        if code != 0:
            raise DemoError(f"processor: exit code {code} after SIGTERM, see {self._log}")

    def must_run(self) -> None:
        """Raises DemoError with the end of its log when it has ended by itself."""
        if self._child:
            self._child.must_run()


def _clean_environment() -> dict[str, str]:
    """The user's environment without anything that could lead to a real account or a proxy."""
    kept = {
        name: value
        for name, value in os.environ.items()
        if not name.startswith("AWS_") and not name.lower().endswith("_proxy")
    }
    return (
        kept
        | KEYS
        | {
            "AWS_DEFAULT_REGION": REGION,
            "AWS_CONFIG_FILE": os.devnull,
            "AWS_SHARED_CREDENTIALS_FILE": os.devnull,
            "AWS_EC2_METADATA_DISABLED": "true",
        }
    )
