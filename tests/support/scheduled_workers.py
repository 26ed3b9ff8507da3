"""Workers of one deployment in one test, and fire times that the test sets."""

from __future__ import annotations

import asyncio
import inspect
from collections.abc import AsyncIterator, Awaitable, Callable, Iterable
from contextlib import asynccontextmanager
from dataclasses import replace
from typing import Any

from cachebus import Client
from cachebus.freshness.ledger import new_era
from cachebus.schedules.decorators import Job, every
from cachebus.schedules.scheduler import Scheduler
from cachebus.schedules.store import JobStatus

BUSY = ("claimed", "running")


async def begin_long_ago(client: Client) -> None:
    """Give the deployment a ledger that began before any fire time of a test."""
    await client.store.call(
        "ZADD", client.names.ledger, -1, f"@era:{new_era()}", -2, "@run:ab", 1, "@clock", 1, "@start", 0, "@floor"
    )


async def until(holds: Callable[[], object], what: str, deadline_s: float = 20) -> None:
    """Wait until something is so, here or after asking; fail after a time that no working machine needs."""
    try:
        async with asyncio.timeout(deadline_s):
            while True:
                answer = holds()
                if await answer if inspect.isawaitable(answer) else answer:
                    return
                await asyncio.sleep(0.005)
    except TimeoutError:
        raise AssertionError(f"never happened: {what}") from None


class FireTimes:
    """Fire times a test sets."""

    shortest_us = 1_000_000

    def __init__(self, *fires: int) -> None:
        self.fires = list(fires)

    def last(self, now_us: int) -> int | None:
        """Return the newest one that is due."""
        return max((fire for fire in self.fires if fire <= now_us), default=None)

    def next(self, now_us: int) -> int | None:
        """Return the first one to come; look again soon, for the test may add one."""
        return min([fire for fire in self.fires if fire > now_us] + [now_us + 20_000])

    def fire(self, client: Client) -> int:
        """Let it fire now."""
        self.fires.append(client.now_us())
        return self.fires[-1]


def job_at(times: FireTimes, body: Callable[[], Awaitable[object]], **policy: Any) -> Job:
    """Return the job called "job" that calls *body* at *times*."""

    async def function() -> None:
        await body()

    return replace(every("1h", name="job", **policy)(function), times=times)


@asynccontextmanager
async def running(*schedulers: Scheduler) -> AsyncIterator[None]:
    """Run schedulers as long as the block, then cancel them, as a worker does at its end."""
    tasks = [asyncio.create_task(scheduler.run()) for scheduler in schedulers]
    try:
        yield
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)


class Starts:
    """A body that counts its calls, and hangs until told to go on."""

    def __init__(self, *, hang: bool = False) -> None:
        self.count = 0
        self.go = asyncio.Event()
        if not hang:
            self.go.set()

    async def __call__(self) -> None:
        self.count += 1
        await self.go.wait()

    async def reach(self, count: int) -> None:
        """Wait until it was called so often."""
        await until(lambda: self.count >= count, f"start {count}")


async def until_looked(workers: Iterable[Scheduler], fire_us: int) -> None:
    """Wait until each worker knows what became of a fire time of "job"."""
    await until(lambda: all(worker._settled.get("job") == fire_us for worker in workers), "everyone's look")


async def status_of(scheduler: Scheduler) -> JobStatus:
    """Return the status of its one job."""
    (status,) = await scheduler.status()
    return status


async def until_state(scheduler: Scheduler, *states: str) -> JobStatus:
    """Wait until its one job is in one of *states*."""

    async def reached() -> bool:
        return (await status_of(scheduler)).state in states

    await until(reached, f"state {states}")
    return await status_of(scheduler)


async def until_idle(scheduler: Scheduler) -> JobStatus:
    """Wait until its one job has ended."""
    return await until_state(scheduler, "done", "failed", "died", "cancelled")


def freeze(scheduler: Scheduler) -> asyncio.Event:
    """Let a worker stand still, as SIGSTOP would: what it was about to ask it asks when the returned event is set.

    Never set, it is kill -9.
    """
    thaw = asyncio.Event()

    def late(real: Callable[..., Awaitable[Any]]) -> Callable[..., Awaitable[Any]]:
        async def ask(*args: object, **options: object) -> Any:
            await thaw.wait()
            return await real(*args, **options)

        return ask

    for verb in ("look", "claim", "reclaim", "start", "renew", "finish", "release"):
        setattr(scheduler._store, verb, late(getattr(scheduler._store, verb)))
    return thaw
