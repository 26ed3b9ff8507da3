"""A process that reads at random and writes down what it saw: `python -m tests.cache.reading URL NAMESPACE SEED READS`.

The database is a hash on the same server. With `--broken` values are stored as if they were born after the load, which
is what caches without the rule do. Each line of output is JSON: the journal's position when the read began, the key,
and the version that was read.
"""

from __future__ import annotations

import asyncio
import dataclasses
import json
import random
import sys

from cachebus import Cache, CacheSettings

KEYS = 6


async def main(url: str, namespace: str, seed: int, reads: int, *, broken: bool) -> None:
    """Read so many times, with several readers at once."""
    draw = random.Random(seed)  # noqa: S311 - a run that can be had again
    async with Cache(settings=CacheSettings(url=url, namespace=namespace)) as cache:
        store = cache.link.store

        @cache.view("item:{n}:version", ttl="20s", stale="20s", tags=["item:{n}"])
        async def item(n: int) -> int:
            seen = int(await store.call("HGET", f"{namespace}:database", n) or 0)
            await asyncio.sleep(draw.choice((0, 0.001, 0.01, 0.05)))
            return seen

        reader = cache.reader
        assert reader is not None
        if broken:
            item.policy = dataclasses.replace(item.policy, read_lag_us=-10_000_000)

        async def look() -> None:
            for _ in range(reads // 5):
                n, position = draw.randrange(KEYS), reader.freshness.position
                value = await item(n)
                sys.stdout.write(json.dumps([position, n, value]) + "\n")
                await asyncio.sleep(draw.random() * 0.01)

        await asyncio.gather(*[look() for _ in range(5)])


if __name__ == "__main__":
    asyncio.run(main(sys.argv[1], sys.argv[2], int(sys.argv[3]), int(sys.argv[4]), broken="--broken" in sys.argv))
