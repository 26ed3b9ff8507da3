"""TradeSense's Redis caching strategy, under its own names: paste its examples, and they run.

Importing connects to nothing; the first call does, and reads `REDIS_URL` and `CACHE_*`. What is called without `await`
blocks its caller for a round trip, in an event loop too: there, code that must not block uses `cachebus` itself.
`docs/reference/spec-names.md` says what stands behind each name.
"""

from tradesense.caching.channels import pubsub
from tradesense.caching.functions import cache_response, query_cache
from tradesense.caching.invalidation import (
    invalidate_analytics_cache,
    invalidate_cache_pattern,
    invalidate_trades_cache,
    invalidate_user_cache,
)
from tradesense.caching.limits import rate_limiter
from tradesense.caching.locks import distributed_lock
from tradesense.caching.manager import cache_manager
from tradesense.caching.plain import Record
from tradesense.caching.server import get_redis_info, redis_client
from tradesense.caching.sessions import session_store
from tradesense.caching.shared import close, facade

__all__ = [  # noqa: RUF022 - grouped by what they are for
    # values
    "cache_manager",
    "cache_response",
    "query_cache",
    "Record",
    # what makes them old
    "invalidate_cache_pattern",
    "invalidate_trades_cache",
    "invalidate_analytics_cache",
    "invalidate_user_cache",
    # primitives
    "session_store",
    "rate_limiter",
    "distributed_lock",
    "pubsub",
    # the server
    "get_redis_info",
    "redis_client",
    # everything above goes through this one
    "facade",
    "close",
]
