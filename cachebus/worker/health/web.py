"""The pages, only when a port is given: /healthz (lives), /readyz (works), /metrics (Prometheus), / (for people)."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Sequence

import uvicorn
from starlette.applications import Starlette
from starlette.middleware import Middleware
from starlette.requests import Request
from starlette.responses import JSONResponse, PlainTextResponse, Response
from starlette.routing import BaseRoute, Route

from cachebus.integrations.asgi.headers import SafeHeaders
from cachebus.integrations.prometheus import CONTENT_TYPE, MetricsPage
from cachebus.process.listening import listen
from cachebus.process.patient_http import PatientHttp
from cachebus.worker.health.health import Health


def pages(health: Health, metrics: MetricsPage, live: Sequence[BaseRoute] = ()) -> Starlette:
    """Return the app. The pages for machines answer without a round trip, so an outage of Redis does not hang them."""

    async def healthz(_request: Request) -> Response:
        return PlainTextResponse("alive\n")

    async def readyz(_request: Request) -> Response:
        state = health.state()
        outbox = health.outbox()
        said = state._asdict() | ({"outbox": outbox} if outbox else {})
        return JSONResponse(said, status_code=200 if state.word == "ready" else 503)

    async def metrics_page(_request: Request) -> Response:
        return Response(metrics.text(), media_type=CONTENT_TYPE)

    routes = [Route("/healthz", healthz), Route("/readyz", readyz), Route("/metrics", metrics_page), *live]
    app = Starlette(routes=routes, middleware=[Middleware(SafeHeaders)])
    app.router.redirect_slashes = False  # the redirect would lead to whatever host the request names
    return app


async def serve(app: Starlette, host: str | None, port: int, fd: int | None = None) -> None:
    """Answer until cancelled. Raises: OSError when the port cannot be opened."""
    opened = listen(host, port, fd)
    server = _Server(
        uvicorn.Config(
            app,
            http=PatientHttp,
            log_config=None,
            access_log=False,
            lifespan="off",
            timeout_graceful_shutdown=1,
            server_header=False,
        )
    )
    try:
        await server.serve([opened])
    finally:
        for listener in getattr(server, "servers", ()):  # there is none if it was cancelled before it began
            listener.close()
        opened.close()


class _Server(uvicorn.Server):
    @contextlib.contextmanager
    def capture_signals(self) -> Iterator[None]:
        """Capture none: `Stop` has them."""
        yield
