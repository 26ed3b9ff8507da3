"""Critical views: what is read is renewed before it expires; what nobody reads any more is not."""

from __future__ import annotations

import pytest

from cachebus import Cache, ConfigurationError
from cachebus.cache.tiers.entry import BORN
from cachebus.cache.upkeep.warming import Warm
from cachebus.cache.view import View
from cachebus.redis.keyspace import Names
from cachebus.testing.server import PrivateServer

LOADS: list[int] = []


@pytest.fixture
def price(cache: Cache) -> View[[int], int]:
    """A critical view."""
    LOADS.clear()

    @cache.view("price:{number}", ttl="10m", critical=True)
    async def price(number: int) -> int:
        LOADS.append(number)
        return number

    return price


def age(server: PrivateServer, namespace: str, left_s: int) -> None:
    """Let every stored entry end so soon, as time would."""
    seconds, _ = server.ask("TIME")
    for key in server.ask("KEYS", f"{Names(namespace).entries}*price:*"):
        server.ask("SETRANGE", key, BORN.stop, b"%016d" % ((int(seconds) + left_s) * 1_000_000))


async def read_by_somebody(cache: Cache, price: View[[int], int], *numbers: int) -> None:
    """Read, once each, and let the reads be known."""
    for number in numbers:
        await price(number)
    assert cache._running is not None
    assert cache._running.popularity is not None
    await cache._running.popularity.flush()


async def test_what_was_read_is_renewed_before_it_ends(
    server: PrivateServer, namespace: str, cache: Cache, price: View[[int], int]
) -> None:
    """One read each is enough to be known; what was only warmed, and what has time left, is left alone."""
    await price.warm(3)
    await read_by_somebody(cache, price, 1, 2)
    LOADS.clear()
    await Warm(cache.client).ahead(price)
    assert LOADS == []
    age(server, namespace, left_s=60)
    await Warm(cache.client).ahead(price)
    assert sorted(LOADS) == [1, 2]
    await Warm(cache.client).ahead(price)
    assert sorted(LOADS) == [1, 2]


async def test_each_memory_hit_of_a_critical_view_counts(cache: Cache, price: View[[int], int]) -> None:
    """A reader that memory answers keeps its entry warm as well as one that asks Redis."""
    await read_by_somebody(cache, price, 1)
    await cache.client.store.call("DEL", cache.client.names.bus("read-at", price.name))
    await read_by_somebody(cache, price, 1)
    assert await Warm(cache.client).recently_active(price) == [(1,)]


def test_a_critical_view_must_live_a_minute() -> None:
    """What cannot be looked at often enough is refused where it is declared."""
    cache = Cache.memory()
    with pytest.raises(ConfigurationError, match="critical needs a ttl of 60 s or more"):

        @cache.view("a:{n}", ttl="59s", critical=True)
        async def a(n: int) -> int:
            return n
