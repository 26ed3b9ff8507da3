"""`distributed_lock` in threads and event loops: one holder, a body that ends when the lock is lost, nothing stuck."""

from __future__ import annotations

import asyncio
import threading
from typing import Any

import pytest

from cachebus.errors import AlreadyHeld, LockLost, LockNotAcquired
from cachebus.testing.server import PrivateServer
from tests.support.waiting import until


def held_key(server: PrivateServer, namespace: str, name: str) -> bytes:
    """Return the key a lock is held by."""
    (key,) = [key for key in server.ask("KEYS", f"{namespace}:lock:*") if name in key.decode()]
    return bytes(key)


async def test_threads_and_tasks_exclude_each_other(caching: Any) -> None:
    """Eight threads and eight tasks, twenty times each: never two inside."""
    inside = most = entries = 0

    def enter() -> None:
        nonlocal inside, most, entries
        inside, entries = inside + 1, entries + 1
        most = max(most, inside)

    def leave() -> None:
        nonlocal inside
        inside -= 1

    def thread() -> None:
        for _ in range(20):
            with caching.distributed_lock("import:user:123", timeout=30):
                enter()
                leave()

    async def task() -> None:
        for _ in range(20):
            async with caching.distributed_lock("import:user:123", timeout=30):
                enter()
                await asyncio.sleep(0)
                leave()

    await asyncio.gather(*[asyncio.to_thread(thread) for _ in range(8)], *[task() for _ in range(8)])
    assert (entries, most) == (320, 1)


async def test_an_async_body_ends_when_the_lock_is_lost(caching: Any, server: PrivateServer, namespace: str) -> None:
    """The body is cancelled, LockLost says why, and the task itself goes on as if never cancelled."""

    async def body() -> None:
        async with caching.distributed_lock("lost", timeout=2):
            server.ask("DEL", held_key(server, namespace, "lost"))
            await asyncio.Event().wait()

    with pytest.raises(LockLost):
        await body()
    task = asyncio.current_task()
    assert task is not None
    assert task.cancelling() == 0
    async with caching.distributed_lock("lost", timeout=2) as held:
        held.ensure()


async def test_a_body_that_raises_is_not_overruled(caching: Any, server: PrivateServer, namespace: str) -> None:
    """Its own error is raised; that the lock was lost too stands in a note. A TimeoutError stays one."""

    async def body(error: Exception) -> None:
        async with caching.distributed_lock("own", timeout=30, renew=False):
            server.ask("DEL", held_key(server, namespace, "own"))
            raise error

    for error in (TimeoutError("mine"), LookupError("mine")):
        with pytest.raises(type(error), match="mine") as raised:
            await body(error)
        assert "own" in raised.value.__notes__[0]


async def test_a_caller_that_gives_up_leaves_nothing_behind(caching: Any) -> None:
    """Cancelled in the queue or in the body: the next one has the lock."""
    begun = asyncio.Event()

    async def body() -> None:
        async with caching.distributed_lock("given-up", timeout=30):
            begun.set()
            await asyncio.Event().wait()

    holder = asyncio.create_task(body())
    await begun.wait()
    waiter = asyncio.create_task(body())
    await asyncio.sleep(0)
    waiter.cancel()
    holder.cancel()
    assert [type(end) for end in await asyncio.gather(holder, waiter, return_exceptions=True)] == [
        asyncio.CancelledError
    ] * 2
    async with asyncio.timeout(20), caching.distributed_lock("given-up", timeout=30):
        pass


async def test_with_in_an_event_loop_does_not_wait_for_ever(caching: Any) -> None:
    """It blocks the loop, and the holder may be a task of it: it waits as long as the lease, or as it is told."""
    async with caching.distributed_lock("blocked", timeout=30):
        with pytest.raises(LockNotAcquired), caching.distributed_lock("blocked", timeout=0.3):
            pass
        with pytest.raises(LockNotAcquired), caching.distributed_lock("blocked", timeout=30, blocking_timeout=0.01):
            pass
    with caching.distributed_lock("blocked", timeout=30):  # noqa: SIM117 - one inside the other is the point
        with pytest.raises(AlreadyHeld), caching.distributed_lock("blocked", timeout=30):
            pass


def test_a_thread_learns_that_it_lost_the_lock(caching: Any, server: PrivateServer, namespace: str) -> None:
    """`lost` and `ensure()` say so while it works, LockLost when it ends."""
    lock = caching.distributed_lock("thread", timeout=1)
    held = lock.__enter__()
    held.ensure()
    server.ask("DEL", held_key(server, namespace, "thread"))
    ticks = threading.Event()
    while not held.lost:
        ticks.wait(0.01)
    with pytest.raises(LockLost):
        held.ensure()
    with pytest.raises(LockLost):
        lock.__exit__(None, None, None)


async def test_a_lock_is_kept_beyond_its_timeout(caching: Any, server: PrivateServer, namespace: str) -> None:
    """Renewed while its holder lives, from the cache's thread, though the caller's loop does something else."""
    async with caching.distributed_lock("kept", timeout=1.5) as held:
        left = [held.remaining]

        def is_renewed() -> bool:
            left.append(held.remaining)
            return left[-1] > left[-2]

        for _ in range(4):  # at every third of the lease
            await until(is_renewed, "a renewal")
        assert server.ask("EXISTS", held_key(server, namespace, "kept")) == 1
