"""What every server, and every cache, has to do: one suite for all of them.

Derive from it in a test file and say how a cache is made:

    class TestMyServer(CacheConformance):
        def new_cache(self) -> Cache:
            return Cache("redis://127.0.0.1:6379/9")

Each call of `new_cache` stands for another process of one deployment. Needs pytest-asyncio in its automatic mode.
"""
# ruff: noqa: S101 - these are tests, of whoever derives from them

from __future__ import annotations

import asyncio
import secrets
from collections.abc import Callable
from typing import Any

from cachebus.cache.cache import Cache

DEADLINE_S = 20.0
"""Only ever waited out by a test that fails."""


class CacheConformance:
    """Tests of one kind of cache. Every test uses keys of its own, so that a deployment may serve them all."""

    shared = True
    """Whether two caches see one another's values; `Cache.memory()` is alone."""

    def new_cache(self) -> Cache:
        """Return a cache that is not connected yet."""
        raise NotImplementedError

    async def test_a_value_is_loaded_once_and_comes_back_as_it_was(self) -> None:
        """Type and all, `None` among them."""
        async with self.new_cache() as cache:
            ran: list[object] = []

            @cache.view(f"{_word()}:{{n}}", ttl="1m")
            async def view(n: int) -> tuple[int, str] | None:
                ran.append(n)
                return (n, "x" * n) if n else None

            assert [await view(2000), await view(0), await view(2000), await view(0)] == [(2000, "x" * 2000), None] * 2
            assert ran == [2000, 0]

    async def test_whoever_asks_at_once_shares_one_load(self) -> None:
        """Within a process, and between two."""
        async with self.new_cache() as here, self.new_cache() as there:
            views, source = _views(here, there if self.shared else here)
            assert await asyncio.gather(*[view(1) for view in views for _ in range(20)]) == [1] * 40
            assert source.loads == 1

    async def test_what_is_asked_in_one_moment_is_stored_for_others(self) -> None:
        """Many keys at once, wherever a server keeps them: each is loaded once, and found by whoever asks next."""
        async with self.new_cache() as here, self.new_cache() as there:
            (mine, theirs), source = _views(here, there if self.shared else here)
            assert await asyncio.gather(*[mine(n) for n in range(30)]) == [1] * 30
            assert await asyncio.gather(*[theirs(n) for n in range(30)]) == [1] * 30
            assert source.loads == 30

    async def test_every_way_to_invalidate_reaches_what_it_names_and_nothing_else(self) -> None:
        """Key, tag, prefix, pattern; user 12 is not user 1; then everything."""
        async with self.new_cache() as cache:
            (view,), source = _views(cache)
            ways: tuple[dict[str, Any], ...] = (
                {"keys": [view.key(1)]},
                {"tags": [f"{source.word}-tag:1"]},
                {"prefix": f"{source.word}:1:"},
                {"pattern": f"{source.word}:1:*"},
            )
            assert [await view(1), await view(12)] == [1, 1]
            for version, way in enumerate(ways, start=2):
                source.version = version
                await cache.invalidate(**way)
                assert [await view(1), await view(12)] == [version, 1]
            source.version = 99
            await cache.clear()
            assert [await view(1), await view(12)] == [99, 99]

    async def test_a_load_that_an_invalidation_overtook_is_not_served_to_later_readers(self) -> None:
        """The mistake that most caches make: the old value, stored after the invalidation."""
        async with self.new_cache() as cache:
            (view,), source = _views(cache)
            source.gate.clear()
            old = asyncio.create_task(view(1))
            await _until(lambda: source.loads == 1)
            source.version = 2
            await view.invalidate(1)
            source.gate.set()
            assert await view(1) == 2
            await old
            assert await view(1) == 2

    async def test_an_invalidation_holds_in_other_processes(self) -> None:
        """At once for whoever brings its clock, soon for everybody."""
        if not self.shared:
            return
        async with self.new_cache() as here, self.new_cache() as there:
            (mine, theirs), source = _views(here, there)
            assert [await mine(1), await theirs(1)] == [1, 1]
            source.version = 2
            assert await theirs(1, fresh_after=await mine.invalidate(1)) == 2
            source.version = 3
            await mine.invalidate(1)
            end = asyncio.get_running_loop().time() + DEADLINE_S
            while await theirs(1) != 3:
                assert asyncio.get_running_loop().time() < end, "the invalidation was never heard"
                await asyncio.sleep(0.005)

    async def test_who_waits_for_another_processes_load_is_woken(self) -> None:
        """By its fill, not by the end of a lease: one load, and the value as soon as it is there."""
        if not self.shared:
            return
        async with self.new_cache() as here, self.new_cache() as there:
            (mine, theirs), source = _views(here, there)
            source.gate.clear()
            loading = asyncio.create_task(mine(1))
            await _until(lambda: source.loads == 1)
            waiting = asyncio.create_task(theirs(1))
            await _until(lambda: theirs.stats.waits > 0)
            source.gate.set()
            assert [await loading, await waiting] == [1, 1]
            assert source.loads == 1

    async def test_a_load_that_fails_is_nobody_elses_failure(self) -> None:
        """Its callers get the error; the next one loads."""
        async with self.new_cache() as cache:
            (view,), source = _views(cache)
            source.error = ValueError("no database")
            errors = await asyncio.gather(*[view(1) for _ in range(5)], return_exceptions=True)
            assert [str(error) for error in errors] == ["no database"] * 5
            source.error = None
            assert await view(1) == 1

    async def test_values_end_with_their_ttl(self) -> None:
        """In memory and on the server."""
        version = 0
        async with self.new_cache() as cache:

            @cache.view(f"{_word()}:{{n}}", ttl="50ms")
            async def view(n: int) -> int:
                nonlocal version
                version += 1
                return version

            assert await view(1) == 1
            end = asyncio.get_running_loop().time() + DEADLINE_S
            while await view(1) == 1:
                assert asyncio.get_running_loop().time() < end, "it never ended"
                await asyncio.sleep(0.005)

    async def test_plain_values_are_stored_found_and_deleted(self) -> None:
        """One by one and many at once."""
        async with self.new_cache() as cache:
            word = _word()
            await cache.set(f"{word}:1", {"a": [1, None]}, "1m")
            await cache.set(f"{word}:2", b"\x00", "1m")
            assert await cache.get_many([f"{word}:{n}" for n in (1, 2, 3)]) == {
                f"{word}:1": {"a": [1, None]},
                f"{word}:2": b"\x00",
            }
            await cache.delete(f"{word}:1")
            assert await cache.get(f"{word}:1", "gone") == "gone"


class _Source:
    """A database of one number."""

    def __init__(self) -> None:
        self.word = _word()
        self.version = 1
        self.loads = 0
        self.error: Exception | None = None
        self.gate = asyncio.Event()
        self.gate.set()

    async def load(self, n: int) -> int:
        self.loads += 1
        version = self.version
        await asyncio.sleep(0)
        await self.gate.wait()
        if self.error is not None:
            raise self.error
        return version


def _views(*caches: Cache) -> tuple[list[Any], _Source]:
    """Return one view on each of several caches, and what they read."""
    source = _Source()
    declared: dict[int, Any] = {}
    for cache in caches:
        if id(cache) not in declared:
            template = f"{source.word}:{{n}}:value"
            declared[id(cache)] = cache.view(template, ttl="1m", tags=[source.word + "-tag:{n}"])(source.load)
    return [declared[id(cache)] for cache in caches], source


def _word() -> str:
    return f"c{secrets.token_hex(6)}"


async def _until(fact: Callable[[], bool]) -> None:
    end = asyncio.get_running_loop().time() + DEADLINE_S
    while not fact():
        assert asyncio.get_running_loop().time() < end, "it never happened"
        await asyncio.sleep(0.001)
