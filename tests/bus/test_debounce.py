"""A debounced handler runs once for events that follow one another closely, on the last of them."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable
from dataclasses import dataclass
from datetime import timedelta
from typing import Any

import msgspec
import pytest

from cachebus import Cache, ConfigurationError, sync
from cachebus.bus.dead_letters import DeadLetters
from cachebus.bus.effects import Broadcast, Effects
from cachebus.bus.engine.bridge import Bridge
from cachebus.bus.engine.consumer import Consumer
from cachebus.bus.engine.local_consumer import LocalConsumer
from cachebus.bus.events import Event
from cachebus.bus.handlers import Debounce, Handler, on
from cachebus.bus.publisher import Bus
from cachebus.redis.client import Client
from cachebus.testing.events import PublishedEvents
from tests.support.serving import data, number, running

Until = Callable[..., Any]


class Trade(msgspec.Struct):
    n: int
    user_id: int = 0


@dataclass
class Order:
    user_id: int


def imported(quiet: str = "60ms", **options: Any) -> Handler[..., Any]:
    """Return a debounced handler that broadcasts the number of its event."""

    @on("trades", Trade, name="imported", debounce=quiet, backoff="1ms", **options)
    def handler(event: Trade) -> Effects:
        yield Broadcast("trades", "imported", event.n)

    return handler


async def carries(client: Client, numbers: list[int]) -> bool:
    """Return whether the feed holds exactly these numbers."""
    return await data(client) == numbers


async def add_at(client: Client, at_ms: int, payload: bytes) -> None:
    """Add an event that the server took at *at_ms*."""
    await client.store.call(
        "XADD", client.names.bus("events", "0"), f"{at_ms}-*", "channel", "trades", "payload", payload
    )


async def test_many_events_are_one_run_on_the_last_of_them(client: Client, until: Until) -> None:
    """Published, and sent by plain PUBLISH: one broadcast, of the newest; a later event is another run.

    All of them are there before a worker is: a publisher that pauses for longer than the handler waits gets two runs.
    """
    handler = imported()
    consumer, bridge = Consumer(client, [handler]), Bridge(client, [handler])
    async with running(bridge):
        await until(lambda: bridge.listening)
        await Bus(client).publish_many("trades", [Trade(n) for n in range(300)])
        for n in range(300, 310):
            await client.store.call("PUBLISH", "trades", number(n))
        await until(lambda: bridge.stats.appended == 10, "the plain ones in the stream")
        async with running(consumer):
            await until(lambda: carries(client, [309]), "it did not run")
            assert (consumer.stats.handlers.debounced, consumer.stats.handlers.handled) == (310, 1)
            await Bus(client).publish("trades", Trade(400))
            await until(lambda: carries(client, [309, 400]), "it did not run again")


async def test_events_are_told_apart_by_key_or_by_a_field(client: Client, until: Until) -> None:
    """One run for each key of `publish(key=)`; with `by=`, one for each value, whoever published it."""
    bus = Bus(client)
    by_key, by_user = Consumer(client, [imported()]), Consumer(client, [imported(by="user_id")])
    async with running(by_key):
        await asyncio.gather(*[bus.publish("trades", Trade(n), key=f"user:{n % 2}") for n in range(6)])
        await until(lambda: carries(client, [4, 5]))
    async with running(by_user):
        await bus.publish_many("trades", [Trade(10 + n, user_id=n % 3) for n in range(6)])
        await until(lambda: carries(client, [4, 5, 13, 14, 15]))


async def test_a_window_does_not_close_before_its_events_while_no_worker_lives(client: Client, until: Until) -> None:
    """A worker is down when the window would close: what has come meanwhile is in it. One run, not two."""
    first = Consumer(client, [imported("60s")])
    async with running(first):
        await Bus(client).publish("trades", Trade(1))
        await until(lambda: first.stats.events == 1)
        await first.drain()
    windows, events = client.names.bus("debounced", "0"), client.names.bus("events", "0")
    (name,) = await client.store.call("ZRANGE", windows, 0, 0)
    ((position, _),) = await client.store.call("XRANGE", events, "-", "+")
    closes_ms = int(position.partition(b"-")[0]) + 1
    await client.store.call("ZADD", windows, closes_ms * 1000, name)
    await until(lambda: time.time() * 1000 > closes_ms + 1)
    await Bus(client).publish_many("trades", [Trade(2), Trade(3)])
    second = Consumer(client, [imported()])
    async with running(second):
        await until(lambda: carries(client, [3]))


async def test_at_most_bounds_a_window_that_events_keep_open(client: Client, until: Until) -> None:
    """It closes `debounce` after the newest event, and at the latest `at_most` after the first one."""
    consumer, now_ms = Consumer(client, [imported("60s", at_most="61s")]), int(time.time() * 1000)
    for before_ms in (1900, 100):
        await add_at(client, now_ms - before_ms, number(before_ms))
    async with running(consumer):
        await until(lambda: consumer.stats.events == 2)
    _, closes_us = await client.store.call("ZRANGE", client.names.bus("debounced", "0"), 0, 0, "WITHSCORES")
    assert float(closes_us) / 1000 == now_ms - 1900 + 61_000


async def test_a_run_that_fails_is_retried_and_dead_lettered_like_any_other(client: Client, until: Until) -> None:
    """A window that has closed is a retry; a payload that no handler can read does not wait for anything."""
    attempts: list[int] = []

    @on("trades", Trade, name="failing", debounce="10ms", retries=1, backoff="1ms")
    async def failing(event: Trade, envelope: Event) -> None:
        attempts.append(envelope.attempt)
        raise ValueError(event.n)

    consumer, letters = Consumer(client, [failing]), DeadLetters(client)
    async with running(consumer):
        await Bus(client).publish_many("trades", [Trade(1), Trade(2), {"n": "three"}])
        await until(lambda: consumer.stats.handlers.dead_lettered == 2)
        invalid, failed = await letters.list()
        assert (invalid.kind, failed.kind, failed.reason) == ("invalid", "failed", "ValueError: 2")
        assert attempts == [1, 2]
    for kind in ("debounced", "debounced-items", "retries", "retry-items"):
        assert await client.store.call("EXISTS", client.names.bus(kind, "0")) == 0


async def test_a_dead_letter_that_is_replayed_opens_a_window_of_its_own(client: Client, until: Until) -> None:
    """An event that ended two workers is not in its import's window; replayed, it is a run, after the newer ones."""
    await Bus(client).publish_many("trades", [Trade(1), Trade(2), Trade(3)])
    ((name, _), *_) = await client.store.call("XRANGE", client.names.bus("events", "0"), "-", "+")
    await client.store.call("HSET", client.names.bus("marks", "0"), name, "one/1 two/2")
    await client.store.call("HSET", client.names.bus("shard", "0"), "owner", "two/2")  # who ended without a word
    consumer, letters = Consumer(client, [imported()]), DeadLetters(client)
    async with running(consumer):
        await until(lambda: carries(client, [3]))
        (letter,) = await letters.list()
        assert letter.kind == "poison"
        await letters.replay([letter.letter_id])
        await until(lambda: carries(client, [3, 1]), "it did not run on what was replayed")


