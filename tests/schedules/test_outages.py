"""Answers that are lost, servers that forget, networks that part: still one start."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from cachebus import Cache, CacheSettings, Link
from cachebus.errors import ServerTimeout, Unavailable
from cachebus.private_server import PrivateServer
from cachebus.scheduler import Scheduler
from tests.schedules.clocked import Clock
from tests.schedules.workers import (
    FireTimes,
    Starts,
    begin_long_ago,
    job_at,
    running,
    status_of,
    until,
    until_idle,
    until_looked,
)

LONG_MS = 60_000


def lose_answers(scheduler: Scheduler, verb: str, times: int = 1) -> list[str]:
    """Let the server do what it is asked, and lose its answer, the first so many times."""
    real = getattr(scheduler._store, verb)
    lost: list[str] = []

    async def ask(*args: Any) -> Any:
        answer = await real(*args)
        if len(lost) < times:
            lost.append(verb)
            raise ServerTimeout(f"the answer to {verb} was lost")
        return answer

    setattr(scheduler._store, verb, ask)
    return lost


@pytest.mark.parametrize("verb", ["look", "claim", "start", "renew", "finish"])
async def test_a_lost_answer_changes_nothing(link: Link, verb: str) -> None:
    """Whatever step it was: one start, one run, no death, and no waiting for a lease to end."""
    body, times = Starts(hang=verb == "renew"), FireTimes()
    worker = Scheduler(link, [job_at(times, body)], lease_ms=900 if verb == "renew" else LONG_MS)
    lost = lose_answers(worker, verb, times=2)
    times.fire(link)
    async with running(worker):
        await until(lambda: len(lost) == 2, "the loss")
        body.go.set()
        status = await until_idle(worker)
    assert (status.state, status.attempt, status.deaths, status.runs, body.count) == ("done", 1, 0, 1, 1)


async def test_a_lost_answer_to_a_hand_back_is_one_hand_back(link: Link) -> None:
    """Another worker goes on, once."""
    body, times = Starts(hang=True), FireTimes()
    job = job_at(times, body)
    first, second = Scheduler(link, [job], lease_ms=LONG_MS), Scheduler(link, [job], lease_ms=LONG_MS)
    lose_answers(first, "release")
    times.fire(link)
    async with running(first):
        await body.reach(1)
    body.go.set()
    async with running(second):
        assert (await until_idle(second)).deaths == 0
    assert body.count == 2


async def test_a_worker_cut_off_for_longer_than_its_lease_stops(link: Link) -> None:
    """It cannot know who else runs by then: it cancels its body, and another worker starts the run once more."""
    body, times = Starts(hang=True), FireTimes()
    job = job_at(times, body)
    cut_off = Scheduler(link, [job], worker="cut off", lease_ms=600)
    times.fire(link)

    async def away(*_args: object) -> Any:
        raise Unavailable("no route")

    async with running(cut_off):
        await body.reach(1)
        for verb in ("look", "claim", "reclaim", "renew", "finish", "release"):
            setattr(cut_off._store, verb, away)
        await until(lambda: not cut_off._runs, "the end of its body")
        other = Scheduler(link, [job], worker="other", lease_ms=LONG_MS)
        async with running(other):
            await body.reach(2)
            body.go.set()
            status = await until_idle(other)
    assert (status.state, status.holder, status.attempt) == ("done", "other", 2)
    assert body.count == 2


async def test_an_end_is_noted_however_long_the_server_is_away(link: Link) -> None:
    """A minute without a server while a run ends: whoever looks first does not take its lease for a dead worker's."""
    clock = Clock(1_800_000_000_000_000)
    clock.set_for(link)
    body, times = Starts(), FireTimes(clock.now_us)
    job = job_at(times, body)
    first, second = Scheduler(link, [job], worker="first"), Scheduler(link, [job], worker="second")
    ended = asyncio.Event()

    async def away(*_args: object) -> bool:
        ended.set()
        raise Unavailable("no route")

    finish = first._store.finish
    first._store.finish = away  # type: ignore[method-assign,assignment]
    await first.look()
    await ended.wait()
    clock.now_us += 60_000_000
    await second.look()
    await second.look()
    first._store.finish = finish  # type: ignore[method-assign]
    await until(lambda: not first._runs, "the end that is noted")
    clock.now_us += 10_000_000
    await second.look()
    assert (await status_of(second)).state == "done"
    assert body.count == 1


async def test_a_server_that_lost_everything_starts_nothing_again(link: Link, server: PrivateServer) -> None:
    """All keys are gone: a worker that has not looked since the fire time finds the store younger than it."""
    body, times = Starts(), FireTimes()
    job = job_at(times, body, misfire="once")
    times.fire(link)
    first = Scheduler(link, [job])
    async with running(first):
        await body.reach(1)
        await until_idle(first)
    for key in await link.store.call("KEYS", f"*{link.names.namespace}*"):
        await link.store.call("DEL", key)
    second = Scheduler(link, [job])
    async with running(second):
        await until_looked([second], times.fires[-1])
        assert body.count == 1
        times.fire(link)
        await body.reach(2)


async def test_a_replica_that_lagged_behind_starts_nothing_again(own_server: PrivateServer, namespace: str) -> None:
    """The server comes back as it was before the claim: the workers that know of it tell those that do not."""
    body, times = Starts(), FireTimes()
    job = job_at(times, body, misfire="once")
    settings = CacheSettings(url=own_server.url, namespace=namespace)
    async with Cache(settings=settings) as cache:
        first = Scheduler(cache.link, [job], worker="first")
        async with running(first):
            await until(lambda: first._ahead_us, "a look")
            own_server.ask("SAVE")
            fire = times.fire(cache.link)
            await body.reach(1)
            await until_idle(first)
            record = cache.link.names.bus("job", "job")
            assert own_server.ask("HGET", record, "last_fire") == str(fire).encode()
            own_server.restart()
            assert own_server.ask("HGET", record, "last_fire") is None
            async with Cache(settings=settings) as late:
                second = Scheduler(late.link, [job], worker="second")
                async with running(second):
                    await until_looked([second], fire)
                    assert body.count == 1
                    times.fire(late.link)
                    await body.reach(2)


async def test_a_run_outlives_a_restart_of_the_server(namespace: str) -> None:
    """Restarted with its data in the middle of a run: the run goes on, ends, and is not started again."""
    body, times = Starts(hang=True), FireTimes()
    job = job_at(times, body)
    with PrivateServer.start("appendfsync always") as server:
        async with Link(server.url, namespace=namespace) as link:
            await begin_long_ago(link)
            one, two = Scheduler(link, [job]), Scheduler(link, [job])
            times.fire(link)
            async with running(one, two):
                await body.reach(1)
                server.restart()
                body.go.set()
                await until(lambda: not one._runs and not two._runs, "the end")
                status = await status_of(one)
    assert (status.state, status.attempt, status.deaths, body.count) == ("done", 1, 0, 1)
