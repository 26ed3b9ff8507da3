"""What makes whose entries old. Each call is one round trip, whatever the number of entries."""

from __future__ import annotations

from cachebus import Clock
from cachebus.keys import escape
from tradesense.caching.manager import forget_misses
from tradesense.caching.shared import facade


def invalidate_cache_pattern(pattern: str) -> Clock:
    """Make every entry whose key matches *pattern* unreadable everywhere: at once here, in milliseconds elsewhere.

    `market:*` is exact. With a wildcard further left it is widened to the words before it (`keys.glob_scope`): more is
    loaded anew than necessary, and nothing old is served. Returns the clock to pass on as `fresh_after`.
    """
    forget_misses()
    return facade.invalidate(pattern=pattern)


def invalidate_trades_cache(user_id: int | str) -> Clock:
    """After a change of the user's trades: everything that may be computed of them, and sums over all trades."""
    forget_misses()
    return facade.invalidate(tags=(f"user:{user_id}:trades", "trades"))


def invalidate_analytics_cache(user_id: int | str) -> Clock:
    """Make the user's analytics unreadable, and the user's queries."""
    return invalidate_user_cache(user_id, "analytics")


def invalidate_user_cache(user_id: int | str, cache_type: str | None = None) -> Clock:
    """Make the user's entries of one type unreadable, and the user's queries; without a type, all the user has.

    A type is what keys begin with: `cache_response(key_prefix="settings")`, or `settings:7`. It is also the tag
    `user:7:settings`, and the key of that name.
    """
    forget_misses()
    if cache_type is None:
        return facade.invalidate(tags=(f"user:{user_id}",), prefix=f"user:{escape(user_id)}:")
    key, name = f"{cache_type}:{escape(user_id)}", f"user:{user_id}:{cache_type}"
    return facade.invalidate(keys=(key, name), tags=(name, f"user:{user_id}:queries"), prefix=f"{key}:")
