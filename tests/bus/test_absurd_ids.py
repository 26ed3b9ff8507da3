"""Ids and positions that no clock gave: a foreign XADD, a forged notice, a client's invention. Nothing wedges."""

from __future__ import annotations

import logging

import pytest

from cachebus.bus.dead_letters import DeadLetters
from cachebus.bus.effects import Broadcast, Effects, Invalidate, Publish
from cachebus.bus.engine.bridge import Bridge
from cachebus.bus.engine.consumer import Consumer
from cachebus.bus.events import Event
from cachebus.bus.feed import Feed, Page
from cachebus.bus.handlers import on
from cachebus.bus.publisher import Bus
from cachebus.errors import StreamFull
from cachebus.redis.client import Client
from tests.support.serving import add, data, number, running
from tests.support.waiting import until

LAST = 2**64 - 1
HOUR_MS = 3_600_000
seen: list[Event] = []


@on("numbers", dict[str, int], name="echo")
def echo(event: dict[str, int], envelope: Event) -> Effects:
    """Invalidate and broadcast."""
    seen.append(envelope)
    yield Invalidate(tags=[f"n:{event['n']}"])
    yield Broadcast("numbers", "n", event["n"])


@pytest.fixture(autouse=True)
def _nothing_seen() -> None:
    seen.clear()


async def xadd(client: Client, stream: str, position: str, *fields: str | bytes) -> None:
    """Add a record under an id of one's own."""
    await client.store.call("XADD", stream, position, *fields)


async def handled(client: Client, count: int) -> bool:
    """Say whether the feed has so many records."""
    return bool(await client.store.call("XLEN", client.names.feed) >= count)


@pytest.mark.parametrize("position", [f"{LAST - 1}-0", f"{LAST}-{LAST - 1}", f"{LAST}-{LAST}"])
async def test_an_event_far_in_the_future_does_not_lend_its_time_to_the_next(client: Client, position: str) -> None:
    """It is handled; so is what comes after it, before and after a new owner, at the server's own time."""
    stream = client.names.bus("events", "0")
    await add(client, "numbers", number(1))
    await xadd(client, stream, position, "channel", "numbers", "payload", number(2))
    bus = Bus(client)
    if position == f"{LAST}-{LAST}":
        with pytest.raises(StreamFull):
            await bus.publish("numbers", {"n": 0})
    consumer = Consumer(client, [echo])
    async with running(consumer):
        await until(lambda: handled(client, 2))
        await until(lambda: consumer.stats.takeovers >= 2, "the stream that begins again")
        await bus.publish("numbers", {"n": 3})
        await until(lambda: handled(client, 3))
    await bus.publish("numbers", {"n": 4})
    async with running(Consumer(client, [echo])):
        await until(lambda: handled(client, 4))
    assert await data(client) == [1, 2, 3, 4]
    now_ms = client.now_us() // 1000
    assert [abs(event.published_ms - now_ms) < HOUR_MS for event in seen] == [True, False, True, True]
    assert await DeadLetters(client).count() == 0


async def test_what_waits_behind_it_is_handled_first(client: Client) -> None:
    """Its successors bear its time; none of them is lost when the stream begins again."""
    stream = client.names.bus("events", "0")
    await xadd(client, stream, f"{LAST - 1}-0", "channel", "numbers", "payload", number(0))
    await add(client, "numbers", *map(number, range(1, 700)))
    async with running(Consumer(client, [echo])):
        await until(lambda: handled(client, 700))
    assert await data(client) == list(range(700))


async def test_publishing_from_a_handler_into_a_stream_without_ids_does_not_stop_it(client: Client) -> None:
    """The effect becomes a dead letter that says why; the event that used the last id is passed."""

    @on("numbers", dict[str, int], name="publishes")
    def publishes(event: dict[str, int]) -> Effects:
        yield Broadcast("numbers", "n", event["n"])
        if event["n"] == 1:
            yield Publish("numbers", {"n": 2})

    stream = client.names.bus("events", "0")
    await xadd(client, stream, f"{LAST}-{LAST}", "channel", "numbers", "payload", number(1))
    consumer = Consumer(client, [publishes])
    async with running(consumer):
        await until(lambda: consumer.stats.takeovers >= 2)
        await Bus(client).publish("numbers", {"n": 3})
        await until(lambda: handled(client, 2))
    assert await data(client) == [1, 3]
    (letter,) = await DeadLetters(client).list()
    assert (letter.kind, letter.payload, "no ids left" in letter.reason) == ("unfit", b'{"n":2}', True)


