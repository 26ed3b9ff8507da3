"""From the outbox to the bus: rows are published in their order, then deleted.

Rows are deleted one by one, never skipped by a position: in PostgreSQL a lower number may be committed after a higher
one, and is then simply found at the next look. A relay that ends between publishing and deleting leaves rows that are
published again under the same id, which the bus drops.

On PostgreSQL one relay works at a time, others stand by; the trigger of the table wakes it. Elsewhere it looks each
second, and relays that run side by side publish the same ids.
"""

from __future__ import annotations

import asyncio
import contextlib
import hashlib
import logging
import random
from collections.abc import Sequence
from dataclasses import dataclass
from time import monotonic
from typing import Any

from sqlalchemy import delete, func, select, update
from sqlalchemy.ext.asyncio import AsyncConnection

from cachebus.bus.engine.draining import Drainable
from cachebus.bus.publisher import Bus
from cachebus.durations import Duration, backoff_s, milliseconds
from cachebus.errors import PublishRefused, StreamFull
from cachebus.integrations.sqlalchemy.outbox import Outbox
from cachebus.tracing import installed

log = logging.getLogger("cachebus")

Rows = Sequence[Any]
"""Of the table: `seq`, `id`, `channel`, `payload`, `key`, `delay_ms`, `traceparent`."""

AT_ONCE = 100
POLL_S = 1.0
"""How often to look where nothing wakes the relay."""
POLL_NOTIFIED_S = 10.0
"""How often to look where PostgreSQL wakes it: for a notification that got lost with its connection."""
STAND_BY_S = 3.0
FIRST_PAUSE_S = 0.25
LONGEST_PAUSE_S = 10.0
COUNT_S = 10.0
"""How often to count what waits behind a full batch: the database walks over all of it."""


@dataclass(slots=True)
class RelayStats:
    """What a relay has done: plain counters."""

    relayed: int = 0
    refused: int = 0
    """Rows that can never be published; they stay, with the reason in `problem`."""
    waiting: int = 0
    """Rows to be published, counted each 10 s while there is more than a batch. A relay that stands by has none."""
    oldest_at: float = 0.0
    """Since when the oldest of them has waited, on `time.monotonic()`."""

    @property
    def lag_s(self) -> float:
        """How long the oldest row has waited by now, 0.0 where none does. SQLite tells times to the second."""
        return monotonic() - self.oldest_at if self.waiting else 0.0


