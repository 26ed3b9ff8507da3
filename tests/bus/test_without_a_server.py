"""An application without a server, written as the how-to pages say: published, handled, broadcast, scheduled here."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncIterator

import msgspec
import pytest

from cachebus import Cache
from cachebus.bus.dead_letters import DeadLetters
from cachebus.bus.effects import Broadcast, Drop, Effects, Invalidate, Publish, Refresh, Retry
from cachebus.bus.engine.local_consumer import LocalConsumer
from cachebus.bus.events import Event
from cachebus.bus.feed import Feed, FeedRecord, Page
from cachebus.bus.handlers import on
from cachebus.bus.publisher import Bus
from cachebus.cache.upkeep.warming import Warm
from cachebus.errors import PublishRefused, StreamFull
from cachebus.pubsub.pubsub import PubSub
from cachebus.schedules.decorators import every
from cachebus.schedules.scheduler import Scheduler
from tests.support.serving import running
from tests.support.waiting import until


class Trade(msgspec.Struct):
    user_id: int
    what: str = ""


cache = Cache.memory()
bus = Bus(cache)
feed, letters = Feed(cache), DeadLetters(cache)
loads: list[int] = []
attempts: list[int] = []


@cache.view("portfolio:{user_id}", ttl="5m", tags=["user:{user_id}"])
async def portfolio(user_id: int) -> int:
    """Count the loads."""
    loads.append(user_id)
    if user_id == 13:
        raise ValueError("thirteen")
    return len(loads)


@on("trade:*", Trade, name="changed", backoff="1ms", retries=2)
async def changed(event: Trade, envelope: Event) -> Effects:
    """Do what the event says."""
    attempts.append(envelope.attempt)
    if event.what == "fail" or (event.what == "once" and envelope.attempt == 1):
        raise Retry("1ms", "not yet")
    if event.what == "drop":
        raise Drop
    if event.what == "publish":
        return [Publish("trade:more", Trade(event.user_id))]
    if event.what == "refresh":
        return [Refresh(portfolio, event.user_id), Broadcast("refreshed", "now")]
    return [
        Invalidate(tags=f"user:{event.user_id}"),
        Broadcast(f"user:{event.user_id}", "trade", {"id": event.user_id}),
    ]


@every("1h", name="warms")
async def warms(warm: Warm) -> None:
    """Warm what was read."""
    await warm(portfolio, await warm.popular(portfolio))


@pytest.fixture(autouse=True)
async def consumer() -> AsyncIterator[LocalConsumer]:
    """Run the application's handlers, as its worker does."""
    loads.clear()
    attempts.clear()
    async with cache:
        consumer = LocalConsumer(cache, [changed])
        async with running(consumer):
            await until(lambda: consumer.active)
            yield consumer


async def test_an_event_invalidates_and_is_broadcast_with_the_clock_to_read_after() -> None:
    """What a handler answers happens here, in the order of a commit."""
    assert await portfolio(7) == await portfolio(7) == 1
    heard: list[Page] = []
    following = asyncio.create_task(_follow(heard))
    await asyncio.sleep(0)
    name = await bus.publish("trade:updates", Trade(7), key="7")
    await until(lambda: heard)
    ((record,), recovered, last) = heard[0]
    message = msgspec.json.decode(record.message)
    assert (message["id"], message["topic"], message["data"]) == (last, "user:7", {"id": 7})
    assert recovered
    assert await portfolio(7, fresh_after=message["fresh_after"]) == 2
    assert name != await bus.publish("trade:updates", Trade(7), id="mine")
    following.cancel()


async def _follow(heard: list[Page]) -> None:
    async for page in feed.follow():
        heard.append(page)  # noqa: PERF401 - it never ends


async def test_a_known_id_is_handled_once(consumer: LocalConsumer) -> None:
    """As with a server."""
    for _ in range(3):
        await bus.publish("trade:updates", Trade(1), id="same")
    await bus.publish("trade:updates", Trade(2))
    await until(lambda: consumer.stats.events == 2)
    assert await feed_data() == [1, 2]


async def feed_data() -> list[int]:
    """Return the data of all broadcasts."""
    return [msgspec.json.decode(record.message)["data"]["id"] for record in await records()]


async def records() -> list[FeedRecord]:
    """Return the feed."""
    following = feed.follow("")
    page = await anext(following)
    await following.aclose()
    return page.records


