"""The journal's reader: every process hears of every invalidation, in order, and knows when it has missed one."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Sequence
from functools import partial
from typing import Any

from cachebus.clock import now_s
from cachebus.errors import ServerError, Unavailable
from cachebus.freshness.clock import Born, parse_score
from cachebus.freshness.ledger import Ledger
from cachebus.freshness.rule import Freshness, Record
from cachebus.redis.client import Client
from cachebus.redis.connection import Connection

log = logging.getLogger("cachebus")

BLOCK_MS = 1300
"""An empty reply after this long is the sign that the connection lives."""
DEADLINE_S = 2.0
"""No reply for this long, and the connection is given up."""
RECORDS_A_READ = 1000
PAUSE_S = 0.5
"""Between attempts, after one that learned nothing. The first attempt after a loss is made at once."""
REST_AFTER_S = 10.0
"""Without a read for this long a quiet process stops asking."""
REST_LOOK_S = 0.1
"""How soon it begins again: until then each of its reads asks Redis."""
MAX_LAG_S = 0.25
"""Beyond this lag the table is not trusted: reads ask the ledger."""
_LAST = 2**64 - 1
"""The greatest sequence number of a stream id: records of the same clock that are not ours are skipped."""


class Journal:
    """Tails the journal into a process's `Freshness`. One connection; idle it costs three commands in two seconds."""

    def __init__(self, client: Client, freshness: Freshness, ledger: Ledger, *, max_lag_s: float = MAX_LAG_S) -> None:
        self._client = client
        self._freshness = freshness
        self._ledger = ledger
        self._name = client.names.journal
        self._max_lag_s = max_lag_s
        self._wire: Connection | None = None
        self._waiting: list[tuple[int, asyncio.Future[None]]] = []
        freshness.lost()  # until the first answer nobody knows what was missed
        self.gaps = 0
        self.records = 0
        self._reads: Callable[[], int] | None = None
        self._read, self._read_at = 0, now_s()
        self.lag_s: float | None = None
        """How far this process was behind at its last answer; None while it does not follow the journal."""

    async def run(self) -> None:
        """Read until cancelled."""
        while True:
            heard = False
            try:
                self._wire = wire = await self._client.store.dedicated(self._name)
                wire.lost.add_done_callback(partial(self._lost, wire))
                await self._ledger.shake_journal(wire)
                while True:
                    await self._hear(wire)
                    heard = True
                    await self._rest()
            except ServerError as broken:
                log.debug("journal: %s", broken)
            finally:
                closing, self._wire = self._wire, None
                self._lost(None)
                if closing is not None:
                    await closing.close()
            if not heard:
                await asyncio.sleep(PAUSE_S)

    def rest_while_idle(self, reads: Callable[[], int]) -> None:
        """Ask nothing while *reads*, a count, stays the same; reads ask the ledger then, as of any deaf process."""
        self._reads = reads

    async def _rest(self) -> None:
        """Wait for the next read once there was none for a while; what was missed meanwhile is heard of then."""
        if self._reads is None:
            return
        if (read := self._reads()) != self._read:
            self._read, self._read_at = read, now_s()
        if now_s() - self._read_at < REST_AFTER_S or self._waiting:
            return
        self.lag_s = None
        self._freshness.lost()
        while self._reads() == read and not self._waiting:  # noqa: ASYNC110 - a memory hit sets no event, and shall not
            await asyncio.sleep(REST_LOOK_S)
        self._read_at = now_s()

    async def reached(self, clock: Born, timeout_s: float) -> bool:
        """Wait until the journal is applied up to *clock*; False where that takes longer, or it is of another era."""
        freshness = self._freshness
        if clock.era != freshness.era:
            return False
        if freshness.position >= clock.number:
            return True
        waiter: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._waiting.append((clock.number, waiter))
        done, _ = await asyncio.wait([waiter], timeout=timeout_s)
        if not done:
            waiter.cancel()
        return bool(done) and clock.era == freshness.era

    async def _hear(self, wire: Connection) -> None:
        """Ask where the ledger is and for the records after our position; apply what comes.

        Trusted is what the table knows from the moment the question was sent, once it has caught up with the answer.
        """
        freshness = self._freshness
        era, sent = freshness.era, now_s()
        ledger = wire.send(
            *("ZMSCORE", self._client.names.ledger, f"@era:{era}", "@clock", "@floor", "@began"), timeout_s=DEADLINE_S
        )
        stream = wire.send(
            *("XREAD", "COUNT", RECORDS_A_READ, "BLOCK", BLOCK_MS),
            *("STREAMS", self._name, f"{freshness.position}-{_LAST}"),
            timeout_s=DEADLINE_S,
        )
        stream.add_done_callback(lambda reply: reply.cancelled() or reply.exception())  # perhaps nobody waits for it
        scores: Sequence[bytes | None] = await ledger
        if None in scores or era != freshness.era:
            raise Unavailable("the ledger is gone, damaged or in another era")
        clock, floor, began = map(parse_score, scores[1:])
        self._ledger.recall.known_since = max(floor, began)
        if clock < freshness.position:  # only this task moves the position, and the ledger's clock never goes back
            raise Unavailable("the ledger was put back from a copy")
        if freshness.position == clock:
            self._caught_up(sent, now_s() - sent)
        records = _records(await stream)
        if era != freshness.era:
            raise Unavailable("this process has entered another era")
        for record in records:
            self.records += 1
            if record is None or not freshness.applied(record):
                await self._resync(wire)
                break
        else:
            if (freshness.position < clock and len(records) < RECORDS_A_READ) or floor > clock:
                await self._resync(wire)
        if freshness.position >= clock and records and records[-1] is not None:
            self._caught_up(sent, max(0, self._client.now_us() - records[-1].clock) / 1e6)
        self._release()

    def _caught_up(self, sent: float, lag_s: float) -> None:
        """Trust the table, unless what it is compared with came late."""
        self.lag_s = lag_s
        if lag_s <= self._max_lag_s:
            self._freshness.heard(sent)
        else:
            self._freshness.lost()

    def _lost(self, wire: Connection | None, _reason: object = None) -> None:
        if wire is self._wire:
            self.lag_s = None
            self._freshness.lost()

    async def _resync(self, wire: Connection) -> None:
        self.gaps += 1
        await self._ledger.resync(wire)

    def _release(self) -> None:
        if not self._waiting:
            return
        position = self._freshness.position
        for clock, waiter in self._waiting:
            if clock <= position and not waiter.done():
                waiter.set_result(None)
        self._waiting = [(clock, waiter) for clock, waiter in self._waiting if not waiter.done()]


def _records(reply: Any) -> list[Record | None]:
    return [_record(line) for line in reply[0][1]] if reply else []


def _record(line: Sequence[Any]) -> Record | None:
    """Read one stream record: id `clock-0`, fields `before`, `era`, `scopes` (one a line), `set`. None: not ours."""
    fields = line[1]
    values = {fields[i]: fields[i + 1] for i in range(0, len(fields), 2)}
    try:
        scopes = values[b"scopes"].decode()
        return Record(
            int(line[0].partition(b"-")[0]),
            int(values[b"before"]),
            values[b"era"].decode(),
            tuple(scopes.split("\n")) if scopes else (),
            values.get(b"set", b"").decode(),
        )
    except (KeyError, ValueError):
        return None
