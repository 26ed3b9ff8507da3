"""Jobs for processes that do not have them: who knows of them, has one run, lets one rest."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import suppress

import pytest

from cachebus import Client
from cachebus.errors import Unavailable
from cachebus.redis import subscriptions
from cachebus.schedules.decorators import every
from cachebus.schedules.known_jobs import announce_jobs, known_jobs, pause_job, run_asked_jobs, run_job_somewhere
from cachebus.schedules.scheduler import Scheduler
from cachebus.schedules.store import Jobs, is_paused, record_key
from cachebus.testing import PrivateServer
from tests.support.waiting import until

ran: list[str] = []


@every("1h", name="nightly")
async def nightly() -> None:
    """Note that it ran."""
    ran.append("nightly")


@pytest.fixture
async def workers(client: Client) -> AsyncIterator[list[Scheduler]]:
    """Two workers that have the job, announce it, and run it when they are asked to."""
    ran.clear()
    schedulers = [Scheduler(client, [nightly], worker=f"worker-{number}") for number in range(2)]
    tasks = [asyncio.create_task(work(each, client)) for each in schedulers for work in (announce_jobs, run_asked_jobs)]

    async def heard() -> bool:
        found = await client.store.call("PUBSUB", "NUMSUB", client.names.bus("jobs", "run"))
        return bool(found[1]) and bool(await known_jobs(client))

    await until(heard, "the workers")
    yield schedulers
    for task in tasks:
        task.cancel()
    await asyncio.gather(*tasks, return_exceptions=True)
    for each in schedulers:
        await each.drain()


async def test_a_job_is_run_by_one_of_the_workers(client: Client, workers: list[Scheduler]) -> None:
    """Once, whoever was asked; its end stands where everybody reads it; one that nobody has is run by nobody."""
    del workers
    assert await run_job_somewhere(client, "nightly") == "started"

    async def done() -> bool:
        return (await known_jobs(client))[0].outcome == "done"

    await until(done, "the run")
    (job,) = await known_jobs(client)
    assert (ran, job.name, job.when, job.runs, job.overlaps) == (["nightly"], "nightly", "every 1h", 1, 0)


async def test_a_worker_that_may_not_listen_yet_is_asked_once_it_may(
    own_server: PrivateServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    """No failure of its own: what the access rules lack is named elsewhere, and it waits for them."""
    monkeypatch.setattr(subscriptions, "CONFIRM_S", 0.1)
    monkeypatch.setattr(subscriptions, "AGAIN_S", 0.01)
    own_server.ask("ACL", "SETUSER", "app", "on", ">pw", "~*", "+@all", "resetchannels")
    async with Client(own_server.url.replace("redis://", "redis://app:pw@")) as worker, Client(own_server.url) as asks:
        scheduler = Scheduler(worker, [nightly], worker="worker")
        task = asyncio.create_task(run_asked_jobs(scheduler, worker))
        done, _ = await asyncio.wait([task], timeout=0.3)
        assert not done
        own_server.ask("ACL", "SETUSER", "app", "&{cachebus}:*")

        async def started() -> bool:
            with suppress(Unavailable):  # who asks has no more time to be confirmed either
                return await run_job_somewhere(asks, "nightly") == "started"
            return False

        await until(started, "a run")
        task.cancel()
        await asyncio.wait([task])
        await scheduler.drain()


async def test_what_nobody_has_is_run_by_nobody(client: Client, monkeypatch: pytest.MonkeyPatch) -> None:
    """It says so, instead of waiting for ever."""
    monkeypatch.setattr("cachebus.schedules.known_jobs.ANSWER_S", 0.05)
    assert await run_job_somewhere(client, "no.such") == "nobody"
    assert await known_jobs(client) == []


async def test_a_job_rests_until_then(client: Client, workers: list[Scheduler]) -> None:
    """Its fire times pass until the time comes; then, without anybody, they do not."""
    del workers
    now_us = client.now_us()
    await pause_job(client, "nightly", paused=True, until_us=now_us + 60_000_000)
    (job,) = await known_jobs(client)
    assert (job.paused, job.paused_until) == (True, now_us + 60_000_000)
    jobs = Jobs(client, holder="w", lease_ms=1000)
    await client.store.call("HSET", record_key(client, "nightly"), "last_fire", now_us - 2)
    assert (await jobs.claim(nightly, now_us - 1, "a")).word == "paused"
    await pause_job(client, "nightly", paused=True, until_us=now_us)
    assert (await jobs.claim(nightly, client.now_us() - 1, "b")).word == "ours"
    assert not (await known_jobs(client))[0].paused


async def test_a_late_job_is_known_everywhere(client: Client, workers: list[Scheduler]) -> None:
    """The fire time that nobody took, more than a minute ago."""
    (worker, _) = workers
    due_us = nightly.times.last(client.now_us())
    assert due_us is not None
    await client.store.call("HSET", record_key(client, "nightly"), "last_fire", due_us - 3 * 3_600_000_000)
    (status,) = await worker.status()
    assert status.late_since is not None
    assert status.late_since <= due_us - 2 * 3_600_000_000 + 1


def test_paused_is_a_word_or_a_time() -> None:
    """0 no, 1 yes, else until then."""
    assert [is_paused(kept, 100) for kept in (None, "0", "1", "99", "101")] == [False, False, True, False, True]
