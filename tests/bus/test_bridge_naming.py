"""The names of plain messages: random schedules of bridges that connect, fall deaf, lag and die, without a server.

The model is what pub/sub promises: a connection gets what is published on its channels after it subscribed, in the one
order in which the server ran it. Deliveries lag by any time; a new connection subscribes channel by channel.
"""

from __future__ import annotations

import asyncio
import random
from collections import deque
from collections.abc import Callable
from typing import Any

import pytest

from cachebus.bus.engine.bridge import Bridge
from cachebus.bus.handlers import on
from cachebus.redis.keyspace import Names

CHANNELS = ("numbers:a", "numbers:b")
HANDLERS = [on(channel, name=channel)(lambda _event: None) for channel in CHANNELS]


class Connection:
    """One connection to the server: what it is subscribed to, and what it has not delivered yet."""

    def __init__(self) -> None:
        self.channels: set[str] = set()
        self.undelivered: deque[tuple[str, bytes]] = deque()


class World:
    """A server: pub/sub, the events, and the script that appends plain messages."""

    def __init__(self, seed: int) -> None:
        self.choose = random.Random(seed)  # noqa: S311 - a schedule, not a secret
        self.workers: list[Worker] = []
        self.appended: list[bytes] = []
        self.known: dict[tuple[str, str], int] = {}
        self.sent = 0

    def publish(self, channel: str, payload: bytes) -> None:
        """Run a PUBLISH."""
        for worker in self.workers:
            if channel in worker.connection.channels:
                worker.connection.undelivered.append((channel, payload))

    def message(self) -> bytes:
        """Return a payload: all have one length, so that no name can come from it."""
        self.sent += 1
        return b"%08d" % self.sent

    def run(self, _verb: str, keys: list[str], args: list[Any]) -> tuple[int, int]:
        """Do what append_plain.lua does."""
        new = 0
        for at in range(3, len(args), 4):
            _, channel, count, payload = args[at : at + 4]
            if count > self.known.get((keys[0], channel), 0):
                self.known[keys[0], channel] = count
                self.appended.append(payload)
                new += 1
        return (len(args) - 3) // 4, new


class Worker:
    """One process: the subscriptions, the store and the bridge it has."""

    def __init__(self, world: World, name: str) -> None:
        self.world = world
        self.names = Names(name)
        self.connection = Connection()
        self.handlers: dict[str, Callable[[str, bytes], None]] = {}
        self.on_gap: Callable[[], None] | None = None
        self.subscribing: list[str] = []
        self.bridge = Bridge(self, HANDLERS)  # type: ignore[arg-type] # it is its own client, as far as bridges care

    # what the bridge sees

    @property
    def subscriptions(self) -> Worker:
        return self

    @property
    def store(self) -> Worker:
        return self

    async def subscribe(
        self, channel: str, handler: Callable[[str, bytes], None], *, pattern: bool = False, on_gap: Any = None
    ) -> None:
        self.handlers[channel] = handler
        self.on_gap = on_gap or self.on_gap
        self.connection.channels.add(channel)
        self.others_go_on()

    async def call(self, _verb: str, channel: str, payload: str) -> int:
        self.world.publish(channel, payload.encode())
        return 1

    async def run(self, verb: str, keys: list[str], args: list[Any], **_: Any) -> tuple[int, int]:
        return self.world.run(verb, keys, args)

    # what happens to it

    def others_go_on(self) -> None:
        """Let other things happen between two of its steps."""
        if self.world.choose.random() < 0.5:
            self.world.publish(self.world.choose.choice(CHANNELS), self.world.message())

    def deliver(self, count: int) -> None:
        """Let up to *count* pushes reach the bridge."""
        while count and self.connection.undelivered:
            channel, payload = self.connection.undelivered.popleft()
            self.handlers[channel](channel, payload)
            count -= 1

    def reconnect(self) -> None:
        """Lose the connection with all that is under way on it, and begin to subscribe anew."""
        self.connection = Connection()
        self.subscribing = list(self.handlers)
        self.world.choose.shuffle(self.subscribing)

    def subscribe_next(self) -> None:
        """Subscribe to one channel more; after the last the bridge is told that it was deaf."""
        self.connection.channels.add(self.subscribing.pop())
        if not self.subscribing and self.on_gap is not None:
            self.on_gap()

    async def mark_or_append(self) -> None:
        """Do one step of the bridge's main path."""
        self.bridge._woken.set()
        await self.bridge._step(asyncio.get_running_loop().create_future())


async def happen(world: World, worker: Worker, stays: Worker) -> None:
    """Let one thing happen, at random."""
    choose = world.choose
    what = choose.random()
    if what < 0.3:
        world.publish(choose.choice(CHANNELS), world.message())
    elif what < 0.4:  # publish(): a notice and the message with nothing between; it is in the stream already
        channel = choose.choice(CHANNELS)
        payload = b"own%05d" % choose.randrange(10**5)
        world.publish(worker.names.bus("skip"), b"%d %b" % (len(payload), channel.encode()))
        world.publish(channel, payload)
    elif what < 0.7:
        worker.deliver(choose.randint(1, 6))
    elif what < 0.9:
        await worker.mark_or_append()
    elif worker is not stays and not worker.subscribing:
        worker.reconnect()
    if worker.subscribing and choose.random() < 0.5:
        worker.subscribe_next()


@pytest.mark.parametrize("seed", range(150))
async def test_no_schedule_loses_or_doubles_a_message_while_one_bridge_stays(seed: int) -> None:
    """Three bridges, one of which keeps its connection: what it may name is appended once, whatever the others do."""
    world = World(seed)
    for _ in range(3):
        worker = Worker(world, "same")
        world.workers.append(worker)
        await worker.mark_or_append()  # subscribes, and publishes a marker
    stays = world.workers[0]
    stays.deliver(1000)
    assert stays.bridge.listening
    before = world.sent
    for _ in range(300):
        await happen(world, world.choose.choice(world.workers), stays)
    for worker in world.workers:
        worker.deliver(10**6)
        while worker.bridge._queue or worker.bridge._mark_due:
            await worker.mark_or_append()
    expected = {b"%08d" % n for n in range(before + 1, world.sent + 1)}
    assert len(world.appended) == len(set(world.appended)), "a message was appended twice"
    assert expected <= set(world.appended), "a message was lost"
    assert not any(payload.startswith(b"own") for payload in world.appended), "a published event was appended again"
    later = [payload for payload in world.appended if payload in expected]
    assert len(later) == len(expected)
