"""`tradesense.caching` as in a process that has just started, and another process beside it."""

from __future__ import annotations

from collections.abc import Iterator
from types import ModuleType
from typing import Any

import pytest

from cachebus import Cache, CacheSettings
from cachebus.private_server import PrivateServer


@pytest.fixture
def environment(server: PrivateServer, namespace: str) -> dict[str, str]:
    """What a platform sets."""
    return {"REDIS_URL": server.url, "CACHE_NAMESPACE": namespace}


@pytest.fixture
def caching(environment: dict[str, str], monkeypatch: pytest.MonkeyPatch) -> Iterator[ModuleType]:
    """The module, as in a process that has just started with this environment."""
    import tradesense.caching  # noqa: PLC0415 - what a test does not use it does not load
    from tradesense.caching import shared  # noqa: PLC0415 - likewise

    for name, value in environment.items():
        monkeypatch.setenv(name, value)
    cache = shared.facade.cache
    cache._settings = cache._names = None
    shared.facade.cache.views.clear()
    yield tradesense.caching
    shared.close()


@pytest.fixture
async def elsewhere(server: PrivateServer, namespace: str) -> Any:
    """Another process's cache of the same deployment."""
    async with Cache(settings=CacheSettings(url=server.url, namespace=namespace)) as cache:
        yield cache
