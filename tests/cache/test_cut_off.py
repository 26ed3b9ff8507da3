"""A process that has lost the server while others have not."""

from __future__ import annotations

import pytest

from cachebus import is_queued
from cachebus.testing import FaultProxy
from tests.conftest import Connect


@pytest.mark.parametrize("how", ["black_hole", "cut"])
async def test_fresh_after_holds_in_a_process_that_is_cut_off(connect: Connect, proxy: FaultProxy, how: str) -> None:
    """What it cannot ask about it loads anew: the clock came to it some other way, and is a promise."""
    version = 1

    async def load(n: int) -> int:
        return version

    here, there = await connect(), await connect(url=proxy.url)
    mine, theirs = [cache.view("cut:{n}", ttl="10m")(load) for cache in (here, there)]
    assert [await mine(1), await theirs(1)] == [1, 1]
    if how == "cut":
        proxy.refusing = True
    getattr(proxy, how)()
    version = 2
    clock = await mine.invalidate(1)
    assert not is_queued(clock)
    assert await theirs(1, fresh_after=clock) == 2
