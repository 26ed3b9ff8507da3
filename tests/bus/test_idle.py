"""What the parts of an idle worker cost their server, counted by the server."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any

import msgspec

from cachebus import Cache
from cachebus.bus.effects import Broadcast, Effects
from cachebus.bus.engine.bridge import Bridge
from cachebus.bus.engine.consumer import Consumer
from cachebus.bus.engine.mover import Mover
from cachebus.bus.engine.refresher import Refresher
from cachebus.bus.handlers import on
from cachebus.schedules.scheduler import Scheduler
from cachebus.testing.server import PrivateServer
from tests.support.serving import running

Until = Callable[..., Any]
WATCHED_S = 5
MOST_A_SECOND = 4


class Number(msgspec.Struct):
    n: int


@on("numbers", Number)
def numbers(event: Number) -> Effects:
    """Broadcast the number."""
    yield Broadcast("numbers", "n", event.n)


def asked(server: PrivateServer) -> int:
    """Return how many commands connections have sent; those that scripts run are not among them."""
    stats = {}
    for line in server.ask("INFO", "commandstats").decode().splitlines():
        name, _, facts = line.partition(":")
        stats[name.removeprefix("cmdstat_")] = int(facts.partition("=")[2].partition(",")[0]) if facts else 0
    return sum(stats.get(name, 0) for name in ("evalsha", "eval", "xread", "zmscore", "ping"))


def seconds(server: PrivateServer) -> float:
    """Return the server's time."""
    whole, micro = server.ask("TIME")
    return int(whole) + int(micro) / 1e6


async def test_idle_parts_send_at_most_four_commands_a_second_over_four_connections(
    own_server: PrivateServer, until: Until
) -> None:
    """Cache, consumer, bridge, refresher, mover, scheduler, over five seconds; not what the process tells of itself."""
    async with Cache(own_server.url) as cache:
        client = cache.client
        consumer, bridge = Consumer(client, [numbers]), Bridge(client, [numbers])
        refresher = Refresher(client, cache.views, reading=cache.reading)
        async with running(consumer, bridge, refresher, Mover(client), Scheduler(client, ())):
            await until(lambda: consumer.active and bridge.listening)
            begun, before = seconds(own_server), asked(own_server)
            await asyncio.sleep(WATCHED_S)
            sent, took = asked(own_server) - before, seconds(own_server) - begun
            clients = own_server.ask("CLIENT", "LIST").decode().splitlines()
    assert 0 < sent <= MOST_A_SECOND * took
    assert len(clients) - 1 <= 4  # one of them asks here
