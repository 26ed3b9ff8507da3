"""Reads at random and writes down what it saw: `python -m tests.support.reading_process URL NAMESPACE SEED READS`.

The database is a hash on the same server. With `--broken` values are stored as if they were born after the load, which
is what caches without the rule do; with `--predict` whatever was invalidated is loaded ahead of its reads, and they go
on until some were. Each line of output is JSON: the journal's position when the read began, the key, and the version
that was read.
"""

from __future__ import annotations

import asyncio
import dataclasses
import json
import random
import sys
from itertools import count

from cachebus import Cache, CacheSettings, Policy
from cachebus.cache.foresight.prediction.contexts import contexts_after_invalidation

KEYS = 6


async def main(url: str, namespace: str, seed: int, reads: int, *, broken: bool, predict: bool) -> None:
    """Read so many times, with several readers at once."""
    draw = random.Random(seed)  # noqa: S311 - a run that can be had again
    async with Cache(settings=CacheSettings(url=url, namespace=namespace)) as cache:
        store = cache.client.store

        policy = Policy(predict=predict)

        @cache.view("item:{n}:version", ttl="20s", stale="20s", tags=["item:{n}"], identity="n", policy=policy)
        async def item(n: int) -> int:
            seen = int(await store.call("HGET", f"{namespace}:database", n) or 0)
            await asyncio.sleep(draw.choice((0, 0.001, 0.01, 0.05)))
            return seen

        reader = cache.reader
        assert reader is not None
        if broken:
            item._policy = dataclasses.replace(item.policy, read_lag_us=-10_000_000)

        async def look() -> None:
            for read in count():
                if read >= reads // 5 and (not predict or item.stats.ahead_loads >= reads // 20):
                    return
                if predict:
                    be_sure(cache)
                n, position = draw.randrange(KEYS), reader.freshness.position
                value = await item(n)
                sys.stdout.write(json.dumps([position, n, value]) + "\n")
                await asyncio.sleep(draw.random() * 0.01)

        await asyncio.gather(*[look() for _ in range(5)])


def be_sure(cache: Cache) -> None:
    """Have the predictor take every invalidation for a reason to load, and never run out of budget."""
    predictor = cache._running.predictor  # type: ignore[union-attr] # connected
    assert predictor is not None
    predictor.forecaster.budget.earn(10_000)
    for view in predictor.forecaster.views:
        for context in contexts_after_invalidation(view.name):
            predictor.forecaster.cell_of(context).learn_many(300, 300)  # type: ignore[union-attr] # it predicts


if __name__ == "__main__":
    modes = {"broken": "--broken" in sys.argv, "predict": "--predict" in sys.argv}
    asyncio.run(main(sys.argv[1], sys.argv[2], int(sys.argv[3]), int(sys.argv[4]), **modes))
