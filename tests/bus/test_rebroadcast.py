"""Broadcasts in the forms of Socket.IO and Django Channels: their own code delivers them; nothing is left out."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from typing import Any

import pytest
import socketio
from channels_redis.pubsub import RedisPubSubChannelLayer
from serving import add, number, running

from cachebus import Link, adapters
from cachebus.consumer import Consumer
from cachebus.effects import Broadcast, Effects
from cachebus.events import Event
from cachebus.handlers import on
from cachebus.private_server import PrivateServer
from cachebus.rebroadcast import Rebroadcast

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
