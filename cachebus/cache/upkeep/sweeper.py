"""Frees the memory of entries that were invalidated and are not asked for again, in the background.

An invalidation writes one record whatever the number of entries it reaches; they stay where they are, unreadable, until
their TTL ends or the same call is loaded anew. Where millions are invalidated and few are asked for again, that is
memory for nothing. A sweep walks over the keyspace in small steps, reads the first bytes of each entry, asks the
ledger, and removes what no reader could use.

Cost: one SCAN for a page of keys, a short GETRANGE an entry, a ZMSCORE for the scopes of a page, a script for each
entry removed: together at most *per_second* commands, on a connection of its own. A million entries that are all alive
take about seventeen minutes at the default.
"""

from __future__ import annotations

import asyncio
import logging
import re
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import NamedTuple

from cachebus.cache.tiers.entry import FIRST_BYTES, Stub, stamp, stub
from cachebus.durations import Duration, milliseconds
from cachebus.freshness.clock import parse_score
from cachebus.freshness.ledger import SCOPES_A_CALL
from cachebus.freshness.scopes import scopes_of
from cachebus.redis.client import Client
from cachebus.redis.connection import Connection
from cachebus.redis.walk import key_on_each_node

log = logging.getLogger("cachebus")

PAGE = 100
"""Keys a SCAN walks over: a step the server does not notice."""
PER_SECOND = 1_000
DEAD_FOR_MS = 60_000
"""An invalid entry is kept this long, or as long as its view's windows: a load may begin from it (`previous()`)."""
_DIGEST = re.compile(r"~[0-9a-f]{32}$")


class _Found(NamedTuple):
    """An entry, as far as it was read."""

    name: str
    stub: Stub
    scopes: tuple[str, ...]


@dataclass(slots=True)
class Swept:
    """What one sweep did."""

    looked: int = 0
    removed: int = 0
    bytes: int = 0
    """Of the values removed, as stored."""
    finished: bool = False
    """Whether it came to the end of the keyspace within its budget."""


class Sweeper:
    """Walks over the stored entries of one deployment."""

    def __init__(self, client: Client, *, per_second: float = PER_SECOND, dead_for: Duration | None = None) -> None:
        self._client = client
        self._per_second = per_second
        self._dead_for_ms = DEAD_FOR_MS if dead_for is None else milliseconds(dead_for, "dead_for")
        self._pattern = f"{client.names.entries}*"

    async def sweep(self, budget: Duration = "50m", said: Callable[[str], None] = lambda _: None) -> Swept:
        """Remove dead entries, at most for as long as *budget*. Safe to repeat, and from several processes at once.

        *said* is told how far it is, several times a second.

        Raises: ServerError; what was removed until then is removed.
        """
        ends = time.monotonic() + milliseconds(budget, "budget") / 1000
        swept = Swept()
        for node in await key_on_each_node(self._client.entries):
            connection = await self._client.entries.dedicated(node)
            try:
                swept.finished = await self._walk(connection, swept, ends, said)
            finally:
                await connection.close()
            if not swept.finished:
                break
        return swept

    async def _walk(self, connection: Connection, swept: Swept, ends: float, said: Callable[[str], None]) -> bool:
        """Sweep one node; False where the budget was used up before its end."""
        cursor = b"0"
        while True:
            began = time.monotonic()
            cursor, names = await connection.call("SCAN", cursor, "MATCH", self._pattern, "COUNT", PAGE)
            commands = 1 + await self._page(connection, [name.decode() for name in names], swept) if names else 1
            said(f"{swept.looked:,} entries looked at, {swept.removed:,} removed")
            if cursor == b"0":
                return True
            if began > ends:
                return False
            await asyncio.sleep(max(0.0, commands / self._per_second - (time.monotonic() - began)))

    async def _page(self, connection: Connection, names: list[str], swept: Swept) -> int:
        """Look at some entries and remove the dead ones; returns how many commands that took."""
        heads = await connection.gather([("GETRANGE", name, 0, FIRST_BYTES - 1) for name in names])
        swept.looked += len(names)
        found = [
            _Found(name, read, self._scopes(name, read))
            for name, head in zip(names, heads, strict=True)
            if isinstance(head, bytes) and (read := stub(head)) is not None
        ]
        eras = dict.fromkeys(f"@era:{entry.stub.born.era}" for entry in found)
        scopes = tuple(dict.fromkeys((*eras, *[scope for entry in found for scope in entry.scopes])))
        if not scopes:
            return len(names)
        clocks, asked = await self._ask(scopes)
        dead = [entry for entry in found if self._is_dead(entry, clocks)]
        if not dead:
            return len(names) + asked
        sweeps = [connection.run("cache/upkeep/sweep", (entry.name,), (stamp(entry.stub.born),)) for entry in dead]
        freed = await asyncio.gather(*sweeps, return_exceptions=True)
        sizes = [size for size in freed if isinstance(size, int) and size > 0]
        swept.removed += len(sizes)
        swept.bytes += sum(sizes)
        return len(names) + asked + len(dead)

    def _scopes(self, name: str, read: Stub) -> tuple[str, ...]:
        """Return the scopes an entry is known to belong to; a digest for a name does not tell its key."""
        key = name[name.index("{") + 1 : name.rindex("}")]
        tags = read.header.tags
        return scopes_of("", tags)[1:] if _DIGEST.search(key) else scopes_of(key, tags)

    async def _ask(self, scopes: tuple[str, ...]) -> tuple[dict[str, int], int]:
        """Return when each scope was last invalidated, and how many commands that took. Raises: ServerError."""
        clocks: dict[str, int] = {}
        ledger, names = self._client.names.ledger, ("@began", *scopes)
        for at in range(0, len(names), SCOPES_A_CALL):
            part = names[at : at + SCOPES_A_CALL]
            reply = await self._client.store.call("ZMSCORE", ledger, *part, key=ledger)
            clocks |= {scope: parse_score(clock) for scope, clock in zip(part, reply, strict=True) if clock is not None}
        return clocks, -(-len(names) // SCOPES_A_CALL)

    def _is_dead(self, entry: _Found, clocks: dict[str, int]) -> bool:
        """Return whether no reader may use an entry, and none will want to.

        What the ledger has forgotten does not count: a process whose own table reaches further back may know better.
        """
        born = entry.stub.born
        if f"@era:{born.era}" in clocks:
            later = [clock for scope in entry.scopes if (clock := clocks.get(scope, 0)) > born.number]
            first = min(later, default=None)
        else:
            first = clocks.get("@began")
        kept_ms = max(self._dead_for_ms, entry.stub.header.grace_ms)
        return first is not None and self._client.now_us() - first >= kept_ms * 1000
