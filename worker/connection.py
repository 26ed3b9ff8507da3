"""Redis as an operator sees it: there now, or an error now. (The worker itself waits instead.)"""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from cachebus import Cache, CacheSettings
from cachebus.errors import AccessDenied
from worker.settings import CannotStart


@asynccontextmanager
async def connected(settings: CacheSettings, cache: Cache | None = None) -> AsyncIterator[Cache]:
    """Connect *cache*, or one without views, for as long as the block lasts.

    Raises: CannotStart without Redis or with refused credentials; ServerError when Redis is away.
    """
    if not settings.redis_enabled:
        raise CannotStart(["REDIS_ENABLED: 'false' leaves nothing to look at; unset it"])
    async with cache or Cache(settings=settings) as opened:
        await refuse_denied(opened)
        yield opened


async def refuse_denied(cache: Cache) -> None:
    """Ask both servers for an answer. Raises: CannotStart where only new credentials help, ServerError when away."""
    for server, variable in ((cache.link.store, _store_variable(cache.settings)), (cache.link.entries, "REDIS_URL")):
        try:
            await server.call("PING")
        except AccessDenied as denied:
            raise CannotStart(
                [f"{variable}: the server refuses these credentials ({denied}); correct them"]
            ) from denied


def _store_variable(settings: CacheSettings) -> str:
    return "REDIS_URL" if settings.store_url is None else "STORE_REDIS_URL"
