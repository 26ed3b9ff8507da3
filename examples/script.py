"""A plain script: reads through the cache, changes, and is fresh. `REDIS_URL=… python -m examples.script`.

Run it twice within a minute: the second run loads nothing until it invalidates.
"""

from __future__ import annotations

import asyncio

from cachebus import Cache

cache = Cache.from_env()
table = {7: ["tea"]}
"""Stands for the database."""


@cache.view("script:basket:{user_id}", ttl="1m", tags=["user:{user_id}"])
async def basket(user_id: int) -> list[str]:
    """Return what a user has in the basket: the slow query."""
    print("loading", user_id)
    return list(table[user_id])


async def main() -> None:
    """Read, change, read."""
    async with cache:
        print("before:", await basket(7))
        table[7].append("milk")
        clock = await cache.invalidate(tags=["user:7"])
        print("after:", await basket(7, fresh_after=clock))


if __name__ == "__main__":
    asyncio.run(main())
