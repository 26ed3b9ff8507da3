"""Events that are kept after they were handled: who looks for some, and who has them deleted."""

from __future__ import annotations

from collections.abc import AsyncIterator

from cachebus.bus.events import EventRecord
from cachebus.redis.client import Client

PAGE = 500
TIMEOUT_S = 2.0


async def newest_first(client: Client, shard: int) -> AsyncIterator[list[EventRecord]]:
    """Yield what is in the stream of *shard*, in pages, handled or not. Raises: ServerError."""
    before = "+"
    stream = client.names.bus("events", str(shard))
    while page := await client.store.call("XREVRANGE", stream, before, "-", "COUNT", PAGE, timeout_s=TIMEOUT_S):
        yield [EventRecord(entry) for entry in page]
        before = f"({page[-1][0].decode()}"


async def forget_handled(client: Client, shard: int, positions: list[str]) -> int:
    """Delete events that were handled; return how many. Safe to repeat. Raises: ServerError.

    One that waits is left for its handlers, and the newest one that was handled until there is a newer one.
    """
    keys = (client.names.bus("events", str(shard)), client.names.bus("shard", str(shard)))
    deleted = 0
    for first in range(0, len(positions), PAGE):
        part = positions[first : first + PAGE]
        deleted += await client.store.run("bus/forget_events", keys, part, timeout_s=TIMEOUT_S)
    return deleted
