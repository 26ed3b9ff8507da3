"""Waiting for a lock: in order, without a command, and without leaving anything behind."""

from __future__ import annotations

import asyncio

import pytest

from cachebus.errors import LockNotAcquired
from cachebus.locks import waiting as line_of_a_lock
from cachebus.locks.locks import Locks
from cachebus.locks.terms import Wake
from cachebus.redis.client import Client
from cachebus.testing.server import PrivateServer
from tests.support.server_watch import WatchedServer
from tests.support.waiting import until


@pytest.fixture
def watched(client: Client) -> WatchedServer:
    """What the locks of this test send."""
    client.store = WatchedServer(client.store)  # type: ignore[assignment] # passes everything on
    return client.store  # type: ignore[return-value] # as above


@pytest.fixture
def locks(watched: WatchedServer, client: Client) -> Locks:
    """The locks of one process."""
    return Locks(client)


def line(server: PrivateServer, client: Client) -> int:
    """Return how many stand in line for the lock `a`."""
    return int(server.ask("ZCARD", client.names.spread("lock-line", "a")))


async def test_fifty_are_served_in_the_order_they_came(server: PrivateServer, client: Client, locks: Locks) -> None:
    """Tasks of five processes get the lock one after the other, first come first served."""
    processes = [Locks(client) for _ in range(5)]
    served: list[int] = []

    async def body(number: int) -> None:
        async with processes[number % 5].lock("a"):
            served.append(number)

    held = await locks.lock("a").acquire()
    tasks = []
    for number in range(50):
        tasks.append(asyncio.create_task(body(number)))
        await until(lambda number=number: line(server, client) == number + 1)
    await held.release()
    await asyncio.gather(*tasks)
    assert served == list(range(50))
    assert line(server, client) == 0


async def test_nobody_overtakes_those_who_wait(client: Client) -> None:
    """A lock whose holder has ended goes to the first in line, whoever asks first."""
    keys = (client.names.spread("lock", "a"), client.names.spread("lock-line", "a"))

    async def take(claim: str, lease_ms: int, place: bytes = b"") -> list[object]:
        return list(await client.store.run("locks/take", keys, (claim, claim, lease_ms, "wait", place, "wakes")))

    assert (await take("p/1", 50))[0] == 1
    _, _, owner, place, before = await take("q/2", 5000)
    assert (owner, before) == (b"p/1", 0)
    await until(lambda: _free(client, keys))
    assert (await take("r/3", 5000))[:1] == [0]
    assert (await take("q/2", 5000, place))[0] == 1  # type: ignore[arg-type] # the place it was told


async def _free(client: Client, keys: tuple[str, str]) -> bool:
    return await client.store.run("locks/look", keys) is None


async def test_whoever_waits_sends_nothing(server: PrivateServer, client: Client, watched: WatchedServer) -> None:
    """Through many renewals ten waiters send no command: two each to stand in line, one to take, one to give back."""
    locks, others = Locks(client), Locks(client)
    held = await locks.lock("a", "900ms").acquire()
    tasks = [asyncio.create_task(others.lock("a", "30s").acquire()) for _ in range(10)]
    await until(lambda: others.counts["waited"] == 10)
    asked = len([verb for verb, _ in watched.commands if verb == "locks/take"])
    assert asked <= 1 + 2 * 10  # a second look once they hear what is said
    watched.commands.clear()
    await until(lambda: locks.counts["renewed"] >= 8)
    assert {verb for verb, _ in watched.commands} == {"locks/renew"}
    watched.commands.clear()
    await held.release()
    for task in tasks:
        await (await task).release()
    assert len([verb for verb, _ in watched.commands if verb == "locks/take"]) == 10
    assert len([verb for verb, _ in watched.commands if verb == "locks/release"]) == 11


async def test_the_servers_own_count_agrees(server: PrivateServer, client: Client) -> None:
    """INFO commandstats: a waiter costs four commands from anybody, subscription included, however long it waits."""
    locks, others = Locks(client), Locks(client)

    def calls() -> int:
        stats = server.ask("INFO", "commandstats").decode().splitlines()
        sent = [row for row in stats if row.startswith(("cmdstat_eval", "cmdstat_subscribe"))]
        return sum(int(row.partition("calls=")[2].partition(",")[0]) for row in sent)

    warm = await locks.lock("a", "30s").acquire()
    first = asyncio.create_task(others.lock("a").acquire())
    await until(lambda: others.counts["waited"])
    await warm.release()
    await (await first).release()
    held = await locks.lock("a", "30s").acquire()
    before = calls()
    tasks = [asyncio.create_task(others.lock("a").acquire()) for _ in range(20)]
    await until(lambda: others.counts["waited"] == 21)
    await held.release()
    for task in tasks:
        await (await task).release()
    assert calls() - before <= 4 * 20


@pytest.mark.parametrize("offered", [False, True])
async def test_who_is_cancelled_while_waiting_leaves_no_ghost(
    server: PrivateServer, client: Client, locks: Locks, *, offered: bool
) -> None:
    """A cancelled waiter is out of line, also when the lock was just offered to it; the next one has it at once."""
    others = Locks(client)
    held = await locks.lock("a").acquire()
    ghost = asyncio.create_task(others.lock("a").acquire())
    await until(lambda: line(server, client) == 1)
    next_one = asyncio.create_task(others.lock("a").acquire())
    await until(lambda: line(server, client) == 2)

    def heard_and_cancelled(wake: Wake) -> None:
        others._heard(wake)
        ghost.cancel()

    if offered:
        others._part.made.hear = heard_and_cancelled  # type: ignore[union-attr] # in the turn in which it hears the offer
        await held.release()
    else:
        ghost.cancel()
    with pytest.raises(asyncio.CancelledError):
        await ghost
    if not offered:
        assert line(server, client) == 1
        await held.release()
    await (await asyncio.wait_for(next_one, 20)).release()
    assert line(server, client) == 0
    assert await locks.holder("a") is None
    assert not others._lines


