"""Pub/sub: who listens hears, in order; who may have missed something is told, before the next message."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncIterator
from typing import Any

import pytest

from cachebus import Cache, Client, ConfigurationError, Unavailable
from cachebus.pubsub.pubsub import Gap, Message, PubSub, SubscriberTooSlow
from cachebus.testing import FaultProxy
from cachebus.testing.server import PrivateServer
from tests.support.waiting import until


@pytest.fixture(params=["server", "alone"])
async def pubsub(request: pytest.FixtureRequest, client: Client) -> AsyncIterator[PubSub]:
    """Channels of a server, and those of one process."""
    async with Cache.memory() as alone:
        channels = PubSub(client if request.param == "server" else alone)
        yield channels
        await channels.close()


async def test_who_listens_hears_in_order_and_others_do_not(pubsub: PubSub, namespace: str) -> None:
    """A channel, a pattern, and neither: plain data, text and bytes arrive as they were given."""
    heard: list[Any] = []
    channel = f"{namespace}:trade:updates"
    await pubsub.subscribe(channel, lambda message: heard.append(message.data))
    every: list[str] = []
    await pubsub.subscribe(f"{namespace}:trade:*", lambda message: every.append(message.channel))
    sent = [{"user_id": 123}, "text", b"\xff\x00", 7, None, [1, 2]]
    for message in sent:
        assert await pubsub.publish(channel, message) == 2
    assert await pubsub.publish(f"{namespace}:trade:closed", 1) == 1
    assert await pubsub.publish(f"{namespace}:other", 1) == 0
    await until(lambda: len(heard) == len(sent) and len(every) == len(sent) + 1, "everything was heard")
    assert heard == sent
    assert every[-1] == f"{namespace}:trade:closed"


async def test_an_unsubscribed_handler_hears_nothing_more(pubsub: PubSub, namespace: str) -> None:
    """The others go on."""
    first: list[Message] = []
    second: list[Message] = []
    leaving = await pubsub.subscribe(namespace, first.append)
    await pubsub.subscribe(namespace, second.append)
    await pubsub.publish(namespace, 1)
    await until(lambda: first and second, "both heard it")
    await leaving.unsubscribe()
    await leaving.unsubscribe()
    assert await pubsub.publish(namespace, 2) == 1
    await until(lambda: len(second) == 2, "the other one heard it")
    assert len(first) == 1


async def test_an_async_handler_takes_one_message_at_a_time_and_may_fail(
    pubsub: PubSub, namespace: str, caplog: pytest.LogCaptureFixture
) -> None:
    """What it raises is logged and counted; the next message comes all the same, to others at once."""
    under_way = most = 0
    done: list[int] = []

    async def handler(message: Message) -> None:
        nonlocal under_way, most
        under_way += 1
        most = max(most, under_way)
        await asyncio.sleep(0)
        under_way -= 1
        if message.data == 1:
            raise LookupError("a bad message")
        done.append(message.data)

    listener = await pubsub.subscribe(namespace, handler)
    for number in range(5):
        await pubsub.publish(namespace, number)
    await until(lambda: len(done) == 4, "the others were handled")
    assert (done, most, listener.failed) == ([0, 2, 3, 4], 1, 1)
    assert "a bad message" in caplog.text


async def test_a_slow_subscriber_misses_the_oldest_and_is_told_where(pubsub: PubSub, namespace: str) -> None:
    """Its queue is bounded; what was dropped shows as a gap before what is left."""
    async with pubsub.listen(namespace, limit=3) as listener:
        for number in range(5):
            await pubsub.publish(namespace, number)
        await until(lambda: listener.dropped == 2, "two too many")
        items = [await anext(listener) for _ in range(4)]
    assert items[0] == Gap("overflow", 2)
    assert [item.data for item in items[1:] if isinstance(item, Message)] == [2, 3, 4]
    assert [item async for item in listener] == []


async def test_a_subscriber_may_ask_to_be_disconnected_instead(
    pubsub: PubSub, namespace: str, caplog: pytest.LogCaptureFixture
) -> None:
    """What waits is still handed out, then iterating raises; a handler's end is logged."""
    async with pubsub.listen(namespace, limit=2, overflow="disconnect") as listener:
        for number in range(3):
            await pubsub.publish(namespace, number)
        await until(lambda: listener.dropped == 1, "one too many")
        await until(lambda: _unheard(pubsub, namespace), "it has left the channel")
        assert [item.data async for item in _two(listener) if isinstance(item, Message)] == [0, 1]
        with pytest.raises(SubscriberTooSlow, match="more than 2 messages waited"):
            await anext(listener)
    gate = asyncio.Event()
    await pubsub.subscribe(namespace, lambda _: gate.wait(), limit=1, overflow="disconnect")
    for _ in range(3):
        await pubsub.publish(namespace, 1)
        await asyncio.sleep(0)
    await until(lambda: _unheard(pubsub, namespace), "nobody listens any more")
    gate.set()
    with caplog.at_level(logging.ERROR):
        await until(lambda: "unsubscribed" in caplog.text, "its end is told")


