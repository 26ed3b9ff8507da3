"""A process that reads one value again and again, and prints when each read began and what it returned."""

from __future__ import annotations

import asyncio
import sys
import time

from cachebus import Cache, CacheSettings


async def main(url: str, store_url: str, namespace: str) -> None:
    """Read until killed. The value comes from the store itself, past the network that the cache sees."""
    async with Cache(store_url) as past, Cache(settings=CacheSettings(url=url, namespace=namespace)) as cache:
        database = past.client.store

        @cache.view("timed:{n}", ttl="1h")
        async def value(n: int) -> int:
            return int(await database.call("HGET", f"{namespace}:database", n) or 0)

        while True:
            began = time.monotonic()
            sys.stdout.write(f"{began} {await value(1)}\n")
            sys.stdout.flush()
            await asyncio.sleep(0.001)


if __name__ == "__main__":
    asyncio.run(main(*sys.argv[1:4]))
