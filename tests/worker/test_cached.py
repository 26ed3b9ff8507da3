"""What an operator sees in the cache is what a reader would be served, and why not."""

from __future__ import annotations

import argparse

import pytest

from cachebus import Cache, CacheSettings
from cachebus.monitoring.inspection import copies, reached, stored
from cachebus.worker.commands.invalidate import _reached
from cachebus.worker.commands.state.inspect import NOBODY, _lines


def views(cache: Cache) -> None:
    """Declare two views and make three entries."""

    @cache.view("orders:{customer}:total", ttl="5m", stale="1m", tags=["customer:{customer}"])
    async def total(customer: int) -> int:
        return customer * 10

    @cache.view("orders:{customer}:names", ttl="5m", tags=["customer:{customer}"])
    async def names(customer: int) -> list[str]:
        return ["a"] * customer


async def fill(cache: Cache) -> None:
    """Load some of each."""
    for name in ("orders:{customer}:total", "orders:{customer}:names"):
        await cache.views[name](1)
    await cache.views["orders:{customer}:total"](12)
    await cache.set("plain", {"x": 1}, ttl="1m")


async def test_a_stored_value_is_shown_with_all_that_decides_about_it(cache: Cache) -> None:
    """Who reads it, its value, its tags, its life; and that it is valid."""
    views(cache)
    await fill(cache)
    (copy,) = await copies(cache, "orders:1:total")
    assert copy.views == ["orders:{customer}:total"]
    assert (copy.value, copy.entry.header.tags, copy.invalidated_by) == (10, ("customer:1",), {})
    assert 60_000 < copy.left_ms <= 360_000
    (plain,) = await copies(cache, "plain")
    assert (plain.views, plain.value) == ([], {"x": 1})
    assert await copies(cache, "orders:99:total") == []


async def test_what_others_stored_under_a_key_is_seen_too(cache: Cache, settings: CacheSettings) -> None:
    """A copy of a deploy whose view returns another type, and one of a view that only another application has."""
    views(cache)
    await fill(cache)
    async with Cache(settings=settings) as other:

        @other.view("orders:{customer}:total", ttl="5m")
        async def older(customer: int) -> dict[str, int]:
            return {"was": customer}

        @other.view("theirs:{n}", ttl="5m")
        async def theirs(n: int) -> list[int]:
            return [n]

        await older(1)
        await theirs(7)
    assert sorted(str(copy.value) for copy in await copies(cache, "orders:1:total", walk=True)) == ["10", "{'was': 1}"]
    (copy,) = await copies(cache, "theirs:7", walk=True)
    assert (copy.views, copy.plain, copy.value) == ([], False, [7])
    assert f"read by     {NOBODY}" in "\n".join(_lines(copy, cache.client.now_us()))
    (plain,) = await copies(cache, "plain", walk=True)
    assert "read by     cache.get()" in "\n".join(_lines(plain, cache.client.now_us()))
    assert (await reached(cache, keys=["orders:1:total", "theirs:7", "orders:1"])).by_name == {
        "key 'orders:1:total'": 2,
        "key 'theirs:7'": 1,
        "key 'orders:1'": 0,
    }


async def test_an_invalidated_value_says_by_what(cache: Cache) -> None:
    """The scope that made it unreadable is named, with its clock; user 12 is not touched by user 1."""
    views(cache)
    await fill(cache)
    clock = await cache.invalidate(tags=["customer:1"])
    (copy,) = await copies(cache, "orders:1:total")
    assert copy.invalidated_by == {"t:customer:1": int(clock.partition(".")[0])}
    (other,) = await copies(cache, "orders:12:total")
    assert other.invalidated_by == {}


@pytest.mark.parametrize(("begin", "count"), [("orders:1:", 2), ("orders:", 3), ("", 4), ("orders:*", 0)])
async def test_entries_are_found_by_the_beginning_of_their_key(cache: Cache, begin: str, count: int) -> None:
    """A prefix is literal: a star in it is a star."""
    views(cache)
    await fill(cache)
    assert sum([len(page) async for page in stored(cache, begin)]) == count


async def test_a_dry_run_counts_what_it_would_reach(cache: Cache) -> None:
    """Each name is counted by itself, and afterwards everything is as it was."""
    views(cache)
    await fill(cache)
    asked = argparse.Namespace(key=["plain"], tag=["customer:1", "nobody"], prefix="orders:12:", everything=False)
    assert (await _reached(cache, asked)).by_name == {
        "key 'plain'": 1,
        "prefix 'orders:12:'": 1,
        "tag 'customer:1'": 2,
        "tag 'nobody'": 0,
    }
    (copy,) = await copies(cache, "orders:1:total")
    assert copy.invalidated_by == {}


async def test_entries_that_vanish_on_the_way_are_passed_over(cache: Cache) -> None:
    """A walk over a living keyspace meets names that are gone, and values that are none of ours."""
    await cache.client.entries.call("SET", cache.names.entry("foreign", "x"), b"not an entry", "EX", 60)
    assert (await reached(cache, everything=True)).by_name == {"everything": 0}
