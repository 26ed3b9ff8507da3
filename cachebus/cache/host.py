"""What a view asks of the cache it is declared on."""

from __future__ import annotations

from collections.abc import Coroutine
from typing import Any, Protocol

from cachebus.cache.hooks import Observer
from cachebus.cache.reads.reader import Reader
from cachebus.cache.tiers.s3fifo import CachedValue
from cachebus.cache.values.extensions import SelfDescribing
from cachebus.cache.values.never import NeverCached
from cachebus.durations import Duration
from cachebus.freshness.clock import Clock
from cachebus.redis.keyspace import Names


class ViewHost(Protocol):
    """A `Cache`, as far as its views know it."""

    reader: Reader | None
    observers: tuple[Observer, ...]
    never: NeverCached
    forms: SelfDescribing

    @property
    def enabled(self) -> bool: ...
    @property
    def names(self) -> Names: ...
    @property
    def default_ttl(self) -> Duration: ...
    @property
    def reader_here(self) -> Reader | None: ...
    async def connected(self) -> Reader: ...
    def invalidate(self, *, keys: str) -> Coroutine[Any, Any, Clock]: ...
    def noticed(self, view: Any, args: tuple[Any, ...], *, weight: int, held: CachedValue | None = None) -> None: ...