async def test_without_a_server_it_is_the_same(until: Until) -> None:
    """One run on the last event; a consumer that ends closes what is open, so nothing is lost with the process."""
    async with Cache.memory() as cache:
        consumer, bus, events = LocalConsumer(cache, [imported("200ms")]), Bus(cache), PublishedEvents(cache)
        async with running(consumer):
            await bus.publish_many("trades", [Trade(n) for n in range(100)])
            await until(lambda: events.broadcasts)
            await bus.publish("trades", Trade(200))
            await until(lambda: len(events.broadcasts) == 2)
        await bus.publish_many("trades", [Trade(n, user_id=n % 2) for n in range(300, 310)])
        await events.handle(imported("1h", by="user_id"))  # type: ignore[misc] # awaitable over an asynchronous cache
        assert [sent.data for sent in events.broadcasts] == [99, 200, 308, 309]


def test_from_code_without_an_event_loop() -> None:
    """`cachebus.sync` in memory: what was published is one run."""
    with sync.Cache.memory() as cache:
        sync.Bus(cache).publish_many("trades", [Trade(n) for n in range(5)])
        events = PublishedEvents(cache.cache, cache.run)
        events.handle(imported("1h"))
        assert [sent.data for sent in events.broadcasts] == [4]


@pytest.mark.parametrize(
    ("options", "line"),
    [
        ({"at_most": "1s"}, "handler of 'trades': at_most= and by= belong to debounce=; add it, or leave them out"),
        ({"debounce": "2s", "at_most": "1s"}, "at_most='1s' must not be shorter than debounce='2s'"),
        ({"debounce": "2s", "batch": 10}, "debounce= keeps the last event, batch= all of them; use one of the two"),
        ({"debounce": "2s", "by": "user"}, "by='user' is no field of Trade; it has n, user_id"),
        (
            {"debounce": timedelta(0)},
            "handler of 'trades': debounce: datetime.timedelta(0) must be at least 1 ms",
        ),
        ({"debounce": "soon"}, "handler of 'trades': debounce: 'soon' is not a duration"),
    ],
)
def test_what_cannot_work_is_refused_where_it_is_written(options: dict[str, Any], line: str) -> None:
    """One line that names the option."""
    with pytest.raises(ConfigurationError, match=line.replace("(", r"\(").replace(")", r"\)")):
        on("trades", Trade, **options)(lambda event: None)


def test_what_tells_events_apart() -> None:
    """A field of a structure, a dataclass or a dictionary; without `by`, the key. Without the field it is no event."""
    event = Event("1-1", "trades", b"{}", key="user:7")
    by_user = Debounce(1, 1, "user_id")
    assert [by_user.group(each, event) for each in (Trade(1, 7), Order(7), {"user_id": 7})] == ["7", "7", "7"]
    assert Debounce(1, 1, None).group(Trade(1), event) == "user:7"
    with pytest.raises(ValueError, match="by: the event has no field 'user_id'"):
        by_user.group({}, event)
