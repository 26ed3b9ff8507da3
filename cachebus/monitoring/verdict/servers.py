"""What the servers say of themselves. Managed ones keep some of it to themselves: that is left out, never guessed."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Mapping

import msgspec

from cachebus.errors import ServerError
from cachebus.redis.client import Client
from cachebus.redis.server import Server

PATIENCE_S = 2.0
"""A server that answers this late is slow, and not away."""
PARTS = {
    "used_memory_dataset": "data",
    "used_memory_overhead": "keys and tables",
    "mem_clients_normal": "clients",
    "mem_aof_buffer": "buffer of the log",
    "used_memory_scripts": "scripts",
}
"""Fields of INFO, and what they are for people."""


class ServerFacts(msgspec.Struct):
    """One server."""

    name: str
    up: bool
    version: str = ""
    round_trip_ms: float | None = None
    memory: int = 0
    memory_limit: int = 0
    """0: none is set."""
    machine_memory: int = 0
    policy: str = ""
    evicted: int = 0
    clients: int = 0
    most_clients: int = 0
    commands_a_second: int = 0
    uptime_s: int = 0
    peak: int = 0
    """The most memory it has used since it started."""
    fragmentation: float | None = None
    """Memory of the machine by memory used; beyond 1.5 much of it is wasted."""
    parts: dict[str, int] = {}
    """What its memory holds, bytes."""
    persistence: str = ""
    """How it is kept on disk, in a few words; '' where it does not say."""
    keeps: bool = True
    """Whether it holds what must not be evicted."""

    @property
    def memory_used(self) -> float:
        """The share of the memory it may use: of its limit, or else of its machine's; 0.0 where neither is known."""
        most = self.memory_limit or self.machine_memory
        return self.memory / most if most else 0.0

    @property
    def clients_used(self) -> float:
        """The share of the connections it allows."""
        return self.clients / self.most_clients if self.most_clients else 0.0


async def servers(client: Client) -> list[ServerFacts]:
    """Ask each server of a deployment. Raises nothing: one that is unavailable is not up."""
    apart = client.entries is not client.store
    found = [await _facts(client.store, "Redis" if not apart else "store", keeps=True)]
    if apart:
        found.append(await _facts(client.entries, "entries", keeps=False))
    return found


async def _facts(server: Server, name: str, *, keeps: bool) -> ServerFacts:
    facts = ServerFacts(name, up=server.up, keeps=keeps)
    try:
        began = time.perf_counter()
        await server.call("PING", timeout_s=PATIENCE_S)
        facts.round_trip_ms = (time.perf_counter() - began) * 1000
    except ServerError:
        facts.up = False
        return facts
    with contextlib.suppress(ServerError):
        text = (await server.call("INFO", timeout_s=PATIENCE_S)).decode()
        info = dict(line.split(":", 1) for line in text.splitlines() if ":" in line)
        kind = "Valkey" if "valkey_version" in info else "Redis"
        facts.version = f"{kind} {info.get('valkey_version', info.get('redis_version', ''))}"
        facts.memory, facts.memory_limit = int(info.get("used_memory", 0)), int(info.get("maxmemory", 0))
        facts.machine_memory = int(info.get("total_system_memory", 0))
        facts.policy = info.get("maxmemory_policy", "")
        facts.evicted = int(info.get("evicted_keys", 0))
        facts.clients = int(info.get("connected_clients", 0))
        facts.most_clients = int(info.get("maxclients", 0))
        facts.commands_a_second = int(info.get("instantaneous_ops_per_sec", 0))
        facts.uptime_s = int(info.get("uptime_in_seconds", 0))
        facts.peak = int(info.get("used_memory_peak", 0))
        facts.fragmentation = _number(info.get("mem_fragmentation_ratio"))
        facts.parts = {said: int(info[name]) for name, said in PARTS.items() if int(_number(info.get(name)) or 0)}
        facts.persistence = _persistence(info)
    return facts


def _persistence(info: Mapping[str, str]) -> str:
    """Return in a few words how a server is kept on disk."""
    if "aof_enabled" not in info:
        return ""
    log = info["aof_enabled"] == "1"
    bad = info.get("aof_last_write_status", "ok") != "ok" or info.get("rdb_last_bgsave_status", "ok") != "ok"
    kept = "every write is logged" if log else "no log of writes"
    unsaved = int(info.get("rdb_changes_since_last_save", 0))
    return f"{kept}, {unsaved:,} changes since the last snapshot" + (", THE LAST WRITE TO DISK FAILED" if bad else "")


def _number(text: str | None) -> float | None:
    try:
        return float(text) if text is not None else None
    except ValueError:
        return None
