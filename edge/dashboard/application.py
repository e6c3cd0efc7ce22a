"""What is answered under which address."""

from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import PlainTextResponse, Response, StreamingResponse
from starlette.routing import Route
from starlette.types import ASGIApp

from edge.dashboard.guard import Guard
from edge.dashboard.hub import VIEWERS, Hub
from edge.dashboard.metrics import CONTENT_TYPE, Metrics
from edge.dashboard.page import find
from edge.dashboard.settings import Settings


class Application:
    """The endpoints; each asks the hub, which looks at most once a second."""

    def __init__(self, hub: Hub) -> None:
        self._hub = hub
        self._metrics = Metrics(hub.pictures)

    def routes(self) -> list[Route]:
        """Every address that there is."""
        return [
            Route("/", self.page),
            Route("/page/{name}", self.page),
            Route("/state", self.state),
            Route("/events", self.events),
            Route("/metrics", self.metrics),
            Route("/healthz", self.healthz),
            Route("/readyz", self.readyz),
        ]

    async def page(self, request: Request) -> Response:
        """A file of the page."""
        name = request.path_params.get("name", "index.html")
        found = find(name)
        if found is None:
            return PlainTextResponse("There is nothing here.\n", 404)
        content, kind = found
        return Response(content, media_type=kind)

    async def state(self, request: Request) -> Response:
        """Everything, as JSON."""
        return Response(await self._hub.state(), media_type="application/json")

    async def events(self, request: Request) -> Response:
        """The state once a second, as server-sent events."""
        if self._hub.viewers >= VIEWERS:
            return PlainTextResponse(f"{VIEWERS} look already.\n", 503)
        kind = "text/event-stream"
        if request.method == "HEAD":
            return Response(media_type=kind)
        last = request.headers.get("last-event-id")
        return StreamingResponse(self._hub.events(last), media_type=kind)

    async def metrics(self, request: Request) -> Response:
        """For Prometheus."""
        await self._hub.look()
        return Response(self._metrics.text(), headers={"content-type": CONTENT_TYPE})

    async def healthz(self, request: Request) -> Response:
        """Whether every pipeline makes progress here; a link that is away is no illness."""
        return _word(all(picture.healthy() for picture in self._hub.pictures))

    async def readyz(self, request: Request) -> Response:
        """Whether rows can come into every pipeline."""
        return _word(all(picture.ready() for picture in self._hub.pictures))


def application(hub: Hub, settings: Settings) -> ASGIApp:
    """The endpoints behind their guard."""
    inside = Starlette(routes=Application(hub).routes())
    return Guard(inside, settings.token, settings.by_certificate, settings.tls is not None)


def _word(well: bool) -> Response:
    return PlainTextResponse("ok\n" if well else "not ok\n", 200 if well else 503)
