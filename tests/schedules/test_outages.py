"""Answers that are lost, servers that forget, networks that part: still one start."""

from __future__ import annotations

import asyncio
from dataclasses import replace
from typing import Any

import pytest

from cachebus import Cache, CacheSettings, Client
from cachebus.errors import ServerTimeout, Unavailable
from cachebus.schedules.scheduler import Scheduler
from cachebus.testing.server import PrivateServer
from tests.support.clocked import Clock
from tests.support.scheduled_workers import (
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
async def test_a_lost_answer_changes_nothing(client: Client, verb: str) -> None:
    """Whatever step it was: one start, one run, no death, and no waiting for a lease to end."""
    body, times = Starts(hang=verb == "renew"), FireTimes()
    worker = Scheduler(client, [job_at(times, body)], lease_ms=900 if verb == "renew" else LONG_MS)
    lost = lose_answers(worker, verb, times=2)
    times.fire(client)
    async with running(worker):
        await until(lambda: len(lost) == 2, "the loss")
        body.go.set()
        status = await until_idle(worker)
    assert (status.state, status.attempt, status.deaths, status.runs, body.count) == ("done", 1, 0, 1, 1)


async def test_a_lost_answer_to_a_hand_back_is_one_hand_back(client: Client) -> None:
    """Another worker goes on, once."""
    body, times = Starts(hang=True), FireTimes()
    job = job_at(times, body)
    first, second = Scheduler(client, [job], lease_ms=LONG_MS), Scheduler(client, [job], lease_ms=LONG_MS)
    lose_answers(first, "release")
    times.fire(client)
    async with running(first):
        await body.reach(1)
    body.go.set()
    async with running(second):
        assert (await until_idle(second)).deaths == 0
    assert body.count == 2


async def test_a_worker_cut_off_for_longer_than_its_lease_stops(client: Client) -> None:
    """It cannot know who else runs by then: it cancels its body, and another worker starts the run once more."""
    body, times = Starts(hang=True), FireTimes()
    job = job_at(times, body)
    cut_off = Scheduler(client, [job], worker="cut off", lease_ms=600)
    times.fire(client)

    async def away(*_args: object) -> Any:
        raise Unavailable("no route")

    async with running(cut_off):
        await body.reach(1)
        for verb in ("look", "claim", "reclaim", "renew", "finish", "release"):
            setattr(cut_off._store, verb, away)
        await until(lambda: not cut_off._runs, "the end of its body")
        other = Scheduler(client, [job], worker="other", lease_ms=LONG_MS)
        async with running(other):
            await body.reach(2)
            body.go.set()
            status = await until_idle(other)
    assert (status.state, status.holder, status.attempt) == ("done", "other", 2)
    assert body.count == 2


async def test_an_end_is_noted_however_long_the_server_is_away(client: Client) -> None:
    """A minute without a server while a run ends: whoever looks first does not take its lease for a dead worker's."""
    clock = Clock(1_800_000_000_000_000)
    clock.set_for(client)
    body, times = Starts(), FireTimes(clock.now_us)
    job = job_at(times, body)
    first, second = Scheduler(client, [job], worker="first"), Scheduler(client, [job], worker="second")
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


async def test_a_server_that_lost_everything_starts_nothing_again(client: Client, server: PrivateServer) -> None:
    """All keys are gone: a worker that has not looked since the fire time finds the store younger than it."""
    body, times = Starts(), FireTimes()
    job = job_at(times, body, misfire="once")
    times.fire(client)
    first = Scheduler(client, [job])
    async with running(first):
        await body.reach(1)
        await until_idle(first)
    for key in await client.store.call("KEYS", f"*{client.names.namespace}*"):
        await client.store.call("DEL", key)
    second = Scheduler(client, [job])
    async with running(second):
        await until_looked([second], times.fires[-1])
        assert body.count == 1
        times.fire(client)
        await body.reach(2)


async def test_a_replica_that_lagged_behind_starts_nothing_again(own_server: PrivateServer, namespace: str) -> None:
    """The server comes back as it was before the claim: the workers that know of it tell those that do not."""
    body, times = Starts(), FireTimes()
    job = job_at(times, body, misfire="once")
    settings = CacheSettings(url=own_server.url, namespace=namespace)
    async with Cache(settings=settings) as cache:
        first = Scheduler(cache.client, [job], worker="first")
        async with running(first):
            await until(lambda: first._ahead_us, "a look")
            own_server.ask("SAVE")
            fire = times.fire(cache.client)
            await body.reach(1)
            await until_idle(first)
            record = cache.client.names.bus("job", "job")
            assert own_server.ask("HGET", record, "last_fire") == str(fire).encode()
            own_server.restart()
            assert own_server.ask("HGET", record, "last_fire") is None
            async with Cache(settings=settings) as late:
                second = Scheduler(late.client, [job], worker="second")
                async with running(second):
                    await until_looked([second], fire)
                    assert body.count == 1
                    times.fire(late.client)
                    await body.reach(2)


async def test_a_run_outlives_a_restart_of_the_server(namespace: str) -> None:
    """Restarted with its data in the middle of a run: the run goes on, ends, and is not started again."""
    body, times = Starts(hang=True), FireTimes()
    job = job_at(times, body)
    with PrivateServer.start("appendfsync always") as server:
        async with Client(server.url, namespace=namespace) as client:
            await begin_long_ago(client)
            one, two = Scheduler(client, [job]), Scheduler(client, [job])
            times.fire(client)
            async with running(one, two):
                await body.reach(1)
                server.restart()
                body.go.set()
                await until(lambda: not one._runs and not two._runs, "the end")
                status = await status_of(one)
    assert (status.state, status.attempt, status.deaths, body.count) == ("done", 1, 0, 1)


async def test_nothing_is_said_to_be_lost_at_a_first_start(
    own_server: PrivateServer, caplog: pytest.LogCaptureFixture
) -> None:
    """Fire times from before the store began are passed over; a new connection finds that the server knows that."""
    async with Client(own_server.url) as client:
        long_ago, soon = FireTimes(client.now_us() - 5_000_000), FireTimes()
        body = Starts()
        worker = Scheduler(client, [job_at(long_ago, body), replace(job_at(soon, body), name="soon")])
        async with running(worker):
            await until_looked([worker], long_ago.fires[0])
            connects = client.store.connects  # type: ignore[attr-defined]  # a node counts them
            own_server.ask("CLIENT", "KILL", "TYPE", "normal")
            await until(lambda: client.store.up and client.store.connects > connects, "a new connection")  # type: ignore[attr-defined]  # as above
            soon.fire(client)
            await body.reach(1)
    assert not [record for record in caplog.records if "lost" in record.getMessage()]


async def test_a_ledger_that_begins_again_forgives_no_fire_time(client: Client) -> None:
    """A server that was down at a fire time and kept its data: the newest one that was missed is made up for."""
    body, times = Starts(), FireTimes()
    job = job_at(times, body, misfire="once")
    times.fire(client)
    async with running(Scheduler(client, [job])):
        await body.reach(1)
    times.fire(client)
    await client.store.call("DEL", client.names.ledger)
    async with running(Scheduler(client, [job])):
        await body.reach(2)
