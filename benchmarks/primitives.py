"""Locks, limits, sessions and messages beside the libraries one would reach for: same server, same run."""

from __future__ import annotations

import asyncio
import statistics
import time
from collections.abc import Awaitable, Callable, Sequence

import redis
import redis.asyncio
import redis_lock
from limits import RateLimitItemPerMinute
from limits.aio.storage import RedisStorage
from limits.aio.strategies import MovingWindowRateLimiter
from redis.asyncio.lock import Lock as TheirLock

from benchmarks.cache import CALLERS, repeated, together
from benchmarks.report import Report, median_us
from cachebus import Cache
from cachebus.link import Link
from cachebus.locks import Locks
from cachebus.private_server import PrivateServer
from cachebus.ratelimit import RateLimiter
from cachebus.sessions import SessionStore
from cachebus.sync import SyncCache
from cachebus.synclocks import SyncLocks

MANY = 10**6
"""A limit that nobody reaches."""
HANDOVERS = 200
MESSAGES = 500


def commands(server: PrivateServer, *names: str) -> int:
    """Return how often clients have sent these commands; what scripts run inside must have other names."""
    fields = dict(
        line.split(":", 1) for line in server.ask("INFO", "commandstats").decode().splitlines() if ":" in line
    )
    return sum(
        int(fields[f"cmdstat_{name}"].split(",")[0].split("=")[1]) for name in names if f"cmdstat_{name}" in fields
    )


async def free_locks(report: Report, url: str) -> None:
    """A lock nobody else wants: taken and given back."""
    theirs = redis.asyncio.Redis.from_url(url)

    async with Link(url) as link:
        locks = Locks(link)

        async def mine(name: object) -> None:
            async with locks.lock(f"ours:{name}", "30s"):
                pass

        async def other(name: object) -> None:
            async with TheirLock(theirs, f"theirs:{name}", timeout=30):
                pass

        n = 1_000
        one, their_one = await median_us(n, repeated(lambda: mine("one"), n), repeated(lambda: other("one"), n))
        report.add("lock, taken and given back, one caller", one, "us", f"redis-py {their_one:.0f} us")
        report.add("  ours over redis-py", their_one / one, "x", "target >= 1")
        many, their_many = await median_us(n, together(mine, n), together(other, n))
        report.add(f"lock, {CALLERS} callers, names of their own", many, "us", f"redis-py {their_many:.0f} us")
        report.add("  ours over redis-py", their_many / many, "x", "target >= 3")
        await locks.close()
    await theirs.aclose()


async def free_sync_locks(report: Report, url: str) -> None:
    """The same for a program without an event loop."""
    cache, client = SyncCache(Cache(url)), redis.Redis.from_url(url)
    locks, n = SyncLocks(cache), 500

    def ours() -> None:
        with locks.lock("sync:ours", "30s"):
            pass

    def pythons() -> None:
        with redis_lock.Lock(client, "sync:prl", expire=30):
            pass

    def redis_pys() -> None:
        with client.lock("sync:redis-py", timeout=30):
            pass

    def contestant(call: Callable[[], None]) -> Callable[[], Awaitable[object]]:
        return lambda: asyncio.to_thread(lambda: [call() for _ in range(n)])

    mine, prl, theirs = await median_us(n, *map(contestant, (ours, pythons, redis_pys)))
    report.add(
        "lock without an event loop, one caller",
        mine,
        "us",
        f"python-redis-lock {prl:.0f} us, redis-py {theirs:.0f} us",
    )
    await asyncio.to_thread(locks.close)
    await asyncio.to_thread(cache.close)
    client.close()


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
    async with Link(server.url) as link:
        locks = Locks(link)
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


async def rate_limits(report: Report, url: str) -> None:
    """A decision: allowed, allowed for many at once, and refused."""
    storage = RedisStorage(f"async+{url}", implementation="redispy")
    theirs, item, never = MovingWindowRateLimiter(storage), RateLimitItemPerMinute(MANY), RateLimitItemPerMinute(1)
    async with Link(url) as link:
        limiter = RateLimiter(link)

        async def mine(key: object) -> None:
            assert await limiter.check(f"k{key}", limit=MANY, window="1m")

        async def other(key: object) -> None:
            assert await theirs.hit(item, f"k{key}")

        async def bare(_: object = None) -> None:
            await link.store.call("EVAL", "return redis.call('INCR', KEYS[1])", 1, "bare")

        n = 1_000
        one, their_one, script = await median_us(
            n, repeated(lambda: mine(1), n), repeated(lambda: other(1), n), repeated(bare, n)
        )
        report.add("rate limit, one caller", one, "us", f"limits {their_one:.0f} us, a bare script {script:.0f} us")
        many, their_many = await median_us(n, together(mine, n), together(other, n))
        report.add(f"rate limit, {CALLERS} callers", many, "us", f"limits {their_many:.0f} us")
        report.add("  ours over limits", their_many / many, "x", "target >= 5")

        async def refused() -> None:
            await limiter.check("attacker", limit=1, window="1m")

        async def refused_there() -> None:
            await theirs.hit(never, "attacker")

        no, their_no = await median_us(n, repeated(refused, n), repeated(refused_there, n))
        report.add("rate limit, refused again", no, "us", f"limits {their_no:.0f} us")
        report.add("  ours over limits", their_no / no, "x", "target >= 20")


async def sessions(report: Report, url: str) -> None:
    """A session of a small user, and all sessions of a large one."""
    async with Link(url) as link:
        store = SessionStore(link)
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
    async with Link(url) as link, theirs.pubsub() as listening:
        arrived = asyncio.Event()
        await link.subscriptions.subscribe("ours", lambda _channel, _payload: arrived.set())
        await listening.subscribe("theirs")
        await listening.get_message(timeout=1)

        async def mine() -> None:
            arrived.clear()
            await link.store.call("PUBLISH", "ours", b"x" * 100)
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
    report = Report("primitives")

    async def run(server: PrivateServer) -> None:
        await free_locks(report, server.url)
        await free_sync_locks(report, server.url)
        await contended_locks(report, server)
        await rate_limits(report, server.url)
        await sessions(report, server.url)
        await messages(report, server.url)

    with PrivateServer.start("appendonly no") as server:
        asyncio.run(run(server))
    report.write("redis", "python-redis-lock", "limits")
