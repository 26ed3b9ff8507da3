"""What counting popular calls costs a read: `python -m tests.support.popularity_overhead`. By hand: it measures.

The cache notices one memory hit in `SAMPLE_HITS`; this prints the cost of a hit that is not noticed, of noticing one,
and the share of the first that the second comes to per hit, for several sampling rates. The best of many short rounds
counts: on a busy machine the others measure the neighbours.
"""

from __future__ import annotations

import asyncio
import sys
import time
from collections.abc import Callable
from functools import partial

from cachebus import Cache, CacheSettings
from cachebus.cache import view
from cachebus.cache.upkeep.popularity import Popularity
from cachebus.testing.server import PrivateServer

ROUNDS = 60
CALLS = 4_000


def best_ns(act: Callable[[], object]) -> float:
    """Return nanoseconds a call, in the best of many rounds."""
    best = float("inf")
    for _ in range(ROUNDS):
        began = time.thread_time_ns()
        for _ in range(CALLS):
            act()
        best = min(best, (time.thread_time_ns() - began) / CALLS)
    return best


async def measure(url: str) -> None:
    """Print the figures."""
    async with Cache(settings=CacheSettings(url=url, namespace="overhead")) as cache:

        @cache.view("portfolio:{user_id}:{basis}", ttl="1h")
        async def portfolio(user_id: int, basis: str) -> int:
            return user_id

        async def hits() -> float:
            best = float("inf")
            for _ in range(ROUNDS):
                began = time.thread_time_ns()
                for _ in range(CALLS):
                    await portfolio(7, "fifo")
                best = min(best, (time.thread_time_ns() - began) / CALLS)
            return best

        await portfolio(7, "fifo")
        noticed = best_ns(lambda: cache.noticed(portfolio, (7, "fifo"), weight=16))
        table = Popularity(cache.client)
        noted = best_ns(lambda: table.note(portfolio.name, partial(portfolio.encode_arguments, 7, "fifo"), 16))
        sampled, view.SAMPLE_HITS = view.SAMPLE_HITS, sys.maxsize
        hit = await hits()
        view.SAMPLE_HITS = sampled
    write = sys.stdout.write
    write(f"a hit that is not noticed  {hit:7.0f} ns\n")
    write(f"noticing one               {noticed:7.0f} ns, of which counting it {noted:.0f} ns\n")
    for rate in sorted({sampled, 16, 32, 64, 128}):
        mark = "  <- now" if rate == sampled else ""
        write(f"one hit in {rate:<4}            {100 * noticed / rate / hit:7.2f} % of a hit{mark}\n")


if __name__ == "__main__":
    with PrivateServer.start("appendonly no") as running:
        asyncio.run(measure(running.url))
