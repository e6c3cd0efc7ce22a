"""The HTTP server, on the processor's own event loop: it starts, stops and fails beside it."""

import asyncio
import logging
import socket
from collections.abc import Sequence

import uvicorn

from edge.dashboard.application import application
from edge.dashboard.hub import Hub
from edge.dashboard.settings import Settings
from edge.runner import Runner
from edge.secrets import Secrets

log = logging.getLogger("edge.dashboard")

AGAIN = 5.0  # seconds until an address that is taken is tried again
SILENT = 10.0  # seconds after which a connection is closed that asks for nothing, or half of it
_CONNECTIONS = 100
_LET_GO = 1  # seconds that answers under way get at the end


class Dashboard:
    """Runs beside the pipelines until it is cancelled. Nothing that happens to it ends them.

    url: where it listens, once it does.
    """

    def __init__(self, settings: Settings, secrets: Secrets) -> None:
        self._secrets = secrets
        self.url: str | None = None
        self._settings = settings

    async def __call__(self, runners: Sequence[Runner]) -> None:
        """Serve what `runners` do."""
        try:
            await self._serve(Hub(runners, self._secrets))
        except Exception:
            log.exception("http: stopped; the pipelines go on")

    async def _serve(self, hub: Hub) -> None:
        looking = asyncio.create_task(hub.run())
        try:
            listener = await self._listen()
            server = self._server(hub)
            await server.startup(sockets=[listener])
            try:
                self.url = self._url(listener)
                log.info("http: listens on %s", self.url)
                await _sweep(server)
            finally:
                await _end(looking)  # lets go of those who listen to events
                await server.shutdown(sockets=[listener])
        finally:
            await _end(looking)

    def _server(self, hub: Hub) -> uvicorn.Server:
        """Without its main loop, which wakes up ten times a second, and without its signals."""
        logging.getLogger("uvicorn.error").setLevel(logging.ERROR)  # not every scan of the port
        config = uvicorn.Config(
            application(hub, self._settings),
            http="h11",
            ws="none",
            lifespan="off",
            log_config=None,
            access_log=False,
            server_header=False,
            date_header=False,
            proxy_headers=False,
            limit_concurrency=_CONNECTIONS,
            timeout_graceful_shutdown=_LET_GO,
        )
        config.load()
        config.ssl = self._settings.tls
        server = uvicorn.Server(config)
        server.lifespan = config.lifespan_class(config)
        return server

    async def _listen(self) -> socket.socket:
        """The address may still be that of a processor that is just leaving."""
        told = False
        while True:
            try:
                return self._bind()
            except OSError as error:
                if not told:
                    log.warning(
                        "http: cannot listen on %s:%d, tried again: %s; is it another processor's? "
                        "the pipelines run all the same",
                        self._settings.host,
                        self._settings.port,
                        error.strerror or error,
                    )
                told = True
            await asyncio.sleep(AGAIN)

    def _bind(self) -> socket.socket:
        address = self._settings.host, self._settings.port
        family = socket.AF_INET6 if ":" in address[0] else socket.AF_INET
        listener = socket.create_server(address, family=family)
        # Else the rest of an answer waits 40 ms until its head is acknowledged. Those accepted have
        # it from here: asyncio sets it only where the protocol was named.
        listener.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        listener.setblocking(False)
        return listener

    def _url(self, listener: socket.socket) -> str:
        host, port = listener.getsockname()[:2]
        scheme = "https" if self._settings.tls else "http"
        return f"{scheme}://{f'[{host}]' if ':' in host else host}:{port}/"


async def _sweep(server: uvicorn.Server) -> None:
    """Until cancelled, close connections that were silent twice in a row.

    The server waits for a request for ever; a hundred who say nothing would keep all others out.
    """
    silent: dict[object, object] = {}
    while True:
        await asyncio.sleep(SILENT)
        before, silent = silent, {}
        for connection in [*server.server_state.connections]:
            cycle = getattr(connection, "cycle", None)
            if cycle is None or cycle.response_complete:
                silent[connection] = cycle
                if connection in before and before[connection] is cycle:
                    connection.transport.close()


async def _end(task: "asyncio.Task[None]") -> None:
    task.cancel()
    await asyncio.gather(task, return_exceptions=True)
