"""`python -m gateway`: run the gateway until SIGTERM or Ctrl-C.

Exit codes: 0 after a drain, 2 cannot start.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import sys
from collections.abc import AsyncIterator

from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import PlainTextResponse, Response
from starlette.routing import Route

from cachebus import Cache
from gateway import page
from gateway.live import Gateway
from gateway.server import serve
from gateway.settings import CannotStart, Settings


async def run(settings: Settings) -> None:
    """Serve until a signal."""
    cache = Cache(settings=settings.cache)
    async with cache:
        gateway = Gateway(
            cache.link,
            public_topics=settings.public_topics,
            origins=settings.origins,
            cookie=settings.cookie,
            most_clients=settings.most_clients,
        )

        cache.observed.gauges["sockets"] = lambda: gateway.connected

        @contextlib.asynccontextmanager
        async def lifespan(_app: Starlette) -> AsyncIterator[None]:
            async with gateway:
                yield

        async def healthy(_request: Request) -> Response:
            return PlainTextResponse("draining" if gateway.draining else "ok", 503 if gateway.draining else 200)

        looking = page.routes(cache, sockets_of=gateway.hub.followers, cookie=settings.cookie)
        routes = [*gateway.routes(), Route("/healthz", healthy), *looking]
        application = Starlette(routes=routes, lifespan=lifespan)
        server = serve(application, gateway, host=settings.host, port=settings.port, drain_s=settings.drain_s)
        await server.serve()


def main() -> int:
    """Read the settings and run."""
    try:
        settings = Settings.from_environment(os.environ)
    except CannotStart as problems:
        sys.stderr.write(f"the gateway cannot start:\n{problems}\n")
        return 2
    with contextlib.suppress(KeyboardInterrupt):
        asyncio.run(run(settings))
    return 0


if __name__ == "__main__":
    sys.exit(main())
