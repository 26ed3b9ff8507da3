"""A hit in memory is one path: whatever was invalidated elsewhere, however the call is written, with Redis or not."""

from __future__ import annotations

from collections.abc import AsyncIterator

import msgspec
import pytest

from cachebus import Cache, CacheSettings
from cachebus.testing import FakeClock, memory_cache
from tests.conftest import Connect
from tests.support.waiting import until


class Price(msgspec.Struct, frozen=True):
    """Nobody who holds one can change it."""

    name: str


class Basket(msgspec.Struct):
    """Whoever holds one can."""

    name: str
    items: list[int] = []


@pytest.fixture(params=["memory", "server"])
async def cache(request: pytest.FixtureRequest, connect: Connect) -> AsyncIterator[Cache]:
    """A cache that works alone, and one with a server."""
    if request.param == "memory":
        async with memory_cache() as alone:
            yield alone
    else:
        yield await connect()


async def test_an_invalidation_of_something_else_leaves_a_hit_a_hit(cache: Cache) -> None:
    """It is served in the caller's thread, without a task or a round trip; an invalidated one is not."""

    @cache.view("hit:{n}", ttl="1h", tags=["even:{n}", "all"])
    async def hit(n: int) -> int:
        return n

    assert await hit(1) == 1
    await cache.invalidate(tags=["even:2"], prefix="miss:", keys=["hit:2"])
    await until(lambda: hit.held((1,), {}), "a hit, once this process hears of invalidations")
    await until(lambda: hit.held((), {"n": 1}), "the same by keyword")
    for invalidation in ({"tags": ["all"]}, {"keys": ["hit:1"]}, {"prefix": "hit:"}):
        await until(lambda: hit.held((1,), {}), "a hit")
        await cache.invalidate(**invalidation)  # type: ignore[arg-type]
        assert hit.held((1,), {}) is None, invalidation
        assert await hit(1) == 1
    await cache.clear()
    assert hit.held((1,), {}) is None


async def test_a_call_by_keyword_hits_what_a_positional_one_stored(cache: Cache) -> None:
    """And the reverse, with defaults left out, and counted alike."""
    loads = 0

    @cache.view("shape:{n}:{kind}", ttl="1h")
    async def shape(n: int, *, kind: str = "round") -> tuple[int, str]:
        nonlocal loads
        loads += 1
        return n, kind

    assert await shape(1) == (1, "round")
    await until(lambda: shape.held((1,), {}), "a hit")
    before = cache.stats().totals.l1_hits
    for _ in range(40):  # the sixteenth is noticed for what is popular
        assert await shape(1) == await shape(n=1) == await shape(1, kind="round") == (1, "round")
    assert loads == 1
    assert cache.stats().totals.l1_hits == before + 120
    with pytest.raises(TypeError, match="kinds"):
        await shape(1, kinds="round")  # type: ignore[call-arg]


async def test_a_hit_is_not_served_past_its_time_nor_by_a_process_that_hears_nothing(cache: Cache) -> None:
    """Looking at it again after an invalidation of something else does not make it younger."""

    @cache.view("old:{n}", ttl="1m")
    async def old(n: int) -> int:
        return n

    assert await old(1) == 1
    await cache.invalidate(keys=["another"])
    with FakeClock() as clock:
        clock.advance("2m")
        assert old.held((1,), {}) is None
        assert old.held((), {"n": 1}) is None


async def test_plain_values_read_together_are_shared_only_where_nobody_can_change_them(
    cache: Cache, monkeypatch: pytest.MonkeyPatch
) -> None:
    """One of a frozen type is one object for all; what another caller does to a list, or calls its type, is his own."""
    reader = await cache.connected()
    monkeypatch.setattr(reader.freshness, "hears", lambda _now: True)  # however busy the machine is
    await cache.set("price", Price("btc"), ttl="1h")
    await cache.set("basket", Basket("mine", [1]), ttl="1h")
    await cache.set("list", [1], ttl="1h")

    async def both(key: str, kind: object) -> list[object]:
        return [(await cache.get_many([key], type=kind))[key] for _ in range(2)]  # type: ignore[call-overload]

    first, second = await both("price", Price)
    assert first == Price("btc")
    assert first is second
    (basket, other), (one, another) = await both("basket", Basket), await both("list", object)
    basket.items.append(2)  # type: ignore[attr-defined]
    one.append(2)  # type: ignore[attr-defined]
    assert (other, another) == (Basket("mine", [1]), [1])
    assert await both("price", Basket) == [Basket("btc")] * 2
    assert (await both("price", Price))[0] == first
    await cache.set("price", Price("eth"), ttl="1h")
    assert await both("price", Price) == [Price("eth")] * 2


async def test_what_is_kept_for_sharing_counts_as_memory() -> None:
    """A value and what was read of it take twice the bytes; where both have no room, the bytes alone stay."""
    settings = CacheSettings(redis_enabled=False, max_memory_bytes=1500)
    async with Cache(settings=settings) as cache:
        await cache.set("text", "x" * 500, ttl="1h")
        before = cache.stats().bytes
        for _ in range(2):
            assert await cache.get_many(["text"]) == {"text": "x" * 500}
        assert cache.stats().bytes == 2 * before
        await cache.set("long", "y" * 900, ttl="1h")
        for _ in range(2):
            assert await cache.get_many(["long"]) == {"long": "y" * 900}
        assert 900 <= cache.stats().bytes < 1500
