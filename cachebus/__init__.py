"""A cache that is never stale, an event bus that loses nothing, on Redis or Valkey."""

from cachebus.cache import Cache
from cachebus.errors import (
    CacheBusError,
    ConfigurationError,
    NotCacheable,
    ServerError,
    Unavailable,
)
from cachebus.ledger import Clock
from cachebus.link import Link
from cachebus.loader import UNCHANGED, previous
from cachebus.settings import CacheSettings
from cachebus.stats import CacheStats, ViewStats
from cachebus.view import View, Warmed

__all__ = [  # noqa: RUF022 - grouped by what they are for
    # the cache
    "Cache",
    "CacheSettings",
    "Clock",
    "View",
    "Warmed",
    "UNCHANGED",
    "previous",
    # what it counts
    "CacheStats",
    "ViewStats",
    # connections
    "Link",
    # errors
    "CacheBusError",
    "ConfigurationError",
    "NotCacheable",
    "ServerError",
    "Unavailable",
]
