"""Who runs a fire time: one worker, once; and what happens when it dies."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager

import pytest

from cachebus import Link
from cachebus.scheduler import Run, Scheduler
from cachebus.schedules import Job, Slots, every


async def until(holds: Callable[[], object], what: str) -> None:
    """Wait until something is so, at most twenty seconds."""
    for _ in range(4000):
        if holds():
            return
        await asyncio.sleep(0.005)
    raise AssertionError(f"never happened: {what}")


@asynccontextmanager
async def running(*schedulers: Scheduler) -> AsyncIterator[None]:
    """Run schedulers as long as the block."""
    tasks = [asyncio.create_task(scheduler.run()) for scheduler in schedulers]
    try:
        yield
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)


class Clockwork:
    """Fire times a test sets."""

    def __init__(self) -> None:
        self.fires: list[int] = []

    def last(self, now_us: int) -> int | None:
        """Return the newest one that is due."""
        return max((fire for fire in self.fires if fire <= now_us), default=None)

    def next(self, now_us: int) -> int | None:
        """Look again soon."""
        return now_us + 20_000


def job_of(function: Callable[[], object], times: object, **options: object) -> Job:
    """Return a job with given fire times."""

    async def body() -> None:
        await function()  # type: ignore[misc]

    made = every("10s", name="job", **options)(body)  # type: ignore[arg-type]
    object.__setattr__(made, "times", times)
    return made


async def test_three_workers_start_each_fire_time_once(link: Link) -> None:
    """Twenty fire times, three workers: twenty starts."""
    starts: list[int] = []
    clock = Clockwork()

    async def body() -> None:
        starts.append(1)

    job = job_of(body, clock, misfire="once")
    workers = [Scheduler(link, [job], worker=f"w{i}") for i in range(3)]
    async with running(*workers):
        for fired in range(20):
            clock.fires.append(link.now_us())
            await until(lambda fired=fired: len(starts) >= fired + 1, f"start {fired + 1}")
            status = (await workers[0].status())[0]
            assert status.last_fire == clock.fires[-1]
            await until_idle(workers[0])
    assert len(starts) == 20
    assert sum(worker.started for worker in workers) == 20


async def until_idle(scheduler: Scheduler) -> None:
    """Wait until the job is not running."""
    for _ in range(4000):
        if (await scheduler.status())[0].state not in ("claimed", "running"):
            return
        await asyncio.sleep(0.005)
    raise AssertionError("still running")


async def test_a_dead_workers_run_is_started_once_more(link: Link) -> None:
    """The holder vanishes without a word; another worker starts the run after the lease, and only once."""
    starts: list[str] = []
    clock = Clockwork()
    hang = asyncio.Event()

    async def body() -> None:
        starts.append("start")
        if len(starts) == 1:
            await hang.wait()

    job = job_of(body, clock)
    first = Scheduler(link, [job], worker="first", lease_ms=300)
    clock.fires.append(link.now_us())
    task = asyncio.create_task(first.run())
    await until(lambda: starts, "the first start")
    await freeze(first)
    async with running(Scheduler(link, [job], worker="second", lease_ms=300)):
        await until(lambda: len(starts) == 2, "the second start")
        await until_idle(first)
        status = (await first.status())[0]
    assert (status.state, status.deaths, status.attempt) == ("done", 1, 2)
    task.cancel()
    await asyncio.gather(task, return_exceptions=True)
    assert len(starts) == 2


async def freeze(scheduler: Scheduler) -> None:
    """Stop a scheduler's renewals, as SIGSTOP would, without its knowing."""

    async def deaf(run: Run, step: str, error: str = "", duration_ms: float = 0.0) -> bool:
        await asyncio.Event().wait()
        return False

    scheduler._step = deaf  # type: ignore[method-assign]


async def test_a_worker_that_wakes_late_does_not_start_what_another_has_taken_over(link: Link) -> None:
    """Claimed, stopped before the start, taken over: the second step is refused."""
    starts: list[str] = []
    clock = Clockwork()

    async def body() -> None:
        starts.append("start")

    job = job_of(body, clock)
    sleeper = Scheduler(link, [job], worker="sleeper", lease_ms=200)
    gate = asyncio.Event()
    step = sleeper._step

    async def late(run: Run, verb: str, error: str = "", duration_ms: float = 0.0) -> bool:
        await gate.wait()
        return await step(run, verb, error, duration_ms)

    sleeper._step = late  # type: ignore[method-assign]
    sleeper._take_over = lambda now_us: asyncio.sleep(0)  # type: ignore[method-assign] # it sleeps
    clock.fires.append(link.now_us())
    async with running(sleeper):
        await until(lambda: sleeper._runs, "the claim")
        async with running(Scheduler(link, [job], worker="second", lease_ms=5_000)):
            await until(lambda: starts, "the start by the second")
            gate.set()
            await until(lambda: not sleeper._runs, "the sleeper's end")
    assert starts == ["start"]


async def test_fire_times_nobody_was_there_for_follow_the_policy(link: Link) -> None:
    """`skip` counts a misfire; `once` runs the newest, not all of them."""
    starts: list[str] = []
    clock = Clockwork()
    long_ago = link.now_us() - 3_600_000_000
    clock.fires = [long_ago, long_ago + 60_000_000, long_ago + 120_000_000]

    async def body() -> None:
        starts.append("start")

    skipping = Scheduler(link, [job_of(body, clock, misfire="skip")])
    async with running(skipping):
        await until(lambda: skipping._settled, "the look")
        assert (await skipping.status())[0].misfires == 1
    assert starts == []
    clock.fires.append(link.now_us() - 600_000_000)
    catching = Scheduler(link, [job_of(body, clock, misfire="once")])
    async with running(catching):
        await until(lambda: starts, "the run")
        await until_idle(catching)
    assert starts == ["start"]


