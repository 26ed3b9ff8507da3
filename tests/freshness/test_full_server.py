"""A server that is full and refuses writes: nothing is lost, and it is said once."""

from __future__ import annotations

import logging

import pytest

from cachebus import Cache, CacheSettings
from cachebus.testing.server import PrivateServer
from tests.support.waiting import until


async def test_a_full_server_is_said_once_however_much_is_invalidated(
    own_server: PrivateServer, caplog: pytest.LogCaptureFixture
) -> None:
    """One line when it begins, one when it ends: not one for each event of an import."""
    settings = CacheSettings(url=own_server.url)
    async with Cache(settings=settings) as here, Cache(settings=settings) as there:
        await here.write("price:7", 1, tags=["row:7"])
        assert await there.get("price:7") == 1
        own_server.ask("CONFIG", "SET", "maxmemory", 1)
        with caplog.at_level(logging.WARNING, "cachebus"):
            for n in range(50):
                await here.invalidate(tags=[f"row:{n}"])
            assert await here.get("price:7") is None
            own_server.ask("CONFIG", "SET", "maxmemory", 0)
            await here.invalidate(tags=["another"])

            async def gone() -> bool:
                return await there.get("price:7") is None

            await until(gone)
    told = [record.getMessage() for record in caplog.records if "invalidations" in record.getMessage()]
    assert len(told) == 2, told
    assert "OOM" in told[0]
    assert "again" in told[1]
