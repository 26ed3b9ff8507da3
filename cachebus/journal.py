"""The journal's reader: every process hears of every invalidation, in order, and knows when it has missed one."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Sequence
from typing import Any

from cachebus.errors import ServerError
from cachebus.freshness import Freshness, Record
from cachebus.ledger import resync
from cachebus.link import Link, now_s
from cachebus.scripts import script
from cachebus.wire import Wire

log = logging.getLogger("cachebus")

BLOCK_MS = 1300
"""An empty reply after this long is the sign that the connection lives."""
DEADLINE_S = 2.0
"""No reply for this long, and the connection is given up."""
RECORDS_A_READ = 1000
PAUSE_S = 0.5
"""After an error reply the reader waits this long; a lost connection waits for the server anyway."""


class Journal:
    """Tails the journal into a process's `Freshness`. One connection; idle it costs three commands in two seconds."""

    def __init__(self, link: Link, freshness: Freshness) -> None:
        self._link = link
        self._freshness = freshness
        self._name = link.names.journal
        self._waiting: list[tuple[int, asyncio.Future[None]]] = []
        freshness.heard_at = float("-inf")  # until the first reply nobody knows what was missed
        self.gaps = 0
        self.records = 0

    async def run(self) -> None:
        """Read until cancelled."""
        while True:
            wire: Wire | None = None
            try:
                wire = await self._link.store.dedicated(self._name)
                await self._read(wire, None)
                while True:
                    await self._read(wire, BLOCK_MS)
            except ServerError as broken:
                log.debug("journal: %s", broken)
                await asyncio.sleep(PAUSE_S)
            finally:
                if wire is not None:
                    await wire.close()

    async def reached(self, clock: int, timeout_s: float) -> bool:
        """Wait until the journal is applied up to *clock*; False where that took longer than *timeout_s*."""
        if self._freshness.position >= clock:
            return True
        waiter: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._waiting.append((clock, waiter))
        done, _ = await asyncio.wait([waiter], timeout=timeout_s)
        if not done:
            waiter.cancel()
        return bool(done)

    async def _read(self, wire: Wire, block_ms: int | None) -> None:
        records = await self._fetch(wire, block_ms)
        if not records:
            records = await self._probe(wire)
        for record in records:
            self.records += 1
            if not self._freshness.applied(record):
                self.gaps += 1
                await self._resync(wire)
                break
        self._freshness.heard_at = now_s()
        self._release()

    async def _fetch(self, wire: Wire, block_ms: int | None) -> list[Record]:
        block: tuple[str | int, ...] = () if block_ms is None else ("BLOCK", block_ms)
        after = f"{self._freshness.position}-0"
        reply = await wire.call(
            "XREAD", "COUNT", RECORDS_A_READ, *block, "STREAMS", self._name, after, timeout_s=DEADLINE_S
        )
        return [_record(line) for line in reply[0][1]] if reply else []

    async def _probe(self, wire: Wire) -> list[Record]:
        """Nothing to read is not yet nothing missed: the ledger may be ahead of what the journal still holds."""
        clock, start = await self._ledger(wire)
        if (clock, start) == (self._freshness.position, self._freshness.start):
            return []
        records = await self._fetch(wire, None)
        if not records:
            self.gaps += 1
            await self._resync(wire)
        return records

    async def _resync(self, wire: Wire) -> None:
        clock, start = await self._ledger(wire)
        if not clock:  # evicted or flushed: begin a new one, above everything we have seen
            freshness = self._freshness
            keys = (2, self._link.names.ledger, self._name)
            reply = await wire.call("EVAL", script("vouch").text, *keys, freshness.seen, freshness.run, freshness.run)
            clock, start = int(reply[0]), int(reply[1])
        await resync(wire, self._freshness, self._link.names.ledger, clock, start)

    async def _ledger(self, wire: Wire) -> tuple[int, int]:
        reply: Sequence[bytes | None] = await wire.call(
            "ZMSCORE", self._link.names.ledger, "@clock", "@start", timeout_s=DEADLINE_S
        )
        return int(float(reply[0] or 0)), int(float(reply[1] or 0))

    def _release(self) -> None:
        if not self._waiting:
            return
        position = self._freshness.position
        for clock, waiter in self._waiting:
            if clock <= position and not waiter.done():
                waiter.set_result(None)
        self._waiting = [(clock, waiter) for clock, waiter in self._waiting if not waiter.done()]


def _record(line: Sequence[Any]) -> Record:
    """Read one stream record: id `clock-0`, fields `before`, `start`, `scopes` (one a line)."""
    fields = line[1]
    values = {fields[i]: fields[i + 1] for i in range(0, len(fields), 2)}
    scopes = values[b"scopes"].decode()
    return Record(
        int(line[0].partition(b"-")[0]),
        int(values[b"before"]),
        int(values[b"start"]),
        tuple(scopes.split("\n")) if scopes else (),
    )
