"""What the strategy's names promise beyond its examples: nothing old, and nothing of somebody else."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from types import SimpleNamespace
from typing import Any

import pytest
from sqlalchemy.orm import Session

from cachebus import Cache, ConfigurationError
from tests.support.waiting import until


async def test_what_one_caller_invalidates_no_other_gets_again(caching: SimpleNamespace) -> None:
    """Threads and event loops of one process: from the moment the call returns."""
    database = {"value": 0}

    @caching.cache_response(ttl=300, key_prefix="analytics", user_aware=True)
    async def in_loop(user_id: int) -> int:
        return database["value"]

    @caching.query_cache.cache_query(ttl=300)
    def in_thread(user_id: int) -> int:
        return database["value"]

    for value in range(1, 101):
        assert await in_loop(7) == await asyncio.to_thread(in_thread, 7) == in_thread(7) == value - 1
        database["value"] = value
        if value % 2:
            await asyncio.to_thread(caching.invalidate_trades_cache, 7)
        else:
            caching.invalidate_user_cache(7)


async def test_another_process_invalidates_what_is_in_memory_here(caching: SimpleNamespace, elsewhere: Cache) -> None:
    """By tag, as the worker does after an event."""
    loads = 0

    @caching.cache_response(ttl=300, key_prefix="portfolio", user_aware=True)
    def portfolio(user_id: int) -> int:
        nonlocal loads
        loads += 1
        return loads

    assert (portfolio(7), portfolio(7), portfolio(8)) == (1, 1, 2)
    await elsewhere.invalidate(tags=["user:7:trades"])
    await until(lambda: portfolio(7) == 3, "the new portfolio")
    assert portfolio(8) == 2


@pytest.mark.parametrize(
    ("call", "gone"),
    [
        (lambda c: c.invalidate_trades_cache(7), {"settings", "analytics", "query", "total"}),
        (lambda c: c.invalidate_analytics_cache(7), {"analytics", "query"}),
        (lambda c: c.invalidate_user_cache(7, "settings"), {"settings", "query"}),
        (lambda c: c.invalidate_user_cache(7), {"settings", "analytics", "query"}),
        (lambda c: c.invalidate_user_cache("7"), {"settings", "analytics", "query"}),
        (lambda c: c.invalidate_trades_cache(70), {"total"}),
        (lambda c: c.invalidate_cache_pattern("analytics:*"), {"analytics"}),
        (lambda c: c.cache_manager.clear(), {"settings", "analytics", "query", "total"}),
    ],
)
def test_each_invalidation_reaches_what_it_names(caching: SimpleNamespace, call: Any, gone: set[str]) -> None:
    """Of that user and no other; what is named narrowly leaves the rest."""
    counts: dict[str, int] = {}

    def load(name: str) -> int:
        counts[name] = counts.get(name, 0) + 1
        return counts[name]

    @caching.cache_response(ttl=300, key_prefix="settings", user_aware=True)
    def settings(user_id: int) -> int:
        return load("settings")

    @caching.cache_response(ttl=300, key_prefix="analytics", user_aware=True)
    def analytics(user_id: int) -> int:
        return load("analytics")

    @caching.query_cache.cache_query(ttl=300)
    def query(user_id: int, limit: int = 10) -> int:
        return load("query")

    @caching.query_cache.cache_query(ttl=300)
    def total() -> int:
        return load("total")

    def read() -> dict[str, int]:
        return {"settings": settings(7), "analytics": analytics(7), "query": query(7), "total": total()}

    assert set(read().values()) == {1}
    call(caching)
    assert {name for name, count in read().items() if count == 2} == gone


async def test_a_value_read_before_an_invalidation_is_not_served_after_it(
    caching: SimpleNamespace, elsewhere: Cache
) -> None:
    """Cache-aside by hand: looked in vain, read, meanwhile somebody writes and invalidates, then the old is set."""
    manager = caching.cache_manager
    assert manager.get("settings:7") is None
    await elsewhere.delete("settings:7")
    manager.set("settings:7", "read before", ttl=60)
    await until(lambda: manager.get("settings:7") is None, "the old value to be gone")
    # Whoever has not looked in vain means the newest there is.
    await elsewhere.delete("settings:7")
    manager.set("settings:7", "written", ttl=60)
    manager.set("settings:7", "written again", ttl=60)
    assert manager.get("settings:7") == "written again"
    assert await elsewhere.get("settings:7") == "written again"


def test_what_is_set_after_an_invalidation_of_ones_own_is_there(caching: SimpleNamespace) -> None:
    """Looked in vain, invalidated, set: the same thread did all three, so the value is the newest."""
    manager = caching.cache_manager
    assert manager.get("market:btc:price", "none") == "none"
    caching.invalidate_cache_pattern("market:*")
    manager.set("market:btc:price", 45000, ttl=60)
    assert manager.get("market:btc:price") == 45000
    manager.delete("market:btc:price")
    assert manager.get("market:btc:price") is None


def test_a_call_without_a_user_is_not_cached(caching: SimpleNamespace) -> None:
    """`user_id=None` loads each time; nobody gets what belongs to nobody in particular."""
    loads: list[int | None] = []

    @caching.cache_response(ttl=60, key_prefix="analytics", user_aware=True)
    def analytics(user_id: int | None) -> int:
        loads.append(user_id)
        return len(loads)

    assert [analytics(None), analytics(None), analytics(1), analytics(1)] == [1, 2, 3, 3]


def test_what_cannot_be_cached_is_refused_at_decoration(caching: SimpleNamespace) -> None:
    """No user to tell apart, values that come one by one, functions that differ by what is around them."""
    with pytest.raises(ConfigurationError, match="needs a parameter 'user_id'"):
        caching.cache_response(ttl=60, key_prefix="x", user_aware=True)(lambda: 1)

    def numbers() -> Iterator[int]:
        yield 1

    with pytest.raises(ConfigurationError, match="one after the other"):
        caching.query_cache.cache_query(ttl=60)(numbers)

    def multiplied(factor: int) -> Any:
        @caching.query_cache.cache_query(ttl=60)
        def function(number: int) -> int:
            return number * factor

        return function

    double = multiplied(2)
    with pytest.raises(ConfigurationError, match="make them parameters"):
        multiplied(3)
    assert double(4) == 8


def test_a_parameter_may_be_left_out_of_the_key(caching: SimpleNamespace) -> None:
    """A database session does not shape the result; an object that is in the key is refused by name."""

    @caching.query_cache.cache_query(ttl=60, not_in_key=["db"])
    def count(db: Session, user_id: int) -> int:
        return 2

    def wrong(db: Session) -> int:
        return 0

    db = Session()
    assert count(db, 7) == count(db, user_id=7) == 2
    assert "Session" not in count.key(db, 7)
    with pytest.raises(ConfigurationError, match=r"Session' can never be part of a key.*not_in_key=\['db'\]"):
        caching.query_cache.cache_query(ttl=60)(wrong)
