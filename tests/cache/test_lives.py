"""What the counters say became of loaded values: what ended them, and whether anybody had read them again."""

from __future__ import annotations

from cachebus import Cache, Client
from cachebus.cache.tiers.s3fifo import CachedValue
from cachebus.clock import now_s
from cachebus.monitoring.history import History, total
from cachebus.monitoring.view_table import view_table
from cachebus.redis.walk import names_like
from tests.conftest import Connect

VIEW, TAG = "post:{forum}:{post}", "(tag) forum:{forum}"


def declare(cache: Cache, ttl: str = "5m") -> None:
    """Declare one view."""

    @cache.view(VIEW, ttl=ttl, tags=["forum:{forum}"])
    async def post(forum: int, post: int) -> str:
        return "text" * post


async def test_ends_are_counted_by_cause(connect: Connect, client: Client) -> None:
    """Invalidated, evicted, read again or not: each value once; a tag meets what carries it; histograms have loads."""
    cache = await connect(max_memory_entries=10)
    declare(cache)
    view = cache.views[VIEW]
    for post in range(4):
        await view(1, post)
    for _ in range(5):  # more hits than are counted, so that what takes its place begins with as many as there may be
        await view(1, 0)
    await cache.invalidate(tags=["forum:1"])
    for post in range(2):
        await view(1, post)  # ends the old values of both; one of them had been read
    await cache.invalidate(tags=["forum:1"])
    await view(1, 0)  # the value that took the place of a popular one was read by nobody
    await view(1, 0)  # this one is
    await cache.invalidate(tags=["forum:1"])
    await view(1, 0)
    for post in range(30):
        await view(2, post)
    await cache.close()
    counted = total(await History(client).hours())
    assert counted[VIEW]["ended invalidated"] >= 3
    assert counted[VIEW]["ended invalidated"] - counted[VIEW]["unread invalidated"] == 2
    assert counted[VIEW]["unread evicted"] == counted[VIEW]["ended evicted"] >= 15
    assert counted[VIEW]["ended expired"] == 0
    assert counted[TAG]["invalidations"] == 3
    assert counted[TAG]["met"] == counted[VIEW]["ended invalidated"]
    assert sum(number for name, number in counted[VIEW].items() if name.startswith("load ")) == counted[VIEW]["loads"]
    assert sum(number for name, number in counted[VIEW].items() if name.startswith("size ")) == counted[VIEW]["loads"]
    assert [row.name for row in await view_table(client, "1h")] == [VIEW]  # a tag is no view


async def test_what_is_loaded_again_soon_after_it_expired_is_counted(connect: Connect, client: Client) -> None:
    """That is what a longer TTL would save; also where the value had left memory meanwhile."""
    cache = await connect()
    declare(cache)
    view = cache.views[VIEW]
    await view(1, 1)
    assert cache.reader is not None
    memory = cache.reader.memory
    for swept in (False, True):
        expire(memory.held[view.key(1, 1)])
        await forget_in_redis(client)
        if swept:
            cache.reader.sweep(now_s())
        await view(1, 1)
    await cache.close()
    counted = total(await History(client).hours())[VIEW]
    assert (counted["loads"], counted["reloaded"]) == (3, 2)
    assert counted["ended expired"] == counted["unread expired"] == 2


def expire(held: CachedValue) -> None:
    """Make a value one that was loaded three minutes ago and expired a minute ago."""
    now = now_s()
    held.loaded_at, held.fresh_until, held.early_at, held.keep_until = now - 180, now - 60, now - 60, now - 60


async def forget_in_redis(client: Client) -> None:
    """Delete the one entry there is."""
    [entry] = [name async for page in names_like(client.entries, client.names.entries + "*") for name in page]
    await client.entries.call("DEL", entry)
