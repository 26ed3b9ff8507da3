"""What the fleet's application is about: a view of a truth that lies elsewhere, and what an event makes unreadable.

`cachebus worker` loads it (`CACHE`, `HANDLERS`, `SCHEDULES`), and so does each application. The truth is on a server of
its own, `TRUTH_URL`, which nothing befalls.
"""

from __future__ import annotations

import asyncio
import os
import random

import redis.asyncio

from cachebus import Cache, Effects, Invalidate, Refresh, on
from cachebus.bus.effects import Broadcast
from tests.support.fleet.shape import CHANNEL, Changed, mark

QUERY_S = 0.01
"""The longest that a load takes after it has read."""
WORK_S = 0.04
"""The longest that a handler takes: a worker that is killed has events in hand."""

cache = Cache.from_env()
truth = redis.asyncio.Redis.from_url(os.environ["TRUTH_URL"])


@cache.view("value:{key}:now", ttl="1m", tags=["of:{key}"])
async def value(key: str) -> int:
    """Return the version that is true, after the time of a query."""
    seen = int(await truth.get(f"true:{key}") or 0)
    await asyncio.sleep(random.random() * QUERY_S)  # noqa: S311 - a query's duration
    return seen


@on(CHANNEL, Changed, timeout="60s")  # a worker may be stopped meanwhile; what is retried has no order
async def changed(event: Changed) -> Effects:
    """Make the view unreadable in one of four ways, and say so; the tag is this event's alone, for the checker."""
    await asyncio.sleep(random.random() * WORK_S)  # noqa: S311 - a handler's duration
    ways = {"tags": f"of:{event.key}"}, {"keys": value.key(event.key)}, {"prefix": f"value:{event.key}:"}
    way = event.n % (len(ways) + 1)
    return [
        Invalidate(**ways[way]) if way < len(ways) else Refresh(value, event.key),
        Invalidate(tags=mark(event.key, event.n)),
        Broadcast(CHANNEL, "changed", event),
    ]
