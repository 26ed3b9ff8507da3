"""Where the fault matrix runs, and what breaks there: servers of its own, and a network that can be switched over."""

from __future__ import annotations

import asyncio
import math
import os
import random
import signal
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import AbstractAsyncContextManager, AsyncExitStack, asynccontextmanager, suppress
from dataclasses import dataclass, field

from cachebus.testing import FaultProxy
from cachebus.testing.server import PrivateCluster, PrivateServer
from tests.support.waiting import until

AOF = ("appendonly yes", "appendfsync everysec", 'save ""')
RDB = ("appendonly no", 'save ""')


@dataclass
class Readers:
    """The reading processes of a cell, as a fault may treat them."""

    processes: list[asyncio.subprocess.Process] = field(default_factory=list)
    restart: Callable[[], Awaitable[None]] | None = None
    """Kill them all and start others, which know nothing."""
    stops_s: tuple[float, float] = (2.1, 4.0)
    """The shortest and the longest time for which one is stopped."""


Fault = Callable[[Readers, random.Random], Awaitable[None]]
"""Breaks something once, and mends it again."""


@dataclass
class Place:
    """One deployment with one kind of fault."""

    url: str
    servers: Sequence[PrivateServer]
    fault: Fault | None = None
    pause_s: float = 0.6
    """Between two faults."""
    store_url: str | None = None
    environment: Callable[[], dict[str, str]] = dict
    """What each reader is to have in its environment."""


class SwitchedProxy(FaultProxy):
    """A proxy that can be led to another server."""

    def lead_to(self, port: int) -> None:
        """Send new connections there, and end the present ones."""
        self._target = ("127.0.0.1", port)
        self.cut()


@asynccontextmanager
async def none() -> AsyncIterator[Place]:
    """Nothing breaks."""
    with PrivateServer.start(*RDB) as server:
        yield Place(server.url, [server])


@asynccontextmanager
async def journal_cut() -> AsyncIterator[Place]:
    """The journal's connections are ended again and again, each time for a second."""
    with PrivateServer.start(*RDB) as server:

        def cut_once() -> None:
            for line in server.ask("CLIENT", "LIST").decode().splitlines():
                words = dict(word.split("=", 1) for word in line.split() if "=" in word)
                if words.get("cmd") in {"xread", "zmscore"}:
                    server.ask("CLIENT", "KILL", "ID", words["id"])

        async def cut(_readers: Readers, _draw: random.Random) -> None:
            ends = time.monotonic() + 1.0
            while time.monotonic() < ends:
                await asyncio.to_thread(cut_once)
                await asyncio.sleep(0.02)

        yield Place(server.url, [server], cut, 0.3)


def stopped(delay_s: float) -> Callable[[], AbstractAsyncContextManager[Place]]:
    """Return a place where processes stop for a while, on a network with this round trip."""

    @asynccontextmanager
    async def place() -> AsyncIterator[Place]:
        with PrivateServer.start(*RDB) as server:
            async with FaultProxy(server.port) as proxy:
                proxy.delay_s = delay_s

                async def stop(readers: Readers, draw: random.Random) -> None:
                    process = draw.choice(readers.processes)
                    shortest_s, longest_s = map(math.log, readers.stops_s)
                    with suppress(ProcessLookupError):
                        os.kill(process.pid, signal.SIGSTOP)
                        await asyncio.sleep(math.exp(draw.uniform(shortest_s, longest_s)))
                        os.kill(process.pid, signal.SIGCONT)

                yield Place(proxy.url if delay_s else server.url, [server], stop, 1.0)

    return place


@asynccontextmanager
async def killed_with_aof() -> AsyncIterator[Place]:
    """The server is killed and comes back with all it had written."""
    with PrivateServer.start(*AOF) as server:

        async def kill(_readers: Readers, _draw: random.Random) -> None:
            await asyncio.to_thread(server.restart)

        yield Place(server.url, [server], kill, 1.2)


