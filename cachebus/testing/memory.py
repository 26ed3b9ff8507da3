"""An application's own cache, without a server."""

from __future__ import annotations

import contextlib
import dataclasses
from collections.abc import AsyncIterator, Iterator

from cachebus.cache.cache import Cache
from cachebus.cache.settings import CacheSettings


@contextlib.asynccontextmanager
async def memory_cache(cache: Cache | None = None) -> AsyncIterator[Cache]:
    """Have *cache*, with all views declared on it, live in this process's memory for the length of a block.

    It begins empty, obeys the same rules, reads no environment and connects to nothing; so do bus, locks, limits,
    sessions and pub/sub over it. Without *cache*: a new one. What it was connected to before is closed; afterwards it
    connects again at first use.
    """
    cache = cache if cache is not None else Cache.memory()
    await cache.close()
    with without_server(cache):
        async with cache:
            yield cache


@contextlib.contextmanager
def without_server(cache: Cache) -> Iterator[None]:
    """Have a cache that is closed connect to nothing in this block. It must be closed at its end, too."""
    before = cache._settings  # noqa: SLF001 - the cache has no setter: nobody but a test changes settings
    cache._settings = dataclasses.replace(before or CacheSettings(), redis_enabled=False)  # noqa: SLF001 - the same
    try:
        yield
    finally:
        cache._settings = before  # noqa: SLF001 - the same