async def _unheard(pubsub: PubSub, channel: str) -> bool:
    return await pubsub.publish(channel, 1) == 0


async def _two(listener: Any) -> AsyncIterator[Message | Gap]:
    for _ in range(2):
        yield await anext(listener)


@pytest.mark.parametrize(
    ("options", "what"),
    [({"limit": 0}, "limit: 0"), ({"overflow": "block"}, "overflow: 'block' is unknown; choose 'drop_oldest' or")],
)
def test_options_that_cannot_work_are_refused(options: dict[str, Any], what: str) -> None:
    """The error names the option."""
    with pytest.raises(ConfigurationError, match=what):
        PubSub(Cache.memory()).listen("a", **options)
    with pytest.raises(ConfigurationError, match="channel"):
        PubSub(Cache.memory()).listen("")


async def test_what_is_not_plain_data_is_refused(pubsub: PubSub, namespace: str) -> None:
    """Before anything is sent."""
    with pytest.raises(TypeError):
        await pubsub.publish(namespace, object())


async def test_a_restart_of_the_server_is_survived_and_shown(own_server: PrivateServer, namespace: str) -> None:
    """The gap stands between what was heard before and what is heard after; a handler's `on_gap` is called."""
    async with Client(own_server.url, namespace=namespace) as client:
        pubsub = PubSub(client)
        gaps: list[Gap] = []
        await pubsub.subscribe(namespace, lambda _: None, on_gap=gaps.append)
        async with pubsub.listen(namespace) as listener:
            await pubsub.publish(namespace, "before")
            heard = [await anext(listener)]  # a reply says that it is on its way, not that it arrived
            own_server.kill()
            with pytest.raises(Unavailable):
                await pubsub.publish(namespace, "meanwhile")
            own_server.restart()
            await until(lambda: _received(pubsub, namespace, "after"), "subscribed again")
            heard += [await anext(listener) for _ in range(2)]
        assert [item if isinstance(item, Gap) else item.data for item in heard] == [
            "before",
            Gap("reconnected"),
            "after",
        ]
        assert (gaps, listener.gaps) == ([Gap("reconnected")], 1)
        await pubsub.close()


async def test_a_connection_that_delivers_nothing_is_noticed(proxy: FaultProxy, client: Client, namespace: str) -> None:
    """No packet, no error: the probe finds out, subscribes anew, and the subscriber sees a gap."""
    async with Client(proxy.url, namespace=namespace) as cut_off:
        pubsub = PubSub(cut_off)
        async with pubsub.listen(namespace) as listener:
            first = cut_off.subscriptions.connection
            proxy.black_hole()
            await until(lambda: cut_off.subscriptions.connection != first, "the connection is given up")
            proxy.resume()
            assert await anext(listener) == Gap("reconnected")
            here: list[Message] = []
            await pubsub.subscribe(namespace, here.append)

            async def arrives() -> bool:
                """The server may still count the connection that was given up, so being counted says nothing."""
                await PubSub(client).publish(namespace, "heard")
                return bool(here)

            await until(arrives, "subscribed again")
            while isinstance(item := await anext(listener), Gap):
                pass
            assert item.data == "heard"


async def _received(pubsub: PubSub, channel: str, message: str) -> bool:
    """Publish; False while nobody can be reached."""
    try:
        return await pubsub.publish(channel, message) > 0
    except Unavailable:
        return False


async def test_a_handler_that_cannot_be_called_is_refused(pubsub: PubSub, namespace: str) -> None:
    """At once, and not with the first message."""
    with pytest.raises(ConfigurationError, match="handler None is no function"):
        await pubsub.subscribe(f"{namespace}:x", None)  # type: ignore[arg-type]
    with pytest.raises(ConfigurationError, match="channel: 7 must be a name"):
        await pubsub.subscribe(7, print)  # type: ignore[arg-type]
