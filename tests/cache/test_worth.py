"""`Refresh(…, worth=True)`: loaded where reads follow, only invalidated where they do not, by what was counted."""

from __future__ import annotations

import asyncio
import random
from typing import Any

from cachebus import Cache, Client
from cachebus.cache.foresight.worth import Worth, worth_key
from tests.conftest import Connect

ROUNDS = 60


def declare(cache: Cache) -> Any:
    """Declare one view."""

    @cache.view("summary:{user_id}", ttl="5m")
    async def summary(user_id: str) -> str:
        await asyncio.sleep(0.005)  # longer than a hit, on every machine: else no load is worth it
        return user_id

    return summary


async def rounds(cache: Cache, client: Client, *, reads: bool) -> list[bool]:
    """Invalidate an entry again and again, and read it in between, or not; return what was decided."""
    view = declare(cache)
    worth = Worth(client, cache.views, random.Random(1))  # noqa: S311 - the same left out each time
    arguments = view.encode_arguments("alice")
    decided = []
    await view("alice")
    for _ in range(ROUNDS):
        clock = await view.invalidate("alice")
        decided.append(await worth.is_likely(view.name, arguments, clock))
        if decided[-1]:
            await view.warm("alice")
        if reads:
            await view("alice", fresh_after=clock)
    return decided


async def test_what_is_read_after_each_invalidation_is_worth_it(cache: Cache, client: Client) -> None:
    """Nothing is loaded before thirty were counted; then all but one in eight, which keep the count true."""
    decided = await rounds(cache, client, reads=True)
    assert not any(decided[:30])
    assert 0.7 <= sum(decided[32:]) / len(decided[32:]) < 1


async def test_what_nobody_reads_is_not_worth_it(cache: Cache, client: Client) -> None:
    """However often it is invalidated. Redis knows the view's template, and nobody's name."""
    assert not any(await rounds(cache, client, reads=False))
    counted = await client.store.call("HGETALL", worth_key(client))
    assert {name.rpartition(b"|")[0] for name in counted[::2]} == {b"summary:{user_id}"}
    assert await client.store.call("TTL", worth_key(client)) > 7 * 86_400


async def test_the_counts_are_everybodys(connect: Connect, client: Client) -> None:
    """A worker that has just started decides by what others have counted; an unknown view is whoever's who loads it."""
    cache = await connect()
    await rounds(cache, client, reads=True)
    other = await connect()
    view = declare(other)
    await view("bob")
    clock = await view.invalidate("bob")
    worth = Worth(client, other.views, random.Random(1))  # noqa: S311 - as above
    assert await worth.is_likely(view.name, view.encode_arguments("bob"), clock)
    assert await worth.is_likely("gone:{user_id}", b'["bob"]', clock)
