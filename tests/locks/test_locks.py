"""Locks as their users see them: taken, kept, given back, refused; bad input; what lies in Redis."""

from __future__ import annotations

import asyncio

import pytest

from cachebus.errors import AlreadyHeld, ConfigurationError, LockError, LockLost, LockNotAcquired, StaleToken
from cachebus.locks.locks import Locks
from cachebus.redis.client import Client
from cachebus.redis.keyspace import Names, key_slot
from cachebus.testing.server import PrivateCluster, PrivateServer
from tests.support.fake_server import FakeServer
from tests.support.server_watch import WatchedServer
from tests.support.waiting import until


@pytest.fixture
def server_locks(client: Client) -> Locks:
    """Locks on a server that a test looks at."""
    client.store = WatchedServer(client.store)  # type: ignore[assignment] # passes everything on
    return Locks(client, owner="me")


async def test_a_lock_is_held_by_one_at_a_time(locks: Locks, others: Locks) -> None:
    """Who comes while it is held and will not wait is refused, and told who has it; afterwards it is free."""
    async with locks.lock("import:user:123", timeout=30):
        with pytest.raises(LockNotAcquired, match="held by me"):
            await others.lock("import:user:123", blocking_timeout=0).acquire()
        with pytest.raises(LockNotAcquired, match="held by me"):
            await others.lock("import:user:123", blocking_timeout="20ms").acquire()
        async with others.lock("import:user:124", blocking_timeout=0):
            pass
    async with others.lock("import:user:123", blocking_timeout=0):
        pass


async def test_taking_a_free_lock_is_one_command_and_so_is_giving_it_back(client: Client, server_locks: Locks) -> None:
    """An uncontended lock costs two round trips in all."""
    async with server_locks.lock("a"):
        pass
    assert [verb for verb, _ in client.store.commands] == ["locks/take", "locks/release"]  # type: ignore[attr-defined] # watched


async def test_everyone_sees_who_holds_a_lock(locks: Locks, others: Locks) -> None:
    """Owner, fencing token, time left and the length of the line; None when it is free."""
    assert await others.holder("a") is None
    async with locks.lock("a", "10s") as held:
        waiting = asyncio.create_task(others.lock("a").acquire())
        await until(lambda: others.counts["waited"])
        seen = await others.holder("a")
        assert seen is not None
        assert (seen.owner, seen.token, seen.waiting) == ("me", held.token, 1)
        assert 0 < held.remaining <= seen.remaining <= 10
    next_one = await waiting
    seen = await locks.holder("a")
    assert seen is not None
    assert (seen.owner, seen.token, seen.waiting) == ("them", next_one.token, 0)
    await next_one.release()
    assert await others.holder("a") is None


async def test_a_lock_held_for_longer_than_its_timeout_is_kept(locks: Locks, others: Locks) -> None:
    """Five times as long: the lease is renewed while the holder lives, and nobody who waits gets in before."""
    async with locks.lock("a", "1s") as held:  # not shorter: a busy machine may stand still for a part of a second
        waiting = asyncio.create_task(others.lock("a").acquire())
        await until(lambda: locks.counts["renewed"] >= 16, deadline_s=60.0)  # each third of it
        held.ensure()
        assert not waiting.done()
    await (await waiting).release()
    assert locks.counts["lost"] == 0


async def test_without_renewal_the_lock_ends_after_its_timeout(locks: Locks, others: Locks) -> None:
    """`renew=False` is the strict auto-release: the next has it, the holder is told."""
    held = await locks.lock("a", "300ms", renew=False).acquire()
    async with others.lock("a") as next_one:
        assert next_one.token > held.token
        assert held.lost
        assert held.remaining == 0
        with pytest.raises(LockLost):
            held.ensure()
        with pytest.raises(LockLost):
            await held.release()
        next_one.ensure()


async def test_max_hold_ends_what_renewal_would_keep(locks: Locks, others: Locks) -> None:
    """A body that hangs does not hold the lock for ever: it is cancelled, and the lock passes on."""
    with pytest.raises(LockLost):
        async with locks.lock("a", "900ms", max_hold="2s"):
            await asyncio.Event().wait()
    assert locks.counts["renewed"] > 0
    async with others.lock("a"):
        pass


