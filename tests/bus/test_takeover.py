"""Workers die, hang, and lose their shard: effects are written once, in order, and a poison is found."""

from __future__ import annotations

import asyncio
import random
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import msgspec
import pytest

from cachebus.bus.dead_letters import DeadLetters
from cachebus.bus.effects import Broadcast, Effects
from cachebus.bus.engine.consumer import Consumer
from cachebus.bus.engine.shard_lease import Shard
from cachebus.bus.handlers import on
from cachebus.bus.publisher import Bus
from cachebus.errors import ServerTimeout
from cachebus.redis import scripts
from cachebus.redis import server as server_module
from cachebus.redis.client import Client
from cachebus.testing.server import PrivateServer
from tests.support.serving import Held, Number, Workers, add, data, echo, has, ledger, number, running

Until = Callable[..., Any]


def fatal(n: int, die: str) -> bytes:
    """Return the payload of an event that ends the process that handles it."""
    return msgspec.json.encode({"n": n, "die": die})


# -- processes that die -------------------------------------------------------------------------------------------


async def test_killed_between_handler_and_commit_the_effects_are_written_once(
    server: PrivateServer, client: Client, until: Until, tmp_path: Path
) -> None:
    """The handler runs again in another worker; the feed has each number once, in order."""
    record = tmp_path / "numbers"
    async with Workers(client, server.url) as workers:
        first = await workers.start(NUMBERS=str(record))
        await until(workers.active)
        await add(client, "numbers", number(0))
        await until(lambda: has(client, [0]))
        await add(client, "numbers", number(1), fatal(2, "before commit"), number(3))
        await workers.died(first)
        assert 2 not in await data(client)
        assert "2" in record.read_text().split()
        consumer = Consumer(client, [echo])
        async with running(consumer):
            await until(lambda: has(client, [0, 1, 2, 3]))
    assert await data(client) == [0, 1, 2, 3]


async def test_killed_after_the_commit_nothing_is_written_again(
    server: PrivateServer, client: Client, until: Until
) -> None:
    """The commit ran, the worker never heard of it: its position moved with it, so nobody repeats it."""
    async with Workers(client, server.url) as workers:
        first = await workers.start()
        await until(workers.active)
        await add(client, "numbers", fatal(1, "after commit"))
        await workers.died(first)
        consumer = Consumer(client, [echo])
        async with running(consumer):
            await add(client, "numbers", number(2))
            await until(lambda: consumer.stats.events == 1)
    assert await data(client) == [1, 2]


@pytest.mark.parametrize("where", ["handler", "retry"])
async def test_an_event_that_kills_its_process_is_a_dead_letter_after_two_deaths(
    server: PrivateServer, client: Client, until: Until, where: str
) -> None:
    """Once blamed by the next owner, once marked, from the stream as from the retries; others are handled once."""
    await add(client, "numbers", number(1), fatal(2, where), number(3))
    letters = DeadLetters(client)
    async with Workers(client, server.url, lease="100ms") as workers:
        while not await letters.count():
            assert workers.deaths < 3, "the poison was not found"
            name = await workers.start()
            dies = asyncio.create_task(workers.died(name))
            while not dies.done() and not await letters.count():
                await asyncio.wait([dies], timeout=0.01)
            dies.cancel()
        assert workers.deaths == 2
        await until(lambda: has(client, [1, 3]))
        (letter,) = await letters.list()
        assert (letter.kind, letter.payload) == ("poison", fatal(2, where))
        assert "2 processes crashed or hung while they handled it" in letter.reason
    assert await client.store.call("HLEN", client.names.bus("marks", "0")) == 0
    assert await client.store.call("ZCARD", client.names.bus("retries", "0")) == 0


