"""What the servers say of themselves. Managed ones keep some of it to themselves: that is left out, never guessed."""

from __future__ import annotations

import contextlib
import time

import msgspec

from cachebus import Link, ServerError
from cachebus.server import Server


class ServerFacts(msgspec.Struct):
    """One server."""

    name: str
    up: bool
    version: str = ""
    round_trip_ms: float | None = None
    memory: int = 0
    memory_limit: int = 0
    """0: none is set."""
    policy: str = ""
    evicted: int = 0
    clients: int = 0
    most_clients: int = 0
    commands_a_second: int = 0
    keeps: bool = True
    """Whether it holds what must not be evicted."""

    @property
    def memory_used(self) -> float:
        """The share of the memory it may use; 0.0 where there is no limit."""
        return self.memory / self.memory_limit if self.memory_limit else 0.0

    @property
    def clients_used(self) -> float:
        """The share of the connections it allows."""
        return self.clients / self.most_clients if self.most_clients else 0.0


async def servers(link: Link) -> list[ServerFacts]:
    """Ask each server of a deployment. Raises nothing: one that is away is not up."""
    apart = link.entries is not link.store
    found = [await _facts(link.store, "Redis" if not apart else "store", keeps=True)]
    if apart:
        found.append(await _facts(link.entries, "entries", keeps=False))
    return found


async def _facts(server: Server, name: str, *, keeps: bool) -> ServerFacts:
    facts = ServerFacts(name, up=server.up, keeps=keeps)
    try:
        began = time.perf_counter()
        await server.call("PING")
        facts.round_trip_ms = (time.perf_counter() - began) * 1000
    except ServerError:
        facts.up = False
        return facts
    with contextlib.suppress(ServerError):
        text = (await server.call("INFO")).decode()
        info = dict(line.split(":", 1) for line in text.splitlines() if ":" in line)
        kind = "Valkey" if "valkey_version" in info else "Redis"
        facts.version = f"{kind} {info.get('valkey_version', info.get('redis_version', ''))}"
        facts.memory, facts.memory_limit = int(info.get("used_memory", 0)), int(info.get("maxmemory", 0))
        facts.policy = info.get("maxmemory_policy", "")
        facts.evicted = int(info.get("evicted_keys", 0))
        facts.clients = int(info.get("connected_clients", 0))
        facts.most_clients = int(info.get("maxclients", 0))
        facts.commands_a_second = int(info.get("instantaneous_ops_per_sec", 0))
    return facts