async def test_only_who_holds_a_lock_gives_it_back(locks: Locks, others: Locks) -> None:
    """Release by another task, by another process, or twice is an error, and the holder keeps the lock."""
    lock = locks.lock("a")
    held = await lock.acquire()
    with pytest.raises(LockError, match="not held by this task"):
        await asyncio.create_task(lock.release())
    with pytest.raises(LockError, match="not held by this task"):
        await others.lock("a").release()
    assert (await locks.holder("a")) is not None
    await lock.release()
    with pytest.raises(LockError, match="not held"):
        await lock.release()
    with pytest.raises(LockError, match="released already"):
        await held.release()


async def test_a_late_release_does_not_free_the_next_holders_lock(locks: Locks, others: Locks) -> None:
    """Whoever overran its lease gives nothing back: the token in Redis is another's."""
    late = await locks.lock("a", "100ms", renew=False).acquire()
    held = await others.lock("a").acquire()
    with pytest.raises(LockLost):
        await late.release()
    seen = await locks.holder("a")
    assert seen is not None
    assert seen.token == held.token
    await held.release()


async def test_one_lock_object_serves_many_tasks(locks: Locks) -> None:
    """Each task has an acquisition of its own: the lock can be a module's constant."""
    lock, inside, most = locks.lock("a"), 0, 0

    async def body() -> None:
        nonlocal inside, most
        async with lock:
            inside += 1
            most = max(most, inside)
            await asyncio.sleep(0)
            inside -= 1

    await asyncio.gather(*[body() for _ in range(20)])
    assert most == 1


async def test_the_holder_is_refused_a_second_time(locks: Locks) -> None:
    """A task that asks for what it holds would wait for itself: an error says so at once, and the lock stays."""
    async with locks.lock("a") as held:
        with pytest.raises(AlreadyHeld, match="wait for itself"):
            await locks.lock("a").acquire()
        held.ensure()
    async with locks.lock("a"):
        pass


async def test_fencing_tokens_go_up_whatever_redis_forgets(server: PrivateServer, server_locks: Locks) -> None:
    """With the lock, its line and its counter gone, the next token is still greater."""
    tokens = []
    for _ in range(5):
        async with server_locks.lock("a") as held:
            tokens.append(held.token)
        server.ask("DEL", *server.ask("KEYS", "*:lock*"))
    assert tokens == sorted(set(tokens))


async def test_a_thousand_stale_writes_are_refused(locks: Locks) -> None:
    """Each with an older token than the last write's: none gets through, the value stands."""
    async with locks.lock("a") as first:
        await locks.guarded_set("report", {"by": "first"}, first.token)
    async with locks.lock("a") as second:
        await locks.guarded_set("report", {"by": "second"}, second.token)
        await locks.guarded_set("report", {"by": "second", "again": True}, second.token)
    stale = [locks.guarded_set("report", {"by": "late"}, token) for token in range(first.token - 998, first.token + 1)]
    stale.append(locks.guarded_set("report", {"by": "late"}, second.token - 1))
    answers = await asyncio.gather(*stale, return_exceptions=True)
    assert len(answers) == 1000
    assert all(isinstance(answer, StaleToken) for answer in answers)
    assert await locks.guarded_get("report") == {"by": "second", "again": True}
    assert await locks.guarded_get("nothing") is None


async def test_many_locks_are_held_together_or_not_at_all(locks: Locks, others: Locks) -> None:
    """If one is not to be had, none is kept."""
    async with locks.many(["b", "a", "b"]) as held:
        assert sorted(held) == ["a", "b"]
        assert all(one.remaining > 0 for one in held.values())
    async with locks.many("acc") as held:
        assert list(held) == ["acc"], "a lone string is one name"
    async with locks.lock("b"):
        with pytest.raises(LockNotAcquired):
            async with others.many(["a", "b", "c"], blocking_timeout="30ms"):
                pytest.fail("b is held")
        assert await others.holder("a") is None


async def test_opposite_orders_never_deadlock(locks: Locks, others: Locks) -> None:
    """Callers that name the same locks in random orders all get through."""
    names = ["a", "b", "c"]

    async def body(of: Locks, turn: int) -> None:
        async with of.many(names[turn % 3 :] + names[: turn % 3] if turn % 2 else names[::-1]):
            await asyncio.sleep(0)

    async with asyncio.timeout(20):
        await asyncio.gather(*[body((locks, others)[turn % 2], turn) for turn in range(40)])
    assert locks.counts["released"] + others.counts["released"] == 120


