"""Views that are mostly found in Redis: fetched with MGET, judged on arrival; what cannot be used takes the lease."""

from __future__ import annotations

import asyncio

import pytest

from cachebus import Cache
from cachebus.clock import now_s
from cachebus.testing.server import PrivateServer
from tests.conftest import Connect
from tests.support.waiting import until


def scripts(server: PrivateServer) -> int:
    """Return how many scripts clients have run."""
    lines = server.ask("INFO", "commandstats").decode().splitlines()
    ran = [line for line in lines if line.startswith(("cmdstat_evalsha:", "cmdstat_eval:"))]
    return sum(int(line.partition("calls=")[2].partition(",")[0]) for line in ran)


class Counting:
    """A loader that returns how often it ran."""

    def __init__(self) -> None:
        self.loads = 0

    async def load(self, n: int) -> int:
        """Return the number of this load."""
        self.loads += 1
        return self.loads


@pytest.fixture
async def caches(connect: Connect) -> tuple[Cache, Cache]:
    """A process that loads, and one without memory, which finds everything in Redis."""
    return await connect(report=False), await connect(report=False, max_memory_entries=0)


async def test_a_view_that_mostly_hits_runs_no_script(server: PrivateServer, caches: tuple[Cache, Cache]) -> None:
    """A thousand reads by fifty callers; a miss then costs look, claim and fill, and loads once."""
    counting = Counting()
    mine, theirs = [cache.view("hits:{n}", ttl="1h")(counting.load) for cache in caches]
    await asyncio.gather(*[mine(n) for n in range(50)])
    await asyncio.gather(*[theirs(n) for n in range(50)])
    before = scripts(server)
    for _ in range(20):
        assert sorted(await asyncio.gather(*[theirs(n) for n in range(50)])) == list(range(1, 51))
    assert scripts(server) - before <= 1, "popularity is flushed every ten seconds"
    assert counting.loads == 50
    before = scripts(server)
    assert await asyncio.gather(*[theirs(99) for _ in range(50)]) == [51] * 50
    assert 2 <= scripts(server) - before <= 3


@pytest.mark.parametrize("scope", ["key", "tag", "prefix", "everything"])
async def test_an_invalidated_entry_is_judged_on_arrival(caches: tuple[Cache, Cache], scope: str) -> None:
    """The reader invalidates, so that it knows; what still lies in Redis is not served."""
    _, there = caches
    counting = Counting()
    mine, theirs = [cache.view("judged:{n}", ttl="1h", tags=["t:{n}"])(counting.load) for cache in caches]
    assert await mine(1) == 1
    for _ in range(10):
        assert await theirs(1) == 1
    if scope == "everything":
        await there.clear()
    else:
        scopes = {"key": {"keys": ["judged:1"]}, "tag": {"tags": ["t:1"]}, "prefix": {"prefix": "judged:"}}
        await there.invalidate(**scopes[scope])  # type: ignore[arg-type]
    assert await theirs(1) == 2
    assert await theirs(1) == 2


async def test_an_entry_past_its_time_is_not_served_because_it_was_found(caches: tuple[Cache, Cache]) -> None:
    """`stale_if_error` keeps it in Redis longer than it is fresh, for loads that fail."""
    here, _ = caches
    counting = Counting()
    mine, theirs = [cache.view("past:{n}", ttl="1s", stale_if_error="1h")(counting.load) for cache in caches]
    assert await mine(1) == 1
    for _ in range(3):
        await theirs(1)
    assert here.reader is not None
    held = here.reader.memory.held[mine.key(1)]
    await until(lambda: held.fresh_until < now_s(), "the end of the TTL")
    assert await theirs(1) > 1


async def test_a_view_that_mostly_misses_takes_the_lease_at_once(
    server: PrivateServer, caches: tuple[Cache, Cache]
) -> None:
    """A miss and its fill are two scripts and nothing else."""
    here, _ = caches
    counting = Counting()
    view = here.view("misses:{n}", ttl="1h")(counting.load)
    await view(0)
    before = scripts(server)
    for n in range(1, 21):
        await view(n)
    assert 40 <= scripts(server) - before <= 41


async def test_a_view_changes_its_ways_within_a_few_reads(server: PrivateServer, caches: tuple[Cache, Cache]) -> None:
    """However much it loaded before: what is found in Redis again and again is found without a script."""
    _, there = caches
    counting = Counting()
    view = there.view("ways:{n}", ttl="1h")(counting.load)
    for n in range(100):
        await view(n)
    for n in range(40):
        await view(n)
    before = scripts(server)
    for n in range(100):
        await view(n)
    assert scripts(server) - before <= 1, "popularity is flushed every ten seconds"
    assert counting.loads == 100


async def test_a_mistake_of_ours_reaches_who_reads_and_nobody_else(
    caches: tuple[Cache, Cache], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Glances are judged in a callback of the connection: it stays, no key hangs, and the next read is served."""
    _, there = caches
    counting = Counting()
    mine, theirs = [cache.view("mistake:{n}", ttl="1h")(counting.load) for cache in caches]
    await mine(1)
    for _ in range(3):
        await theirs(1)
    assert there.reader is not None
    connects = there.client.store.connects  # type: ignore[attr-defined] # one node
    monkeypatch.setattr("cachebus.cache.reads.lookup.unpack", lambda _: 1 / 0)
    with pytest.raises(ZeroDivisionError):
        await theirs(1)
    await caches[0].set("plain", 1, "1m")
    with pytest.raises(ZeroDivisionError):
        await there.get_many(["plain"])
    monkeypatch.undo()
    assert await theirs(1) == 1
    assert (there.client.store.up, there.client.store.connects) == (True, connects)  # type: ignore[attr-defined]
