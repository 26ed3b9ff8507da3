"""Plain PUBLISH: nothing lost, nothing twice, while one worker stays subscribed."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any

import msgspec
import pytest

from cachebus.bus.dead_letters import DeadLetters
from cachebus.bus.effects import Broadcast, Effects
from cachebus.bus.engine.bridge import Bridge
from cachebus.bus.engine.consumer import Consumer, ConsumerOptions
from cachebus.bus.events import shard_of
from cachebus.bus.handlers import on
from cachebus.bus.publisher import Bus
from cachebus.redis.client import Client
from cachebus.testing.server import PrivateServer
from tests.support.serving import add, data, number, running

Until = Callable[..., Any]


class Number(msgspec.Struct):
    n: int


@on("numbers:*", Number)
def echo(event: Number) -> Effects:
    """Broadcast the number."""
    yield Broadcast("numbers", "n", event.n)


@on("numbers:exact", Number)
def exact(event: Number) -> None:
    """Listen to a channel that the pattern matches, too."""


async def payloads(client: Client) -> list[bytes]:
    """Return the payloads in the stream, in order."""
    records = await client.store.call("XRANGE", client.names.bus("events", "0"), "-", "+", timeout_s=5.0)
    return [dict(zip(flat[::2], flat[1::2], strict=True))[b"payload"] for _, flat in records]


async def shout(client: Client, channel: str, *messages: bytes) -> None:
    """PUBLISH as redis-cli does."""
    await asyncio.gather(*[client.store.call("PUBLISH", channel, message, timeout_s=5.0) for message in messages])


def links(server: PrivateServer, client: Client, count: int) -> list[Client]:
    """Return further links to the same deployment, as other processes have."""
    return [Client(server.url, namespace=client.names.namespace) for _ in range(count)]


async def test_a_plain_message_is_handled_like_a_published_event(client: Client, until: Until) -> None:
    """PUBLISH trade:updates {...} from any program reaches the handler."""
    bridge, consumer = Bridge(client, [echo]), Consumer(client, [echo])
    async with running(bridge, consumer):
        await until(lambda: bridge.listening)
        await shout(client, "numbers:one", number(1))
        await until(lambda: consumer.stats.events == 1)
    assert await data(client) == [1]


async def test_what_publish_sends_is_not_handled_twice(client: Client, until: Until) -> None:
    """The skip notice tells the bridge; equal plain messages before, between and after still count."""
    bridge, bus = Bridge(client, [echo]), Bus(client)
    async with running(bridge):
        await until(lambda: bridge.listening)
        for _ in range(20):
            await shout(client, "numbers:one", number(1))
            await bus.publish("numbers:one", number(1))
        await shout(client, "numbers:one", number(2))
        await until(lambda: bridge.stats.heard == 21)
        await until(lambda: not bridge.stats.queued)
    assert sorted(await payloads(client)) == [number(1)] * 40 + [number(2)]
    assert bridge.stats.skipped == 20


async def test_many_bridges_append_each_message_once(server: PrivateServer, client: Client, until: Until) -> None:
    """Three workers hear 300 messages, most of them equal: 300 events, in order."""
    others = links(server, client, 2)
    async with others[0], others[1]:
        bridges = [Bridge(each, [echo]) for each in (client, *others)]
        async with running(*bridges):
            await until(lambda: all(bridge.listening for bridge in bridges))
            for start in range(0, 300, 20):
                await shout(client, "numbers:one", *[number(n // 10) for n in range(start, start + 20)])
            await until(lambda: all(bridge.stats.heard == 300 and not bridge.stats.queued for bridge in bridges))
    assert await payloads(client) == [number(n // 10) for n in range(300)]
    assert sum(bridge.stats.appended for bridge in bridges) == 300


async def test_a_worker_may_come_and_go_while_another_stays(
    server: PrivateServer, client: Client, until: Until
) -> None:
    """Bridges that start, stop, and lose their connections lose and double nothing: one stays subscribed."""
    stays = Bridge(client, [echo])
    sent = 0

    async def send(count: int) -> None:
        nonlocal sent
        await shout(client, "numbers:one", *[number(0)] * count)
        sent += count

    async with running(stays):
        await until(lambda: stays.listening)
        for round_number in range(8):
            (other,) = links(server, client, 1)
            goes = Bridge(other, [echo])
            async with other, running(goes):
                await send(7)
                if round_number % 2:
                    await until(lambda: goes.listening)  # noqa: B023 - awaited in this round
                await send(7)
                if round_number % 3 == 0:
                    await drop_subscriber(client, other)
                await send(7)
            await send(7)
        await until(lambda: stays.stats.heard == sent and not stays.stats.queued)
    assert len(await payloads(client)) == sent


async def test_a_bridge_that_has_just_begun_overtakes_nobody(
    server: PrivateServer, client: Client, until: Until, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The one who listened before it is slow, and has older messages still: they come first."""
    (other,) = links(server, client, 1)
    run = client.store.run

    async def slow(verb: str, *args: Any, **kwargs: Any) -> Any:
        await asyncio.sleep(0.1)
        return await run(verb, *args, **kwargs)

    monkeypatch.setattr(client.store, "run", slow)
    old, new = Bridge(client, [echo]), Bridge(other, [echo])
    async with other, running(old):
        await until(lambda: old.listening)
        await shout(other, "numbers:one", number(1), number(2))
        async with running(new):
            await until(lambda: new.listening)
            await shout(other, "numbers:one", number(3))
            await until(lambda: new.stats.heard == 1 and not new.stats.queued)
            await until(lambda: not old.stats.queued)
    assert await payloads(client) == [number(1), number(2), number(3)]