async def test_nothing_in_redis_is_without_a_ttl(server: PrivateServer, client: Client, server_locks: Locks) -> None:
    """While it is held, waited for, and afterwards, every key ends by itself; a lock's keys share one slot."""
    others = Locks(client, owner="them")

    def ttls() -> dict[str, int]:
        keys = server.ask("KEYS", f"*{client.names.namespace}:*")
        return {key.decode(): server.ask("PTTL", key) for key in keys}

    async with server_locks.lock("a{b}") as held:
        waiting = asyncio.create_task(others.lock("a{b}").acquire())
        await until(lambda: others.counts["waited"])
        await server_locks.guarded_set("v", 1, held.token, ttl="1m")
        both = [name for name in ttls() if ":lock" in name]
        assert len(both) == 2
        assert len({key_slot(name) for name in both}) == 1
        assert all(0 < left < 3_700_000 for left in ttls().values())
    await (await waiting).release()
    assert all(0 < left < 3_700_000 for left in ttls().values())


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"name": ""}, "name"),
        ({"name": 7}, "name"),
        ({"timeout": 0}, "timeout"),
        ({"timeout": -1}, "timeout"),
        ({"timeout": "10ms"}, "too short to be renewed"),
        ({"timeout": "soon"}, "timeout"),
        ({"blocking_timeout": -1}, "blocking_timeout"),
        ({"max_hold": 0}, "max_hold"),
        ({"max_hold": "1m", "renew": False}, "max_hold"),
    ],
)
async def test_what_cannot_work_is_refused_by_name(locks: Locks, arguments: dict[str, object], message: str) -> None:
    """Bad names and times are errors where they are written, not when the lock is needed."""
    with pytest.raises(ConfigurationError, match=message):
        locks.lock(**{"name": "a", **arguments})  # type: ignore[arg-type] # wrong on purpose


@pytest.mark.parametrize("value", [object(), {"a": {1: object()}}, "\ud800"])
async def test_a_guarded_value_is_plain_data(locks: Locks, value: object) -> None:
    """What JSON cannot say is refused with what to give instead, and nothing is written."""
    with pytest.raises(ConfigurationError, match=r"value: it cannot be written as JSON.*plain data"):
        await locks.guarded_set("v", value, 1)
    assert await locks.guarded_get("v") is None


@pytest.mark.parametrize("token", [0, -1, "7", 1.5, True])
async def test_a_guarded_write_takes_a_fencing_token_and_nothing_else(locks: Locks, token: object) -> None:
    """What is no token guards nothing."""
    with pytest.raises(ConfigurationError, match="token"):
        await locks.guarded_set("v", 1, token)  # type: ignore[arg-type] # wrong on purpose


async def test_locks_work_on_a_cluster() -> None:
    """Holders, waiters and guarded writes of many locks, on all nodes; a wake reaches whoever waits, wherever it is."""
    with PrivateCluster.start() as cluster:
        async with Client(cluster.url) as mine, Client(cluster.url) as theirs:
            locks, others = Locks(mine), Locks(theirs)

            async def hand_over(name: str) -> None:
                held = await locks.lock(name).acquire()
                waiting = asyncio.create_task(others.lock(name).acquire())
                await until(lambda: others._lines.get(name) and others._lines[name])
                await locks.guarded_set(name, 1, held.token)
                await held.release()
                second = await asyncio.wait_for(waiting, 20)
                with pytest.raises(StaleToken):
                    await others.guarded_set(name, 2, held.token - 1)
                await second.release()

            for number in range(12):
                await hand_over(f"lock {number}")


async def test_the_scripts_run_on_the_stand_in_server() -> None:
    """Where no real server runs, fakeredis takes its place."""
    fake, names = FakeServer(), Names("fake")
    keys = (names.spread("lock", "a"), names.spread("lock-line", "a"))
    ours, token = await fake.run("locks/take", keys, ("p/1", "me", 1000, "wait", "", "wakes"))
    assert ours
    busy = await fake.run("locks/take", keys, ("q/2", "them", 1000, "wait", "", "wakes"))
    assert (busy[0], busy[2], busy[4]) == (0, b"me", 0)
    assert await fake.run("locks/renew", keys, ("p/1", 1000, "wakes")) == 1
    assert (await fake.run("locks/look", keys))[1] == token
    assert await fake.run("locks/release", keys, ("p/1", "wakes")) == 1
    ours, second = await fake.run("locks/take", keys, ("q/2", "them", 1000, "wait", busy[3], "wakes"))
    assert ours
    assert second > token
    value = (names.spread("guarded", "v"),)
    assert await fake.run("locks/guarded_set", value, (second, b"1", 1000)) == 0
    assert await fake.run("locks/guarded_set", value, (token, b"2", 1000)) == second
