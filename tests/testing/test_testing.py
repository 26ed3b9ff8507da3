"""What applications test with: the clock that jumps, their own cache in memory."""

from __future__ import annotations

import subprocess
import sys

import pytest

from cachebus import Cache, CacheSettings, ConfigurationError
from cachebus.testing import FakeClock, FaultProxy, memory_cache
from tests.conftest import Connect


async def test_entries_expire_when_the_clock_is_advanced() -> None:
    """TTL, then the stale window, without waiting; afterwards time is what it was."""
    loads = 0
    async with memory_cache() as cache:

        @cache.view("report:{n}", ttl="1h", stale_if_error="1h")
        async def report(n: int) -> int:
            nonlocal loads
            loads += 1
            if loads == 2:
                raise OSError("no database")
            return loads

        with FakeClock() as clock:
            assert await report(1) == 1
            clock.advance("50m")
            assert await report(1) == 1
            clock.advance("15m")
            assert await report(1) == 1, "for errors an older value does"
            assert loads == 2
            clock.advance("2h")
            assert await report(1) == 3
        assert await report(1) == 3


async def test_what_redis_holds_is_too_old_for_a_clock_that_was_advanced(connect: Connect) -> None:
    """Whoever asks loads anew, and then has it in memory."""
    loads = 0

    async def load(n: int) -> int:
        nonlocal loads
        loads += 1
        return loads

    here, there = await connect(), await connect()
    mine, theirs = [cache.view("old:{n}", ttl="1h")(load) for cache in (here, there)]
    with FakeClock() as clock:
        assert await mine(1) == 1
        clock.advance("61m")
        assert [await theirs(1), await theirs(1)] == [2, 2]


def test_a_clock_takes_durations_only() -> None:
    """As people write them; backwards is none."""
    with FakeClock() as clock:
        clock.advance(1.5)
        assert clock.ahead_s == 1.5
        for wrong in ("-1m", "soon", 0):
            with pytest.raises(ConfigurationError, match="advance"):
                clock.advance(wrong)


async def test_the_applications_own_cache_lives_in_memory_for_a_block(proxy: FaultProxy, namespace: str) -> None:
    """Its views work and connect to nothing; it begins empty each time; afterwards it is what it was."""
    cache = Cache(settings=CacheSettings(url=proxy.url, namespace=namespace))

    @cache.view("own:{n}", ttl="1h", tags=["own"])
    async def own(n: int) -> int:
        return version

    version = 1
    for _ in range(2):
        async with memory_cache(cache) as same:
            assert same is cache
            assert await own(1) == version
            version += 1
            await cache.invalidate(tags=["own"])
            assert await own(1) == version
            version += 1
    assert proxy.connections == 0
    async with cache:
        assert await own(1) == version
        assert cache.stats().up
    assert proxy.connections > 0


def test_what_is_not_used_is_not_loaded() -> None:
    """A clock needs neither a cache nor a driver; every name is there all the same."""
    program = (
        "import sys, cachebus.testing as testing; testing.FakeClock;"
        "print(sorted({'redis', 'cachebus.cache.cache', 'fcntl'} & set(sys.modules)));"
        "[getattr(testing, name) for name in testing.__all__]"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert done.stdout == "[]\n"
