"""Days that have no 24 hours, lived through by several workers, two of them with clocks that are an hour wrong."""

from __future__ import annotations

import asyncio
import random
from collections import Counter
from contextlib import AsyncExitStack

import pytest

from cachebus import Client
from cachebus.schedules.decorators import cron, daily
from cachebus.schedules.scheduler import Scheduler
from cachebus.testing.server import PrivateServer
from tests.support.clocked import Clock
from tests.support.scheduled_workers import begin_long_ago
from tests.support.wallclock import DAY, HOUR, MINUTE, expected_fires, us

STEP = 15 * MINUTE
SKEWS = (0, HOUR, -HOUR)


@pytest.mark.parametrize(
    ("zone", "change"),
    [
        ("America/New_York", (2026, 3, 8)),
        ("America/New_York", (2026, 11, 1)),
        ("Europe/Berlin", (2026, 3, 29)),
        ("Europe/Berlin", (2026, 10, 25)),
        ("Australia/Lord_Howe", (2026, 4, 5)),
    ],
)
async def test_every_fire_time_of_a_changing_day_starts_once(
    server: PrivateServer, namespace: str, zone: str, change: tuple[int, int, int]
) -> None:
    """Two days around a change of clocks: what should start starts once, nothing else does, whoever looks when."""
    draw = random.Random(sum(change))  # noqa: S311 - an order that can be had again
    begin = us(*change) - DAY
    clock = Clock(begin)
    starts: Counter[tuple[str, int]] = Counter()

    async def half_past_two() -> None:
        starts["half past two", clock.now_us] += 1

    async def quarter_to_two() -> None:
        starts["quarter to two", clock.now_us] += 1

    async def hourly() -> None:
        starts["hourly", clock.now_us] += 1

    jobs = [
        daily("02:30", zone=zone, name="half past two")(half_past_two),
        daily("01:45", zone=zone, name="quarter to two")(quarter_to_two),
        cron("0 * * * *", zone=zone, name="hourly")(hourly),
    ]
    expected = {("half past two", fire): 1 for fire in expected_fires(30, 2, zone, begin, begin + 2 * DAY + 1)} | {
        ("quarter to two", fire): 1 for fire in expected_fires(45, 1, zone, begin, begin + 2 * DAY + 1)
    }
    expected |= {("hourly", fire): 1 for fire in expected_fires(0, None, zone, begin, begin + 2 * DAY + 1)}
    async with AsyncExitStack() as stack:
        workers = []
        for skew in SKEWS:
            client = await stack.enter_async_context(Client(server.url, namespace=namespace))
            await begin_long_ago(client)
            clock.set_for(client, skew_us=skew)
            workers.append(Scheduler(client, jobs))
        for worker in workers:  # their first look takes what fired before
            await look(worker)
        starts.clear()
        for step in range(begin + STEP, begin + 2 * DAY + 1, STEP):
            for before in (4, 2):  # after minutes in which nobody looked, nothing is given away for three seconds
                clock.now_us = step - before * 1_000_000
                await look(draw.choice(workers))
            clock.now_us = step
            for worker in draw.sample(workers, draw.randint(1, len(workers))):
                await look(worker)
    assert starts == expected


async def look(worker: Scheduler) -> None:
    """Let a worker look once, and finish what it begins."""
    await worker.look()
    await asyncio.gather(*worker._runs.values())
