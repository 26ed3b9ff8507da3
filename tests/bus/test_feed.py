"""Reading the feed on from where one was: everything in order, or the truth that something is missing."""

from __future__ import annotations

import asyncio
import random
from collections.abc import Callable
from typing import Any

import msgspec
import pytest

from cachebus.bus.effects import Broadcast, Effects
from cachebus.bus.engine.consumer import Consumer, ConsumerOptions
from cachebus.bus.feed import Feed, FeedRecord, Page
from cachebus.bus.handlers import on
from cachebus.redis.client import Client
from cachebus.testing.server import PrivateServer
from tests.support.serving import add, fed, number, running

Until = Callable[..., Any]


class Number(msgspec.Struct):
    n: int


@on("numbers", Number, name="echo")
def echo(event: Number) -> Effects:
    """Broadcast the number."""
    yield Broadcast(f"user:{event.n % 3}", "n", event.n)


async def broadcast(client: Client, until: Until, *numbers: int, **options: Any) -> None:
    """Have numbers broadcast by a worker."""
    consumer = Consumer(client, [echo], options=ConsumerOptions(**options))
    await add(client, "numbers", *map(number, numbers))
    async with running(consumer):
        await until(lambda: consumer.stats.events == len(numbers))
        await consumer.drain()


def numbers(records: list[FeedRecord]) -> list[int]:
    """Return what was broadcast."""
    return [msgspec.json.decode(record.message)["data"] for record in records]


async def test_reading_on_from_any_record_misses_nothing(client: Client, until: Until) -> None:
    """From each of 20 records the rest comes, in order, recovered; a page that is full says where to go on."""
    await broadcast(client, until, *range(20))
    records, feed = await fed(client), Feed(client)
    for at, record in enumerate(records):
        assert await feed.read(record.id) == Page(records[at + 1 :], recovered=True, last=records[-1].id)
    first = await feed.read(records[0].id, count=5)
    assert (numbers(first.records), first.last) == ([1, 2, 3, 4, 5], records[5].id)
    assert await feed.newest() == records[-1].id
    assert [record.topic for record in records[:3]] == ["user:0", "user:1", "user:2"]


@pytest.mark.parametrize("after", ["", "garbage", "1-2", "5-", "-", "9" * 400 + "-1", "1795426293746251-x"])
async def test_an_id_that_never_was_is_not_recovered(client: Client, until: Until, after: str) -> None:
    """Whatever a client sends as its last id: not recovered, and where to go on from."""
    assert await Feed(client).read(after) == Page([], recovered=False, last="")
    await broadcast(client, until, 1)
    assert await Feed(client).read(after) == Page([], recovered=False, last=await Feed(client).newest())


async def test_an_id_older_than_the_feed_is_not_recovered_but_the_one_just_before_is(
    client: Client, until: Until
) -> None:
    """The feed is bounded: who was away for too long is told, who missed nothing is not."""
    await broadcast(client, until, *range(10))
    records, feed = await fed(client), Feed(client)
    await client.store.call("XTRIM", client.names.feed, "MAXLEN", "=", 5)
    assert numbers((await feed.read(records[4].id)).records) == [5, 6, 7, 8, 9]
    assert (await feed.read(records[4].id)).recovered
    assert await feed.read(records[3].id) == Page([], recovered=False, last=records[-1].id)


async def test_a_record_missing_in_the_middle_is_noticed(client: Client, until: Until) -> None:
    """Each record names the one before it, so a hole shows."""
    await broadcast(client, until, *range(5))
    records = await fed(client)
    await client.store.call("XDEL", client.names.feed, records[2].id.partition("-")[2] + "-0")
    page = await Feed(client).read(records[0].id)
    assert (numbers(page.records), page.recovered) == ([1, 3, 4], False)


async def test_a_feed_that_began_anew_is_another_one(client: Client, until: Until) -> None:
    """After a flush ids have another epoch: no old id is recovered, whatever its clock."""
    await broadcast(client, until, 1, 2)
    old = await fed(client)
    await client.store.call("DEL", client.names.feed)
    await broadcast(client, until, 3, 4)
    new = await fed(client)
    assert new[0].before == ""
    assert new[0].id.partition("-")[0] != old[0].id.partition("-")[0]
    clock = new[0].id.partition("-")[2]
    for identity in (old[0].id, old[1].id, f"{old[0].id.partition('-')[0]}-{clock}"):
        assert not (await Feed(client).read(identity)).recovered


