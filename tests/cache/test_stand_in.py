"""The cache on fakeredis' TCP server, which stands in where there is no Valkey for the platform."""

from __future__ import annotations

import pytest

from cachebus import Cache
from cachebus.testing.server import PrivateServer


async def test_reads_and_invalidations_hold_on_fakeredis(monkeypatch: pytest.MonkeyPatch) -> None:
    """Unknown scripts are answered, not hung up on: one load for two caches, none stale when invalidated.

    Nobody has to wait for another process's proof of the server's run, which a busy machine would give too late.
    """
    monkeypatch.setattr("cachebus.freshness.proof.ANSWER_S", 0.001)
    price = 1
    with PrivateServer.start(kind="fakeredis") as server:
        async with Cache(server.url) as here, Cache(server.url) as there:
            loads = 0

            async def load(symbol: str) -> int:
                nonlocal loads
                loads += 1
                return price

            views = [cache.view("price:{symbol}", ttl="1m", tags=["prices"])(load) for cache in (here, there)]
            assert [await view("AAPL") for view in views] == [1, 1]
            assert loads == 1
            price = 2
            clock = await here.invalidate(tags=["prices"])
            assert await views[0]("AAPL") == 2
            assert await views[1]("AAPL", fresh_after=clock) == 2
            assert loads == 2
            assert (here.client.store.up, there.client.store.up) == (True, True)
