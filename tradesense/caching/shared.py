"""The one cache behind the specification's names: made at import, connected when first used, anew after a fork."""

from __future__ import annotations

import threading
from collections.abc import Callable, Coroutine
from typing import Any, Generic, TypeVar

from cachebus import Cache, Link
from cachebus.sync import Portal, SyncCache

T = TypeVar("T")

LOOP_THREAD = "cachebus loop"

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


class PerLink(Generic[T]):
    """An engine over the connections of this process: made when first asked for, and again when they are others."""

    def __init__(self, make: Callable[[Link], T]) -> None:
        self._make = make
        self._made: tuple[Link, T] | None = None

    async def get(self) -> T:
        """Return the engine. Runs in the loop thread. Raises: ConfigurationError where Redis is switched off."""
        await facade.cache.connected()
        link = facade.cache.link
        if self._made is None or self._made[0] is not link:
            self._made = link, self._make(link)
        return self._made[1]


def may_block() -> None:
    """Raise RuntimeError in the cache's own loop: nobody would be left to answer."""
    if threading.current_thread().name == LOOP_THREAD:
        raise RuntimeError("this runs in the cache's own loop and would wait for itself; use the asynchronous cache")
