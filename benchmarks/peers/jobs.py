"""arq and saq at the work of `benchmarks.bus`, in environments of their own: they need an older redis-py.

python benchmarks/peers/jobs.py arq|saq publish|work URL EVENTS
"""

from __future__ import annotations

import asyncio
import json
import sys
import time
from typing import Any
from urllib.parse import urlsplit

import redis.asyncio

FEED = 100_000


async def effects(client: Any, user_id: int) -> None:
    """Write what our commit writes for one event, with redis-py."""
    message = json.dumps({"topic": f"user:{user_id}", "type": "trade.new_trade", "data": {"user_id": user_id}})
    async with client.pipeline(transaction=True) as pipe:
        pipe.zadd("ledger", {f"t:user:{user_id}": time.time_ns() // 1000})
        pipe.xadd("journal", {"scopes": f"t:user:{user_id}"}, maxlen=100_000, approximate=True)
        pipe.xadd("feed", {"record": message}, maxlen=FEED, approximate=True)
        pipe.publish(f"ws:user:{user_id}", message)
        await pipe.execute()


async def arq(mode: str, url: str, events: int) -> None:
    """Publish or handle with arq."""
    from arq import create_pool  # noqa: PLC0415 - one peer a process
    from arq.connections import RedisSettings  # noqa: PLC0415
    from arq.worker import Worker  # noqa: PLC0415

    place = urlsplit(url)
    settings = RedisSettings(host=place.hostname or "", port=place.port or 6379)
    client = redis.asyncio.Redis.from_url(url)

    async def handle(_context: dict[str, Any], user_id: int) -> None:
        await effects(client, user_id)

    if mode == "publish":
        pool = await create_pool(settings)
        for number in range(events):
            await pool.enqueue_job("handle", number)
        return
    handle.__qualname__ = "handle"
    await Worker(functions=[handle], redis_settings=settings, handle_signals=False).async_run()


async def saq(mode: str, url: str, events: int) -> None:
    """Publish or handle with saq."""
    from saq import Queue, Worker  # noqa: PLC0415 - one peer a process

    queue, client = Queue.from_url(url), redis.asyncio.Redis.from_url(url)

    async def handle(_context: dict[str, Any], *, user_id: int) -> None:
        await effects(client, user_id)

    handle.__qualname__ = "handle"
    await queue.connect()
    if mode == "publish":
        for number in range(events):
            await queue.enqueue("handle", user_id=number)
        return
    await Worker(queue, functions=[("handle", handle)]).start()


if __name__ == "__main__":
    asyncio.run({"arq": arq, "saq": saq}[sys.argv[1]](sys.argv[2], sys.argv[3], int(sys.argv[4])))
