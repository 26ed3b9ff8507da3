"""The sweeper frees what nobody may read, and nothing else."""

from __future__ import annotations

import asyncio

import pytest

from cachebus import Cache, CacheSettings, Client
from cachebus.cache.tiers.entry import Header, pack
from cachebus.cache.upkeep.sweeper import Sweeper
from cachebus.cache.upkeep.warming import Warm
from cachebus.freshness.clock import Born
from cachebus.testing.server import PrivateCluster, PrivateServer
from schedules import sweeping
from tests.support.waiting import until

AT_ONCE = 1_000_000
"""Commands a second: a test does not wait for a budget."""


def sweeper(client: Client, dead_for: str = "1ms") -> Sweeper:
    """Return one that is in a hurry."""
    return Sweeper(client, per_second=AT_ONCE, dead_for=dead_for)


async def fill(cache: Cache, many: int = 300) -> None:
    """Store entries of users, each with a tag of its own and one of its group."""

    @cache.view("profile:{number}:card", ttl="10m", tags=["person:{number}", "group:{group}"], not_in_key=["group"])
    async def card(number: int, group: str) -> str:
        return "x" * 200

    await asyncio.gather(*[card(number, "odd" if number % 2 else "even") for number in range(many)])


async def entries(client: Client) -> int:
    """Count what is stored."""
    count, cursor = 0, b"0"
    while True:
        cursor, names = await client.entries.call("SCAN", cursor, "MATCH", f"{client.names.entries}*", "COUNT", 1000)
        count += len(names)
        if cursor == b"0":
            return count


async def test_what_was_invalidated_gives_its_memory_back_and_what_lives_stays(cache: Cache) -> None:
    """By tag, by key and by prefix; the others are found where they were."""
    await fill(cache)
    assert (await sweeper(cache.client).sweep()).removed == 0
    await cache.invalidate(tags=["group:odd"], keys=["profile:2:card"], prefix="profile:4:")
    await asyncio.sleep(0.005)  # longer than `dead_for`
    swept = await sweeper(cache.client).sweep()
    assert (swept.looked, swept.removed, swept.finished) == (300, 152, True)
    assert swept.bytes > 152 * 60
    assert await entries(cache.client) == 148


async def test_an_entry_is_kept_for_its_windows(cache: Cache) -> None:
    """As long as `dead_for`, and as long as its view's stale windows, the invalid entry may still be of use."""

    @cache.view("kept:{n}", ttl="10m", stale_if_error="5m")
    async def kept(n: int) -> int:
        return n

    @cache.view("young:{n}", ttl="10m")
    async def young(n: int) -> int:
        return n

    await asyncio.gather(kept(1), young(1))
    await cache.clear()
    await asyncio.sleep(0.005)
    assert (await sweeper(cache.client, "1m").sweep()).removed == 0
    assert (await sweeper(cache.client).sweep()).removed == 1
    assert await entries(cache.client) == 1


async def test_an_entry_written_between_look_and_removal_survives(
    cache: Cache, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The dead one is removed by its birth: another one under the same name is not."""
    loads = 0

    @cache.view("again:{n}", ttl="10m")
    async def again(n: int) -> int:
        nonlocal loads
        loads += 1
        return loads

    await again(1)
    await again.invalidate(1)
    await asyncio.sleep(0.005)
    broom = sweeper(cache.client)
    ask = broom._ask

    async def ask_late(scopes: tuple[str, ...]) -> tuple[dict[str, int], int]:
        answer = await ask(scopes)
        assert await again(1) == 2
        return answer

    monkeypatch.setattr(broom, "_ask", ask_late)
    assert (await broom.sweep()).removed == 0
    monkeypatch.undo()
    assert await entries(cache.client) == 1
    await cache.invalidate(tags=["nothing of it"])
    assert (await sweeper(cache.client).sweep()).removed == 0
    assert await again(1) == loads == 2


async def test_what_is_not_known_to_be_dead_stays(cache: Cache, client: Client) -> None:
    """No ledger, a name that is a digest, bytes that are no entry: not a reason to remove anything."""
    names = client.names
    entry = pack(b"x", Born(1_000, "0123456789abcdef"), Header(600_000, 0, 1.0), "test")
    await client.store.call("SET", names.entry("lone", "f"), entry, "PX", 600_000)
    await client.store.call("SET", names.entry("foreign", "f"), b"C9 of the future", "PX", 600_000)
    await client.store.call("SET", names.entry("empty", "f"), b"", "PX", 600_000)
    await client.store.call("UNLINK", names.ledger)
    assert (await sweeper(client).sweep()).removed == 0
    await cache.invalidate(keys=["long" * 100])
    await until(lambda: cache.stats().up and not cache.stats().queued, "the new ledger")

    @cache.view("long:{text}", ttl="10m")
    async def long(text: str) -> str:
        return text

    await long("a" * 500)
    await cache.invalidate(prefix="long:")
    await asyncio.sleep(0.005)
    swept = await sweeper(client).sweep()
    assert swept.removed == 1, "what was born before the ledger began, and nothing else"
    assert await client.store.call("EXISTS", names.entry("lone", "f")) == 0
    assert await entries(client) == 3


async def test_a_budget_ends_the_walk(cache: Cache) -> None:
    """A sweep that has no time left stops after a page and says so."""
    await fill(cache, 1_000)
    swept = await sweeper(cache.client).sweep("1ms")
    assert not swept.finished
    assert 0 < swept.looked < 1_000


async def test_commands_stay_within_the_rate(cache: Cache) -> None:
    """A walk over 1,000 entries at 5,000 commands a second takes its time, however fast the server is."""
    await fill(cache, 1_000)
    clock = asyncio.get_running_loop().time
    began = clock()
    swept = await Sweeper(cache.client, per_second=5_000).sweep()
    assert swept.looked == 1_000
    assert clock() - began > 0.5 * swept.looked / 5_000


async def test_every_node_of_a_cluster_is_swept() -> None:
    """The ledger lives on one node, the entries on all."""
    with PrivateCluster.start() as nodes:
        async with Cache(nodes.url) as cache:
            await fill(cache)
            await cache.invalidate(tags=["group:odd"])
            await asyncio.sleep(0.005)
            swept = await sweeper(cache.client).sweep()
            assert (swept.looked, swept.removed, swept.finished) == (300, 150, True)


async def test_the_schedule_sweeps_the_applications_cache(
    server: PrivateServer, namespace: str, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """The job as the worker runs it."""
    caplog.set_level("INFO", "schedules.sweeping")
    monkeypatch.setattr(sweeping, "cache", Cache(settings=CacheSettings(url=server.url, namespace=namespace)))
    async with sweeping.cache as cache:
        await fill(cache, 20)
        said: list[str] = []
        await sweeping.dead_entries.function(Warm(sweeping.cache.client, said.append))
    assert said[-1] == "20 entries looked at, 0 removed"
    assert said[-1] in caplog.text
