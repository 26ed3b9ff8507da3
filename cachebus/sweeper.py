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
from dataclasses import dataclass
from itertools import count
from typing import NamedTuple

from cachebus.cluster import Cluster
from cachebus.durations import Duration, milliseconds
from cachebus.entry import FIRST_BYTES, Stub, stub
from cachebus.errors import ServerError
from cachebus.keys import scopes_of
from cachebus.ledger import SCOPES_A_CALL
from cachebus.link import Link
from cachebus.scripts import script
from cachebus.wire import Argument, Reply, Wire, key_slot

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

    def __init__(self, link: Link, *, per_second: float = PER_SECOND, dead_for: Duration | None = None) -> None:
        self._link = link
        self._per_second = per_second
        self._dead_for_ms = DEAD_FOR_MS if dead_for is None else milliseconds(dead_for, "dead_for")
        self._pattern = f"{link.names.namespace}:e:*"

    async def sweep(self, budget: Duration = "50m") -> Swept:
        """Remove dead entries, at most for as long as *budget*. Safe to repeat, and from several processes at once.

        Raises: ServerError; what was removed until then is removed.
        """
        ends = time.monotonic() + milliseconds(budget, "budget") / 1000
        swept = Swept()
        for node in await self._nodes():
            wire = await self._link.entries.dedicated(node)
            try:
                swept.finished = await self._walk(wire, swept, ends)
            finally:
                await wire.close()
            if not swept.finished:
                break
        return swept

    async def _walk(self, wire: Wire, swept: Swept, ends: float) -> bool:
        """Sweep one node; False where the budget was used up before its end."""
        cursor = b"0"
        while True:
            began = time.monotonic()
            cursor, names = await wire.call("SCAN", cursor, "MATCH", self._pattern, "COUNT", PAGE)
            commands = 1 + await self._page(wire, [name.decode() for name in names], swept) if names else 1
            if cursor == b"0":
                return True
            if began > ends:
                return False
            await asyncio.sleep(max(0.0, commands / self._per_second - (time.monotonic() - began)))

    async def _page(self, wire: Wire, names: list[str], swept: Swept) -> int:
        """Look at some entries and remove the dead ones; returns how many commands that took."""
        heads = await _together(wire, [("GETRANGE", name, 0, FIRST_BYTES - 1) for name in names])
        swept.looked += len(names)
        found = [
            _Found(name, read, self._scopes(name, read))
            for name, head in zip(names, heads, strict=True)
            if isinstance(head, bytes) and (read := stub(head)) is not None
        ]
        scopes = tuple(dict.fromkeys(scope for entry in found for scope in entry.scopes))
        if not scopes:
            return len(names)
        clocks, asked = await self._ask(scopes)
        dead = [entry for entry in found if self._is_dead(entry, clocks)]
        if not dead:
            return len(names) + asked
        text = script("sweep").text
        freed = await _together(wire, [("EVAL", text, 1, entry.name, b"%016d" % entry.stub.born) for entry in dead])
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
        ledger, names = self._link.names.ledger, ("@start", *scopes)
        for at in range(0, len(names), SCOPES_A_CALL):
            part = names[at : at + SCOPES_A_CALL]
            reply = await self._link.store.call("ZMSCORE", ledger, *part, key=ledger)
            clocks |= {scope: int(clock) for scope, clock in zip(part, reply, strict=True) if clock is not None}
        return clocks, -(-len(names) // SCOPES_A_CALL)

    def _is_dead(self, entry: _Found, clocks: dict[str, int]) -> bool:
        """Return whether no reader may use an entry, and none will want to.

        What the ledger has forgotten does not count: a process whose own table reaches further back may know better.
        """
        first = min(
            (clock for scope in ("@start", *entry.scopes) if (clock := clocks.get(scope, 0)) > entry.stub.born),
            default=None,
        )
        kept_ms = max(self._dead_for_ms, entry.stub.header.grace_ms)
        return first is not None and self._link.now_us() - first >= kept_ms * 1000

    async def _nodes(self) -> list[str]:
        """Return one key on each node that holds entries."""
        server = self._link.entries
        if not isinstance(server, Cluster):
            return [self._link.names.wake]
        first_slots = {shard[0] for shard in await server.call("CLUSTER", "SLOTS")}
        return [_key_in(slot) for slot in sorted(first_slots)]


async def _together(wire: Wire, commands: list[tuple[Argument, ...]]) -> list[Reply]:
    """Send commands in one write; error replies stand among the replies. Raises: ServerError when there are none."""
    answered: asyncio.Future[list[Reply]] = asyncio.get_running_loop().create_future()

    def done(replies: list[Reply] | ServerError) -> None:
        if not answered.done():
            if isinstance(replies, ServerError):
                answered.set_exception(replies)
            else:
                answered.set_result(replies)

    wire.submit(commands, done)
    return await answered


def _key_in(slot: int) -> str:
    """Return some key of a cluster slot."""
    return next(key for number in count() if key_slot(key := str(number)) == slot)