@pytest.mark.parametrize("last", [True, False])
async def test_dead_letters_go_on_after_an_absurd_one(client: Client, *, last: bool) -> None:
    """The letters of before are kept, and found by the ids they had."""
    letters = client.names.bus("deadletters")
    consumer = Consumer(client, [echo])
    async with running(consumer):
        await add(client, "numbers", b"bad")
        (bad,) = await until(lambda: DeadLetters(client).list())
        await xadd(client, letters, f"{LAST}-{LAST if last else 0}", "what", "ever")
        await add(client, "numbers", b"worse", number(1))
        await until(lambda: handled(client, 1))
    listed = await DeadLetters(client).list()
    assert [letter.payload for letter in listed if letter.kind == "invalid"] == [b"bad", b"worse"]
    kept = await DeadLetters(client).show(bad.letter_id)
    assert kept == bad._replace(place=listed[0].place)


@pytest.mark.parametrize("position", [f"{LAST}-{LAST}", f"{LAST - 1}-0"])
@pytest.mark.parametrize("deleted", [True, False])
async def test_the_feed_begins_again_after_an_absurd_record(client: Client, position: str, *, deleted: bool) -> None:
    """Followers hear that something is missing, and then everything."""
    consumer, feed, followed = Consumer(client, [echo]), Feed(client), list[Page]()

    class Follower:
        async def run(self) -> None:
            async for page in feed.follow():
                followed.append(page)

    async with running(consumer, Follower()):
        await until(lambda: feed.heard_at > 0)
        await add(client, "numbers", number(1))
        await until(lambda: followed)
        await xadd(client, client.names.feed, position, "what", "ever")
        if deleted:
            await client.store.call("XDEL", client.names.feed, position)
        await add(client, "numbers", number(2))
        await until(lambda: not all(page.recovered for page in followed), "the gap")
        await add(client, "numbers", number(3))
        await until(lambda: any(b'"data":3' in record.message for page in followed for record in page.records))


@pytest.mark.parametrize(
    "after", ["1-99999999999999999999999", f"1-{LAST}", "1-\u00b2", "-", "1-1-1", "\x00", "9" * 500]
)
async def test_a_position_that_is_none_reads_as_a_gap(client: Client, after: str) -> None:
    """A client's `last id` is whatever it sends."""
    async with running(Consumer(client, [echo])):
        await add(client, "numbers", number(1))
        await until(lambda: handled(client, 1))
    page = await Feed(client).read(after)
    assert (page.records, page.recovered, page.last) == ([], False, await Feed(client).newest())
    pages = Feed(client).follow(after)
    page = await anext(pages)
    await pages.aclose()
    assert not page.recovered


@pytest.mark.parametrize(
    "notice", [b"9" * 5000 + b" numbers", "\u00b2 numbers".encode(), b"-1 numbers", b"", b"1e9 numbers", b"\xff\xff"]
)
async def test_a_forged_notice_skips_nothing(client: Client, notice: bytes, caplog: pytest.LogCaptureFixture) -> None:
    """And a forged marker changes no name: plain messages are appended once."""
    bridge = Bridge(client, [echo])
    async with running(bridge):
        await until(lambda: bridge.listening)
        await client.store.call("PUBLISH", client.names.bus("skip"), notice)
        await client.store.call("PUBLISH", client.names.bus("mark"), notice)
        await client.store.call("PUBLISH", "numbers", number(1))
        await until(lambda: bridge.stats.appended == 1)
    assert bridge.stats.skipped == 0
    assert [record for record in caplog.records if record.levelno >= logging.WARNING] == []
    stored = await client.store.call("XRANGE", client.names.bus("events", "0"), "-", "+")
    ((_, fields),) = stored
    assert len(fields[5]) < 60, "its name is short"
