"""Moments between two steps of a read, in which an invalidation arrives."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from cachebus.freshness.ledger import Ledger
from tests.conftest import Connect
from tests.support.waiting import caught_up

VALUES = {1: "old"}


async def load(n: int) -> str:
    """Read the database."""
    return VALUES[n]


async def test_a_flight_that_has_landed_is_joined_by_nobody(connect: Connect, monkeypatch: pytest.MonkeyPatch) -> None:
    """It found a valid value in Redis and is not forgotten yet when the value becomes invalid."""
    VALUES[1] = "old"
    here, there = await connect(), await connect(max_memory_entries=0)
    mine, theirs = [cache.view("landed:{n}", ttl="10m")(load) for cache in (here, there)]
    await mine(1)
    reader = there.reader
    assert reader is not None
    forgotten = asyncio.Event()
    real = reader._flights._forget

    def late(*arguments: Any) -> None:
        asyncio.get_running_loop().call_soon(lambda: asyncio.ensure_future(forget(*arguments)))

    async def forget(*arguments: Any) -> None:
        await forgotten.wait()
        real(*arguments)

    monkeypatch.setattr(reader._flights, "_forget", late)
    assert not (await theirs.warm(1)).loaded
    VALUES[1] = "new"
    await caught_up(there, await mine.invalidate(1))
    reading = asyncio.create_task(theirs(1))
    await asyncio.sleep(0)
    forgotten.set()
    assert await reading == "new"


async def test_what_was_confirmed_before_an_invalidation_is_looked_at_again(
    connect: Connect, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The ledger allows an entry; before that answer is acted upon the journal brings an invalidation of it."""
    VALUES[1] = "old"
    here = await connect()
    mine = here.view("confirmed:{n}", ttl="10m")(load)
    await mine(1)
    there = await connect()
    theirs = there.view("confirmed:{n}", ttl="10m")(load)
    assert there.reader is not None
    there.reader.freshness.since = there.reader.freshness.seen + 1  # as after thousands of other invalidations
    monkeypatch.setattr(there.reader._lookup, "_doubts", lambda _policy, _now: False)
    real = Ledger.ask

    async def overtaken(self: Ledger, scopes: Any) -> Any:
        answer = await real(self, scopes)
        VALUES[1] = "new"
        await caught_up(there, await mine.invalidate(1))
        return answer

    monkeypatch.setattr(Ledger, "ask", overtaken)
    assert await theirs(1) == "old"  # it began before
    monkeypatch.setattr(Ledger, "ask", real)
    assert await theirs(1) == "new"
