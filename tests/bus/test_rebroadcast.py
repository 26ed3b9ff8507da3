"""Broadcasts in the forms of Socket.IO and Django Channels: their own code delivers them; nothing is left out."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncIterator, Callable
from typing import Any

import pytest
import socketio
from channels_redis.pubsub import RedisPubSubChannelLayer
from serving import add, number, running

from cachebus import Cache, Link, adapters, rebroadcast
from cachebus.consumer import Consumer
from cachebus.effects import Broadcast, Effects
from cachebus.events import Event
from cachebus.feed import FeedRecord
from cachebus.handlers import on
from cachebus.private_server import PrivateServer
from cachebus.rebroadcast import Rebroadcast
from worker.engines import engines
from worker.loading import Application
from worker.settings import Settings

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
    server: PrivateServer, link: Link, until: Until, sent: list[tuple[str, str]]
) -> None:
    """To the room, and to the group, of its topic; to nobody else."""
    layer = RedisPubSubChannelLayer(hosts=[server.url])
    channel = await layer.new_channel()
    await layer.group_add(adapters.channels_group("user:7"), channel)
    again = Rebroadcast(link, [adapters.socketio(), adapters.channels()])
    async with running(Consumer(link, [tell]), again):
        await until(lambda: link.store.call("EXISTS", link.names.bus("rebroadcast")))
        await add(link, "numbers", number(1))
        message = await asyncio.wait_for(layer.receive(channel), 20)
        await until(lambda: sent)
    assert message["type"] == "cachebus.broadcast"
    assert (message["broadcast"]["topic"], message["broadcast"]["data"]) == ("user:7", 1)
    assert [client for client, _ in sent] == ["in"]
    assert '"trade"' in sent[0][1]
    await layer.flush()


async def test_the_next_worker_goes_on_where_the_last_one_was(link: Link, until: Until, server: PrivateServer) -> None:
    """Two workers, one tells; what comes while nobody does is told by whoever is next, in order, none left out."""
    heard: list[str] = []
    async with Link(server.url) as listening:
        await listening.subscriptions.subscribe("told", lambda _, payload: heard.append(payload.decode()))
        forms = [lambda record: ("told", record.id.encode())]
        async with running(Consumer(link, [tell])):
            first = Rebroadcast(link, forms)
            async with running(first):
                await until(lambda: link.store.call("EXISTS", link.names.bus("rebroadcast")))
                async with running(Rebroadcast(link, forms)) as others:
                    await add(link, "numbers", number(1), number(2))
                    await until(lambda: len(heard) == 2)
                    assert not others[0].done()
                await first.drain()
            await add(link, "numbers", number(3))
            async with running(Rebroadcast(link, forms)):
                await until(lambda: len(heard) == 3)
    assert heard == sorted(set(heard))


async def broadcasts(link: Link, until: Until, count: int) -> None:
    """Have *count* broadcasts in the feed, all of them behind the noted place."""

    async def all_there() -> bool:
        return bool(await link.store.call("XLEN", link.names.feed) == count)

    await link.store.call("SET", link.names.bus("rebroadcast"), "", "PX", 60_000)
    async with running(Consumer(link, [tell])):
        await add(link, "numbers", *map(number, range(count)))
        await until(all_there)


def noting(told: list[str]) -> adapters.Form:
    """Return a form that notes which records it is asked to tell."""

    def form(record: FeedRecord) -> tuple[str, bytes]:
        told.append(record.id)
        return "told", b""

    return form


async def test_a_drained_worker_leaves_nothing_to_be_told_twice(link: Link, until: Until) -> None:
    """Drained in the middle of a page, it tells the rest and notes it: a deploy repeats nothing."""
    await broadcasts(link, until, 50)
    told: list[str] = []
    draining: list[asyncio.Task[None]] = []
    note = noting(told)

    def form(record: FeedRecord) -> tuple[str, bytes]:
        if not draining:
            draining.append(asyncio.create_task(first.drain()))
        return note(record)

    first = Rebroadcast(link, [form])
    async with running(first):
        await until(lambda: draining)
        await draining[0]
    async with running(Rebroadcast(link, [note]), Consumer(link, [tell])):
        await add(link, "numbers", number(50))
        await until(lambda: len(set(told)) == 51)
    assert len(told) == 51


async def test_a_dead_worker_is_followed_by_another(server: PrivateServer, link: Link, until: Until) -> None:
    """Its lock ends with the lease; what was broadcast meanwhile is told by the next one."""
    told: list[str] = []
    dying = Link(server.url, namespace=link.names.namespace)
    await dying.start()
    async with running(Consumer(link, [tell])):
        async with running(Rebroadcast(dying, [noting(told)], lease="500ms")):
            await until(lambda: link.store.call("EXISTS", link.names.bus("rebroadcast")))
            await add(link, "numbers", number(1))
            await until(lambda: len(told) == 1)
            await dying.close()  # before it could give the lock back
        await add(link, "numbers", number(2))
        async with running(Rebroadcast(link, [noting(told)])):
            await until(lambda: len(set(told)) == 2)


async def test_a_feed_that_was_cut_is_told_from_its_oldest(
    link: Link, until: Until, caplog: pytest.LogCaptureFixture
) -> None:
    """What is gone is said in the log; what is left is told."""
    await broadcasts(link, until, 5)
    await link.store.call("XTRIM", link.names.feed, "MAXLEN", 2)
    told: list[str] = []
    with caplog.at_level(logging.WARNING, "cachebus"):
        async with running(Rebroadcast(link, [noting(told)])):
            await until(lambda: len(told) == 2)
    assert "broadcasts are missing" in caplog.text


async def test_the_place_outlives_silence(link: Link, until: Until, monkeypatch: pytest.MonkeyPatch) -> None:
    """While somebody follows the feed its place is kept, however long nothing is broadcast."""
    monkeypatch.setattr(rebroadcast, "RENEWED_S", 0.01)
    place = link.names.bus("rebroadcast")

    async def kept() -> bool:
        return bool(await link.store.call("PTTL", place) > 60_000)

    async with running(Rebroadcast(link, [noting([])])):
        await until(kept)
        await link.store.call("PEXPIRE", place, 60_000)
        await until(kept)


@pytest.mark.parametrize(
    ("environment", "told_again"),
    [({}, False), ({"SOCKETIO_CHANNEL": "socketio"}, True), ({"CHANNELS_PREFIX": "asgi"}, True)],
)
async def test_a_worker_tells_again_what_it_is_set_to(
    cache: Cache, link: Link, environment: dict[str, str], told_again: bool
) -> None:
    """Either setting is enough; without both there is no such service."""
    work = engines(Application([], [], cache, []), link, Settings.from_environment(environment).bus, "w")
    assert ("rebroadcast" in [service.name for service in work.services()]) is told_again
