"""A cache that is never stale, an event bus that loses nothing, on Redis or Valkey.

Each name is loaded when it is first used: a program that only reads does not load the bus.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from cachebus.bus.effects import Broadcast as Broadcast
    from cachebus.bus.effects import Drop as Drop
    from cachebus.bus.effects import Effects as Effects
    from cachebus.bus.effects import Invalidate as Invalidate
    from cachebus.bus.effects import Publish as Publish
    from cachebus.bus.effects import Refresh as Refresh
    from cachebus.bus.effects import Retry as Retry
    from cachebus.bus.handlers import on as on
    from cachebus.bus.publisher import Bus as Bus
    from cachebus.cache.atomic.values import AtomicValues as AtomicValues
    from cachebus.cache.cache import Cache as Cache
    from cachebus.cache.call import Warmed as Warmed
    from cachebus.cache.policy import Policy as Policy
    from cachebus.cache.reads.conditional import UNCHANGED as UNCHANGED
    from cachebus.cache.reads.conditional import previous as previous
    from cachebus.cache.reads.conditional import previous_validator as previous_validator
    from cachebus.cache.reads.conditional import validated as validated
    from cachebus.cache.settings import CacheSettings as CacheSettings
    from cachebus.cache.stats import CacheStats as CacheStats
    from cachebus.cache.stats import ViewStats as ViewStats
    from cachebus.cache.upkeep.warming import Warm as Warm
    from cachebus.cache.view import View as View
    from cachebus.errors import CacheBusError as CacheBusError
    from cachebus.errors import CannotStart as CannotStart
    from cachebus.errors import ConfigurationError as ConfigurationError
    from cachebus.errors import LockError as LockError
    from cachebus.errors import LockLost as LockLost
    from cachebus.errors import LockNotAcquired as LockNotAcquired
    from cachebus.errors import NotCacheable as NotCacheable
    from cachebus.errors import PublishRefused as PublishRefused
    from cachebus.errors import RateLimited as RateLimited
    from cachebus.errors import ServerError as ServerError
    from cachebus.errors import SessionError as SessionError
    from cachebus.errors import Unavailable as Unavailable
    from cachebus.freshness.cause import caused_by as caused_by
    from cachebus.freshness.clock import Clock as Clock
    from cachebus.freshness.clock import is_queued as is_queued
    from cachebus.limits.limiter import RateLimiter as RateLimiter
    from cachebus.limits.rules import Limit as Limit
    from cachebus.locks.locks import Locks as Locks
    from cachebus.pubsub.pubsub import PubSub as PubSub
    from cachebus.redis.client import Client as Client
    from cachebus.schedules.decorators import cron as cron
    from cachebus.schedules.decorators import daily as daily
    from cachebus.schedules.decorators import every as every
    from cachebus.sessions.store import SessionStore as SessionStore

__version__ = "0.1.0"

_HOMES = {
    # the cache
    "AtomicValues": "cachebus.cache.atomic.values",
    "Cache": "cachebus.cache.cache",
    "CacheSettings": "cachebus.cache.settings",
    "Clock": "cachebus.freshness.clock",
    "is_queued": "cachebus.freshness.clock",
    "caused_by": "cachebus.freshness.cause",
    "Policy": "cachebus.cache.policy",
    "View": "cachebus.cache.view",
    "Warmed": "cachebus.cache.call",
    "UNCHANGED": "cachebus.cache.reads.conditional",
    "previous": "cachebus.cache.reads.conditional",
    "previous_validator": "cachebus.cache.reads.conditional",
    "validated": "cachebus.cache.reads.conditional",
    # what it counts
    "CacheStats": "cachebus.cache.stats",
    "ViewStats": "cachebus.cache.stats",
    # events and schedules
    "Bus": "cachebus.bus.publisher",
    "on": "cachebus.bus.handlers",
    "Invalidate": "cachebus.bus.effects",
    "Broadcast": "cachebus.bus.effects",
    "Refresh": "cachebus.bus.effects",
    "Publish": "cachebus.bus.effects",
    "Retry": "cachebus.bus.effects",
    "Drop": "cachebus.bus.effects",
    "Effects": "cachebus.bus.effects",
    "every": "cachebus.schedules.decorators",
    "cron": "cachebus.schedules.decorators",
    "daily": "cachebus.schedules.decorators",
    "Warm": "cachebus.cache.upkeep.warming",
    # locks, limits, sessions, pub/sub
    "Locks": "cachebus.locks.locks",
    "RateLimiter": "cachebus.limits.limiter",
    "Limit": "cachebus.limits.rules",
    "SessionStore": "cachebus.sessions.store",
    "PubSub": "cachebus.pubsub.pubsub",
    # connections
    "Client": "cachebus.redis.client",
    # errors
    "CacheBusError": "cachebus.errors",
    "ConfigurationError": "cachebus.errors",
    "CannotStart": "cachebus.errors",
    "NotCacheable": "cachebus.errors",
    "ServerError": "cachebus.errors",
    "Unavailable": "cachebus.errors",
    "PublishRefused": "cachebus.errors",
    "LockError": "cachebus.errors",
    "LockNotAcquired": "cachebus.errors",
    "LockLost": "cachebus.errors",
    "RateLimited": "cachebus.errors",
    "SessionError": "cachebus.errors",
}
"""Each public name and the module it is from."""

__all__ = list(_HOMES)


def __getattr__(name: str) -> object:
    """Load a public name when it is first used. Source: PEP 562."""
    home = _HOMES.get(name)
    if home is None:
        raise AttributeError(f"module 'cachebus' has no attribute {name!r}")
    found: object = getattr(import_module(home), name)
    globals()[name] = found
    return found


def __dir__() -> list[str]:
    return [*globals(), *__all__]
