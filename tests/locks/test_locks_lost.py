"""A lock that is lost ends its body, and nobody else's; a cancellation from outside stays one."""

from __future__ import annotations

import asyncio
import time

import pytest

from cachebus.errors import LockLost
from cachebus.locks.locks import Locks
from cachebus.redis.client import Client
from cachebus.testing.server import PrivateServer
from tests.support.waiting import until


@pytest.fixture
def locks(client: Client) -> Locks:
    """The locks of one process."""
    return Locks(client)


def take_away(server: PrivateServer, client: Client, name: str = "a") -> None:
    """Delete a lock, as an operator or an eviction may."""
    assert server.ask("DEL", client.names.spread("lock", name)) == 1


async def test_a_lost_lock_cancels_the_body(server: PrivateServer, client: Client, locks: Locks) -> None:
    """The body ends where it waits, LockLost comes out, and the task goes on unharmed."""
    ended = False
    with pytest.raises(LockLost, match="'a'"):  # noqa: PT012 - what the body meets is the point
        async with locks.lock("a", "300ms"):
            take_away(server, client)
            try:
                await asyncio.Event().wait()
            finally:
                ended = True
    assert ended
    task = asyncio.current_task()
    assert task is not None
    assert task.cancelling() == 0
    await asyncio.sleep(0)
    assert locks.counts["lost"] == 1
    assert not locks._held


async def test_a_cancellation_from_outside_is_not_swallowed(client: Client, locks: Locks) -> None:
    """Cancelled in the body: it comes out as CancelledError, and the lock is given back."""
    entered = asyncio.Event()

    async def body() -> None:
        async with locks.lock("a"):
            entered.set()
            await asyncio.Event().wait()

    task = asyncio.create_task(body())
    await entered.wait()
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert task.cancelled()
    assert await locks.holder("a") is None


async def test_both_cancellations_at_once_are_one_from_outside(
    server: PrivateServer, client: Client, locks: Locks
) -> None:
    """Lost, and cancelled by somebody else before the body noticed: the outside wins."""
    entered = asyncio.Event()

    async def body() -> None:
        async with locks.lock("a", "300ms") as held:
            entered.set()
            held_here.append(held)
            await asyncio.Event().wait()

    held_here: list[object] = []
    task = asyncio.create_task(body())
    await entered.wait()
    held_here[0].lose("the test says so")  # type: ignore[attr-defined] # a Held
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert task.cancelled()


async def test_a_timeout_around_the_lock_is_still_a_timeout(locks: Locks) -> None:
    """`asyncio.timeout` outside, and inside, of the lock works as without it."""
    with pytest.raises(TimeoutError):
        async with asyncio.timeout(0.02), locks.lock("a"):
            await asyncio.Event().wait()
    async with locks.lock("a") as held:
        with pytest.raises(TimeoutError):
            async with asyncio.timeout(0.02):
                await asyncio.Event().wait()
        held.ensure()


async def test_an_error_of_the_body_comes_out_as_it_is(server: PrivateServer, client: Client, locks: Locks) -> None:
    """Its own error, with a note that the lock was lost meanwhile."""
    with pytest.raises(ValueError, match="mine") as caught:  # noqa: PT012 - what the body meets is the point
        async with locks.lock("a"):
            take_away(server, client)
            raise ValueError("mine")
    assert caught.value.__notes__ == ["lock 'a': its lease ended before it was released"]


async def test_a_loss_that_the_body_did_not_notice_is_raised_at_its_end(
    server: PrivateServer, client: Client, locks: Locks
) -> None:
    """Lost before any renewal, body finished: the exit says that it was not alone."""
    with pytest.raises(LockLost):
        async with locks.lock("a"):
            take_away(server, client)


async def test_a_body_that_blocks_the_loop_past_its_lease_is_told(client: Client, locks: Locks) -> None:
    """No timer could run meanwhile: `lost` says it at once, the exit raises, and nothing after it is cancelled."""
    with pytest.raises(LockLost):  # noqa: PT012 - what the body meets is the point
        async with locks.lock("a", "300ms") as held:
            time.sleep(0.4)  # noqa: ASYNC251 - the mistake that this is about
            assert held.lost
    for _ in range(3):
        await asyncio.sleep(0)


async def test_our_cancellation_hits_nobody_after_the_body(locks: Locks) -> None:
    """Lost at the body's last step: it ends with LockLost, and the next await is not cancelled."""
    with pytest.raises(LockLost):
        async with locks.lock("a") as held:
            held.lose("the test says so")
    await asyncio.sleep(0)
    task = asyncio.current_task()
    assert task is not None
    assert task.cancelling() == 0


async def test_a_holder_learns_from_the_wake_that_another_has_it(
    server: PrivateServer, client: Client, locks: Locks
) -> None:
    """Taken over while the lease has long to run: the message of the next holder is enough to look."""
    first, third = Locks(client), Locks(client)
    held = await first.lock("a", "1h").acquire()
    assert await (await first._part.get()).listen() in (True, False)  # as any process does that has waited once
    take_away(server, client)
    second = await locks.lock("a").acquire()
    waiting = asyncio.create_task(third.lock("a").acquire())
    await until(lambda: third.counts["waited"])
    await second.release()
    await until(lambda: held.lost)
    await (await waiting).release()
    with pytest.raises(LockLost):
        await held.release()


async def test_no_renewal_comes_after_the_release(server: PrivateServer, client: Client, locks: Locks) -> None:
    """Released while a renewal is under way, again and again: the lock is free, and no task is left."""
    for _ in range(50):
        held = await locks.lock("a", "300ms").acquire()
        held.doubt()
        await held.release()
        assert await locks.holder("a") is None
    await until(lambda: not locks._tasks)
    assert server.ask("HEXISTS", client.names.spread("lock", "a"), "claim") == 0


async def test_close_gives_back_what_is_held(client: Client, locks: Locks) -> None:
    """Nobody waits a lease for a process that ended in order."""
    await locks.lock("a").acquire()
    await locks.lock("b").acquire()
    await locks.close()
    await locks.close()
    assert await Locks(client).holder("a") is None
    assert await Locks(client).holder("b") is None
