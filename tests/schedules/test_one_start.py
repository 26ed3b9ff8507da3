"""Who runs a fire time: one worker, once, whatever its clock says."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from cachebus import Client
from cachebus.errors import ConfigurationError
from cachebus.schedules.decorators import every
from cachebus.schedules.scheduler import Scheduler
from cachebus.testing.server import PrivateServer
from tests.support.scheduled_workers import (
    FireTimes,
    Starts,
    job_at,
    running,
    status_of,
    until,
    until_idle,
    until_looked,
    until_state,
)
from tests.support.schedules_worker import EverybodysJobs

HOUR_US = 3_600_000_000


async def test_each_fire_time_starts_once_whoever_is_there(client: Client) -> None:
    """Twenty fire times, three workers: twenty starts, each fire time's in the record."""
    body, times = Starts(), FireTimes()
    job = job_at(times, body)
    workers = [Scheduler(client, [job], worker=f"w{number}") for number in range(3)]
    async with running(*workers):
        for number in range(1, 21):
            fire = times.fire(client)
            await body.reach(number)
            status = await until_idle(workers[0])
            assert status.last_fire == fire
            await until_looked(workers, fire)
    assert body.count == 20
    assert sum(worker.started for worker in workers) == 20
    assert (await status_of(workers[0])).runs == 20


async def test_without_the_claim_every_worker_would_start_it(client: Client) -> None:
    """What the other tests look for does happen when each worker is told yes."""
    body, times = Starts(), FireTimes()
    job = job_at(times, body)
    workers = [Scheduler(client, [job], worker=f"w{number}") for number in range(3)]
    for worker in workers:
        worker._store = EverybodysJobs(client, holder="everybody", lease_ms=60_000)
    times.fire(client)
    async with running(*workers):
        await body.reach(3)


async def test_a_fire_time_taken_stays_taken_when_its_run_is_over(client: Client) -> None:
    """Another worker that asks for it right afterwards is told so, by the server and not by its own memory."""
    body, times = Starts(), FireTimes()
    job = job_at(times, body)
    fire = times.fire(client)
    first, second = Scheduler(client, [job]), Scheduler(client, [job])
    async with running(first):
        await body.reach(1)
        await until_idle(first)
    assert (await second._store.claim(job, fire, "another token")).word == "taken"
    assert (await second._store.claim(job, fire - 1, "another token")).word == "taken"


async def test_a_fire_time_to_come_is_not_taken_early(client: Client) -> None:
    """A claim before its time is told how long to wait, and changes nothing."""
    job = job_at(FireTimes(), Starts())
    worker = Scheduler(client, [job])
    answer = await worker._store.claim(job, client.now_us() + 60_000_000, "token")
    assert answer.word == "early"
    assert 50_000 < answer.number < 61_000
    assert (await status_of(worker)).last_fire is None


@pytest.mark.parametrize("skew_us", [-HOUR_US, HOUR_US])
async def test_a_clock_that_is_an_hour_wrong_changes_nothing(
    server: PrivateServer, client: Client, monkeypatch: pytest.MonkeyPatch, skew_us: int
) -> None:
    """The server's time decides: a worker an hour ahead or behind shares fire times with the others, one start each."""
    body, times = Starts(), FireTimes()
    async with Client(server.url, namespace=client.names.namespace) as other:
        right = other.now_us
        monkeypatch.setattr(other, "now_us", lambda: right() + skew_us)
        job = job_at(times, body)
        workers = [Scheduler(client, [job], worker="right"), Scheduler(other, [job], worker="wrong")]
        async with running(*workers):
            for number in range(1, 11):
                fire = times.fire(client)
                await body.reach(number)
                await until_idle(workers[0])
                await until_looked(workers, fire)
    assert body.count == 10


async def test_a_worker_that_comes_late_finds_the_fire_time_taken(client: Client) -> None:
    """Started after the run, it does not run it again, whatever the misfire policy."""
    body, times = Starts(), FireTimes()
    job = job_at(times, body, misfire="once")
    times.fire(client)
    first = Scheduler(client, [job])
    async with running(first):
        await body.reach(1)
        await until_idle(first)
    second = Scheduler(client, [job])
    await second.look()
    assert second._settled["job"] == times.fires[-1]
    assert body.count == 1


async def test_jitter_is_slept_by_the_winner(client: Client) -> None:
    """The fire time is taken at once, the body starts after its delay."""
    body = Starts()
    fire = next(at for at in range(client.now_us(), client.now_us() + 200_000, 7) if 300 < _delay(at) < 400)
    job = job_at(FireTimes(fire), body, jitter="1m", max_run="10s")
    worker = Scheduler(client, [job])
    async with running(worker):
        claimed = await until_state(worker, "claimed", "running", "done")
        assert claimed.last_fire == fire
        status = await until_idle(worker)
    assert status.started is not None
    assert status.started >= fire + 300_000


