"""Fixtures for the tests of an application: `pytest_plugins = ["cachebus.testing.plugin"]` in its conftest.py.

    cachebus_cache     the application's cache, in memory, empty; a new one where the ini option names none
    cachebus_clock     time that jumps on command
    cachebus_events    what was published on that cache, and its handlers when the test says so
    cachebus_server    a Valkey of the test's own

They are plain fixtures: a test may be async, whichever plugin runs it, or not.
"""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from importlib import import_module
from typing import Any

import pytest

from cachebus.cache.cache import Cache
from cachebus.testing.clock import FakeClock
from cachebus.testing.events import PublishedEvents
from cachebus.testing.memory import without_server
from cachebus.testing.server import PrivateServer

OPTION = "cachebus_cache"


def pytest_addoption(parser: pytest.Parser) -> None:
    """Add the option that names the application's cache."""
    parser.addini(OPTION, 'where the application has its cache, such as "shop.caching:cache"')


@pytest.fixture
def cachebus_cache(pytestconfig: pytest.Config) -> Iterator[Any]:
    """The cache that the ini option `cachebus_cache` names, or a new one, in this process's memory, and empty.

    Everything over it works without a server: views, bus, locks, limits, sessions, pub/sub.
    """
    place = pytestconfig.getini(OPTION)
    found = _found(place) if place else Cache.memory()
    _close(found)
    with without_server(_asynchronous(found)):
        yield found
        _close(found)


@pytest.fixture
def cachebus_events(cachebus_cache: Any) -> PublishedEvents:
    """Events published over `cachebus_cache`: `.published`, `await .handle(handler, …)`, `.broadcasts`."""
    run = None if isinstance(cachebus_cache, Cache) else cachebus_cache.run
    return PublishedEvents(_asynchronous(cachebus_cache), run)


@pytest.fixture
def cachebus_clock() -> Iterator[FakeClock]:
    """The clock by which everything in this process ages; `cachebus_clock.advance("1m")` makes it jump."""
    with FakeClock() as clock:
        yield clock


@pytest.fixture
def cachebus_server() -> Iterator[PrivateServer]:
    """A server of this test alone, to kill, pause and restart; `cachebus_server.url` is where it is."""
    with PrivateServer.start() as server:
        yield server


def _found(place: str) -> Any:
    module, colon, name = place.partition(":")
    if not colon:
        raise pytest.UsageError(f'{OPTION} = {place}: write "module:name", such as "shop.caching:cache"')
    found = getattr(import_module(module), name, None)
    if not isinstance(_asynchronous(found), Cache):
        raise pytest.UsageError(f"{OPTION} = {place}: {name!r} in {module} is {found!r}, and not a Cache")
    return found


def _asynchronous(cache: Any) -> Any:
    """Return the cache behind one of `cachebus.sync`, which lies above this room; any other as it is."""
    return getattr(cache, "cache", cache)


def _close(cache: Any) -> None:
    """Close a cache from outside of its event loop, which may have ended."""
    if not isinstance(cache, Cache):
        cache.close()
        return
    running = cache._running  # noqa: SLF001 - only a test closes what another loop has opened
    if running is None:
        return
    loop = running.loop if not running.loop.is_closed() else asyncio.new_event_loop()
    loop.run_until_complete(cache.close())
    if loop is not running.loop:
        loop.close()
