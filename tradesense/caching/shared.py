"""The one cache behind the specification's names: made at import, connected when first used, anew after a fork."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Coroutine
from typing import TYPE_CHECKING, Any, Generic, TypeVar

from cachebus import Cache, Link
from cachebus.sync import Portal, SyncCache

if TYPE_CHECKING:
    from cachebus.private_server import PrivateServer

log = logging.getLogger("tradesense.caching")
T = TypeVar("T")

facade = SyncCache(Cache.from_env(), portal=Portal(inside_loop=True))
"""Every call of `tradesense.caching` goes through this one, from threads and from event loops alike, so what one of
them invalidates is gone for all of them when the call returns."""


def run(coroutine: Coroutine[Any, Any, T], timeout_s: float | None = None) -> T:
    """Run *coroutine* in the loop thread and wait for it, also where the caller runs in an event loop.

    Raises: RuntimeError in the loop thread itself, where it would wait for itself; ServerTimeout.
    """
    try:
        may_block()
    except RuntimeError:
        coroutine.close()
        raise
    return facade.portal.call(coroutine, facade.timeout_s if timeout_s is None else timeout_s)


def may_block() -> None:
    """Raise RuntimeError in the cache's own loop: nobody would be left to answer."""
    try:
        running = asyncio.get_running_loop()
    except RuntimeError:
        return
    if running is facade.portal.loop():
        raise RuntimeError("this runs in the cache's own loop and would wait for itself; use the asynchronous cache")


class Primitives:
    """The connections of sessions, limits, locks and pub/sub: the cache's own, or without Redis a stand-in's.

    With `REDIS_ENABLED=false` they live in a small server of this process, which ends with it; whatever it forks uses
    the same one. So there is one implementation, and what development sees is what production does.
    """

    def __init__(self) -> None:
        self._server: PrivateServer | None = None
        self._alone: tuple[asyncio.AbstractEventLoop, asyncio.Task[Link]] | None = None

    async def link(self) -> Link:
        """Return the connections of this process and loop. Raises: ConfigurationError where there is no stand-in."""
        await facade.cache.connected()
        if facade.cache.settings.redis_enabled:
            return facade.cache.link
        loop = asyncio.get_running_loop()
        if self._alone is None or self._alone[0] is not loop or (self._alone[1].done() and self._alone[1].exception()):
            self._alone = loop, asyncio.create_task(self._begin())
        return await asyncio.shield(self._alone[1])

    async def _begin(self) -> Link:
        if self._server is None:
            from cachebus.private_server import PrivateServer  # noqa: PLC0415 - of the `embedded` extra

            self._server = await asyncio.to_thread(PrivateServer.start, "appendonly no")
            log.warning("REDIS_ENABLED=false: sessions, limits, locks and pub/sub live as long as this process")
        link = Link(self._server.url, namespace=facade.cache.settings.namespace)
        await link.start()
        return link

    async def close(self) -> None:
        """Close what is this process's own. Idempotent."""
        alone, self._alone = self._alone, None
        if alone is not None and alone[0] is asyncio.get_running_loop():
            await (await alone[1]).close()
        server, self._server = self._server, None
        if server is not None:
            await asyncio.to_thread(server.stop)


primitives = Primitives()


class PerLink(Generic[T]):
    """An engine over these connections: made when first asked for, and again when they are others."""

    def __init__(self, make: Callable[[Link], T]) -> None:
        self._make = make
        self._made: tuple[Link, T] | None = None

    async def get(self) -> T:
        """Return the engine. Runs in the loop thread."""
        link = await primitives.link()
        if self._made is None or self._made[0] is not link:
            self._made = link, self._make(link)
        return self._made[1]


def close() -> None:
    """Close every connection; the next call connects again. For the end of a program, and for tests."""
    run(primitives.close())
    facade.close()
