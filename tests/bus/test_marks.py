"""Marks say what an owner of a shard was running when it died, and only the marks of the dead count."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable
from typing import Any

import pytest

from cachebus.bus.dead_letters import DeadLetters
from cachebus.bus.effects import Retry
from cachebus.bus.engine.consumer import Consumer
from cachebus.bus.engine.shard_lease import Shard
from cachebus.bus.handlers import on
from cachebus.redis.client import Client
from cachebus.testing.server import PrivateServer
from tests.support.serving import Held, Number, add, data, echo, has, number, running

Until = Callable[..., Any]


async def test_a_lost_lease_is_no_death(client: Client) -> None:
    """Owners whose lease ran out, but who live, take their marks back: a flapping server condemns nobody."""
    loop = asyncio.get_running_loop()
    never: asyncio.Future[None] = loop.create_future()
    await add(client, "numbers", number(1))
    shards = [Shard(client, 0, worker=name, lease_ms=60_000) for name in "abc"]
    lease = client.names.bus("lease", "0")
    over: asyncio.Future[None] = loop.create_future()
    over.set_result(None)
    deaths = []
    for _ in range(3):
        for shard in shards:
            await client.store.call("DEL", lease)
            assert await shard.take(never)
            deaths.append(await shard.mark("1-1"))
            for other in shards:
                if other is not shard:
                    assert not await other.take(over)  # it looks for the shard again, as whoever lives does
    assert max(deaths) == 1
    for shard in shards:
        await shard.release()


async def test_marks_of_the_dead_stay(client: Client) -> None:
    """Who is not heard of again leaves its mark, and the next ones count it."""
    never: asyncio.Future[None] = asyncio.get_running_loop().create_future()
    deaths = []
    for name in "abc":
        shard = Shard(client, 0, worker=name, lease_ms=60_000)
        await client.store.call("DEL", client.names.bus("lease", "0"))
        assert await shard.take(never)
        assert bool(shard.careful_until) == (name != "a")
        deaths.append(await shard.mark("1-1"))
        shard.lost()
    assert deaths == [0, 1, 2]


async def test_an_owner_that_lives_takes_its_marks_back_in_the_middle_of_a_handler(
    client: Client, until: Until
) -> None:
    """Its lease was lost, its handler goes on: its next renewal is refused, and says that it lives."""
    (position,) = await add(client, "numbers", number(1))
    await mark_and_go(client, "gone", position)
    slow = Held("slow")
    loser = Consumer(client, [slow.handler], worker="loser", lease="2s")  # kept, however slow this machine is
    async with running(loser):
        await slow.entered.wait()
        assert await tokens(client, position) == ["gone", "loser"]
        await client.store.call("SET", client.names.bus("lease", "0"), "winner/1")
        await until(lambda: marked_by(client, position, ["gone"]))
        assert not slow.leave.is_set()


async def test_marks_are_taken_back_from_a_handler_that_computes(
    server: PrivateServer, client: Client, until: Until
) -> None:
    """The loop is blocked and the lease was lost: the thread that would renew it says that the owner lives."""
    (position,) = await add(client, "numbers", number(1))
    await mark_and_go(client, "gone", position)
    lease, marks = client.names.bus("lease", "0"), client.names.bus("marks", "0")
    left: list[bytes] = []

    @on("numbers", Number)
    def computes(_: Number) -> None:
        server.ask("SET", lease, "winner/1")
        end = time.monotonic() + 20.0
        while b"computes" in server.ask("HGET", marks, position) and time.monotonic() < end:
            sum(range(1000))
        left.append(server.ask("HGET", marks, position))

    consumer = Consumer(client, [computes], worker="computes", lease="300ms")
    async with running(consumer):
        await until(lambda: left, deadline_s=30.0)
    assert [token.partition(b"/")[0] for token in left[0].split()] == [b"gone"]


@pytest.mark.parametrize("where", ["handler", "retry"])
async def test_a_verdict_waits_for_owners_that_live_to_take_their_marks_back(
    client: Client, until: Until, where: str
) -> None:
    """One owner died, another was only cut off, and comes back after its successor took over: no poison."""
    (name,) = await add(client, "numbers", number(1))
    if where == "retry":
        name = await put_off(client, until)
    await mark_and_go(client, "gone", name)
    cut_off = await mark_and_go(client, "cut-off", name)
    successor = Consumer(client, [echo], worker="successor")
    async with running(successor):
        await until(lambda: marked_by(client, name, ["gone", "cut-off", "successor"]))
        over: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        over.set_result(None)
        assert not await cut_off.take(over)
        await until(lambda: has(client, [1]))
    assert await DeadLetters(client).count() == 0


async def test_a_verdict_waits_for_nobody_after_many_deaths(
    client: Client, until: Until, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Owners that were killed while they waited to pass it: the next one passes it at once, and goes on."""
    monkeypatch.setattr(Shard, "pardon_s", 3600.0)
    (name, _) = await add(client, "numbers", number(1), number(2))
    for worker in ("first", "second", "waited", "waited-too"):
        await mark_and_go(client, worker, name)
    async with running(Consumer(client, [echo], worker="successor")):
        await until(lambda: has(client, [2]))
    (letter,) = await DeadLetters(client).list(10)
    assert (letter.kind, letter.payload) == ("poison", number(1))


