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
        server: uvicorn.Server | None = None
        try:
            listener = await self._listen()
            server = self._server(hub)
            await server.startup(sockets=[listener])
            self.url = self._url(listener)
            log.info("http: listens on %s", self.url)
            await looking
        finally:
            looking.cancel()
            await asyncio.gather(looking, return_exceptions=True)
            if server is not None:
                await server.shutdown(sockets=[listener])

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
        listener.setblocking(False)
        return listener

    def _url(self, listener: socket.socket) -> str:
        host, port = listener.getsockname()[:2]
        scheme = "https" if self._settings.tls else "http"
        return f"{scheme}://{f'[{host}]' if ':' in host else host}:{port}/"
