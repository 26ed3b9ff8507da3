"""One of several processes on one counter: prints every answer with the server's time. Run by a test."""

from __future__ import annotations

import asyncio
import json
import random
import sys

from cachebus.redis.client import Client


async def main(url: str, namespace: str, kind: str, limit: str, window: str, seed: str) -> None:
    draw = random.Random(int(seed))  # noqa: S311 - a seed, not a secret
    answers = []
    async with Client(url, namespace=namespace) as client:
        for _ in range(300):
            cost = draw.choice([1, 1, 1, 2, 5])
            now, *look = await client.store.run(
                "limits/check", [f"{namespace}:hammered"], [cost, "take", kind, limit, window], timeout_s=10
            )
            answers.append([now, cost, *look])
            await asyncio.sleep(draw.choice([0, 0, 0.001, 0.01]))
    sys.stdout.write(json.dumps(answers))


asyncio.run(main(*sys.argv[1:]))
