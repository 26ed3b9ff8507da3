"""Locks while the server is away, hangs, restarts, or answers what nobody hears; and without any server."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Iterator

import pytest

from cachebus import Cache
from cachebus.errors import AlreadyHeld, LockLost, LockNotAcquired, LockUnavailable, StaleToken
from cachebus.locks.local_backend import LockLines
from cachebus.locks.locks import Locks
from cachebus.redis.client import Client
from cachebus.testing import FaultProxy
from cachebus.testing.server import PrivateServer
from tests.support.waiting import until


@pytest.fixture
def own() -> Iterator[PrivateServer]:
    """A server that this test may kill; it keeps an append-only file."""
    with PrivateServer.start() as private:
        yield private


@pytest.fixture
async def own_link(own: PrivateServer) -> AsyncIterator[Client]:
    """A client to it."""
    async with Client(own.url) as client:
        yield client


async def test_an_outage_is_never_a_lock(own: PrivateServer, own_link: Client) -> None:
    """Away, asking raises at once, whether one would wait or not; so do the other questions."""
    locks = Locks(own_link)
    own.kill()
    await until(lambda: not own_link.store.up)
    for blocking_timeout in (None, 0):
        with pytest.raises(LockUnavailable, match="cannot be asked"):
            async with locks.lock("a", blocking_timeout=blocking_timeout):
                pytest.fail("pretended")
    with pytest.raises(LockUnavailable):
        await locks.lock("a", blocking_timeout="50ms").acquire()
    with pytest.raises(LockUnavailable):
        await locks.holder("a")
    with pytest.raises(LockUnavailable):
        await locks.guarded_set("v", 1, 1)
    await locks.close()


async def test_with_a_blocking_timeout_one_waits_for_the_server(own: PrivateServer, own_link: Client) -> None:
    """An outage shorter than that is only a wait."""
    locks = Locks(own_link)
    own.kill()
    await until(lambda: not own_link.store.up)
    waiting = asyncio.create_task(locks.lock("a", blocking_timeout="30s").acquire())
    await asyncio.sleep(0)
    own.restart()
    await (await waiting).release()


async def test_a_held_lock_outlives_a_restart_of_the_server(own: PrivateServer, own_link: Client) -> None:
    """With its file, the server still knows who has the lock; renewal goes on, and others still wait their turn."""
    locks, others = Locks(own_link), Locks(own_link)
    async with locks.lock("a", "20s") as held:
        waiting = asyncio.create_task(others.lock("a", blocking_timeout="60s").acquire())
        await until(lambda: others.counts["waited"])
        await asyncio.sleep(1.1)  # the file is flushed once a second
        own.kill()
        await until(lambda: not own_link.store.up)
        own.restart()
        await own_link.store.ready()
        held.doubt()
        await until(lambda: locks.counts["renewed"] > 0)
        held.ensure()
        assert not waiting.done()
    second = await waiting
    assert second.token > held.token
    await second.release()


async def test_a_server_that_comes_back_empty_has_lost_the_lock(own: PrivateServer, own_link: Client) -> None:
    """The next renewal learns it and ends the body; nothing is quietly taken again."""
    locks = Locks(own_link)
    with pytest.raises(LockLost):  # noqa: PT012 - what the body meets is the point
        async with locks.lock("a", "3s"):
            own.kill()
            await until(lambda: not own_link.store.up)
            own.restart(empty=True)
            await asyncio.Event().wait()
    assert await locks.holder("a") is None


async def test_a_holder_without_a_server_is_lost_when_its_lease_ends(own: PrivateServer, own_link: Client) -> None:
    """Nobody can tell it, so it counts for itself, from when it last asked."""
    locks = Locks(own_link)
    with pytest.raises(LockLost, match="lease ended"):  # noqa: PT012 - what the body meets is the point
        async with locks.lock("a", "600ms") as held:
            own.kill()
            await until(lambda: held.remaining == 0)
            assert held.lost
            await asyncio.Event().wait()
    await locks.close()


async def test_a_release_in_an_outage_is_made_up_for(own: PrivateServer, own_link: Client) -> None:
    """The body ran within its lease, so nothing is raised; when the server is back, the lock is free at once."""
    locks = Locks(own_link)
    async with locks.lock("a", "1h"):
        await asyncio.sleep(1.1)  # the file is flushed once a second
        own.kill()
        await until(lambda: not own_link.store.up)
    own.restart()
    async with asyncio.timeout(30):
        await own_link.store.ready()
        async with Locks(own_link).lock("a"):
            pass
    await locks.close()


async def test_a_lost_reply_does_not_lock_out_oneself(server: PrivateServer, proxy: FaultProxy) -> None:
    """The server gave the lock, and the answer was lost: trying again with the same claim has it at once."""
    async with Client(proxy.url, namespace="lost-reply") as client:
        locks = Locks(client)
        async with locks.lock("warm"):  # the server knows the scripts
            pass
        for number in range(3):
            proxy.drop_replies = True
            taking = asyncio.create_task(locks.lock(f"a{number}", "1h", "30s").acquire())
            await until(lambda n=number: server.ask("EXISTS", f"lost-reply:lock:{{a{n}}}") == 1)
            proxy.drop_replies = False
            proxy.cut()
            held = await taking
            assert server.ask("HGET", f"lost-reply:lock:{{a{number}}}", "claim") == held.claim.encode()
            await held.release()
            assert await locks.holder(f"a{number}") is None


async def test_what_a_failed_try_may_have_taken_is_given_back(server: PrivateServer, proxy: FaultProxy) -> None:
    """The caller was told that nobody knows; if the lock was taken after all, it does not stay so."""
    async with Client(proxy.url, namespace="failed-try") as client:
        locks = Locks(client)
        async with locks.lock("warm"):  # the server knows the scripts
            pass
        proxy.drop_replies = True
        with pytest.raises(LockUnavailable):
            await locks.lock("a", "1h").acquire()
        proxy.drop_replies = False
        proxy.cut()
        await until(lambda: server.ask("HEXISTS", "failed-try:lock:{a}", "claim") == 0)
        await locks.close()


async def test_a_slow_network_keeps_the_lock(server: PrivateServer, proxy: FaultProxy) -> None:
    """Replies that take 150 ms: renewal still comes in time, and what is left is counted from the question."""
    async with Client(proxy.url, namespace="slow") as client:
        locks = Locks(client)
        proxy.delay_s = 0.15
        async with locks.lock("a", "900ms", "20s") as held:
            assert held.remaining < 0.75
            questions: set[int] = set()
            await until(lambda: questions.add(len(locks._tasks)) or locks.counts["renewed"] >= 5)
            held.ensure()
            assert questions == {0, 1}  # one at a time
        assert locks.counts["lost"] == 0


async def test_a_refused_write_is_an_outage_and_not_a_lock(own: PrivateServer, own_link: Client) -> None:
    """Out of memory the server takes no lock, and says so; what is held is still given back."""
    locks = Locks(own_link)
    held = await locks.lock("a").acquire()
    own.ask("CONFIG", "SET", "maxmemory", "1")
    with pytest.raises(LockUnavailable):
        await locks.lock("b").acquire()
    await held.release()
    own.ask("CONFIG", "SET", "maxmemory", "0")
    assert await locks.holder("a") is None
    await locks.close()


async def test_a_server_that_forgot_its_scripts_is_told_again(server: PrivateServer, client: Client) -> None:
    """SCRIPT FLUSH between taking and giving back is not noticed."""
    async with Locks(client).lock("a"):
        server.ask("SCRIPT", "FLUSH")
    server.ask("SCRIPT", "FLUSH")
    async with Locks(client).lock("a"):
        pass


async def test_without_redis_the_tasks_of_a_process_exclude_each_other() -> None:
    """Same calls, same order, same errors, one process."""
    cache = Cache.memory()
    locks = Locks(cache)
    served: list[int] = []

    async def body(number: int) -> None:
        async with locks.lock("a"):
            served.append(number)

    async with locks.lock("a", "300ms") as held:
        tasks = [asyncio.create_task(body(number)) for number in range(5)]
        await until(lambda: locks.counts["waited"] == 5)
        seen = await locks.holder("a")
        assert seen is not None
        assert (seen.token, seen.waiting) == (held.token, 5)
        with pytest.raises(LockNotAcquired):
            await asyncio.create_task(locks.lock("a", blocking_timeout="20ms").acquire())
        with pytest.raises(AlreadyHeld):
            await locks.lock("a").acquire()
        await until(lambda: locks.counts["renewed"] >= 3)
    await asyncio.gather(*tasks)
    assert served == [0, 1, 2, 3, 4]
    assert await locks.holder("a") is None
    await locks.guarded_set("v", [1], 5)
    with pytest.raises(StaleToken):
        await locks.guarded_set("v", [2], 4)
    assert await locks.guarded_get("v") == [1]
    strict = await locks.lock("a", "50ms", renew=False).acquire()
    next_one = await asyncio.create_task(locks.lock("a", blocking_timeout="20s").acquire())
    assert next_one.token > strict.token
    with pytest.raises(LockLost):
        await strict.release()
    await next_one.release()
    assert not cache.in_process.of(LockLines)._lines
    await locks.close()
    await cache.close()
