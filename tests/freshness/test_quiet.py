"""A process that reads nothing sends nothing (`CACHE_QUIET`), and is never stale for that."""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import Any

import pytest

from cachebus import Cache, CacheSettings
from cachebus.freshness import journal
from cachebus.testing.server import PrivateServer

Until = Callable[..., Any]


async def test_an_idle_process_rests_and_its_next_read_is_fresh(
    own_server: PrivateServer, until: Until, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Nothing waits on the server for it; a value invalidated meanwhile is not served; then memory answers again."""
    monkeypatch.setattr(journal, "REST_AFTER_S", 0.05)
    number = 1
    quiet = Cache(settings=CacheSettings(url=own_server.url, quiet=True))

    @quiet.view("number:{n}", ttl="5m")
    async def value(n: int) -> int:
        return n * number

    async with quiet, Cache(settings=CacheSettings(url=own_server.url, report=False)) as other:
        assert await value(7) == 7
        await other.close()
        await until(lambda: quiet.stats().journal_lag_ms is None, "the end of its questions")
        assert b"flags=b" not in own_server.ask("CLIENT", "LIST")
        for number in (2, 3):
            await other.invalidate(keys=["number:7"])
            await other.close()
            assert await value(7) == 7 * number
        await until(lambda: quiet.stats().journal_lag_ms is not None, "its questions again")
        before = quiet.stats().totals.l1_hits
        await until(lambda: value.held((7,), {}) is not None, "a hit in memory")
        assert await value(7) == 21
        assert quiet.stats().totals.l1_hits == before + 1


async def test_a_process_that_is_not_quiet_keeps_listening(
    own_server: PrivateServer, until: Until, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The usual one answers its first read after an hour from memory."""
    monkeypatch.setattr(journal, "REST_AFTER_S", 0.0)
    async with Cache(settings=CacheSettings(url=own_server.url)) as cache:
        await cache.get("a")
        await until(lambda: questions(own_server) >= 3, "question after question")
        assert cache.stats().journal_lag_ms is not None


def questions(server: PrivateServer) -> int:
    """Return how often the journal was read."""
    found = re.search(rb"cmdstat_xread:calls=(\d+)", server.ask("INFO", "commandstats"))
    return int(found[1]) if found else 0
