"""Journal lag: from the publication of an invalidation until the value is unreadable in another process.

A publisher invalidates one key after the other, 1,000 a second; a second process notes when its table has it, from
where on memory no longer serves the value. Both read one machine's CLOCK_MONOTONIC. The lag is the whole way: script,
journal, the other process's reader, its table.
"""

from __future__ import annotations

import asyncio
import statistics
import subprocess
import sys
import time

from benchmarks.report import Report
from cachebus import Cache
from cachebus.testing.server import PrivateServer

KEYS = 50
PER_SECOND = 1_000
SECONDS = 10.0
WARM_UP_S = 1.0
TAIL_S = 1.0
"""The last invalidations may still be under way; one that is not there by then ends the run with an error."""


async def publish(url: str) -> None:
    """Invalidate at an even pace; print key, and when each began and had returned, nanoseconds."""
    async with Cache(url) as cache:
        lines: list[str] = []
        began = time.monotonic()

        async def invalidate(number: int) -> None:
            before = time.monotonic_ns()
            clock = await cache.invalidate(keys=[f"value:{number % KEYS}"])
            lines.append(f"{clock.partition('.')[0]} {before} {time.monotonic_ns()}")

        async with asyncio.TaskGroup() as group:
            for number in range(int(PER_SECOND * (SECONDS + WARM_UP_S))):
                await asyncio.sleep(max(0.0, began + number / PER_SECOND - time.monotonic()))
                group.create_task(invalidate(number))
        print("\n".join(lines))


async def watch(url: str) -> tuple[list[float], list[float]]:
    """Return milliseconds from begin to unreadable here, and from return to unreadable here (0: it was before)."""
    heard: dict[int, int] = {}
    async with Cache(url) as cache:
        reader = cache.reader
        assert reader is not None
        freshness, apply = reader.freshness, reader.freshness.invalidated

        def applied(scopes: tuple[str, ...], clock: int) -> None:
            apply(scopes, clock)
            heard[clock] = time.monotonic_ns()

        freshness.invalidated = applied  # type: ignore[method-assign,assignment] # from here on the value is unreadable
        publisher = await asyncio.create_subprocess_exec(
            *(sys.executable, "-m", "benchmarks.journal", url), stdout=subprocess.PIPE
        )
        said, _ = await publisher.communicate()
        told = [tuple(map(int, line.split())) for line in said.splitlines()]
        await asyncio.sleep(TAIL_S)
    first = min(before for _, before, _ in told) + WARM_UP_S * 1e9
    rows = [(heard[clock], before, after) for clock, before, after in told if before >= first]
    whole = [(at - before) / 1e6 for at, before, _ in rows]
    return whole, [max(0, at - after) / 1e6 for at, _, after in rows]


def main() -> None:
    """Measure on a server of its own."""
    report = Report("journal", "Journal lag")
    with PrivateServer.start("appendonly no") as server:
        whole, after = asyncio.run(watch(server.url))
    for name, lags in (("invalidate called → unreadable elsewhere", whole), ("invalidate returned → the same", after)):
        parts = statistics.quantiles(lags, n=100)
        report.add(f"{name}, p50", parts[49], "ms", f"{PER_SECOND}/s, {len(lags):,} invalidations")
        report.add(f"{name}, p99", parts[98], "ms")
        report.add(f"{name}, most", max(lags), "ms")
    report.write("redis", "hiredis")


if __name__ == "__main__":
    asyncio.run(publish(sys.argv[1]))
