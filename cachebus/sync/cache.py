"""The same cache for code without an event loop: Flask, Django, Celery, `def` endpoints.

One implementation: a hit in memory is answered in the caller's thread; everything else crosses to one thread that runs
the loop. Loads of plain functions run in the caller's thread, where its database session and thread-locals are.
"""

from __future__ import annotations

import asyncio
import inspect
from collections.abc import AsyncIterator, Awaitable, Callable, Coroutine, Iterable, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import asynccontextmanager
from types import TracebackType
from typing import Any, NoReturn, ParamSpec, Self, TypeVar

from cachebus.cache.cache import Cache as AsyncCache
from cachebus.cache.settings import CacheSettings
from cachebus.cache.view import View as AsyncView
from cachebus.durations import Duration, milliseconds
from cachebus.errors import ConfigurationError
from cachebus.sync.forwarders import CacheForwarders
from cachebus.sync.portal import CallersLoad, Portal
from cachebus.sync.view import View

P = ParamSpec("P")
R = TypeVar("R")
T = TypeVar("T")

DEFAULT_TIMEOUT = "30s"
"""How long a call may wait for the server, or for another caller's load."""
LOADING_THREADS = 64
"""In a worker. A load may wait for another one, which needs a thread then: more than a worker loads at a time."""


class Cache(CacheForwarders):
    """A `cachebus.Cache` for callers without a loop. Thread-safe; works after a fork.

    `Cache("redis://…")`, `Cache.from_env()`, `Cache.memory()`, with the options of `cachebus.Cache`; or `Cache(cache)`
    over an asynchronous one that nothing else uses. A call waits *timeout* at most, and raises ServerTimeout then; a
    load that runs in the caller's own thread takes as long as it takes.
    """

    def __init__(
        self,
        cache: str | AsyncCache | None = None,
        *,
        timeout: Duration = DEFAULT_TIMEOUT,
        portal: Portal | None = None,
        **options: Any,
    ) -> None:
        if not isinstance(cache, str | AsyncCache | None):
            raise ConfigurationError(f"cache: {cache!r} is neither a URL (redis://…) nor a cachebus.Cache")
        if isinstance(cache, AsyncCache) and options:
            raise ConfigurationError(f"{', '.join(options)}: options of the cache; set them where {cache!r} is made")
        self.cache = cache if isinstance(cache, AsyncCache) else AsyncCache(cache, **options)
        """The asynchronous cache behind this one. It lives in the loop thread: await nothing of it elsewhere."""
        self.portal = portal or Portal()
        self.timeout_s = milliseconds(timeout, "timeout") / 1000

    @classmethod
    def from_env(cls, *, timeout: Duration = DEFAULT_TIMEOUT, **options: Any) -> Self:
        """Return a cache that reads its settings from the environment when it first connects. See `Cache.from_env`."""
        return cls(AsyncCache.from_env(**options), timeout=timeout)

    @classmethod
    def memory(cls, *, timeout: Duration = DEFAULT_TIMEOUT, **options: Any) -> Self:
        """Return a cache of this process alone: no server, the same rules. See `Cache.memory`."""
        return cls(AsyncCache.memory(**options), timeout=timeout)

    def decorator(
        self, decorate: Callable[[Callable[P, Awaitable[R]]], AsyncView[P, R]]
    ) -> Callable[[Callable[P, R]], View[P, R]]:
        """Return the decorator that makes a view of a plain function; *decorate* is that of `cachebus.Cache.view`."""

        def decorate_plain(function: Callable[P, R]) -> View[P, R]:
            if inspect.iscoroutinefunction(inspect.unwrap(function)):
                raise ConfigurationError(
                    f"@cache.view above {function.__qualname__}: a cachebus.sync.Cache caches what a plain function "
                    "returns; write `def`, or use cachebus.Cache"
                )
            return View(self, decorate(function), function)  # type: ignore[arg-type] # a View also takes plain functions

        return decorate_plain

    def get_or_load(
        self,
        key: str,
        load: Callable[[], T],
        ttl: Duration | None = None,
        *,
        tags: Iterable[str] = (),
        type: Any = Any,  # noqa: A002 - as in `get`
    ) -> T:
        """Return the value of *key*; where there is none, one caller in the cluster runs *load*, in its own thread."""
        caller = CallersLoad(self, load)
        return caller.run(self.cache.get_or_load(key, caller.load, ttl, tags=tags, type=type))

    def get_or_load_many(
        self,
        keys: Iterable[str],
        load: Callable[[list[str]], Mapping[str, T]],
        ttl: Duration | None = None,
        *,
        tags: Iterable[str] = (),
        type: Any = Any,  # noqa: A002 - as in `get`
    ) -> dict[str, T]:
        """Return values by key; what is missing comes from one call of *load*, in this thread, and is stored."""
        caller = CallersLoad(self, load)
        return caller.run(self.cache.get_or_load_many(keys, caller.load, ttl, tags=tags, type=type))

    @property
    def settings(self) -> CacheSettings:
        """The settings in force; read from the environment at first use."""
        return self.cache.settings

    @property
    def enabled(self) -> bool:
        """Whether values are cached at all (`CACHE_ENABLED`)."""
        return self.cache.enabled

    def run(self, coroutine: Coroutine[Any, Any, T]) -> T:
        """Run anything asynchronous of this library in the loop thread and wait for it."""
        return self.portal.call(coroutine, self.timeout_s)

    @asynccontextmanager
    async def in_this_loop(self) -> AsyncIterator[AsyncCache]:
        """Run in the loop of the caller for as long as this block lasts, the loads of its views in threads.

        For a worker, whose loads and plain functions call this cache from threads: all share one cache in one loop.
        """
        if self.portal.started:  # what a module did when it was imported; its thread and connections end here
            await asyncio.to_thread(self.close)
        loop = asyncio.get_running_loop()
        loop.set_default_executor(ThreadPoolExecutor(LOADING_THREADS, "cachebus load"))
        self.portal.use(loop)
        try:
            async with self.cache as cache:
                yield cache
        finally:
            self.portal.stop()

    def close(self) -> None:
        """Close the connections and stop the thread. Idempotent. Calls under way raise `Unavailable`."""
        self.portal.stop(self.cache.close, self.timeout_s)

    def __enter__(self) -> Self:
        self.run(self.cache.connected())
        return self

    def __exit__(self, _kind: type[BaseException] | None, _error: object, _at: TracebackType | None) -> None:
        self.close()

    async def __aenter__(self) -> NoReturn:
        raise TypeError("a cachebus.sync.Cache is entered with `with`; asynchronous code uses cachebus.Cache")

    async def __aexit__(self, *_: object) -> None:
        """Exist, so that `async with` reaches `__aenter__` and its message."""
