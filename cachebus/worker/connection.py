"""Redis as an operator sees it: there now, or an error now. (The worker itself waits instead.)"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from typing import TYPE_CHECKING

from cachebus.cache.settings import CacheSettings
from cachebus.errors import AccessDenied, CannotStart
from cachebus.redis.client import Client
from cachebus.redis.replies import remedy
from cachebus.worker.commands.audited import operator

if TYPE_CHECKING:
    from cachebus.cache.cache import Cache
    from cachebus.worker.loading import Application


@asynccontextmanager
async def connected(settings: CacheSettings, application: Application | None = None) -> AsyncIterator[Cache]:
    """Connect the cache of *application*, or one without views, for as long as the block lasts.

    Raises: CannotStart without Redis or with refused credentials; ServerError when Redis is unavailable.
    """
    _refuse_alone(settings)
    if application is None:
        from cachebus.cache.cache import Cache  # noqa: PLC0415 - an application has it already, most commands need none

    async with application.connected() if application is not None else Cache(settings=settings) as opened:
        for server in (opened.client.store, opened.client.entries):
            await server.call("PING")
        opened.client.process = operator()
        yield opened


@asynccontextmanager
async def connected_client(settings: CacheSettings) -> AsyncIterator[Client]:
    """Connect without a cache, for what needs no view: its modules are not even imported. Raises: as `connected`."""
    _refuse_alone(settings)
    async with AsyncExitStack() as stack:
        url = settings.url
        if url is None:
            from cachebus.redis.embedded.embedded import EmbeddedServer  # noqa: PLC0415 - needed, and importable, only here

            embedded = await asyncio.to_thread(EmbeddedServer.start)
            stack.push_async_callback(asyncio.to_thread, embedded.stop)
            url = embedded.url
        client = await stack.enter_async_context(
            Client(
                url,
                store_url=settings.store_url,
                namespace=settings.namespace,
                credentials=settings.credentials_source(),
            )
        )
        client.process = operator()
        store = "REDIS_URL" if settings.store_url is None else "STORE_REDIS_URL"
        for variable, server in {"REDIS_URL": client.entries, store: client.store}.items():
            try:
                await server.call("PING")
            except AccessDenied as denied:
                raise CannotStart([f"{variable}: the server denies access ({denied}); {remedy(denied)}"]) from None
        yield client


def _refuse_alone(settings: CacheSettings) -> None:
    if not settings.redis_enabled:
        raise CannotStart(["REDIS_ENABLED: 'false' leaves nothing to look at; unset it"])