async def drop_subscriber(client: Client, other: Client) -> None:
    """CLIENT KILL the connection *other* listens on."""
    wire: Any = other.subscriptions._current
    if wire is None:
        return
    mine = wire._transport.get_extra_info("sockname")[1]
    for line in (await client.store.call("CLIENT", "LIST")).decode().splitlines():
        if f":{mine} laddr" in line:
            await client.store.call("CLIENT", "KILL", "ID", line.split()[0].partition("=")[2])


async def test_a_dropped_subscription_is_noticed_counted_and_made_again(
    server: PrivateServer, client: Client, until: Until
) -> None:
    """After CLIENT KILL the bridge listens again, and says that it was deaf."""
    (other,) = links(server, client, 1)
    async with other:
        bridge = Bridge(other, [echo])
        async with running(bridge):
            await until(lambda: bridge.listening)
            await drop_subscriber(client, other)
            await until(lambda: bridge.stats.gaps == 1 and bridge.listening)
            await shout(client, "numbers:one", number(5))
            await until(lambda: payloads(client))
    assert await payloads(client) == [number(5)]


async def test_a_channel_meant_by_name_and_by_pattern_is_heard_once(client: Client, until: Until) -> None:
    """The server sends such a message twice on one connection; it is one event."""
    bridge = Bridge(client, [echo, exact])
    async with running(bridge):
        await until(lambda: bridge.listening)
        await shout(client, "numbers:exact", number(1), number(1))
        await shout(client, "numbers:other", number(2))
        await until(lambda: bridge.stats.heard == 3 and not bridge.stats.queued)
    assert sorted(await payloads(client)) == [number(1), number(1), number(2)]


async def test_workers_with_different_handlers_agree_on_names(
    server: PrivateServer, client: Client, until: Until
) -> None:
    """During a deploy old and new workers listen to different channels; what they share is appended once."""
    (other,) = links(server, client, 1)
    only_exact = on("numbers:exact", Number, name="only")(lambda _event: None)
    async with other:
        old, new = Bridge(client, [only_exact]), Bridge(other, [echo])
        async with running(old, new):
            await until(lambda: old.listening and new.listening)
            for n in range(10):
                await shout(client, "numbers:else", number(n))
                await shout(client, "numbers:exact", number(n))
            await until(lambda: new.stats.heard == 20 and old.stats.heard == 10)
            await until(lambda: not (old.stats.queued or new.stats.queued))
    assert len(await payloads(client)) == 20


async def test_messages_heard_while_the_server_is_slow_are_appended_later(
    own_server: PrivateServer, until: Until
) -> None:
    """A stream that is full holds plain messages back; they are appended in order once there is room."""
    async with Client(own_server.url) as client:
        await add(client, "numbers:one", number(-1))
        bridge = Bridge(client, [echo], max_events=1)
        async with running(bridge):
            await until(lambda: bridge.listening)
            await shout(client, "numbers:one", number(1))
            await until(lambda: bridge.stats.heard == 1)
            assert await payloads(client) == [number(-1)]
            await client.store.call("DEL", client.names.bus("events", "0"))
            await until(lambda: payloads(client))
            assert await payloads(client) == [number(1)]


