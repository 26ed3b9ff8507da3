"""What Django's `add`, `incr` and `touch` do in one step: under a lock of the key, in every process."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

from cachebus.cache.cache import Cache as AsyncCache
from cachebus.clock import now_s
from cachebus.locks.locks import Locks

HOLD_S = 10.0
WAIT_S = 10.0
NEVER_S = 315_360_000.0
"""Ten years stand for "never": nothing is kept in Redis without an end."""


class Stored(NamedTuple):
    """What a key holds, and for how many seconds more; the latter None where this process did not keep it."""

    value: Any
    left_s: float | None


class Change(NamedTuple):
    """What a key is to hold, for how many seconds; not above 0: nothing."""

    value: Any
    ttl_s: float


async def change(
    cache: AsyncCache, locks: Locks, key: str, decide: Callable[[Stored | None], Change | None]
) -> Change | None:
    """Store what *decide* makes of what *key* holds now; None: leave it. About six round trips.

    Raises: LockNotAcquired, LockUnavailable; what *decide* raises.
    """
    async with locks.lock(f"django:{key}", timeout=HOLD_S, blocking_timeout=WAIT_S):
        decided = decide(await _stored(cache, key))
        if decided is not None and decided.ttl_s > 0:
            await cache.write(key, decided.value, decided.ttl_s)
        elif decided is not None:
            await cache.delete(key)
        return decided


async def _stored(cache: AsyncCache, key: str) -> Stored | None:
    reader = await cache.connected()
    missing = object()
    with cache.reading(strict=True):
        value = await cache.get(key, missing)
    if value is missing:
        return None
    held = reader.memory.held.get(key)
    return Stored(value, None if held is None else held.fresh_until - now_s())
