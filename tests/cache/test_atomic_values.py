"""Atomic values: one step for all processes, with a server and without; none in memory, none in the journal."""

from __future__ import annotations

import asyncio
import decimal

import pytest

from cachebus import AtomicValues, Cache, ConfigurationError, NotCacheable, Unavailable, sync
from cachebus.errors import NotANumber
from cachebus.testing.server import PrivateServer
from tests.conftest import Connect
from tests.support.waiting import until


@pytest.fixture
def values(somewhere: Cache) -> AtomicValues:
    """Atomic values over it."""
    return AtomicValues(somewhere)


async def test_one_of_many_callers_adds(values: AtomicValues, somewhere: Cache) -> None:
    """Whoever comes first stores its value; None is a value; deleted or expired, the key is free."""
    others = AtomicValues(somewhere)
    stored = await asyncio.gather(*[(values, others)[n % 2].add("import", {"by": n}, "1m") for n in range(50)])
    assert stored.count(True) == 1
    assert await others.get("import") == {"by": stored.index(True)}
    assert await values.delete("import")
    assert not await values.delete("import")
    assert await values.get("import", "nothing") == "nothing"
    assert await values.add("import", None, "20ms")
    assert await values.get("import", "nothing") is None
    await until(lambda: values.add("import", "next", "1m"), "it did not expire")


async def test_every_count_counts(values: AtomicValues, somewhere: Cache) -> None:
    """It begins at 0, for its ttl, which later counts do not move; exact to the last of 63 bits."""
    others = AtomicValues(somewhere)
    sums = await asyncio.gather(*[(values, others)[n % 2].incr("views", ttl="10m") for n in range(50)])
    assert sorted(sums) == list(range(1, 51))
    assert await values.decr("views", 60, ttl="1s") == -10
    left = await values.ttl("views")
    assert left is not None
    assert 590 < left <= 600
    assert await values.get("views") == -10
    assert await values.incr("large", 2**53, ttl="1m") + 1 == await values.incr("large", ttl="1m") == 2**53 + 1
    assert await values.incr("large", 2**63 - 1 - 2**53 - 1, ttl="1m") == 2**63 - 1
    assert await values.incr("zero", 0, ttl="1m") == 0


async def test_a_value_is_kept_alive_and_tells_for_how_long_it_lives(values: AtomicValues) -> None:
    """`touch` moves its end in either direction; of a value that is not there nothing comes."""
    assert not await values.touch("a", "1m")
    assert await values.ttl("a") is None
    await values.add("a", 1, "1m")
    assert await values.touch("a", "10m")
    assert 590 < (await values.ttl("a") or 0) <= 600
    assert await values.touch("a", "10ms")
    await until(lambda: gone(values, "a"))


async def gone(values: AtomicValues, key: str) -> bool:
    """Return whether there is no value."""
    return await values.ttl(key) is None and await values.get(key) is None


async def test_what_cannot_be_is_refused_and_changes_nothing(values: AtomicValues) -> None:
    """What is no number is not counted, a sum beyond 64 bits not stored; what is no JSON, or a secret, never is."""
    for key, value in (("text", "5"), ("float", 1.5), ("true", True), ("most", 2**63 - 1)):
        await values.add(key, value, "1m")
        with pytest.raises(NotANumber, match=f"key: '{key}' holds no whole number, or the sum has more than 64 bits"):
            await values.incr(key, ttl="1m")
        assert await values.get(key) == value
    for bad in ((1, 2), decimal.Decimal(1), float("nan"), {1: "a"}, object(), {"user": {"password": "x"}}, b"bytes"):
        with pytest.raises(NotCacheable, match="value: "):
            await values.add("bad", bad, "1m")
    for amount in (1.5, True, 2**63, "1"):
        with pytest.raises(ConfigurationError, match="amount: "):
            await values.incr("a", amount, ttl="1m")  # type: ignore[arg-type] # the point
    for ttl in (0, -1, "soon"):
        with pytest.raises(ConfigurationError, match="ttl: "):
            await values.add("a", 1, ttl)
    with pytest.raises(ConfigurationError):
        await values.add("", 1, "1m")
    assert await values.get("bad") is await values.get("a") is None


async def test_they_are_in_redis_alone(connect: Connect, server: PrivateServer, namespace: str) -> None:
    """JSON under a name of their own that other programs read; nothing in memory, nothing in the journal."""
    cache = await connect()
    values = AtomicValues(cache)
    await cache.set("views", "a cached value", "1m")
    records, held = server.ask("XLEN", cache.names.journal), cache.stats().entries
    assert await values.add("views", 1, "1m")
    assert await values.incr("views", ttl="1m") == 2
    assert server.ask("GET", f"{namespace}:value:{{views}}") == b"2"
    assert server.ask("SET", f"{namespace}:value:{{views}}", "3", "KEEPTTL") == b"OK"
    assert await values.get("views") == 3
    assert (server.ask("XLEN", cache.names.journal), cache.stats().entries) == (records, held)
    assert await cache.get("views") == "a cached value"
    server.ask("SET", f"{namespace}:value:{{views}}", b"\xff no JSON", "KEEPTTL")
    assert await values.get("views", "default") == "default"


async def test_they_work_with_the_cache_switched_off_and_say_when_redis_is_unavailable(
    own_server: PrivateServer,
) -> None:
    """They are data, not copies: `CACHE_ENABLED=false` leaves them alone, an outage is an error."""
    async with Cache.memory(enabled=False) as off:
        assert await AtomicValues(off).incr("a", ttl="1m") == 1
    async with Cache(own_server.url) as cache:
        values = AtomicValues(cache)
        await values.incr("a", ttl="1m")
        own_server.kill()
        with pytest.raises(Unavailable):
            await values.incr("a", ttl="1m")


def test_from_code_without_an_event_loop() -> None:
    """`cachebus.sync`: the same calls, the same errors."""
    with sync.Cache.memory() as cache:
        values = sync.AtomicValues(cache)
        assert values.add("a", 1, "1m")
        assert not values.add("a", 2, "1m")
        assert (values.incr("a", ttl="1m"), values.decr("a", 5, ttl="1m"), values.get("a")) == (2, -3, -3)
        assert values.touch("a", "1h")
        assert (values.ttl("a") or 0) > 3000
        with pytest.raises(NotCacheable):
            values.add("b", (), "1m")