class Relay(Drainable):
    """Publishes what is in an outbox. `run` in a task of its own; any number of them, in any process."""

    def __init__(self, outbox: Outbox, bus: Bus, *, poll: Duration | None = None) -> None:
        """Look each *poll*; without one, each second, or each 10 s where PostgreSQL notifies of new rows."""
        super().__init__()
        self._outbox = outbox
        self._table = outbox.table
        self._bus = bus
        self._poll_ms = None if poll is None else milliseconds(poll, "poll")
        self.stats = RelayStats()
        self.problem = ""
        """Why nothing is published at present, '' while it is."""
        digest = hashlib.blake2b(
            f"cachebus.integrations.sqlalchemy.outbox:{self._table.fullname}".encode(), digest_size=8
        ).digest()
        self._lock = int.from_bytes(digest, signed=True)
        self._listening: AsyncConnection | None = None
        self._driver: Any = None  # asyncpg's own connection below it
        self._woken = asyncio.Event()
        self._count_at = 0.0

    @property
    def listening(self) -> bool:
        """Whether PostgreSQL notifies of new rows."""
        return self._driver is not None and not self._driver.is_closed()

    # -- the main path ----------------------------------------------------------------------------------------------

    async def _work(self, stop: asyncio.Future[None]) -> None:
        """Publish. An outage of either side is waited out, with one log line when it begins and one when it ends."""
        failures = 0
        while not stop.done():
            self._woken.clear()
            try:
                wait_s = await self._step()
            except Exception as failed:  # noqa: BLE001 - drivers raise what they like; it is logged, and tried again
                failures += 1
                self._held_back(failed)
                wait_s = backoff_s(failures, FIRST_PAUSE_S, LONGEST_PAUSE_S, random.random())  # noqa: S311 - jitter, not a secret
            else:
                failures = 0
                self._recovered()
            await self._wait(wait_s)

    async def _wake(self) -> None:
        self._woken.set()

    async def _close(self) -> None:
        await self._stop_listening()

    async def _step(self) -> float:
        """Publish a batch; returns how long to wait before the next, unless woken."""
        engine = self._outbox.engine()
        alone = engine.dialect.name == "postgresql"
        if engine.dialect.driver == "asyncpg":
            await self._listen()
        async with engine.connect() as connection:
            if alone and not await connection.scalar(select(func.pg_try_advisory_xact_lock(self._lock))):
                self.stats.waiting = 0
                return STAND_BY_S
            rows = await self._rows(connection)
            delays_s = {row.seq: await self._delay_s(connection, row) for row in rows if row.delay_ms}
            if not alone:
                await connection.rollback()  # SQLite has one writer: no transaction is open while Redis is asked
            await self._publish(connection, rows, delays_s)
        if len(rows) == AT_ONCE:
            return 0.0
        if self._poll_ms is not None:
            return self._poll_ms / 1000
        return POLL_NOTIFIED_S if self.listening else POLL_S

    async def _rows(self, connection: AsyncConnection) -> Rows:
        columns = self._table.c
        wanted = (columns.seq, columns.id, columns.channel, columns.payload, columns.key)
        query = select(*wanted, columns.delay_ms, columns.traceparent)
        found = await connection.execute(query.where(columns.problem.is_(None)).order_by(columns.seq).limit(AT_ONCE))
        rows = found.all()
        await self._measure(connection, rows)
        return rows

    async def _measure(self, connection: AsyncConnection, rows: Rows) -> None:
        """Note how many rows wait, and how long the first has, on the database's clock."""
        columns, stats = self._table.c, self.stats
        if len(rows) < AT_ONCE:
            stats.waiting = len(rows)
        elif monotonic() >= self._count_at:
            unsent = select(func.count()).select_from(self._table).where(columns.problem.is_(None))
            stats.waiting, self._count_at = await connection.scalar(unsent) or 0, monotonic() + COUNT_S
        else:
            stats.waiting = max(stats.waiting, len(rows))
        if rows:
            stats.oldest_at = monotonic() - await self._waited_s(connection, rows[0])

    async def _waited_s(self, connection: AsyncConnection, row: Any) -> float:
        """Return how long a row has waited, on the database's clock; 0.0 where another relay was quicker."""
        columns = self._table.c
        try:
            times = await connection.execute(select(columns.created_at, func.now()).where(columns.seq == row.seq))
            for written, now in times:
                return float(max(0.0, (now - written).total_seconds()))
        except (ValueError, TypeError):  # another program wrote it in a form of its own: SQLite takes any text
            pass
        return 0.0

    async def _delay_s(self, connection: AsyncConnection, row: Any) -> float:
        """Return what is left of a row's delay. A second more where it waited: SQLite's times are whole seconds."""
        return float(max(0.0, row.delay_ms / 1000 - max(0.0, await self._waited_s(connection, row) - 1)))

    async def _publish(self, connection: AsyncConnection, rows: Rows, delays_s: dict[int, float]) -> None:
        """Publish *rows* in order; what was published, or never can be, is written down even if the next one fails."""
        published: list[int] = []
        refused: dict[int, str] = {}
        try:
            for row in rows:
                if self.draining:
                    break
                try:
                    with _span_of(row.traceparent):
                        payload, delay = row.payload.encode(), delays_s.get(row.seq)
                        await self._bus.publish(row.channel, payload, key=row.key, id=row.id, delay=delay)
                except StreamFull:
                    raise  # there will be room
                except PublishRefused as fault:  # others than `insert()` may have written the row
                    refused[row.seq] = str(fault)
                else:
                    published.append(row.seq)
        finally:
            await self._written(connection, published, refused)

    async def _written(self, connection: AsyncConnection, published: list[int], refused: dict[int, str]) -> None:
        seq = self._table.c.seq
        if published:
            await connection.execute(delete(self._table).where(seq.in_(published)))
        for number, fault in refused.items():
            await connection.execute(update(self._table).where(seq == number).values(problem=fault))
        await connection.commit()
        self.stats.relayed += len(published)
        self.stats.refused += len(refused)
        self.stats.waiting = max(0, self.stats.waiting - len(published) - len(refused))
        for number, fault in refused.items():
            log.error("outbox: row %s of %s can never be published: %s", number, self._table.fullname, fault)

    # -- waiting ----------------------------------------------------------------------------------------------------

    async def _wait(self, seconds: float) -> None:
        try:
            async with asyncio.timeout(seconds):
                await self._woken.wait()
        except TimeoutError:
            pass

    async def _listen(self) -> None:
        """Have PostgreSQL wake us, on a connection that is held until it breaks."""
        if self.listening:
            return
        await self._stop_listening()
        self._listening = await self._outbox.engine().connect()
        driver: Any = (await self._listening.get_raw_connection()).driver_connection
        driver.add_termination_listener(self._notified)
        await driver.add_listener(self._table.fullname, self._notified)
        self._driver = driver

    async def _stop_listening(self) -> None:
        """Close the connection: nobody else must get one that listens from the pool."""
        connection, self._listening, self._driver = self._listening, None, None
        if connection is not None:
            await connection.invalidate()
            await connection.close()

    def _notified(self, *_of: object) -> None:
        self._woken.set()

    # -- what is said -----------------------------------------------------------------------------------------------

    def _held_back(self, failed: Exception) -> None:
        why = f"{type(failed).__name__}: {failed}".partition("\n")[0]
        if not self.problem:
            log.warning("outbox: events in %s are not published: %s", self._table.fullname, why)
        self.problem = why

    def _recovered(self) -> None:
        if self.problem:
            self.problem = ""
            log.info("outbox: resumed publishing the events of %s", self._table.fullname)


def _span_of(traceparent: str | None) -> contextlib.AbstractContextManager[object]:
    """Return what a row is published within: the span that wrote it, where somebody traces."""
    tracer = installed.tracer
    return contextlib.nullcontext() if tracer is None else tracer.continuing(traceparent or "")
