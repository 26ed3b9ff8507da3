"""What every part of this room is: the asynchronous part of the same name, run in the loop's thread."""

from __future__ import annotations

from asyncio import AbstractEventLoop
from collections.abc import Coroutine
from concurrent.futures import CancelledError, Future
from typing import Any, Protocol, TypeVar

from cachebus.cache.cache import Cache as AsyncCache
from cachebus.errors import ConfigurationError, Unavailable
from cachebus.sync.portal import CLOSED, Facade

R = TypeVar("R")


class SyncCache(Facade, Protocol):
    """What a part asks of `cachebus.sync.Cache`."""

    cache: AsyncCache


class SyncPart:
    """A part over the connections of a synchronous cache, which it follows through forks. Thread-safe."""

    def __init__(self, cache: SyncCache, part: Any) -> None:
        self._cache = cache
        self.part = part
        """The asynchronous part of the same name."""

    def run(self, coroutine: Coroutine[Any, Any, R]) -> R:
        """Run something asynchronous of the part in the loop's thread, and wait."""
        return self._cache.run(coroutine)

    def submit(self, coroutine: Coroutine[Any, Any, R]) -> Future[R]:
        """The same, without waiting."""
        return self._cache.portal.submit(coroutine)

    def wait(self, coroutine: Coroutine[Any, Any, R]) -> R:
        """As `run`, for as long as it takes; a caller who is interrupted cancels it. Raises: Unavailable if closed."""
        return _result(self.submit(coroutine))

    def wait_in(self, loop: AbstractEventLoop | None, coroutine: Coroutine[Any, Any, R]) -> R:
        """The same, in *loop* alone: of what was begun there. Raises: Unavailable where that has ended."""
        return _result(self._cache.portal.submit_in(loop, coroutine))


def _result(future: Future[R]) -> R:
    try:
        return future.result()
    except CancelledError:
        raise Unavailable(CLOSED) from None
    finally:
        future.cancel()


def asynchronous(cache: SyncCache, part: str) -> AsyncCache:
    """Return the cache behind *cache*. Raises: ConfigurationError where that is no cache of this room."""
    if isinstance(cache, AsyncCache) or not hasattr(cache, "portal"):
        raise ConfigurationError(
            f"cachebus.sync.{part}: {cache!r} is not a cachebus.sync.Cache; asynchronous code uses cachebus.{part}"
        )
    return cache.cache