def _delay(fire_us: int) -> int:
    return every("1h", name="job", jitter="1m")(_nothing).delay_ms(fire_us)


async def _nothing() -> None: ...


async def test_a_run_that_outlasts_its_next_fire_time_is_not_joined_by_another(client: Client) -> None:
    """The fire time is passed over, counted once, and the one after it runs again."""
    body, times = Starts(hang=True), FireTimes()
    job = job_at(times, body)
    workers = [Scheduler(client, [job], worker="one"), Scheduler(client, [job], worker="two")]
    times.fire(client)
    async with running(*workers):
        await body.reach(1)
        fire = times.fire(client)
        await until_looked(workers, fire)
        status = await status_of(workers[0])
        assert (status.overlaps, status.state, body.count) == (1, "running", 1)
        body.go.set()
        await until_idle(workers[0])
        times.fire(client)
        await body.reach(2)


async def test_missed_fire_times_are_skipped(client: Client) -> None:
    """`misfire="skip"`: nobody was there for an hour, nothing is run, the misfire is counted."""
    now = client.now_us()
    body, times = Starts(), FireTimes(now - HOUR_US, now - HOUR_US // 2, now - 60_000_000)
    worker = Scheduler(client, [job_at(times, body, misfire="skip")])
    await has_run(client, now - 2 * HOUR_US)
    await worker.look()
    assert (await status_of(worker)).misfires == 1
    await worker.look()
    assert (await status_of(worker)).misfires == 1
    assert body.count == 0


async def test_missed_fire_times_are_made_up_for_once(client: Client) -> None:
    """`misfire="once"`: the newest of them is run, not all."""
    now = client.now_us()
    body, times = Starts(), FireTimes(now - HOUR_US, now - HOUR_US // 2, now - 60_000_000)
    worker = Scheduler(client, [job_at(times, body, misfire="once")])
    await has_run(client, now - 2 * HOUR_US)
    async with running(worker):
        await body.reach(1)
        status = await until_idle(worker)
        await worker.look()
    assert status.last_fire == now - 60_000_000
    assert body.count == 1


async def has_run(client: Client, fire_us: int) -> None:
    """Let the store know of an earlier run of the job."""
    await client.store.call("HSET", client.names.bus("job", "job"), "last_fire", fire_us)


async def test_a_new_job_makes_up_for_nothing(client: Client) -> None:
    """Deployed at noon, a job of the morning waits for the next one, even with `misfire="once"`."""
    body, times = Starts(), FireTimes(client.now_us() - HOUR_US)
    worker = Scheduler(client, [job_at(times, body, misfire="once")])
    await worker.look()
    status = await status_of(worker)
    assert (status.state, status.misfires, status.last_fire) == ("waiting", 0, times.fires[0])
    async with running(worker):
        times.fire(client)
        await body.reach(1)
        await until_idle(worker)
    assert body.count == 1


async def test_a_paused_job_lets_its_times_pass_in_every_worker(client: Client) -> None:
    """Nothing is caught up when it is resumed; the next fire time runs."""
    body, times = Starts(), FireTimes()
    job = job_at(times, body, misfire="once")
    one, two = Scheduler(client, [job]), Scheduler(client, [job])
    await one.pause("job")
    fire = times.fire(client)
    async with running(one, two):
        await until_looked((one, two), fire)
        assert (await status_of(two)).paused
        await two.pause("job", paused=False)
        assert body.count == 0
        times.fire(client)
        await body.reach(1)
        assert not (await until_idle(one)).paused


async def test_a_job_can_be_run_by_hand(client: Client) -> None:
    """Now, here, even if it is paused; refused while it runs; the fire times stay as they are."""
    body, times = Starts(hang=True), FireTimes()
    worker = Scheduler(client, [job_at(times, body)])
    await worker.pause("job")
    assert await worker.run_now("job")
    await body.reach(1)
    assert not await worker.run_now("job")
    body.go.set()
    await worker.drain()
    status = await status_of(worker)
    assert (status.state, status.last_fire, body.count) == ("done", None, 1)


async def test_an_unknown_job_cannot_be_run_or_paused(client: Client) -> None:
    """The caller's mistake is the caller's error."""
    worker = Scheduler(client, [])
    with pytest.raises(KeyError):
        await worker.run_now("nothing")
    with pytest.raises(KeyError):
        await worker.pause("nothing")


@pytest.mark.parametrize("raised", [LookupError, SystemExit, KeyboardInterrupt, GeneratorExit])
async def test_a_job_that_fails_says_why_and_runs_again_next_time(client: Client, raised: type[BaseException]) -> None:
    """Outcome and traceback are in the status; the next success clears them. `sys.exit` ends the job alone."""
    times, errors = FireTimes(), [raised("no such symbol")]

    async def body() -> None:
        if errors:
            raise errors.pop()

    worker = Scheduler(client, [job_at(times, body)])
    async with running(worker):
        times.fire(client)
        failed = await until_state(worker, "failed")
        times.fire(client)
        done = await until_state(worker, "done")
    assert "no such symbol" in failed.error
    assert "test_one_start.py" in failed.error
    assert (done.outcome, done.error, done.runs) == ("done", "", 2)


async def test_a_run_past_its_limit_is_cancelled(client: Client) -> None:
    """`max_run` ends a body that hangs; the job is free again."""
    times, ended = FireTimes(), asyncio.Event()

    async def body() -> None:
        try:
            await asyncio.Event().wait()
        finally:
            ended.set()

    worker = Scheduler(client, [job_at(times, body, max_run="100ms")])
    times.fire(client)
    async with running(worker):
        await until(ended.is_set, "the cancellation")
        assert "max_run" in (await until_idle(worker)).error


async def test_a_run_keeps_its_lease_however_long_it_takes(client: Client) -> None:
    """Held twice as long as its lease under the eyes of another worker, it is neither taken nor started again."""
    body, times = Starts(hang=True), FireTimes()
    job = job_at(times, body)
    holder, other = [Scheduler(client, [job], lease_ms=1500) for _ in range(2)]
    times.fire(client)
    async with running(holder, other):
        await body.reach(1)
        began = client.now_us()
        await until(lambda: client.now_us() > began + 3_000_000, "two leases")
        status = await status_of(holder)
        assert (status.state, status.deaths, body.count) == ("running", 0, 1)
        body.go.set()
        assert (await until_idle(holder)).outcome == "done"


async def test_progress_is_seen_while_it_runs(client: Client) -> None:
    """What a run says of itself is in the status that every worker reads."""
    times, go = FireTimes(), asyncio.Event()
    scheduler = Scheduler(client, [job_at(times, go.wait)], lease_ms=300)
    times.fire(client)
    async with running(scheduler):
        await until(lambda: scheduler._runs, "the run")
        next(iter(scheduler._runs)).say("12 of 40")

        async def seen() -> bool:
            return (await status_of(Scheduler(client, scheduler.jobs.values()))).progress == "12 of 40"

        await until(seen, "the progress")
        go.set()
        await until_idle(scheduler)


async def test_draining_starts_nothing_and_waits_for_what_runs(client: Client) -> None:
    """A drain returns when the run under way has finished; a fire time meanwhile is left to others."""
    body, times = Starts(hang=True), FireTimes()
    worker = Scheduler(client, [job_at(times, body)])
    fire = times.fire(client)
    async with running(worker):
        await body.reach(1)
        drain = asyncio.create_task(worker.drain())
        await until(lambda: worker.draining and not worker._looking.locked(), "the end of the last look")
        times.fire(client)
        await worker.look()
        assert not drain.done()
        body.go.set()
        await asyncio.wait_for(drain, 20)
        await worker.look()
        status = await status_of(worker)
    assert (status.state, status.last_fire, status.overlaps, body.count) == ("done", fire, 0, 1)


async def test_what_is_taken_while_a_drain_begins_is_handed_back_or_finished(client: Client) -> None:
    """A claim that is answered after the worker was told to stop is no run that nobody waits for."""
    body, times = Starts(), FireTimes()
    worker = Scheduler(client, [job_at(times, body)], lease_ms=60_000)
    answered, claim = asyncio.Event(), worker._store.claim

    async def slow(*args: Any) -> Any:
        answer = await claim(*args)
        await answered.wait()
        return answer

    worker._store.claim = slow  # type: ignore[method-assign,assignment]
    times.fire(client)
    async with running(worker):
        await until_state(worker, "claimed")
        drain = asyncio.create_task(worker.drain())
        await until(lambda: worker.draining, "the drain")
        answered.set()
        await asyncio.wait_for(drain, 20)
        assert not worker._runs
        status = await status_of(worker)
    assert status.state == "done" if body.count else status.holder == ""


def test_two_jobs_of_one_name_are_refused(client: Client) -> None:
    """They would take each other's fire times."""
    with pytest.raises(ConfigurationError, match="twin"):
        Scheduler(client, [every("10s", name="twin")(_nothing), every("20s", name="twin")(_nothing)])


async def test_one_jobs_broken_record_leaves_the_others_running(client: Client) -> None:
    """Something else lies under a job's name: that job is refused, the next one runs."""
    body, times = Starts(), FireTimes()
    await client.store.call("SET", client.names.bus("job", "broken"), "text")
    good = job_at(times, body)
    broken = every("1s", name="broken", misfire="once")(_nothing)
    worker = Scheduler(client, [broken, good])
    times.fire(client)
    async with running(worker):
        await body.reach(1)
    assert "broken" in worker._refused
