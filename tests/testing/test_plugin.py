"""The pytest plugin, as an application uses it: its conftest.py, its cache, its tests, run by a pytest of their own."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
SHOP = """
import msgspec

from cachebus import Broadcast, Bus, Cache, Invalidate, Locks, Publish, on, sync

cache = Cache("redis://nowhere.invalid:6379")
locks = Locks(cache)
bus = Bus(cache)
blocking = sync.Cache("redis://nowhere.invalid:6379")
blocking_bus = sync.Bus(blocking)
orders = {7: 1}


class Order(msgspec.Struct):
    user_id: int


@on("orders:placed", Order)
def order_placed(order: Order):
    yield Invalidate(tags="orders")
    yield Broadcast(f"user:{order.user_id}", "order.placed", {"user_id": order.user_id})
    yield Publish("orders:counted", {"user_id": order.user_id})


@on("orders:failing", Order)
def failing(order: Order):
    raise RuntimeError("out of order")


@cache.view("orders:{user_id}", ttl="5m", tags=["orders"])
async def order_count(user_id: int) -> int:
    return orders[user_id]


@blocking.view("orders:{user_id}", ttl="5m", tags=["orders"])
def order_count_now(user_id: int) -> int:
    return orders[user_id]
"""
INI = """
[pytest]
asyncio_mode = auto
asyncio_default_fixture_loop_scope = function
filterwarnings = error
pythonpath = .
"""
CONFTEST = 'pytest_plugins = ["cachebus.testing.plugin"]\n'
CACHED = """
import pytest
from shop import Order, bus, cache, failing, locks, order_count, order_placed, orders


@pytest.mark.parametrize("once_more", [1, 2])
async def test_it_is_the_applications_cache_and_begins_empty(cachebus_cache, once_more):
    assert cachebus_cache is cache
    orders[7] = once_more
    assert await order_count(7) == once_more
    assert await cache.get("left") is None
    await cache.set("left", True)
    async with locks.lock("a"):
        assert (await locks.holder("a")).waiting == 0


async def test_events_are_recorded_and_handled_when_the_test_says_so(cachebus_cache, cachebus_events):
    assert cachebus_events.published == []
    orders[7] = 1
    assert await order_count(7) == 1
    orders[7] = 2
    await bus.publish("orders:placed", Order(7))
    assert cachebus_events.published == [("orders:placed", {"user_id": 7})]
    assert await order_count(7) == 1
    await cachebus_events.handle(order_placed)
    assert await order_count(7) == 2
    assert cachebus_events.broadcasts == [("user:7", "order.placed", {"user_id": 7})]
    assert cachebus_events.published[1:] == [("orders:counted", {"user_id": 7})]
    await bus.publish("orders:placed", {"user_id": "seven"})
    await cachebus_events.handle(order_placed)
    assert len(cachebus_events.dead_letters) == 1
    await bus.publish("orders:failing", {"user_id": 8})
    await cachebus_events.handle(failing)
    assert cachebus_events.retries == [("shop.failing", "orders:failing", {"user_id": 8})]
    assert len(cachebus_events.dead_letters) == 1
    assert "user_id" in cachebus_events.dead_letters[0].reason


async def test_time_jumps(cachebus_cache, cachebus_clock):
    orders[7] = 1
    assert await order_count(7) == 1
    orders[7] = 2
    cachebus_clock.advance("6m")
    assert await order_count(7) == 2
"""
BLOCKING = """
import pytest
from shop import Order, blocking, blocking_bus, order_count_now, order_placed, orders


@pytest.mark.parametrize("once_more", [1, 2])
def test_it_is_the_applications_cache_and_begins_empty(cachebus_cache, once_more):
    assert cachebus_cache is blocking
    orders[7] = once_more
    assert order_count_now(7) == once_more


def test_events_are_handled_without_await(cachebus_events):
    orders[7] = 1
    assert order_count_now(7) == 1
    orders[7] = 2
    blocking_bus.publish("orders:placed", Order(7))
    cachebus_events.handle(order_placed)
    assert order_count_now(7) == 2
    assert cachebus_events.broadcasts == [("user:7", "order.placed", {"user_id": 7})]
"""
SERVER = """
from cachebus import Cache


async def test_a_server_of_ones_own(cachebus_server):
    async with Cache(cachebus_server.url) as cache:
        await cache.set("a", 1)
        cachebus_server.restart()
        assert cachebus_server.ask("PING") == b"PONG"


async def test_a_new_cache_where_none_is_named(cachebus_cache):
    await cachebus_cache.set("a", 1)
    assert await cachebus_cache.get("a") == 1
    assert not cachebus_cache.settings.redis_enabled
"""


def run(folder: Path, ini: str = "", **files: str) -> subprocess.CompletedProcess[str]:
    """Run pytest over files of an application, with warnings as errors."""
    (folder / "pytest.ini").write_text(INI + ini)
    for name, text in files.items():
        (folder / f"{name}.py").write_text(text)
    command = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", "-p", "pytest_asyncio.plugin", "."]
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "PYTEST_DISABLE_PLUGIN_AUTOLOAD": "1"}
    return subprocess.run(
        command, env=environment, cwd=folder, capture_output=True, text=True, timeout=120, check=False
    )


@pytest.mark.parametrize(
    ("ini", "test", "passed"),
    [
        ("cachebus_cache = shop:cache", CACHED, "4 passed"),
        ("cachebus_cache = shop:blocking", BLOCKING, "3 passed"),
        ("", SERVER, "2 passed"),
    ],
    ids=["asynchronous", "synchronous", "server"],
)
def test_an_applications_tests_pass(tmp_path: Path, ini: str, test: str, passed: str) -> None:
    """Without a server, a setting or a container, each beginning with an empty cache."""
    done = run(tmp_path, ini, shop=SHOP, conftest=CONFTEST, test_shop=test)
    assert done.returncode == 0, done.stdout + done.stderr
    assert passed in done.stdout


@pytest.mark.parametrize(
    ("place", "says"),
    [
        ("shop", 'write "module:name"'),
        ("shop:orders", "'orders' in shop is {7: 1}, and not a Cache"),
        ("shop:cash", "'cash' in shop is None, and not a Cache"),
    ],
)
def test_a_cache_that_cannot_be_found_is_named(tmp_path: Path, place: str, says: str) -> None:
    """The ini option says where, and the error says what is there instead."""
    done = run(tmp_path, f"cachebus_cache = {place}", shop=SHOP, conftest=CONFTEST, test_shop=CACHED)
    assert done.returncode != 0
    assert says in done.stdout