async def test_random_kills_lose_nothing_double_nothing_and_keep_the_order(
    server: PrivateServer, client: Client, until: Until
) -> None:
    """Two workers, 1,000 events, 10 times kill -9 or a long SIGSTOP of the active one: the feed is exactly 0 to 999."""
    choose = random.Random(7)  # noqa: S311 - moments, not secrets
    async with Workers(client, server.url) as workers:
        for _ in range(2):
            await workers.start()
        published: list[int] = []
        publishing = asyncio.create_task(publish(client, 1000, published))
        for _ in range(10):
            # What two owners die with is a poison: all that one may have had in hand is done before the next dies.
            in_hand = len(published)
            await until(lambda: has_many(client, in_hand))  # noqa: B023 - awaited in this round
            active = await until(workers.active)
            await asyncio.sleep(choose.uniform(0, 0.3))  # somewhere in its work
            if choose.random() < 0.3:
                workers.pause(active)
                await until(lambda: other_than(workers, active))  # noqa: B023 - awaited in this round
                workers.resume(active)
            else:
                await workers.kill(active)
                await workers.start()
        await publishing
        await until(lambda: has_many(client, 1000), deadline_s=40)
    assert await data(client) == list(range(1000))
    assert await DeadLetters(client).count() == 0
    clocks = await ledger(client)
    assert all(f"t:n:{n}" in clocks for n in range(1000))


async def other_than(workers: Workers, name: str) -> bool:
    """Say whether some other worker is active."""
    return await workers.active() not in ("", name)


async def publish(client: Client, count: int, published: list[int]) -> None:
    """Publish numbers, some a moment; note those that were accepted."""
    bus = Bus(client)
    for n in range(count):
        await bus.publish("numbers", {"n": n})
        published.append(n)
        await asyncio.sleep(0.004)


async def has_many(client: Client, count: int) -> bool:
    """Say whether the feed has so many records."""
    return bool(await client.store.call("XLEN", client.names.feed) >= count)


# -- shards that are lost -----------------------------------------------------------------------------------------


async def lose_and_finish(client: Client, until: Until) -> Consumer:
    """Run an event whose worker loses its shard in the middle to another one, and let it finish all the same."""
    slow, quick = Held("slow"), Held("quick")
    quick.leave.set()
    loser = Consumer(client, [slow.handler], worker="loser", lease="60s")
    winner = Consumer(client, [quick.handler], worker="winner", lease="60s")
    async with running(loser):
        await add(client, "numbers", number(1))
        await slow.entered.wait()
        await client.store.call("DEL", client.names.bus("lease", "0"))
        async with running(winner):
            await until(lambda: winner.stats.events == 1)
            slow.leave.set()
            await until(lambda: loser.stats.lost or loser.stats.commits)
            await add(client, "numbers", number(2))
            await until(lambda: winner.stats.events == 2)
    return loser


async def test_who_lost_the_shard_writes_nothing(client: Client, until: Until) -> None:
    """The loser finishes its handler, its commit is refused, and it goes back to waiting."""
    loser = await lose_and_finish(client, until)
    assert loser.stats.lost == 1
    assert loser.stats.commits == 0
    assert await data(client) == [1, 2]
    assert await client.store.call("XLEN", client.names.journal) == 2


