"""A hit in memory is one path: whatever was invalidated elsewhere, however the call is written, with Redis or not."""

from __future__ import annotations

from collections.abc import AsyncIterator

import pytest

from cachebus import Cache
from cachebus.testing import FakeClock, memory_cache
from tests.conftest import Connect
from tests.support.waiting import until


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
