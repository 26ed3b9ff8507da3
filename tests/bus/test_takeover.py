"""Workers die, hang, and lose their shard: effects are written once, in order, and a poison is found."""

from __future__ import annotations

import asyncio
import random
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import msgspec
import pytest
from serving import Workers, add, data, ledger, number, running

from cachebus import scripts
from cachebus import server as server_module
from cachebus.bus import Bus
from cachebus.consumer import Consumer
from cachebus.deadletters import DeadLetters
from cachebus.effects import Broadcast, Effects, Invalidate, Retry
from cachebus.errors import ServerTimeout
from cachebus.handlers import on
from cachebus.link import Link
from cachebus.private_server import PrivateServer
from cachebus.shard import Shard

Until = Callable[..., Any]


class Number(msgspec.Struct):
    n: int


@on("numbers", Number, name="echo")
def echo(event: Number) -> Effects:
    """Invalidate and broadcast."""
    yield Invalidate(tags=[f"n:{event.n}"])
    yield Broadcast("numbers", "n", event.n)


def fatal(n: int, die: str) -> bytes:
    """Return the payload of an event that ends the process that handles it."""
    return msgspec.json.encode({"n": n, "die": die})


# -- processes that die -------------------------------------------------------------------------------------------


async def test_killed_between_handler_and_commit_the_effects_are_written_once(
    server: PrivateServer, link: Link, until: Until, tmp_path: Path
) -> None:
    """The handler runs again in another worker; the feed has each number once, in order."""
    record = tmp_path / "numbers"
    async with Workers(link, server.url) as workers:
        first = await workers.start(NUMBERS=str(record))
        await until(workers.active)
        await add(link, "numbers", number(0))
        await until(lambda: has(link, [0]))
        await add(link, "numbers", number(1), fatal(2, "before commit"), number(3))
        await workers.died(first)
        assert 2 not in await data(link)
        assert "2" in record.read_text().split()
        consumer = Consumer(link, [echo])
        async with running(consumer):
            await until(lambda: has(link, [0, 1, 2, 3]))
    assert await data(link) == [0, 1, 2, 3]


async def has(link: Link, numbers: list[int]) -> bool:
    """Say whether the feed holds exactly these numbers."""
    return await data(link) == numbers


async def test_killed_after_the_commit_nothing_is_written_again(
    server: PrivateServer, link: Link, until: Until
) -> None:
    """The commit ran, the worker never heard of it: its position moved with it, so nobody repeats it."""
    async with Workers(link, server.url) as workers:
        first = await workers.start()
        await until(workers.active)
        await add(link, "numbers", fatal(1, "after commit"))
        await workers.died(first)
        consumer = Consumer(link, [echo])
        async with running(consumer):
            await add(link, "numbers", number(2))
            await until(lambda: consumer.stats.events == 1)
    assert await data(link) == [1, 2]


@pytest.mark.parametrize("where", ["handler", "retry"])
async def test_an_event_that_kills_its_process_is_a_dead_letter_after_three_deaths(
    server: PrivateServer, link: Link, until: Until, where: str
) -> None:
    """Once unmarked, twice marked, from the stream as from the retries; its neighbours are handled once."""
    await add(link, "numbers", number(1), fatal(2, where), number(3))
    letters = DeadLetters(link)
    async with Workers(link, server.url, lease="100ms") as workers:
        while not await letters.count():
            assert workers.deaths < 4, "the poison was not found"
            name = await workers.start()
            dies = asyncio.create_task(workers.died(name))
            while not dies.done() and not await letters.count():
                await asyncio.wait([dies], timeout=0.01)
            dies.cancel()
        assert workers.deaths == 3
        await until(lambda: has(link, [1, 3]))
        (letter,) = await letters.list()
        assert (letter.kind, letter.payload) == ("poison", fatal(2, where))
        assert "2 processes ended while they handled it" in letter.reason
    assert await link.store.call("HLEN", link.names.bus("marks")) == 0
    assert await link.store.call("ZCARD", link.names.bus("retries", "0")) == 0