async def test_a_fire_time_before_the_store_began_is_nobodys(link: Link) -> None:
    """Redis lost its data: a worker whose clock is behind does not start again what ran already."""
    starts: list[str] = []
    clock = Clockwork()
    clock.fires.append(link.now_us())

    async def body() -> None:
        starts.append("start")

    await link.store.call("DEL", link.names.ledger)
    await link.store.call("ZADD", link.names.ledger, link.now_us() + 1_000_000, "@start")
    worker = Scheduler(link, [job_of(body, clock)])
    async with running(worker):
        await until(lambda: worker._settled, "the look")
    assert starts == []


async def test_a_run_that_lasts_longer_than_its_interval_is_not_started_twice(link: Link) -> None:
    """The next fire time is passed over and counted."""
    starts: list[str] = []
    clock, hang = Clockwork(), asyncio.Event()

    async def body() -> None:
        starts.append("start")
        await hang.wait()

    job = job_of(body, clock)
    one, two = Scheduler(link, [job], worker="one"), Scheduler(link, [job], worker="two")
    clock.fires.append(link.now_us())
    async with running(one, two):
        await until(lambda: starts, "the start")
        clock.fires.append(link.now_us())
        await until(lambda: max(one._settled.get("job", 0), two._settled.get("job", 0)) == clock.fires[-1], "the look")
        assert (await one.status())[0].overlaps >= 1
        hang.set()
        await until_idle(one)
    assert starts == ["start"]


async def test_paused_jobs_let_their_times_pass_and_can_be_run_by_hand(link: Link) -> None:
    """Pause holds in every worker; run now runs whatever the time."""
    starts: list[str] = []
    clock = Clockwork()

    async def body() -> None:
        starts.append("start")

    job = job_of(body, clock)
    worker = Scheduler(link, [job])
    await worker.pause("job")
    clock.fires.append(link.now_us())
    async with running(worker):
        await until(lambda: worker._settled, "the look")
        assert starts == []
        assert (await worker.status())[0].paused
        assert await worker.run_now("job")
        await until(lambda: starts, "the run by hand")
        await until_idle(worker)


async def test_a_job_that_fails_says_why_and_runs_again_next_time(link: Link) -> None:
    """The outcome and the traceback are in the status; the worker goes on."""
    clock = Clockwork()
    runs: list[str] = []

    async def body() -> None:
        runs.append("run")
        raise LookupError("no such symbol")

    worker = Scheduler(link, [job_of(body, clock)])
    async with running(worker):
        for count in (1, 2):
            clock.fires.append(link.now_us())
            await until(lambda count=count: len(runs) == count, f"run {count}")
            await until_idle(worker)
    status = (await worker.status())[0]
    assert status.outcome == "failed"
    assert "no such symbol" in status.error
    assert status.runs == 2


async def test_a_run_past_its_limit_is_cancelled(link: Link) -> None:
    """`max_run` ends a body that hangs; the job is free again."""
    clock, ended = Clockwork(), asyncio.Event()

    async def body() -> None:
        try:
            await asyncio.Event().wait()
        finally:
            ended.set()

    worker = Scheduler(link, [job_of(body, clock, max_run="100ms")])
    clock.fires.append(link.now_us())
    async with running(worker):
        await asyncio.wait_for(ended.wait(), 20)
        await until_idle(worker)
    assert "max_run" in (await worker.status())[0].error


async def test_draining_starts_nothing_and_waits_for_what_runs(link: Link) -> None:
    """A drain returns when the run under way has finished."""
    clock, hang = Clockwork(), asyncio.Event()
    starts: list[str] = []

    async def body() -> None:
        starts.append("start")
        await hang.wait()

    worker = Scheduler(link, [job_of(body, clock)])
    clock.fires.append(link.now_us())
    async with running(worker):
        await until(lambda: starts, "the start")
        drain = asyncio.create_task(worker.drain())
        clock.fires.append(link.now_us())
        await asyncio.sleep(0)
        assert not drain.done()
        hang.set()
        await asyncio.wait_for(drain, 20)
        assert (await worker.status())[0].state == "done"
    assert starts == ["start"]


def test_slots_are_times() -> None:
    """The scheduler takes what the decorators make."""
    assert Slots(1).last(5) == 5


@pytest.mark.parametrize("skew_us", [-3_600_000_000, 3_600_000_000])
async def test_a_process_with_a_wrong_idea_of_the_time_starts_nothing_twice(
    link: Link, monkeypatch: pytest.MonkeyPatch, skew_us: int
) -> None:
    """The server decides: a worker an hour ahead is told to come back, one behind finds the time taken."""
    starts: list[str] = []
    clock = Clockwork()

    async def body() -> None:
        starts.append("start")

    job = job_of(body, clock, misfire="once")
    right, wrong = Scheduler(link, [job], worker="right"), Scheduler(link, [job], worker="wrong")
    now = link.now_us
    async with running(right):
        clock.fires.append(now())
        await until(lambda: starts, "the start")
        await until_idle(right)
    clock.fires = [now() + max(skew_us, 0), clock.fires[0]]
    monkeypatch.setattr(link, "now_us", lambda: now() + skew_us)
    await wrong._look()
    assert starts == ["start"]
