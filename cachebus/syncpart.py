"""A part of the library for callers without a loop: made in the loop's thread, anew for each connection."""

from __future__ import annotations

import os
from collections.abc import Callable, Coroutine
from typing import Any, Generic, TypeVar

from cachebus.errors import ConfigurationError
from cachebus.link import Link
from cachebus.sync import SyncCache

T = TypeVar("T")
R = TypeVar("R")


class SyncPart(Generic[T]):
    """What *make* returns for the connections that a `SyncCache` has now.

    A cache that was forked, or moved, has others. *make* gets None in a process without Redis (`REDIS_ENABLED=false`).
    """

    def __init__(self, cache: SyncCache, make: Callable[[Link | None], T]) -> None:
        self._cache = cache
        self._make = make
        self._made: tuple[int, Link | None, T] | None = None

    def run(self, work: Callable[[T], Coroutine[Any, Any, R]]) -> R:
        """Do something with the part in the loop's thread, and wait. Raises: ServerTimeout, or what it raises."""
        return self._cache.run(self._work(work))

    def wait(self, work: Callable[[T], Coroutine[Any, Any, R]]) -> R:
        """As `run`, for as long as it takes; a caller who is interrupted takes it back."""
        future = self._cache.portal.submit(self._work(work))
        try:
            return future.result()
        finally:
            future.cancel()

    @property
    def made(self) -> T | None:
        """The part, where this process has one."""
        return self._made[2] if self._made is not None and self._made[0] == os.getpid() else None

    async def _work(self, work: Callable[[T], Coroutine[Any, Any, R]]) -> R:
        cache = self._cache.cache
        await cache.connected()
        link = cache.link if cache.settings.redis_enabled else None
        if self._made is None or self._made[:2] != (os.getpid(), link):
            self._made = (os.getpid(), link, self._make(link))
        return await work(self._made[2])


def needed(link: Link | None) -> Link:
    """Return the link. Raises: ConfigurationError in a process without Redis."""
    if link is None:
        raise ConfigurationError("REDIS_ENABLED=false: limits and sessions are kept in Redis and nowhere else")
    return link