async def test_random_kills_lose_nothing_double_nothing_and_keep_the_order(
    server: PrivateServer, link: Link, until: Until
) -> None:
    """Two workers, 1,000 events, 10 times kill -9 or a long SIGSTOP of the active one: the feed is exactly 0 to 999."""
    choose = random.Random(7)  # noqa: S311 - moments, not secrets
    async with Workers(link, server.url) as workers:
        for _ in range(2):
            await workers.start()
        publishing = asyncio.create_task(publish(link, 1000))
        for _ in range(10):
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
        await until(lambda: has_many(link, 1000), deadline_s=40)
    assert await data(link) == list(range(1000))
    assert await DeadLetters(link).count() == 0
    clocks = await ledger(link)
    assert all(f"t:n:{n}" in clocks for n in range(1000))


async def other_than(workers: Workers, name: str) -> bool:
    """Say whether some other worker is active."""
    return await workers.active() not in ("", name)


async def publish(link: Link, count: int) -> None:
    """Publish numbers, some a moment."""
    bus = Bus(link)
    for n in range(count):
        await bus.publish("numbers", {"n": n})
        await asyncio.sleep(0.004)


async def has_many(link: Link, count: int) -> bool:
    """Say whether the feed has so many records."""
    return bool(await link.store.call("XLEN", link.names.feed) >= count)


# -- shards that are lost -----------------------------------------------------------------------------------------


class Held:
    """A handler that waits for the test in the middle of an event."""

    def __init__(self, name: str) -> None:
        self.entered = asyncio.Event()
        self.leave = asyncio.Event()
        self.handler = on("numbers", Number, name="held", timeout="60s")(self.handle)
        self.name = name

    async def handle(self, event: Number) -> Effects:
        """Wait, then broadcast."""
        self.entered.set()
        await self.leave.wait()
        return [Invalidate(tags=[f"n:{event.n}"]), Broadcast("numbers", "n", event.n)]


async def lose_and_finish(link: Link, until: Until) -> Consumer:
    """Run an event whose worker loses its shard in the middle to another one, and let it finish all the same."""
    slow, quick = Held("slow"), Held("quick")
    quick.leave.set()
    loser = Consumer(link, [slow.handler], worker="loser", lease="60s")
    winner = Consumer(link, [quick.handler], worker="winner", lease="60s")
    async with running(loser):
        await add(link, "numbers", number(1))
        await slow.entered.wait()
        await link.store.call("DEL", link.names.bus("lease", "0"))
        async with running(winner):
            await until(lambda: winner.stats.events == 1)
            slow.leave.set()
            await until(lambda: loser.stats.lost or loser.stats.commits)
            await add(link, "numbers", number(2))
            await until(lambda: winner.stats.events == 2)
    return loser


async def test_who_lost_the_shard_writes_nothing(link: Link, until: Until) -> None:
    """The loser finishes its handler, its commit is refused, and it goes back to waiting."""
    loser = await lose_and_finish(link, until)
    assert loser.stats.lost == 1
    assert loser.stats.commits == 0
    assert await data(link) == [1, 2]
    assert await link.store.call("XLEN", link.names.journal) == 2