async def test_clocks_only_grow_when_the_servers_time_goes_back(client: Client, until: Until) -> None:
    """A record from the future (the time was corrected since) does not stop commits; ids go on from it."""
    await broadcast(client, until, 1)
    (first,) = await fed(client)
    epoch, _, clock = first.id.partition("-")
    ahead = int(clock) + 3_600_000_000
    message = first.message.replace(first.id.encode(), f"{epoch}-{ahead}".encode())
    await client.store.call(
        *("XADD", client.names.feed, f"{ahead}-0", "before", first.id, "topic", "user:1", "record", message)
    )
    await broadcast(client, until, 2)
    records = await fed(client)
    assert records[2].id == f"{epoch}-{ahead + 1}"
    assert records[2].before == f"{epoch}-{ahead}"


async def test_the_feed_is_bounded(client: Client, until: Until) -> None:
    """It keeps about as many records as it may."""
    await broadcast(client, until, *range(1500), feed_length=100)
    assert 100 <= await client.store.call("XLEN", client.names.feed) < 400


async def test_following_yields_everything_and_tells_of_holes(own_server: PrivateServer, until: Until) -> None:
    """Across a cut connection nothing is missed; across a flush the page says so, and it goes on."""
    async with Client(own_server.url) as client:
        pages: list[Page] = []

        async def follow() -> None:
            async for page in Feed(client).follow():
                pages.append(page)  # noqa: PERF401 - seen one by one

        def got() -> list[int]:
            return [n for page in pages for n in numbers(page.records)]

        following = asyncio.create_task(follow())
        await until(lambda: "cmd=xread" in own_server.ask("CLIENT", "LIST").decode())
        await broadcast(client, until, 1, 2)
        await until(lambda: got() == [1, 2])
        for line in own_server.ask("CLIENT", "LIST").decode().splitlines():
            if "cmd=xread" in line:
                own_server.ask("CLIENT", "KILL", "ID", line.split()[0].partition("=")[2])
        await broadcast(client, until, 3)
        await until(lambda: got() == [1, 2, 3])
        assert all(page.recovered for page in pages)
        await client.store.call("FLUSHALL")
        await broadcast(client, until, 4)
        await until(lambda: got() == [1, 2, 3, 4])
        assert [page.recovered for page in pages if 4 in numbers(page.records)] == [False]
        await client.store.call("DEL", client.names.feed)
        await until(lambda: not pages[-1].records)
        assert pages[-1] == Page([], recovered=False, last="")
        following.cancel()
        await asyncio.gather(following, return_exceptions=True)


async def test_random_trims_deletes_and_reconnects_never_leave_a_silent_hole(client: Client, until: Until) -> None:
    """400 steps of commits, trims and deletions, three readers that read now and then: every id once, or it is said."""
    choose = random.Random(5)  # noqa: S311 - a schedule, not a secret
    consumer, feed = Consumer(client, [echo]), Feed(client)
    sent = 0
    readers: list[tuple[str, int]] = [("", 0)] * 3  # last id, numbers known up to
    async with running(consumer):
        for _ in range(400):
            step = choose.random()
            if step < 0.45:
                count = choose.randint(1, 4)
                await add(client, "numbers", *map(number, range(sent, sent + count)))
                sent += count
                await until(lambda: consumer.stats.events == sent)  # noqa: B023 - awaited in this round
            elif step < 0.55:
                await client.store.call("XTRIM", client.names.feed, "MAXLEN", "=", choose.randint(1, 8))
            elif step < 0.57:
                await client.store.call("DEL", client.names.feed)
            else:
                at = choose.randrange(3)
                last, known = readers[at]
                page = await feed.read(last, count=choose.randint(1, 10))
                found = numbers(page.records)
                if page.recovered:
                    assert found == list(range(known, known + len(found)))
                    readers[at] = (page.last, known + len(found))
                else:  # the reader fetches what it follows anew, which is now complete up to `last`
                    newest = await feed.newest()
                    top = [record for record in await fed(client) if record.id == newest]
                    readers[at] = (newest, numbers(top)[0] + 1 if top else sent)
