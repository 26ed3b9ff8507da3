"""One of several processes on one counter: prints every answer with the server's time. Run by tests.

A check that nobody answered is made again: harnesses see to it that it was not done.
"""

from __future__ import annotations

import asyncio
import json
import os
import random
import sys

from cachebus.errors import NotReady, ReadOnlyServer, ServerOutOfMemory, Unavailable
from cachebus.redis.client import Client


async def main(url: str, namespace: str, kind: str, limit: str, window: str, seed: str) -> None:
    draw = random.Random(int(seed))  # noqa: S311 - a seed, not a secret
    answers: list[list[int]] = []
    async with Client(url, store_url=os.environ.get("STORE_REDIS_URL"), namespace=namespace) as client:
        while len(answers) < 300:
            cost = draw.choice([1, 1, 1, 2, 5])
            try:
                now, *look = await client.store.run(
                    "limits/check", [f"{{{namespace}}}:hammered"], [cost, "take", kind, limit, window], timeout_s=10
                )
            except (Unavailable, ServerOutOfMemory, ReadOnlyServer, NotReady):
                await asyncio.sleep(0.02)
                continue
            answers.append([now, cost, *look])
            await asyncio.sleep(draw.choice([0, 0, 0.001, 0.01]))
    sys.stdout.write(json.dumps(answers))


asyncio.run(main(*sys.argv[1:]))