async def test_without_the_fence_the_same_events_are_written_twice(
    client: Client, until: Until, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The test above can fail: with the lease, the number and the position unchecked, effects double."""
    whole = scripts.script("bus/engine/commit").text
    fence = "if redis.call('GET', lease) ~= ARGV[1] then return { 0 } end"
    order = whole[
        whole.index("if number ~= tonumber(ARGV[2]) - 1") : whole.index("local now = server_time()\nlocal gone")
    ]
    again = whole[
        whole.index("if number == tonumber(ARGV[2]) then") : whole.index("if number ~= tonumber(ARGV[2]) - 1")
    ]
    bare = scripts.Script("commit", whole.replace(fence, "").replace(order, "").replace(again, ""), "0" * 40)
    found = scripts.script
    monkeypatch.setattr(server_module, "script", lambda verb: bare if verb == "bus/engine/commit" else found(verb))
    await lose_and_finish(client, until)
    assert (await data(client)).count(1) == 2


async def test_a_commit_whose_reply_is_lost_is_written_once(
    client: Client, until: Until, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It is sent again under its number, and the server says that it has it."""
    run = client.store.run
    lost = 0

    async def deaf(verb: str, *args: Any, **kwargs: Any) -> Any:
        nonlocal lost
        reply = await run(verb, *args, **kwargs)
        if verb == "bus/engine/commit" and lost < 3:
            lost += 1
            raise ServerTimeout("the reply was lost")
        return reply

    monkeypatch.setattr("cachebus.bus.engine.consumer.PAUSE_S", 0.01)
    monkeypatch.setattr(client.store, "run", deaf)
    consumer = Consumer(client, [echo])
    async with running(consumer):
        await add(client, "numbers", number(1))
        await until(lambda: consumer.stats.events == 1)
        await add(client, "numbers", number(2))
        await until(lambda: consumer.stats.events == 2)
    assert lost == 3
    assert await data(client) == [1, 2]
    assert await client.store.call("XLEN", client.names.journal) == 2


async def test_a_handler_that_computes_keeps_its_shard(server: PrivateServer, client: Client, until: Until) -> None:
    """The loop is blocked for two leases; a thread renews, so nobody else gets the shard."""
    holders: list[bytes] = []
    lease = client.names.bus("lease", "0")

    @on("numbers", Number)
    def computes(event: Number) -> Effects:
        end = time.monotonic() + 4.0
        while time.monotonic() < end:
            sum(range(1000))
        holders.append(server.ask("GET", lease))
        yield Broadcast("numbers", "n", event.n)

    consumer = Consumer(client, [computes], worker="computes", lease="2s")
    async with running(consumer):
        await until(lambda: consumer.active)
        before = server.ask("GET", lease)
        await add(client, "numbers", number(1))
        await until(lambda: consumer.stats.events == 1)
    assert holders == [before]
    assert consumer.stats.lost == 0
    assert await data(client) == [1]


async def test_a_standby_takes_over_when_the_lease_has_run_out(client: Client, until: Until) -> None:
    """An owner that is gone without a word blocks the shard for its lease, not longer."""
    never: asyncio.Future[None] = asyncio.get_running_loop().create_future()
    gone = Shard(client, 0, worker="gone", lease_ms=400)
    assert await gone.take(never)
    gone.lost()
    standby = Consumer(client, [echo], worker="standby")
    async with running(standby):
        await add(client, "numbers", number(1))
        await until(lambda: standby.stats.events == 1)
    assert await data(client) == [1]


async def test_a_standby_needs_no_thread_to_take_over(
    client: Client, until: Until, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its threads run before it holds anything: where memory is short, starting one fails, or hangs for good."""
    owner, standby = Consumer(client, [echo], worker="owner"), Consumer(client, [echo], worker="standby")
    async with running(owner):
        await until(lambda: owner.active)
        waiting = asyncio.create_task(standby.run())
        await until(lambda: len([thread for thread in threading.enumerate() if "shard 0" in thread.name]) == 2)
        monkeypatch.setattr(threading.Thread, "start", out_of_threads)
        await owner.drain()
    try:
        await add(client, "numbers", number(1))
        await until(lambda: standby.stats.events == 1 or waiting.done())
        assert not waiting.done(), waiting.exception()
    finally:
        waiting.cancel()
        await asyncio.gather(waiting, return_exceptions=True)
    assert await data(client) == [1]


def out_of_threads(thread: threading.Thread) -> None:
    """As CPython answers where the system gives it none."""
    raise RuntimeError("can't start new thread")


async def test_a_consumer_that_stumbled_does_not_wait_for_itself(
    own_server: PrivateServer, until: Until, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its connection broke or a reply was lost: its own lease, however long, does not keep it out."""
    monkeypatch.setattr("cachebus.bus.engine.consumer.PAUSE_S", 0.01)
    async with Client(own_server.url) as client:
        run = client.store.run
        lost = 0

        async def deaf(verb: str, *args: Any, **kwargs: Any) -> Any:
            nonlocal lost
            reply = await run(verb, *args, **kwargs)
            if verb == "bus/engine/take_shard" and lost < 2:
                lost += 1
                raise ServerTimeout("the reply was lost")
            return reply

        monkeypatch.setattr(client.store, "run", deaf)
        consumer = Consumer(client, [echo], lease="1h")
        async with running(consumer):
            for n in range(3):
                await until(lambda: readers(own_server))
                for reader in readers(own_server):
                    own_server.ask("CLIENT", "KILL", "ID", reader)
                await add(client, "numbers", number(n))
                await until(lambda: consumer.stats.events == n + 1)  # noqa: B023 - awaited in this round
        assert await data(client) == [0, 1, 2]
        assert consumer.stats.lost == 0
        assert consumer.stats.takeovers > 3


def readers(server: PrivateServer) -> list[str]:
    """Return the ids of the connections that wait in XREAD."""
    lines = server.ask("CLIENT", "LIST").decode().splitlines()
    return [line.split()[0].partition("=")[2] for line in lines if "cmd=xread" in line]