async def test_without_the_fence_the_same_events_are_written_twice(
    link: Link, until: Until, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The test above can fail: with the lease, the number and the position unchecked, effects double."""
    whole = scripts.script("commit").text
    fence = "if redis.call('GET', lease) ~= ARGV[1] then return { 0 } end"
    order = whole[
        whole.index("if number ~= tonumber(ARGV[2]) - 1") : whole.index("local now = server_time()\nlocal gone")
    ]
    again = whole[
        whole.index("if number == tonumber(ARGV[2]) then") : whole.index("if number ~= tonumber(ARGV[2]) - 1")
    ]
    bare = scripts.Script("commit", whole.replace(fence, "").replace(order, "").replace(again, ""), "0" * 40)
    monkeypatch.setattr(server_module, "script", lambda verb: bare if verb == "commit" else scripts.script(verb))
    await lose_and_finish(link, until)
    assert (await data(link)).count(1) == 2


async def test_a_commit_whose_reply_is_lost_is_written_once(
    link: Link, until: Until, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It is sent again under its number, and the server says that it has it."""
    run = link.store.run
    lost = 0

    async def deaf(verb: str, *args: Any, **kwargs: Any) -> Any:
        nonlocal lost
        reply = await run(verb, *args, **kwargs)
        if verb == "commit" and lost < 3:
            lost += 1
            raise ServerTimeout("the reply was lost")
        return reply

    monkeypatch.setattr("cachebus.consumer.PAUSE_S", 0.01)
    monkeypatch.setattr(link.store, "run", deaf)
    consumer = Consumer(link, [echo])
    async with running(consumer):
        await add(link, "numbers", number(1))
        await until(lambda: consumer.stats.events == 1)
        await add(link, "numbers", number(2))
        await until(lambda: consumer.stats.events == 2)
    assert lost == 3
    assert await data(link) == [1, 2]
    assert await link.store.call("XLEN", link.names.journal) == 2


async def test_a_handler_that_computes_keeps_its_shard(server: PrivateServer, link: Link, until: Until) -> None:
    """The loop is blocked for four leases; a thread renews, so nobody else gets the shard."""
    holders: list[bytes] = []
    lease = link.names.bus("lease", "0")

    @on("numbers", Number)
    def computes(event: Number) -> Effects:
        end = time.monotonic() + 2.0
        while time.monotonic() < end:
            sum(range(1000))
        holders.append(server.ask("GET", lease))
        yield Broadcast("numbers", "n", event.n)

    consumer = Consumer(link, [computes], worker="computes", lease="500ms")
    async with running(consumer):
        await until(lambda: consumer.active)
        before = server.ask("GET", lease)
        await add(link, "numbers", number(1))
        await until(lambda: consumer.stats.events == 1)
    assert holders == [before]
    assert consumer.stats.lost == 0
    assert await data(link) == [1]


async def test_a_handler_that_never_ends_loses_its_shard(
    link: Link, until: Until, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Nobody renews for it for ever: another worker takes over, and it is not hidden that the first one is stuck."""
    monkeypatch.setattr("cachebus.consumer.HUNG_S", -59.7)
    stuck, quick = Held("stuck"), Held("quick")
    quick.leave.set()
    first = Consumer(link, [stuck.handler], worker="stuck", lease="300ms")
    async with running(first):
        await add(link, "numbers", number(1))
        await stuck.entered.wait()
        second = Consumer(link, [quick.handler], worker="quick", lease="300ms")
        async with running(second):
            await until(lambda: second.stats.events == 1)
    assert await data(link) == [1]


async def test_a_lost_lease_is_no_death(link: Link) -> None:
    """Owners whose lease ran out, but who live, take their marks back: a flapping server condemns nobody."""
    loop = asyncio.get_running_loop()
    never: asyncio.Future[None] = loop.create_future()
    await add(link, "numbers", number(1))
    shards = [Shard(link, 0, worker=name, lease_ms=60_000, busy_since=lambda: None) for name in "abc"]
    lease = link.names.bus("lease", "0")
    over: asyncio.Future[None] = loop.create_future()
    over.set_result(None)
    deaths = []
    for _ in range(3):
        for shard in shards:
            await link.store.call("DEL", lease)
            assert await shard.take(never)
            deaths.append(await shard.mark("1-1"))
            for other in shards:
                if other is not shard:
                    assert not await other.take(over)  # it looks for the shard again, as whoever lives does
    assert max(deaths) == 1
    for shard in shards:
        await shard.release()


async def test_marks_of_the_dead_stay(link: Link) -> None:
    """Who is not heard of again leaves its mark, and the next ones count it."""
    never: asyncio.Future[None] = asyncio.get_running_loop().create_future()
    deaths = []
    for name in "abc":
        shard = Shard(link, 0, worker=name, lease_ms=60_000, busy_since=lambda: None)
        await link.store.call("DEL", link.names.bus("lease", "0"))
        assert await shard.take(never)
        assert shard.died == (name != "a")
        deaths.append(await shard.mark("1-1"))
        shard.lost()
    assert deaths == [0, 1, 2]


async def test_an_owner_that_lives_takes_its_marks_back_in_the_middle_of_a_handler(link: Link, until: Until) -> None:
    """Its lease was lost, its handler goes on: its next renewal is refused, and says that it lives."""
    (position,) = await add(link, "numbers", number(1))
    await mark_and_go(link, "gone", position)
    slow = Held("slow")
    loser = Consumer(link, [slow.handler], worker="loser", lease="300ms")
    async with running(loser):
        await slow.entered.wait()
        assert await tokens(link, position) == ["gone", "loser"]
        await link.store.call("SET", link.names.bus("lease", "0"), "winner/1")
        await until(lambda: marked_by(link, position, ["gone"]))
        assert not slow.leave.is_set()


async def test_marks_are_taken_back_from_a_handler_that_computes(
    server: PrivateServer, link: Link, until: Until
) -> None:
    """The loop is blocked and the lease was lost: the thread that would renew it says that the owner lives."""
    (position,) = await add(link, "numbers", number(1))
    await mark_and_go(link, "gone", position)
    lease, marks = link.names.bus("lease", "0"), link.names.bus("marks")
    left: list[bytes] = []

    @on("numbers", Number)
    def computes(_: Number) -> None:
        server.ask("SET", lease, "winner/1")
        end = time.monotonic() + 20.0
        while b"computes" in server.ask("HGET", marks, position) and time.monotonic() < end:
            sum(range(1000))
        left.append(server.ask("HGET", marks, position))

    consumer = Consumer(link, [computes], worker="computes", lease="300ms")
    async with running(consumer):
        await until(lambda: left, deadline_s=30.0)
    assert [token.partition(b"/")[0] for token in left[0].split()] == [b"gone"]


@pytest.mark.parametrize("where", ["handler", "retry"])
async def test_a_verdict_waits_for_owners_that_live_to_take_their_marks_back(
    link: Link, until: Until, where: str
) -> None:
    """One owner died, another was only cut off, and comes back after its successor took over: no poison."""
    (name,) = await add(link, "numbers", number(1))
    if where == "retry":
        name = await put_off(link, until)
    await mark_and_go(link, "gone", name)
    cut_off = await mark_and_go(link, "cut-off", name)
    successor = Consumer(link, [echo], worker="successor")
    async with running(successor):
        await until(lambda: marked_by(link, name, ["gone", "cut-off", "successor"]))
        over: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        over.set_result(None)
        assert not await cut_off.take(over)
        await until(lambda: has(link, [1]))
    assert await DeadLetters(link).count() == 0


async def test_a_verdict_waits_for_nobody_after_many_deaths(
    link: Link, until: Until, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Owners that were killed while they waited to pass it: the next one passes it at once, and goes on."""
    monkeypatch.setattr(Shard, "pardon_s", 3600.0)
    (name, _) = await add(link, "numbers", number(1), number(2))
    for worker in ("first", "second", "waited", "waited-too"):
        await mark_and_go(link, worker, name)
    async with running(Consumer(link, [echo], worker="successor")):
        await until(lambda: has(link, [2]))
    (letter,) = await DeadLetters(link).list(10)
    assert (letter.kind, letter.payload) == ("poison", number(1))


async def mark_and_go(link: Link, worker: str, name: bytes) -> Shard:
    """Take the shard, mark *name*, and be heard of no more."""
    await link.store.call("DEL", link.names.bus("lease", "0"))
    shard = Shard(link, 0, worker=worker, lease_ms=60_000, busy_since=lambda: None)
    assert await shard.take(asyncio.get_running_loop().create_future())
    await shard.mark(name.decode())
    shard.lost()
    await link.store.call("DEL", link.names.bus("lease", "0"))
    return shard


async def put_off(link: Link, until: Until) -> bytes:
    """Have what is in the stream retried; returns the name it has there."""

    @on("numbers", Number, name="echo")
    def later(_: Number) -> None:
        raise Retry("1ms")

    consumer = Consumer(link, [later])
    async with running(consumer):
        await until(lambda: consumer.stats.events == 1)
        await consumer.drain()
    (name,) = await link.store.call("ZRANGE", link.names.bus("retries", "0"), 0, -1)
    return bytes(name)


async def tokens(link: Link, name: bytes) -> list[str]:
    """Return the workers whose marks *name* has."""
    marks: bytes | None = await link.store.call("HGET", link.names.bus("marks"), name)
    return [token.partition("/")[0] for token in (marks or b"").decode().split()]


async def marked_by(link: Link, name: bytes, workers: list[str]) -> bool:
    """Say whether *name* has the marks of exactly these workers."""
    return await tokens(link, name) == workers


async def test_a_shard_given_back_is_taken_without_care(link: Link, until: Until) -> None:
    """After a clean exit nobody marks anything; after a death the new owner does."""
    never: asyncio.Future[None] = asyncio.get_running_loop().create_future()
    await add(link, "numbers", number(1))
    first = Shard(link, 0, worker="first", lease_ms=60_000, busy_since=lambda: None)
    assert await first.take(never)
    await first.release()
    second = Shard(link, 0, worker="second", lease_ms=60_000, busy_since=lambda: None)
    assert await second.take(never)
    assert (second.died, second.careful_until) == (False, "")
    await second.release()


async def test_a_standby_takes_over_when_the_lease_has_run_out(link: Link, until: Until) -> None:
    """An owner that is gone without a word blocks the shard for its lease, not longer."""
    never: asyncio.Future[None] = asyncio.get_running_loop().create_future()
    gone = Shard(link, 0, worker="gone", lease_ms=400, busy_since=lambda: None)
    assert await gone.take(never)
    gone.lost()
    standby = Consumer(link, [echo], worker="standby")
    async with running(standby):
        await add(link, "numbers", number(1))
        await until(lambda: standby.stats.events == 1)
    assert await data(link) == [1]


async def test_a_consumer_that_stumbled_does_not_wait_for_itself(
    own_server: PrivateServer, until: Until, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its connection broke or a reply was lost: its own lease, however long, does not keep it out."""
    monkeypatch.setattr("cachebus.consumer.PAUSE_S", 0.01)
    async with Link(own_server.url) as link:
        run = link.store.run
        lost = 0

        async def deaf(verb: str, *args: Any, **kwargs: Any) -> Any:
            nonlocal lost
            reply = await run(verb, *args, **kwargs)
            if verb == "take_shard" and lost < 2:
                lost += 1
                raise ServerTimeout("the reply was lost")
            return reply

        monkeypatch.setattr(link.store, "run", deaf)
        consumer = Consumer(link, [echo], lease="1h")
        async with running(consumer):
            for n in range(3):
                await until(lambda: readers(own_server))
                for reader in readers(own_server):
                    own_server.ask("CLIENT", "KILL", "ID", reader)
                await add(link, "numbers", number(n))
                await until(lambda: consumer.stats.events == n + 1)  # noqa: B023 - awaited in this round
        assert await data(link) == [0, 1, 2]
        assert consumer.stats.lost == 0
        assert consumer.stats.takeovers > 3


def readers(server: PrivateServer) -> list[str]:
    """Return the ids of the connections that wait in XREAD."""
    lines = server.ask("CLIENT", "LIST").decode().splitlines()
    return [line.split()[0].partition("=")[2] for line in lines if "cmd=xread" in line]
