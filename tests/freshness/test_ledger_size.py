"""How many invalidated names the ledger remembers is a setting, and what that costs is said."""

from __future__ import annotations

import logging

import pytest

from cachebus import Cache, CacheSettings
from cachebus.errors import CannotStart
from cachebus.testing.server import PrivateServer
from tests.support.waiting import until

A_CALL = 990


def settings(server: PrivateServer, namespace: str, kept: int | None) -> CacheSettings:
    """Return the settings of a process that asks for a ledger of that size."""
    return CacheSettings(url=server.url, namespace=namespace, ledger_scopes=kept)


async def size(cache: Cache) -> int:
    """Return how many names the ledger holds."""
    return int(await cache.client.store.call("ZCARD", cache.names.ledger))


@pytest.mark.parametrize(("kept", "loads"), [(1_000, 1), (None, 0)])
async def test_an_entry_outlives_only_a_ledger_that_is_too_small(
    server: PrivateServer, namespace: str, kept: int | None, loads: int, caplog: pytest.LogCaptureFixture
) -> None:
    """Foreign invalidations push out what is old; one line names the setting, a counter the entries it costs."""
    loaded = []
    async with Cache(settings=settings(server, namespace, kept)) as writer:
        await writer.set("untouched", 1, ttl="1h")
        await writer.set("outdated", 1, ttl="1h")
        await writer.invalidate(keys=["outdated"])
        for first in range(0, 4 * A_CALL, A_CALL):
            await writer.invalidate(tags=[f"foreign:{n}" for n in range(first, first + A_CALL)])
            if kept is not None:
                assert await size(writer) < kept + 2 * A_CALL
    with caplog.at_level(logging.WARNING, "cachebus"):
        async with Cache(settings=settings(server, namespace, None)) as reader:

            async def load() -> int:
                loaded.append(1)
                return 1

            for _ in range(2):
                assert await reader.get_or_load("untouched", load, ttl="1h") == 1
            assert len(loaded) == loads
            assert (reader.stats().outlived > 0) == (loads > 0)
            assert await reader.get("outdated") is None
    told = [record.message for record in caplog.records if "CACHE_LEDGER_SCOPES" in record.message]
    assert len(told) == (kept is not None)


async def test_a_process_without_the_setting_leaves_it(server: PrivateServer, namespace: str) -> None:
    """Who says nothing about the size keeps what another one has said; the figures tell how far back it reaches."""
    async with Cache(settings=settings(server, namespace, 1_000)):
        pass
    async with Cache(settings=settings(server, namespace, None)) as cache:
        await until(lambda: cache.stats().ledger_s is not None, "the first answer of the journal")
        began = cache.client.now_us() - (cache.stats().ledger_s or 0) * 1e6
        for first in range(0, 3 * A_CALL, A_CALL):
            await cache.invalidate(tags=[f"foreign:{n}" for n in range(first, first + A_CALL)])
        assert await size(cache) < 1_000 + 2 * A_CALL
        async with Cache(settings=settings(server, namespace, None)) as later:
            await until(lambda: later.stats().ledger_s is not None, "the first answer of the journal")
            assert later.client.now_us() - (later.stats().ledger_s or 0) * 1e6 > began + 1_000


def test_a_ledger_that_could_hold_nothing_is_refused() -> None:
    """With the bound, and the variable's name."""
    with pytest.raises(CannotStart, match="CACHE_LEDGER_SCOPES: '10' is not a whole number of 1000 or more"):
        CacheSettings.from_environment({"CACHE_LEDGER_SCOPES": "10"})
