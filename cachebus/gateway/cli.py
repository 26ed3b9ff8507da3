"""`cachebus gateway`: run the gateway until SIGTERM or Ctrl-C."""

from __future__ import annotations

import argparse
import asyncio
from collections.abc import Mapping

import structlog
from starlette.requests import Request
from starlette.responses import PlainTextResponse, Response
from starlette.routing import Route

from cachebus.cache.cache import Cache
from cachebus.cache.upkeep.reporter import names_of_process
from cachebus.environment import warn_once
from cachebus.gateway.gateway import Gateway
from cachebus.gateway.metrics import metrics_routes
from cachebus.gateway.routes import live_app
from cachebus.gateway.server import GRACE_S, serve
from cachebus.gateway.settings import GatewaySettings
from cachebus.integrations.set_up import trace_if_set_up
from cachebus.monitoring import page
from cachebus.process import logs
from cachebus.process.listening import listen, refuse_taken
from cachebus.process.signals import Stop

log = structlog.get_logger("gateway")


async def _serve(settings: GatewaySettings, stop: Stop) -> None:
    """Serve until asked to stop."""
    cache = Cache(settings=settings.cache)
    trace_if_set_up(cache)
    async with cache:
        gateway = Gateway(
            cache,
            public_topics=settings.clients.public_topics or (),
            origins=settings.clients.origins or (),
            cookie=settings.clients.cookie,
            limits=settings.clients.limits(),
        )

        cache.observed.gauges["sockets"] = lambda: gateway.connected

        async def healthy(_request: Request) -> Response:
            return PlainTextResponse("draining" if gateway.draining else "ok", 503 if gateway.draining else 200)

        looking = page.routes(
            cache,
            sockets_of=gateway.hub.followers,
            cookie=settings.clients.cookie,
            open_to_all=settings.page.open_to_all,
        )
        app = live_app(gateway, Route("/healthz", healthy), *metrics_routes(cache, gateway), *looking)
        server = serve(app, gateway, drain_s=settings.clients.drain_ms / 1000)
        async with gateway:
            with listen(settings.host, settings.port, settings.process.listen_fd) as opened:
                log.info("gateway listening", address=settings.host, port=opened.getsockname()[1])
                await server.serve_until(stop.event, opened)
        log.info("gateway stopped", signal=stop.signal)


def main(_asked: argparse.Namespace, environment: Mapping[str, str]) -> int:
    """Run until SIGTERM or SIGINT; returns the exit code, 0 after a drain. Raises: CannotStart."""
    settings = GatewaySettings.from_environment(environment)
    logs.configure(settings.log.level, settings.log.format, settings.masking(), named=names_of_process())
    stop = Stop(settings.clients.drain_ms / 1000 + GRACE_S)
    stop.install()
    for warning in settings.unknown:
        warn_once(warning)
    refuse_taken(settings.host, settings.port, settings.process.listen_fd)
    asyncio.run(_run(settings, stop))
    stop.finished()
    return 0


async def _run(settings: GatewaySettings, stop: Stop) -> None:
    with stop.listening():
        await _serve(settings, stop)