@asynccontextmanager
async def killed_with_rdb() -> AsyncIterator[Place]:
    """The server is killed and comes back as it was a while before."""
    with PrivateServer.start(*RDB) as server:

        async def kill(_readers: Readers, draw: random.Random) -> None:
            await asyncio.to_thread(server.ask, "SAVE")
            await asyncio.sleep(draw.uniform(0.3, 0.8))
            await asyncio.to_thread(server.restart)

        yield Place(server.url, [server], kill, 0.8)


@asynccontextmanager
async def flushed() -> AsyncIterator[Place]:
    """Everything in the server is deleted."""
    with PrivateServer.start(*RDB) as server:

        async def flush(_readers: Readers, _draw: random.Random) -> None:
            await asyncio.to_thread(server.ask, "FLUSHALL")

        yield Place(server.url, [server], flush, 0.7)


@asynccontextmanager
async def failed_over() -> AsyncIterator[Place]:
    """A replica that lacks the last moments takes over; the old primary becomes its replica."""
    async with AsyncExitStack() as stack:
        primary, replica = (stack.enter_context(PrivateServer.start(*RDB)) for _ in range(2))
        proxy = await stack.enter_async_context(SwitchedProxy(primary.port))
        roles = [primary, replica]

        async def follow(one: PrivateServer, other: PrivateServer) -> None:
            await asyncio.to_thread(one.ask, "REPLICAOF", other.host, other.port)

            async def in_step() -> bool:
                info = (await asyncio.to_thread(one.ask, "INFO", "replication")).decode()
                return "master_link_status:up" in info

            await until(in_step, "the replica to be in step")

        async def fail_over(_readers: Readers, draw: random.Random) -> None:
            old, new = roles
            await asyncio.to_thread(new.ask, "REPLICAOF", "NO", "ONE")
            await asyncio.sleep(draw.uniform(0.1, 0.5))  # what the old one acknowledges now is lost
            proxy.lead_to(new.port)
            roles.reverse()
            await follow(old, new)

        await follow(replica, primary)
        yield Place(proxy.url, roles, fail_over, 1.0)


@asynccontextmanager
async def all_restarted() -> AsyncIterator[Place]:
    """Server and applications all restart: nobody is left who knows what was lost."""
    with PrivateServer.start(*RDB) as server:

        async def restart(readers: Readers, draw: random.Random) -> None:
            await asyncio.to_thread(server.ask, "SAVE")
            await asyncio.sleep(draw.uniform(0.2, 0.6))
            await asyncio.to_thread(server.kill)
            assert readers.restart is not None
            await asyncio.gather(readers.restart(), asyncio.to_thread(server.restart))

        yield Place(server.url, [server], restart, 1.5)


@asynccontextmanager
async def with_password() -> AsyncIterator[Place]:
    """A password and another database; connections are ended now and then, so that they must sign in again."""
    with PrivateServer.start(*RDB) as server:
        server.ask("ACL", "SETUSER", "app", "on", ">se/cret", "~*", "&*", "+@all")

        async def sign_in_again(_readers: Readers, _draw: random.Random) -> None:
            await asyncio.to_thread(server.ask, "CLIENT", "KILL", "USER", "app")

        yield Place(f"redis://app:se%2Fcret@{server.host}:{server.port}/1", [server], sign_in_again, 1.0)


@asynccontextmanager
async def clustered() -> AsyncIterator[Place]:
    """Three nodes; one after the other loses its connections."""
    with PrivateCluster.start(*RDB) as cluster:

        async def cut(_readers: Readers, draw: random.Random) -> None:
            await asyncio.to_thread(draw.choice(cluster.nodes).ask, "CLIENT", "KILL", "TYPE", "normal")

        yield Place(cluster.url, cluster.nodes, cut, 1.0)


@asynccontextmanager
async def one_endpoint() -> AsyncIterator[Place]:
    """One address before many slots: what spans slots is refused."""
    with PrivateCluster.start(*RDB, size=1) as alone:
        node = alone.nodes[0]

        async def cut(_readers: Readers, _draw: random.Random) -> None:
            await asyncio.to_thread(node.ask, "CLIENT", "KILL", "TYPE", "normal")

        yield Place(node.url, [node], cut, 1.0)