async def test_what_two_shards_call_alike_is_marked_in_each(client: Client, until: Until) -> None:
    """Both streams took an event in one millisecond, one process held both shards and died: one death, no poison."""
    for n in range(2):
        await client.store.call(
            "XADD", client.names.bus("events", str(n)), "1-1", "channel", "numbers", "payload", number(n)
        )
    for n in range(2):
        await mark_and_go(client, "gone", b"1-1", shard_number=n)
    successors = [Consumer(client, [echo], worker="successor", shard=n) for n in range(2)]
    async with running(*successors):
        await until(lambda: [each.stats.events for each in successors] == [1, 1])
    assert await DeadLetters(client).count() == 0
    assert sorted(await data(client)) == [0, 1]


async def mark_and_go(client: Client, worker: str, name: bytes, *, shard_number: int = 0) -> Shard:
    """Take a shard, mark *name*, and be heard of no more."""
    lease = client.names.bus("lease", str(shard_number))
    await client.store.call("DEL", lease)
    shard = Shard(client, shard_number, worker=worker, lease_ms=60_000)
    assert await shard.take(asyncio.get_running_loop().create_future())
    await shard.mark(name.decode())
    shard.lost()
    await client.store.call("DEL", lease)
    return shard


async def put_off(client: Client, until: Until) -> bytes:
    """Have what is in the stream retried; returns the name it has there."""

    @on("numbers", Number, name="echo")
    def later(_: Number) -> None:
        raise Retry("1ms")

    consumer = Consumer(client, [later])
    async with running(consumer):
        await until(lambda: consumer.stats.events == 1)
        await consumer.drain()
    (name,) = await client.store.call("ZRANGE", client.names.bus("retries", "0"), 0, -1)
    return bytes(name)


async def tokens(client: Client, name: bytes) -> list[str]:
    """Return the workers whose marks *name* has."""
    marks: bytes | None = await client.store.call("HGET", client.names.bus("marks", "0"), name)
    return [token.partition("/")[0] for token in (marks or b"").decode().split()]


async def marked_by(client: Client, name: bytes, workers: list[str]) -> bool:
    """Say whether *name* has the marks of exactly these workers."""
    return await tokens(client, name) == workers


async def test_a_shard_given_back_is_taken_without_care(client: Client, until: Until) -> None:
    """After a clean exit nobody marks anything; after a death the new owner does."""
    never: asyncio.Future[None] = asyncio.get_running_loop().create_future()
    await add(client, "numbers", number(1))
    first = Shard(client, 0, worker="first", lease_ms=60_000)
    assert await first.take(never)
    await first.release()
    second = Shard(client, 0, worker="second", lease_ms=60_000)
    assert await second.take(never)
    assert second.careful_until == ""
    await second.release()


async def test_who_lost_the_shard_and_takes_it_again_is_as_careful_as_before(client: Client) -> None:
    """Its lease ran out meanwhile, nobody else came: what ended the owner before is still to be found."""
    never: asyncio.Future[None] = asyncio.get_running_loop().create_future()
    (name,) = await add(client, "numbers", number(1))
    await mark_and_go(client, "gone", name)
    shard = Shard(client, 0, worker="careful", lease_ms=60_000)
    for _ in range(2):
        await client.store.call("DEL", client.names.bus("lease", "0"))
        assert await shard.take(never)
        assert shard.careful_until == name.decode()
        shard.lost()


async def test_only_what_an_owner_may_have_had_in_hand_is_blamed_for_its_death(client: Client, until: Until) -> None:
    """The first events behind its position, and what was due of the retries; nothing where it marked what it ran."""
    never: asyncio.Future[None] = asyncio.get_running_loop().create_future()
    await add(client, "numbers", number(0))
    retry = await put_off(client, until)
    await client.store.call("ZADD", client.names.bus("retries", "0"), 0, retry)  # it is due
    names = await add(client, "numbers", *map(number, range(20)))
    for worker, blamed in (("first", ""), ("second", "first"), ("third", "first")):
        await client.store.call("DEL", client.names.bus("lease", "0"))
        shard = Shard(client, 0, worker=worker, lease_ms=60_000)
        assert await shard.take(never)
        shard.lost()
        marked = [name for name in (retry, *names) if await tokens(client, name)]
        assert marked == ([retry, *names[:16]] if blamed else [])
        assert [await tokens(client, name) for name in marked] == [[blamed]] * len(marked)
