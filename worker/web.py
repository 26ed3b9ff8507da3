"""The pages, only when a port is given: /healthz (lives), /readyz (works), /metrics (Prometheus), / (for people)."""

from __future__ import annotations

import contextlib
import socket
from collections.abc import Iterator, Sequence
from importlib import import_module
from importlib.util import find_spec

import uvicorn
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse, PlainTextResponse, Response
from starlette.routing import BaseRoute, Route

from cachebus import Cache
from cachebus.scheduler import Scheduler
from worker.health import Health
from worker.metrics import CONTENT_TYPE, Metrics


def pages(health: Health, metrics: Metrics, live: Sequence[BaseRoute] = ()) -> Starlette:
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

    return Starlette(
        routes=[
            Route("/healthz", healthz),
            Route("/readyz", readyz),
            Route("/metrics", metrics_page),
            *live,
        ]
    )


def live_page(cache: Cache, scheduler: Scheduler | None, shards: int) -> list[BaseRoute]:
    """Return the live page's routes; none where the gateway is not installed, by whose name it is found."""
    if find_spec("gateway") is None:
        return []
    found: list[BaseRoute] = import_module("gateway.page").routes(cache, scheduler=scheduler, shards=shards)
    return found


def listen(host: str | None, port: int) -> socket.socket:
    """Open the port: on *host*, or on every address, IPv6 and IPv4 on one socket where the machine has both.

    Raises: OSError.
    """
    if host is None and socket.has_dualstack_ipv6():
        return socket.create_server(("", port), family=socket.AF_INET6, dualstack_ipv6=True)
    family = socket.AF_INET6 if host and ":" in host else socket.AF_INET
    return socket.create_server((host or "", port), family=family)


async def serve(app: Starlette, host: str | None, port: int) -> None:
    """Answer until cancelled. Raises: OSError when the port cannot be opened."""
    opened = listen(host, port)
    server = _Server(
        uvicorn.Config(app, log_config=None, access_log=False, lifespan="off", timeout_graceful_shutdown=1)
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
