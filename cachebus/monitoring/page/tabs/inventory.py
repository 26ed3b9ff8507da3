"""What lies in Redis, by kind, and who is limited: one walk over the keys each half minute, while somebody looks.

The walk stops after some 200,000 keys and says so: the page must not cost a large deployment more than it shows.
"""

from __future__ import annotations

import asyncio
import re
from collections import Counter
from contextlib import suppress

import msgspec

from cachebus.errors import ServerError
from cachebus.redis.client import Client
from cachebus.redis.server import Server

COUNT = 1000
MOST_STEPS = 200
SAMPLES = 200
SHOWN = 50
WEIGHED = 20
KINDS = {
    "e2": "entries",
    "l2": "loads under way",
    "limit": "rate limits",
    "lock": "locks",
    "lock-line": "",
    "session": "users with sessions",
    "session-ends": "",
    "id": "names of events",
    "history": "counters of the page",
    "popular": "what is read most",
    "read-at": "what was read when",
    "ticket": "tickets of gateways",
    "value": "atomic values",
    "guarded": "guarded values",
    "deadletters": "dead letters",
}
"""How people call a kind of key; '' is not shown: it lies beside another."""


class LimitUse(msgspec.Struct, frozen=True):
    """One counter of a rate limit."""

    key: str
    strategy: str
    used: int | None
    """Counted in its window, as of its last request."""
    left_ms: int
    counter: str = ""
    """Its key in Redis."""
    limit: int | None = None
    """What processes that have asked it lately hold it to; None where none of those that answer has."""
    window_ms: int | None = None
    refused: int | None = None
    """Requests refused in the last minute, by all processes that answer."""


class Inventory(msgspec.Struct, frozen=True):
    """What the walk found."""

    kinds: dict[str, int]
    bytes: dict[str, int]
    """Of each kind, told from the size of twenty of its keys."""
    complete: bool
    limits: list[LimitUse]
    locks: list[str]
    at_us: int
    """When the walk ended, by the server's time."""


async def inventory(client: Client) -> Inventory:
    """Walk. On a cluster only the node of the bus is walked. Raises: ServerError."""
    kinds: Counter[str] = Counter()
    samples: dict[str, list[str]] = {}
    sizes: dict[str, float] = {}
    complete = True
    for server in {id(server): server for server in (client.store, client.entries)}.values():
        here: dict[str, list[str]] = {}
        complete &= await _walk(server, client.names.namespace, kinds, here)
        for kind, names in here.items():
            samples.setdefault(kind, []).extend(names)
            sizes[kind] = max(sizes.get(kind, 0.0), await _size(server, names[:WEIGHED]))
    limits = await asyncio.gather(*[_limit(client, name) for name in samples.get("limit", [])[:SAMPLES]])
    busiest = sorted(limits, key=lambda use: use.used or 0, reverse=True)[:SHOWN]
    said = {kind: KINDS.get(kind, kind) for kind in kinds if KINDS.get(kind, kind)}
    shown = {said[kind]: count for kind, count in kinds.most_common() if kind in said}
    heavy = {said[kind]: round(sizes[kind] * count) for kind, count in kinds.items() if kind in said}
    locks = sorted(map(_inside, samples.get("lock", [])))
    return Inventory(shown, heavy, complete, busiest, locks, client.now_us())


async def _size(server: Server, names: list[str]) -> float:
    """Return the average size of some keys, 0.0 where the server does not say."""
    with suppress(ServerError):
        sizes = await asyncio.gather(*[server.call("MEMORY", "USAGE", name, key=name) for name in names])
        known = [size for size in sizes if size]
        return sum(known) / len(known) if known else 0.0
    return 0.0


async def _walk(server: Server, namespace: str, kinds: Counter[str], samples: dict[str, list[str]]) -> bool:
    """Count the keys of one server; False where it was not walked to the end."""
    of_ours = re.compile(rf"(?:\{{{re.escape(namespace)}\}}|{re.escape(namespace)}):([^:]+)")
    cursor = b"0"
    for _ in range(MOST_STEPS):
        cursor, keys = await server.call("SCAN", cursor, "MATCH", f"*{namespace}*", "COUNT", COUNT)
        for key in keys:
            name = key.decode(errors="replace")
            if found := of_ours.match(name):
                kind = found[1]
                kinds[kind] += 1
                of_kind = samples.setdefault(kind, [])
                if len(of_kind) < SAMPLES:
                    of_kind.append(name)
        if cursor == b"0":
            return True
    return False


async def _limit(client: Client, name: str) -> LimitUse:
    key, strategy = named(name)
    if strategy == "log":
        used, left_ms = await asyncio.gather(
            client.store.call("LLEN", name, key=name), client.store.call("PTTL", name, key=name)
        )
        return LimitUse(key, strategy, int(used), left_ms, name)
    text, left_ms = await asyncio.gather(
        client.store.call("GET", name, key=name), client.store.call("PTTL", name, key=name)
    )
    return LimitUse(key, strategy, used_of(strategy, text), left_ms, name)


def named(counter: str) -> tuple[str, str]:
    """Return who is limited and how it is counted, of a counter's key in Redis. Pure."""
    strategy = counter.rpartition(":")[2]
    return counter.partition(":limit:")[2].removesuffix(f":{strategy}").replace("{", "").replace("}", ""), strategy


def _inside(name: str) -> str:
    """Return what stands in the braces of a key's name."""
    return name[name.index("{") + 1 : name.rindex("}")]


def used_of(strategy: str, text: bytes | None) -> int | None:
    """Return what a counter counts, as its script wrote it; None where it cannot be told. Pure."""
    numbers = [int(number) for number in (text or b"").split() if number.isdigit()]
    if strategy == "windows" and len(numbers) > 2:
        return sum(numbers[2:])
    if strategy == "fixed" and len(numbers) == 2:
        return numbers[1]
    if strategy == "bucket" and len(numbers) == 3 and numbers[2]:
        return -(-numbers[0] // numbers[2])
    return None
