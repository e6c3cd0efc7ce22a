"""A pipeline that runs in the test's own loop with its dashboard on a free port."""

import asyncio
import json
import ssl
import urllib.error
import urllib.request
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any, NamedTuple

from edge.dashboard.server import Dashboard
from edge.dashboard.settings import settings
from edge.pipeline import Pipeline, load
from edge.runner import Runner
from edge.secrets import secrets_of
from tests.loop import until
from tests.ports import free_port

DEFINITION = """
edge: 1
name: press
source:
  dataset: {path: in/*.ndjson, follow: true}
record:
  time: ts
  key: device
  fields: {ts: timestamp_ms, device: str, temp: float}
operators:
  - filter: temp > 0
sinks:
  lake:
    operators:
      - deadband: {column: temp, change: 5}
    file: {path: out/lake}
    roll: {size: 1KiB, every: 100ms}
  away:
    when: temp > 30
    mqtt:
      url: mqtt://127.0.0.1:PORT
      topic: away/{device}
      username: edge
      password: hunter2hunter2
    roll: {size: 1KiB, every: 100ms}
"""


class Answer(NamedTuple):
    status: int
    headers: Mapping[str, str]
    body: bytes

    def json(self) -> Any:
        return json.loads(self.body)


class Plant:
    """`get` asks the dashboard over a real connection; `write` lets rows come."""

    def __init__(
        self,
        folder: Path,
        dashboard: Dashboard,
        runner: Runner,
        beside: "asyncio.Task[None]",
    ) -> None:
        self._folder = folder
        self.dashboard = dashboard
        self.runner = runner
        self.beside = beside
        self._written = 0

    def write(self, rows: Sequence[Mapping[str, Any] | str]) -> None:
        lines = [row if isinstance(row, str) else json.dumps(row) for row in rows]
        file = self._folder / "in" / f"{self._written:03}.ndjson"
        self._written += 1
        file.write_text("".join(line + "\n" for line in lines))

    async def get(
        self, path: str, method: str = "GET", tls: ssl.SSLContext | None = None, **headers: str
    ) -> Answer:
        return await asyncio.to_thread(fetch, f"{self.dashboard.url}{path}", method, tls, **headers)

    async def until(self, holds: Any, path: str = "state") -> Any:
        """The first state of which something holds."""
        async with asyncio.timeout(120):
            while True:
                state = (await self.get(path)).json()
                if holds(state["pipelines"][0]):
                    return state["pipelines"][0]
                await asyncio.sleep(0.1)


class NotRedirected(urllib.request.HTTPRedirectHandler):
    def redirect_request(self, *args: Any, **options: Any) -> None:
        return None


def fetch(
    url: str, method: str = "GET", tls: ssl.SSLContext | None = None, **headers: str
) -> Answer:
    """What a server answers, whatever its status; a redirection is not followed."""
    request = urllib.request.Request(url, method=method, headers=headers)
    secure = urllib.request.HTTPSHandler(context=tls)
    opener = urllib.request.build_opener(NotRedirected, urllib.request.ProxyHandler({}), secure)
    try:
        with opener.open(request, timeout=60) as answer:
            return Answer(answer.status, answer.headers, answer.read())
    except urllib.error.HTTPError as error:
        with error:
            return Answer(error.code, error.headers, error.read())


def definition(folder: Path, text: str = DEFINITION) -> Pipeline:
    (folder / "in").mkdir(exist_ok=True)
    file = folder / "press.yaml"
    file.write_text(text.replace("PORT", str(free_port())))
    pipeline = load(file)
    return pipeline.model_copy(
        update={"outbox": pipeline.outbox.model_copy(update={"path": folder / "outbox"})}
    )


@asynccontextmanager
async def running(folder: Path, text: str = DEFINITION, **options: Any) -> AsyncIterator[Plant]:
    """A real runner and a real server, until the block ends."""
    pipeline = definition(folder, text)
    runner = Runner(pipeline)
    dashboard = Dashboard(settings("127.0.0.1:0", **options), secrets_of([pipeline], {}))
    beside: asyncio.Task[None] = asyncio.create_task(dashboard([runner]))
    await runner.open()
    stop = asyncio.Event()
    running = asyncio.create_task(runner.run(stop))
    try:
        await until(lambda: dashboard.url)
        yield Plant(folder, dashboard, runner, beside)
    finally:
        stop.set()
        await running
        await runner.close()
        beside.cancel()
        await asyncio.gather(beside, return_exceptions=True)
