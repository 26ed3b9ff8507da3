"""What becomes of a run whose worker dies, freezes or is stopped: started once more, or not, never more than that."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from cachebus import Client
from cachebus.schedules.decorators import Job
from cachebus.schedules.scheduler import Scheduler
from tests.support.scheduled_workers import (
    FireTimes,
    Starts,
    freeze,
    job_at,
    running,
    status_of,
    until,
    until_idle,
    until_state,
)

LEASE_MS = 300
LONG_MS = 60_000


class Body:
    """A body that notes its starts and hangs the first so many times."""

    def __init__(self, *, hangs: int) -> None:
        self.starts = 0
        self.cancelled = 0
        self._hangs = hangs

    async def __call__(self) -> None:
        self.starts += 1
        if self.starts <= self._hangs:
            try:
                await asyncio.Event().wait()
            except asyncio.CancelledError:
                self.cancelled += 1
                raise


@asynccontextmanager
async def dead_after_start(client: Client, job: Job, body: Body) -> AsyncIterator[None]:
    """Let a worker start the run and vanish in the middle of it."""
    worker = Scheduler(client, [job], worker="dead", lease_ms=LEASE_MS)
    before = body.starts
    async with running(worker):
        await until(lambda: body.starts > before, "the start that is not finished")
        thaw = freeze(worker)
        try:
            yield
        finally:
            thaw.set()  # so that the test can end; by then others have what it held


async def test_a_dead_workers_run_is_started_once_more(client: Client) -> None:
    """After the lease another worker starts the same fire time; deaths and starts are counted."""
    body, times = Body(hangs=1), FireTimes()
    job = job_at(times, body)
    fire = times.fire(client)
    async with dead_after_start(client, job, body):
        second = Scheduler(client, [job], worker="second", lease_ms=LONG_MS)
        async with running(second):
            status = await until_idle(second)
    assert (status.state, status.deaths, status.attempt, status.last_fire) == ("done", 1, 2, fire)
    assert status.holder == "second"
    assert body.starts == 2


async def test_a_run_that_kills_every_worker_is_started_twice_at_most(client: Client) -> None:
    """The second death is the last; the next fire time runs as if nothing had been."""
    body, times = Body(hangs=2), FireTimes()
    job = job_at(times, body)
    times.fire(client)
    third = Scheduler(client, [job], worker="third", lease_ms=LONG_MS)
    async with dead_after_start(client, job, body), dead_after_start(client, job, body), running(third):
        status = await until_idle(third)
        assert (status.state, status.outcome, status.deaths, body.starts) == ("died", "died", 2, 2)
        times.fire(client)
        assert (await until_state(third, "done")).attempt == 1
    assert body.starts == 3


async def test_a_job_that_must_not_be_repeated_is_not(client: Client) -> None:
    """`on_death="skip"`: the death is noted, the fire time is over."""
    body, times = Body(hangs=1), FireTimes()
    job = job_at(times, body, on_death="skip")
    times.fire(client)
    async with dead_after_start(client, job, body):
        second = Scheduler(client, [job], worker="second", lease_ms=LONG_MS)
        async with running(second):
            status = await until_idle(second)
    assert (status.state, status.deaths) == ("died", 1)
    assert body.starts == 1


async def test_a_death_before_the_start_costs_no_start(client: Client) -> None:
    """Claimed and never started: another worker starts it, even where a second start is not allowed."""
    body, times = Body(hangs=0), FireTimes()
    job = job_at(times, body, on_death="skip", jitter="1m", max_run="1s")
    fire = times.fire(client)
    dead = Scheduler(client, [job], worker="dead", lease_ms=LEASE_MS)
    assert (await dead._store.claim(job, fire, "token of the dead")).word == "ours"
    second = Scheduler(client, [job_at(times, body, on_death="skip")], worker="second", lease_ms=LONG_MS)
    async with running(second):
        status = await until_idle(second)
    assert (status.state, status.attempt, body.starts) == ("done", 1, 1)


async def test_a_worker_that_wakes_before_its_start_does_not_start(client: Client) -> None:
    """Claimed, frozen, taken over: the second step is refused, while the other one runs and afterwards."""
    body, times = Starts(hang=True), FireTimes()
    waiting = job_at(times, body, jitter="59m", max_run="1s")
    sleeper = Scheduler(client, [waiting], worker="sleeper", lease_ms=LEASE_MS)
    second = Scheduler(client, [job_at(times, body)], worker="second", lease_ms=LONG_MS)
    now = client.now_us()
    times.fires.append(next(fire for fire in range(now - 1_000, now) if waiting.delay_ms(fire) > 60_000))
    async with running(sleeper):
        await until(lambda: sleeper._runs, "the claim")
        (run,) = sleeper._runs
        thaw = freeze(sleeper)
        async with running(second):
            await body.reach(1)
            thaw.set()
            assert not await sleeper._store.start(run)
            body.go.set()
            await until_state(second, "done")
            assert not await sleeper._store.start(run)
        await until(lambda: not sleeper._runs, "the sleeper's end")
    assert (body.count, sleeper.started, second.started) == (1, 0, 1)
    assert (await status_of(second)).holder == "second"


async def test_two_workers_that_find_a_dead_run_start_it_once(client: Client) -> None:
    """Both saw its lease end; the one that asks second is told that it is alive."""
    body, times = Body(hangs=2), FireTimes()
    job = job_at(times, body)
    fire = times.fire(client)
    async with dead_after_start(client, job, body):
        await until(lambda: client.now_us() > fire + 2_000 * LEASE_MS, "the end of the lease")
        one, two = Scheduler(client, [job], lease_ms=LONG_MS), Scheduler(client, [job], lease_ms=LONG_MS)
        await asyncio.gather(one._reclaim(job), two._reclaim(job))
        await until(lambda: body.starts == 2, "the second start")
        assert len(one._runs) + len(two._runs) == 1
        for task in (*one._runs.values(), *two._runs.values()):
            task.cancel()
        await until(lambda: not one._runs and not two._runs, "the end")
    assert (await status_of(one)).deaths == 1


async def test_a_worker_that_wakes_in_its_run_is_stopped(client: Client) -> None:
    """Frozen longer than its lease, it finds its run taken over: the body is cancelled, its end is not noted."""
    body, times = Body(hangs=1), FireTimes()
    job = job_at(times, body)
    sleeper = Scheduler(client, [job], worker="sleeper", lease_ms=LEASE_MS)
    second = Scheduler(client, [job], worker="second", lease_ms=LONG_MS)
    times.fire(client)
    async with running(sleeper):
        await until(lambda: body.starts, "the start")
        thaw = freeze(sleeper)
        async with running(second):
            await until_state(second, "done")
        assert body.cancelled == 0
        thaw.set()
        await until(lambda: not sleeper._runs, "the sleeper's end")
        status = await status_of(second)
    assert (status.state, status.holder, status.runs) == ("done", "second", 1)
    assert (body.starts, body.cancelled) == (2, 1)


async def test_the_next_fire_time_does_not_swallow_a_dead_run(client: Client) -> None:
    """A worker that meets a dead run first starts that one again; the new fire time overlaps and is counted."""
    body, times = Body(hangs=2), FireTimes()
    job = job_at(times, body)
    first = times.fire(client)
    async with dead_after_start(client, job, body):
        await until(lambda: client.now_us() > first + 2_000 * LEASE_MS, "the end of the lease")
        second = Scheduler(client, [job], worker="second", lease_ms=LONG_MS)
        fire = times.fire(client)
        await second._take(job)
        status = await until_state(second, "running")
        assert (status.attempt, status.overlaps, status.last_fire) == (2, 1, fire)
        assert {run.fire_us for run in second._runs} == {first}
        for task in second._runs.values():
            task.cancel()
        await until(lambda: not second._runs, "the end")


async def test_a_paused_job_is_not_started_again(client: Client) -> None:
    """Somebody paused it because it kills workers: its dead run is noted and left alone."""
    body, times = Body(hangs=1), FireTimes()
    job = job_at(times, body)
    times.fire(client)
    async with dead_after_start(client, job, body):
        second = Scheduler(client, [job], worker="second", lease_ms=LONG_MS)
        await second.pause("job")
        async with running(second):
            assert (await until_idle(second)).state == "died"
    assert body.starts == 1


async def test_a_stopped_worker_hands_its_run_back(client: Client) -> None:
    """Cancelled, it does not keep others waiting for its lease, and nobody counts a death."""
    body, times = Body(hangs=1), FireTimes()
    job = job_at(times, body)
    times.fire(client)
    second = Scheduler(client, [job], worker="second", lease_ms=LONG_MS)
    async with running(Scheduler(client, [job], worker="first", lease_ms=LONG_MS)):
        await until(lambda: body.starts, "the start")
    async with running(second):
        status = await until_idle(second)
    assert (status.state, status.deaths, status.attempt, status.holder) == ("done", 0, 2, "second")
    assert (body.starts, body.cancelled) == (2, 1)


async def test_a_stopped_worker_notes_what_just_ended(client: Client) -> None:
    """A body that answers the cancellation by finishing has finished; it is not started again."""
    times, started = FireTimes(), asyncio.Event()

    async def body() -> None:
        started.set()
        try:
            await asyncio.Event().wait()
        except asyncio.CancelledError:
            return

    job = job_at(times, body)
    times.fire(client)
    worker = Scheduler(client, [job], lease_ms=LONG_MS)
    async with running(worker):
        await until(started.is_set, "the start")
    assert (await status_of(worker)).state == "done"


async def test_a_drained_worker_hands_back_what_only_waits(client: Client) -> None:
    """A run that is waiting out its jitter goes to another worker at once, and loses no start."""
    body, times = Body(hangs=0), FireTimes()
    waiting = job_at(times, body, on_death="skip", jitter="59m", max_run="10s")
    now = client.now_us()
    times.fires.append(next(fire for fire in range(now - 1_000, now) if waiting.delay_ms(fire) > 60_000))
    first = Scheduler(client, [waiting], worker="first", lease_ms=LONG_MS)
    second = Scheduler(client, [job_at(times, body, on_death="skip")], worker="second", lease_ms=LONG_MS)
    async with running(first):
        await until_state(first, "claimed")
        await asyncio.wait_for(first.drain(), 20)
        async with running(second):
            status = await until_idle(second)
    assert (status.state, status.attempt, status.deaths, body.starts) == ("done", 1, 0, 1)


async def test_a_job_that_no_worker_knows_leaves_the_list(client: Client) -> None:
    """A day after its lease ended, a job that was renamed is not looked at any more."""
    running_jobs = client.names.bus("jobs", "running")
    day_us = 86_400_000_000
    await client.store.call("ZADD", running_jobs, client.now_us() - day_us - 1, client.names.bus("job", "renamed"))
    await client.store.call("ZADD", running_jobs, client.now_us() - day_us // 2, client.names.bus("job", "other"))
    worker = Scheduler(client, [])
    await worker.look()
    assert (await worker._store.look())[1] == ["other"]