async def test_a_cancellation_at_any_await_leaves_nothing(server: PrivateServer, client: Client, locks: Locks) -> None:
    """Taking a lock is cancelled after 0, 1, 2 … steps of the loop: never held by nobody, never a place in line."""
    for steps in range(12):
        for contended in (False, True):
            held = await locks.lock("a").acquire() if contended else None
            task = asyncio.create_task(Locks(client).lock("a").acquire())
            for _ in range(steps):
                await asyncio.sleep(0.0002 * (steps % 3))
            task.cancel()
            outcome = (await asyncio.gather(task, return_exceptions=True))[0]
            if not isinstance(outcome, BaseException):
                await outcome.release()
            if held is not None:
                await held.release()
            await until(lambda: line(server, client) == 0)
            async with locks.lock("a", blocking_timeout="20s"):
                pass


async def test_who_gives_up_waiting_leaves_the_line(server: PrivateServer, client: Client, locks: Locks) -> None:
    """After `blocking_timeout` it raises, and its place is gone."""
    async with locks.lock("a"):
        with pytest.raises(LockNotAcquired, match=r"within 0\.05 s"):
            await Locks(client).lock("a", blocking_timeout="50ms").acquire()
        assert line(server, client) == 0


async def test_what_is_said_before_one_listens_is_not_missed(client: Client, locks: Locks) -> None:
    """A lock that is given back between the first answer and the subscription is had at once, not a lease later."""
    others = Locks(client)
    held = await locks.lock("a").acquire()
    subscribe = client.subscriptions.subscribe

    async def slow(*args: object, **options: object) -> object:
        await held.release()
        await asyncio.sleep(0.05)
        return await subscribe(*args, **options)  # type: ignore[arg-type] # passed on

    client.subscriptions.subscribe = slow  # type: ignore[assignment,method-assign] # as slow as a network may be
    await (await asyncio.wait_for(others.lock("a").acquire(), 10)).release()


async def test_an_offer_that_nobody_waits_for_is_handed_on_at_once(
    server: PrivateServer, client: Client, watched: WatchedServer, locks: Locks
) -> None:
    """A place in line that an outage left behind costs a living process' neighbours no time: it declines."""
    others, third = Locks(client), Locks(client)
    held = await locks.lock("a").acquire()
    keys = (client.names.spread("lock", "a"), client.names.spread("lock-line", "a"))
    await (await others._part.get()).listen()
    await client.store.run("locks/take", keys, (f"{others._process}gone", "them", 1000, "wait", "", "wakes"))
    waiting = asyncio.create_task(third.lock("a").acquire())
    await until(lambda: line(server, client) == 2)
    await held.release()
    next_one = await asyncio.wait_for(waiting, 20)
    assert [verb for verb, _ in watched.commands].count("locks/release") == 2
    await next_one.release()
    assert line(server, client) == 0


@pytest.mark.parametrize("lease", ["500ms", "10m"])
async def test_a_lost_wake_is_made_up_for_by_looking(
    server: PrivateServer, client: Client, locks: Locks, monkeypatch: pytest.MonkeyPatch, lease: str
) -> None:
    """Who did not hear that the lock is its own looks when the holder's claim ends by itself, or after some seconds."""
    monkeypatch.setattr(line_of_a_lock, "LOST_S", 0.6)
    others = Locks(client)
    held = await locks.lock("a", lease).acquire()
    waiting = asyncio.create_task(others.lock("a").acquire())
    await until(lambda: others.counts["waited"])
    others._part.made.hear = lambda _: None  # type: ignore[union-attr] # deaf from now on
    await held.release()
    await (await asyncio.wait_for(waiting, 20)).release()


async def test_who_does_not_answer_loses_its_turn_and_not_its_place(
    server: PrivateServer, client: Client, locks: Locks
) -> None:
    """A process that stands still when its turn comes is passed over; when it hears that, it waits on, in front."""
    slow, quick = Locks(client), Locks(client)
    held = await locks.lock("a").acquire()
    first = asyncio.create_task(slow.lock("a").acquire())
    await until(lambda: slow.counts["waited"])
    second = asyncio.create_task(quick.lock("a").acquire())
    await until(lambda: quick.counts["waited"])
    third = asyncio.create_task(quick.lock("a").acquire())
    await until(lambda: line(server, client) == 3)
    hear, kept = slow._heard, []
    slow._part.made.hear = kept.append  # type: ignore[union-attr] # stands still
    await held.release()
    passed = await asyncio.wait_for(second, 20)
    slow._part.made.hear = hear  # type: ignore[union-attr] # goes on, and reads what has come meanwhile
    for wake in kept:
        hear(wake)
    await until(lambda: line(server, client) == 2)  # it is back, beside the third
    assert not first.done()
    await passed.release()
    again = await asyncio.wait_for(first, 20)
    assert not third.done()
    await again.release()
    await (await asyncio.wait_for(third, 20)).release()