async def test_a_refresh_is_loaded_after_its_invalidation() -> None:
    """The entry is fresh before anybody reads it."""
    assert await portfolio(7) == 1
    await bus.publish("trade:updates", Trade(7, "refresh"))
    await until(lambda: loads == [7, 7])
    assert await portfolio(7) == 2


async def test_a_failing_handler_is_retried_and_then_a_dead_letter(consumer: LocalConsumer) -> None:
    """With reason and payload; replayed it runs again with all its attempts."""
    await bus.publish("trade:updates", Trade(1, "once"))
    await until(lambda: consumer.stats.handlers.handled == 1)
    assert attempts == [1, 2]
    await bus.publish("trade:updates", Trade(2, "fail"))
    (letter,) = await until(letters.list)
    assert (letter.kind, letter.handler, letter.attempts, letter.reason) == ("failed", "changed", 3, "Retry: not yet")
    assert await letters.show(letter.letter_id) == letter
    attempts.clear()
    assert await letters.replay([letter.letter_id, "gone"]) == 1
    await until(letters.list)
    assert attempts == [1, 2, 3]
    assert await letters.purge() == 1
    assert await letters.count() == 0


async def test_events_are_dropped_published_on_and_refused_as_with_a_server(consumer: LocalConsumer) -> None:
    """The same decisions, the same counts."""
    await bus.publish("trade:updates", Trade(1, "drop"))
    await bus.publish("trade:updates", Trade(3, "publish"))
    await bus.publish("trade:updates", {"user_id": "text"})
    await bus.publish("nobody:listens", {})
    await until(lambda: consumer.stats.events == 5)
    stats = consumer.stats.handlers
    assert (stats.dropped, stats.handled, stats.dead_lettered, stats.skipped) == (1, 2, 1, 1)
    assert await feed_data() == [3]
    assert "user_id" in (await letters.newest(1))[0].reason
    with pytest.raises(PublishRefused):
        await bus.publish("ws:own", {})
    with pytest.raises(StreamFull):
        await Bus(cache, max_events=0).publish("trade:updates", Trade(1))


async def test_plain_listeners_and_plain_messages(consumer: LocalConsumer) -> None:
    """`publish()` reaches plain listeners once and is handled once; a plain message is an event, too."""
    heard: list[str] = []
    pubsub = PubSub(cache)
    await pubsub.subscribe("trade:*", lambda message: heard.append(message.channel))
    await bus.publish("trade:updates", Trade(1))
    await pubsub.publish("trade:updates", {"user_id": 2})
    await until(lambda: consumer.stats.events == 2)
    assert await feed_data() == [1, 2]
    await until(lambda: heard == ["trade:updates"] * 2)
    await pubsub.close()


async def test_a_drain_handles_what_waits(consumer: LocalConsumer, caplog: pytest.LogCaptureFixture) -> None:
    """Events are handled to the last one; what would be retried later is counted in the log."""
    with caplog.at_level(logging.WARNING):
        for n in range(500):
            await bus.publish("trade:updates", Trade(n))
        await consumer.drain()
    assert len(await feed_data()) == 500
    assert consumer.stats.waiting == 0


async def test_jobs_fire_and_warm_what_this_process_read() -> None:
    """Once for each fire time; run by hand, paused, looked at."""
    for _ in range(200):  # reads are sampled
        assert await portfolio(7) == 1
    scheduler = Scheduler(cache, [warms])
    await cache.invalidate(tags="user:7")
    assert await scheduler.run_now("warms")
    await scheduler.drain()
    assert loads == [7, 7]
    (status,) = await scheduler.status()
    assert (status.state, status.runs, status.progress) == ("done", 1, "portfolio:{user_id} 1/1 (1 loaded, 0 fresh)")
    await scheduler.pause("warms")
    assert (await scheduler.status())[0].paused


async def test_a_gap_in_the_feed_is_said() -> None:
    """An id of another process, or of none, is not recovered; one of this one is."""
    await bus.publish("trade:updates", Trade(1))
    await until(lambda: _in_feed(1))
    await bus.publish("trade:updates", Trade(2))
    await until(lambda: _in_feed(2))
    first, second = await records()
    assert await feed.read(first.id) == Page([second], recovered=True, last=second.id)
    assert await feed.read(second.id) == Page([], recovered=True, last=second.id)
    assert await feed.read("1-1") == Page([], recovered=False, last=second.id)


async def _in_feed(count: int) -> bool:
    return await feed.newest() != "" and len(await records()) == count
