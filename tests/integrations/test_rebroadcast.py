"""Broadcasts in the forms of Socket.IO and Django Channels: their own code delivers them; nothing is left out."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncIterator, Callable
from typing import Any

import pytest
import socketio
from channels_redis.pubsub import RedisPubSubChannelLayer

from cachebus import Cache, Client
from cachebus.bus.effects import Broadcast, Effects
from cachebus.bus.engine.consumer import Consumer
from cachebus.bus.events import Event
from cachebus.bus.feed import FeedRecord
from cachebus.bus.handlers import on
from cachebus.integrations import rebroadcast
from cachebus.integrations.rebroadcast import Rebroadcast
from cachebus.testing.server import PrivateServer
from cachebus.worker.engines import engines
from cachebus.worker.loading import Application
from cachebus.worker.settings import WorkerSettings
from tests.support.serving import add, number, running

Until = Callable[..., Any]


@on("numbers", dict[str, int])
def tell(event: dict[str, int], _envelope: Event) -> Effects:
    """Broadcast the number."""
    yield Broadcast("user:7", "trade", event["n"])


@pytest.fixture
async def sent(server: PrivateServer) -> AsyncIterator[list[tuple[str, str]]]:
    """What a Socket.IO server sends to its clients; `in` is in the room `user:7`, `out` is not."""
    manager = socketio.AsyncRedisManager(server.url)
    sio = socketio.AsyncServer(async_mode="asgi", client_manager=manager)
    sent: list[tuple[str, str]] = []

    async def packet(client: str, packet: Any) -> None:
        sent.append((client, str(packet.encode())))

    sio._send_eio_packet = packet
    manager.set_server(sio)
    manager.initialize()
    for name in ("in", "out"):
        sid = await manager.connect(name, "/")
        if name == "in":
            await manager.enter_room(sid, "/", "user:7")
    yield sent
    manager.thread.cancel()
    await asyncio.gather(manager.thread, return_exceptions=True)
    await manager.pubsub.aclose()
    await manager.redis.aclose()


async def test_their_own_servers_deliver_a_broadcast(
    server: PrivateServer, client: Client, until: Until, sent: list[tuple[str, str]]
) -> None:
    """To the room, and to the group, of its topic; to nobody else."""
    layer = RedisPubSubChannelLayer(hosts=[server.url])
    channel = await layer.new_channel()
    await layer.group_add(rebroadcast.channels_group("user:7"), channel)
    again = Rebroadcast(client, [rebroadcast.socketio(), rebroadcast.channels()])
    async with running(Consumer(client, [tell]), again):
        await until(lambda: client.store.call("EXISTS", client.names.bus("rebroadcast")))
        await add(client, "numbers", number(1))
        message = await asyncio.wait_for(layer.receive(channel), 20)
        await until(lambda: sent)
    assert message["type"] == "cachebus.broadcast"
    assert (message["broadcast"]["topic"], message["broadcast"]["data"]) == ("user:7", 1)
    assert [client for client, _ in sent] == ["in"]
    assert '"trade"' in sent[0][1]
    await layer.flush()


async def test_the_next_worker_goes_on_where_the_last_one_was(
    client: Client, until: Until, server: PrivateServer
) -> None:
    """Two workers, one tells; what comes while nobody does is told by whoever is next, in order, none left out."""
    heard: list[str] = []
    async with Client(server.url) as listening:
        await listening.subscriptions.subscribe("told", lambda _, payload: heard.append(payload.decode()))
        forms = [lambda record: ("told", record.id.encode())]
        async with running(Consumer(client, [tell])):
            first = Rebroadcast(client, forms)
            async with running(first):
                await until(lambda: client.store.call("EXISTS", client.names.bus("rebroadcast")))
                async with running(Rebroadcast(client, forms)) as others:
                    await add(client, "numbers", number(1), number(2))
                    await until(lambda: len(heard) == 2)
                    assert not others[0].done()
                await first.drain()
            await add(client, "numbers", number(3))
            async with running(Rebroadcast(client, forms)):
                await until(lambda: len(heard) == 3)
    assert heard == sorted(set(heard))


async def broadcasts(client: Client, until: Until, count: int) -> None:
    """Have *count* broadcasts in the feed, all of them behind the noted place."""

    async def all_there() -> bool:
        return bool(await client.store.call("XLEN", client.names.feed) == count)

    await client.store.call("SET", client.names.bus("rebroadcast"), "", "PX", 60_000)
    async with running(Consumer(client, [tell])):
        await add(client, "numbers", *map(number, range(count)))
        await until(all_there)


def noting(told: list[str]) -> rebroadcast.Form:
    """Return a form that notes which records it is asked to tell."""

    def form(record: FeedRecord) -> tuple[str, bytes]:
        told.append(record.id)
        return "told", b""

    return form


async def test_a_drained_worker_leaves_nothing_to_be_told_twice(client: Client, until: Until) -> None:
    """Drained in the middle of a page, it tells the rest and notes it: a deploy repeats nothing."""
    await broadcasts(client, until, 50)
    told: list[str] = []
    draining: list[asyncio.Task[None]] = []
    note = noting(told)

    def form(record: FeedRecord) -> tuple[str, bytes]:
        if not draining:
            draining.append(asyncio.create_task(first.drain()))
        return note(record)

    first = Rebroadcast(client, [form])
    async with running(first):
        await until(lambda: draining)
        await draining[0]
    async with running(Rebroadcast(client, [note]), Consumer(client, [tell])):
        await add(client, "numbers", number(50))
        await until(lambda: len(set(told)) == 51)
    assert len(told) == 51


async def test_a_dead_worker_is_followed_by_another(server: PrivateServer, client: Client, until: Until) -> None:
    """Its lock ends with the lease; what was broadcast meanwhile is told by the next one."""
    told: list[str] = []
    dying = Client(server.url, namespace=client.names.namespace)
    await dying.start()
    async with running(Consumer(client, [tell])):
        async with running(Rebroadcast(dying, [noting(told)], lease="500ms")):
            await until(lambda: client.store.call("EXISTS", client.names.bus("rebroadcast")))
            await add(client, "numbers", number(1))
            await until(lambda: len(told) == 1)
            await dying.close()  # before it could give the lock back
        await add(client, "numbers", number(2))
        async with running(Rebroadcast(client, [noting(told)])):
            await until(lambda: len(set(told)) == 2)


async def test_a_feed_that_was_cut_is_told_from_its_oldest(
    client: Client, until: Until, caplog: pytest.LogCaptureFixture
) -> None:
    """What is gone is said in the log; what is left is told."""
    await broadcasts(client, until, 5)
    await client.store.call("XTRIM", client.names.feed, "MAXLEN", 2)
    told: list[str] = []
    with caplog.at_level(logging.WARNING, "cachebus"):
        async with running(Rebroadcast(client, [noting(told)])):
            await until(lambda: len(told) == 2)
    assert "broadcasts are missing" in caplog.text


async def test_the_place_outlives_silence(client: Client, until: Until, monkeypatch: pytest.MonkeyPatch) -> None:
    """While somebody follows the feed its place is kept, however long nothing is broadcast."""
    monkeypatch.setattr(rebroadcast, "RENEWED_S", 0.01)
    place = client.names.bus("rebroadcast")

    async def kept() -> bool:
        return bool(await client.store.call("PTTL", place) > 60_000)

    async with running(Rebroadcast(client, [noting([])])):
        await until(kept)
        await client.store.call("PEXPIRE", place, 60_000)
        await until(kept)


@pytest.mark.parametrize(
    ("environment", "told_again"),
    [({}, False), ({"SOCKETIO_CHANNEL": "socketio"}, True), ({"CHANNELS_PREFIX": "asgi"}, True)],
)
async def test_a_worker_tells_again_what_it_is_set_to(
    cache: Cache, client: Client, environment: dict[str, str], told_again: bool
) -> None:
    """Either setting is enough; without both there is no such service."""
    work = engines(Application([], [], cache, []), client, WorkerSettings.from_environment(environment).bus, "w")
    assert ("rebroadcast" in [service.name for service in work.services()]) is told_again
