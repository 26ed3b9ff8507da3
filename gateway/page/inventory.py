"""What lies in Redis, by kind, and who is limited: one walk over the keys each half minute, while somebody looks.

The walk stops after some 200,000 keys and says so: the page must not cost a large deployment more than it shows.
"""

from __future__ import annotations

import asyncio
import re
from collections import Counter

import msgspec

from cachebus import Link
from cachebus.server import Server

COUNT = 1000
MOST_STEPS = 200
SAMPLES = 200
SHOWN = 50
KINDS = {
    "e": "entries",
    "l": "loads under way",
    "limit": "rate limits",
    "lock": "locks",
    "lock-line": "",
    "session": "users with sessions",
    "session-ends": "",
    "id": "names of events",
}
"""How people call a kind of key; '' is not shown: it lies beside another."""


class LimitUse(msgspec.Struct, frozen=True):
    """One counter of a rate limit."""

    key: str
    strategy: str
    used: int | None
    """Counted in its window, as of its last request."""
    left_ms: int


class Inventory(msgspec.Struct, frozen=True):
    """What the walk found."""

    kinds: dict[str, int]
    complete: bool
    limits: list[LimitUse]
    locks: list[str]


async def inventory(link: Link) -> Inventory:
    """Walk. On a cluster only the node of the bus is walked. Raises: ServerError."""
    kinds: Counter[str] = Counter()
    samples: dict[str, list[str]] = {"limit": [], "lock": []}
    complete = True
    for server in {id(server): server for server in (link.store, link.entries)}.values():
        complete &= await _walk(server, link.names.namespace, kinds, samples)
    limits = await asyncio.gather(*[_limit(link, name) for name in samples["limit"][:SAMPLES]])
    busiest = sorted(limits, key=lambda use: use.used or 0, reverse=True)[:SHOWN]
    shown = {KINDS.get(kind, kind): count for kind, count in kinds.most_common() if KINDS.get(kind, kind)}
    return Inventory(shown, complete, busiest, sorted(map(_inside, samples["lock"])))


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
                if kind in samples and len(samples[kind]) < SAMPLES:
                    samples[kind].append(name)
        if cursor == b"0":
            return True
    return False


async def _limit(link: Link, name: str) -> LimitUse:
    strategy = name.rpartition(":")[2]
    key = name.partition(":limit:")[2].removesuffix(f":{strategy}").replace("{", "").replace("}", "")
    if strategy == "log":
        used, left_ms = await asyncio.gather(
            link.store.call("LLEN", name, key=name), link.store.call("PTTL", name, key=name)
        )
        return LimitUse(key, strategy, int(used), left_ms)
    text, left_ms = await asyncio.gather(
        link.store.call("GET", name, key=name), link.store.call("PTTL", name, key=name)
    )
    return LimitUse(key, strategy, used_of(strategy, text), left_ms)


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
