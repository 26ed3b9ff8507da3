"""`tradesense.core` as in a process that has just started, and another process beside it."""

from __future__ import annotations

from collections.abc import Iterator
from types import SimpleNamespace
from typing import Any

import pytest

from cachebus import Cache, CacheSettings
from cachebus.testing.server import PrivateServer


@pytest.fixture
def environment(server: PrivateServer, namespace: str) -> dict[str, str]:
    """What a platform sets."""
    return {"REDIS_URL": server.url, "CACHE_NAMESPACE": namespace}


@pytest.fixture
def caching(environment: dict[str, str], monkeypatch: pytest.MonkeyPatch) -> Iterator[SimpleNamespace]:
    """The module, as in a process that has just started with this environment."""
    from tradesense.core import cache as core  # noqa: PLC0415 - what a test does not use it does not load
    from tradesense.core import redis_enhancements  # noqa: PLC0415 - likewise

    for name, value in environment.items():
        monkeypatch.setenv(name, value)
    cache = core.facade.cache
    cache._settings = None
    cache._names = None
    core.facade.cache.views.clear()
    yield SimpleNamespace(**{**vars(redis_enhancements), **vars(core)})
    core.close()


@pytest.fixture
async def elsewhere(server: PrivateServer, namespace: str) -> Any:
    """Another process's cache of the same deployment."""
    async with Cache(settings=CacheSettings(url=server.url, namespace=namespace)) as cache:
        yield cache