async def test_a_plain_message_over_the_limit_is_a_dead_letter(client: Client, until: Until) -> None:
    """Its reason names the limit; what is kept of it is bounded; neighbours are handled."""
    bridge = Bridge(client, [echo], max_payload_bytes=100)
    consumer = Consumer(client, [echo], options=ConsumerOptions(max_payload_bytes=100))
    async with running(bridge, consumer):
        await until(lambda: bridge.listening)
        await shout(client, "numbers:one", b'{"n": 1, "x": "' + b"x" * 500 + b'"}', number(2))
        await until(lambda: consumer.stats.events == 2)
    (letter,) = await DeadLetters(client).list()
    assert (letter.kind, letter.reason) == ("invalid", "the payload is longer than 100 bytes")
    assert len(letter.payload) <= 101
    assert await data(client) == [2]


async def test_binary_garbage_on_a_channel_is_a_dead_letter(client: Client, until: Until) -> None:
    """Bytes that are no JSON end as a dead letter and nothing else happens."""
    bridge, consumer = Bridge(client, [echo]), Consumer(client, [echo])
    async with running(bridge, consumer):
        await until(lambda: bridge.listening)
        await shout(client, "numbers:one", b"\x00\xff\xfe", b"", number(3))
        await until(lambda: consumer.stats.events == 3)
    assert [letter.payload for letter in await DeadLetters(client).list()] == [b"\x00\xff\xfe", b""]
    assert await data(client) == [3]


async def test_plain_messages_of_a_channel_keep_to_one_shard(client: Client, until: Until) -> None:
    """With several shards a channel's plain messages stay in order: its name routes them."""
    bridge = Bridge(client, [echo], shards=3)
    async with running(bridge):
        await until(lambda: bridge.listening)
        await shout(client, "numbers:a", number(1), number(2))
        await until(lambda: bridge.stats.appended == 2)
    stream = client.names.bus("events", str(shard_of("numbers:a", 3)))
    assert await client.store.call("XLEN", stream) == 2


async def test_drain_appends_what_was_heard(client: Client, until: Until) -> None:
    """After drain() everything heard is in the stream, and nothing more is heard."""
    bridge = Bridge(client, [echo])
    async with running(bridge):
        await until(lambda: bridge.listening)
        await shout(client, "numbers:one", *map(number, range(500)))
        await until(lambda: bridge.stats.heard == 500)
        await bridge.drain()
        assert len(await payloads(client)) == 500
        await shout(client, "numbers:one", number(501))
    assert len(await payloads(client)) == 500


async def test_too_much_at_once_is_left_to_others_and_said(
    client: Client, until: Until, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A queue at its limit gives no more names until a new marker; then it goes on."""
    monkeypatch.setattr("cachebus.bus.engine.bridge.MOST_QUEUED", 10)

    async def appended(payload: bytes) -> bool:
        return payload in await payloads(client)

    bridge = Bridge(client, [echo])
    async with running(bridge):
        await until(lambda: bridge.listening)
        await shout(client, "numbers:one", *map(number, range(100)))
        await until(lambda: bridge.stats.overflows)
        await until(lambda: bridge.listening and not bridge.stats.queued)
        await shout(client, "numbers:one", number(1000))
        await until(lambda: bridge.stats.heard and bridge.stats.appended == bridge.stats.heard)
        await until(lambda: appended(number(1000)))
    assert len(await payloads(client)) == bridge.stats.heard


async def test_a_marker_between_a_notice_and_its_message_parts_them_not(client: Client, until: Until) -> None:
    """In a cluster another node's marker can come there: the message is in the stream already, and stays there once."""
    bridge = Bridge(client, [echo])
    async with running(bridge):
        await until(lambda: bridge.listening)
        payload = number(1)
        for channel, message in (
            (client.names.bus("skip"), b"%d numbers:one" % len(payload)),
            (client.names.bus("mark"), b"0123456789abcdef"),
            ("numbers:one", payload),
            ("numbers:one", number(2)),
        ):
            await client.store.call("PUBLISH", channel, message)
        await until(lambda: bridge.stats.appended >= 1)
    assert (bridge.stats.skipped, bridge.stats.heard) == (1, 1)
