"""What other processes did with a call that was expected here and not read here: asked of Redis, once its time is over.

A process sees an outcome only where it happens. Where several share a user's reads, most reads happen elsewhere: an
entry that is younger than the expectation was loaded for one of them.
"""

from __future__ import annotations

import asyncio
from collections.abc import Iterable

import msgspec

from cachebus.cache.foresight.prediction.follows import decoded_reason
from cachebus.cache.foresight.prediction.outcomes import FoundElsewhere
from cachebus.cache.tiers.entry import FIRST_BYTES, stub
from cachebus.clock import now_s
from cachebus.redis.client import Client


async def look_elsewhere(client: Client, entry: str, since_s: float, *, ours: bool) -> FoundElsewhere:
    """Return what became of *entry* since then, by `now_s`; *ours*: it was loaded ahead here.

    One round trip. Raises: ServerError.
    """
    why = client.names.ahead(entry)
    head, left_ms, reason = await asyncio.gather(
        client.entries.call("GETRANGE", entry, 0, FIRST_BYTES - 1, key=entry),
        client.entries.call("PTTL", entry, key=entry),
        client.entries.call("GET", why, key=why),
    )
    found = stub(head) if head else None
    if found is None or left_ms < 0:
        return FoundElsewhere.MISSED
    age_ms = found.header.life_ms - left_ms
    if age_ms > (now_s() - since_s) * 1000:  # looked at behind the answer, which makes the entry older on its way
        return FoundElsewhere.READY
    ahead = decoded_reason(reason)
    was_read = not ours if ahead is None else ahead.used
    return FoundElsewhere.READ if was_read else FoundElsewhere.MISSED


async def mark_used(client: Client, entries: Iterable[str]) -> None:
    """Note of entries found in Redis that they were of use, where they were loaded ahead. Raises: ServerError."""
    names = [client.names.ahead(entry) for entry in entries]
    replies = await asyncio.gather(*[client.entries.call("GET", name, key=name) for name in names])
    for name, reply in zip(names, replies, strict=True):
        ahead = decoded_reason(reply)
        if ahead is not None and not ahead.used:
            told = msgspec.json.encode(msgspec.structs.replace(ahead, used=True))
            await client.entries.call("SET", name, told, "XX", "KEEPTTL", key=name)
