"""The one cache behind the specification's names: made at import, connected when first used, anew after a fork."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Coroutine
from concurrent.futures import Future
from dataclasses import replace
from typing import TYPE_CHECKING, Any, TypeVar

from cachebus import Cache, CacheSettings, Link
from cachebus.reader import Reader
from cachebus.sync import Portal, SyncCache

if TYPE_CHECKING:
    from cachebus.private_server import PrivateServer

log = logging.getLogger("tradesense.caching")
T = TypeVar("T")


class _Portal(Portal):
    """A portal that event loops may use too, and that says so where a caller would wait for itself."""

    def __init__(self) -> None:
        super().__init__(inside_loop=True)

    def submit(self, coroutine: Coroutine[Any, Any, T]) -> Future[T]:
        """Run *coroutine* in the loop thread. Raises: RuntimeError in that thread itself."""
        if self.is_here():
            coroutine.close()
            raise RuntimeError(
                "this runs in the cache's own loop and would wait for itself; use the asynchronous cache"
            )
        return super().submit(coroutine)

    def is_here(self) -> bool:
        """Whether the caller runs in the portal's own loop."""
        try:
            return asyncio.get_running_loop() is self.loop()
        except RuntimeError:
            return False


class _Primitives(Cache):
    """The connections of sessions, limits and pub/sub: the cache's own, or without Redis those to a stand-in.

    With `REDIS_ENABLED=false` that is a small server of this process, which ends with it; whatever the process forks
    uses the same one. So there is one implementation, and development sees what production does.
    """

    _server: PrivateServer | None = None

    @property
    def settings(self) -> CacheSettings:
        """The settings in force. Raises: ConfigurationError where there is no stand-in."""
        given = facade.cache.settings
        return given if given.redis_enabled else replace(given, redis_enabled=True, url=self._stand_in().url)

    @property
    def link(self) -> Link:
        """The connections of this process."""
        return facade.cache.link if facade.cache.settings.redis_enabled else super().link

    async def connected(self) -> Reader:
        """Connect unless that is done."""
        if facade.cache.settings.redis_enabled:
            return await facade.cache.connected()
        return await super().connected()

    def _stand_in(self) -> PrivateServer:
        if self._server is None:
            from cachebus.private_server import PrivateServer  # noqa: PLC0415 - of the `embedded` extra

            self._server = PrivateServer.start("appendonly no")
            log.warning("REDIS_ENABLED=false: sessions, limits and messages live as long as this process")
        return self._server

    async def close(self) -> None:
        """Close what is this process's own. Idempotent."""
        await super().close()
        server, self._server = self._server, None
        if server is not None:
            await asyncio.to_thread(server.stop)


portal = _Portal()
facade = SyncCache(Cache.from_env(), portal=portal)
"""Every call of `tradesense.caching` goes through this one, from threads and from event loops alike, so what one of
them invalidates is gone for all of them when the call returns."""
primitives = SyncCache(_Primitives(), portal=portal)


def close() -> None:
    """Close every connection; the next call connects again. For the end of a program, and for tests."""
    primitives.run(primitives.cache.close())
    facade.close()
