"""A relay in a process of its own that halts before it deletes: `python outbox_process.py DB REDIS NS`."""

from __future__ import annotations

import asyncio
import sys
from typing import Any

from sqlalchemy import MetaData
from sqlalchemy.ext.asyncio import create_async_engine

from cachebus.bus.publisher import Bus
from cachebus.integrations.sqlalchemy.outbox import Outbox
from cachebus.integrations.sqlalchemy.relay import Relay
from cachebus.redis.client import Client


class Halting(Bus):
    """Publishes one event, says so, and returns to nobody."""

    async def publish(self, channel: str, event: Any, **given: Any) -> str:
        await super().publish(channel, event, **given)
        print("published", flush=True)  # noqa: T201 - tells the test
        return await asyncio.get_running_loop().create_future()


async def main(database: str, redis: str, namespace: str) -> None:
    """Work until killed."""
    engine = create_async_engine(database)
    async with Client(redis, namespace=namespace) as client:
        await Relay(Outbox(MetaData(), lambda: engine), Halting(client)).run()


if __name__ == "__main__":
    asyncio.run(main(*sys.argv[1:]))
