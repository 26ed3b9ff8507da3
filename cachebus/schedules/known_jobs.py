"""The jobs of a deployment for processes that do not have them: workers announce theirs, and run one when asked to.

A gateway's live page shows, pauses and runs jobs so. What is announced is when a job fires; what became of its runs
stands in its record, which everybody can read.
"""

from __future__ import annotations

import asyncio
import secrets
from contextlib import suppress

import msgspec

from cachebus.errors import ServerError
from cachebus.redis.client import Client
from cachebus.schedules.scheduler import Scheduler
from cachebus.schedules.store import JobStatus, JobTimes, record_key, record_of, status_from

ANNOUNCE_S = 10.0
KEPT_S = 86_400
GONE_US = 300_000_000
"""A job that was not announced for this long, while others were, is declared no more."""
ANSWER_S = 2.0
TAKEN_MS = 10_000
MOST_ASKED = 20


class AnnouncedJob(msgspec.Struct, frozen=True):
    """A job, as a worker that has it says."""

    times: JobTimes
    at_us: int
    """When it was said, the server's clock."""


class RunAsked(msgspec.Struct, frozen=True):
    """A run that somebody asks for."""

    name: str
    token: str
    """Names the channel of the answer, and whose turn it is."""


async def announce_jobs(scheduler: Scheduler, client: Client, pause_s: float = ANNOUNCE_S) -> None:
    """Say every ten seconds which jobs there are and when they fire, until cancelled."""
    key = client.names.bus("jobs", "known")
    while True:
        with suppress(ServerError):
            now_us = client.now_us()
            said: list[str | bytes] = []
            for status in await scheduler.status():
                times = scheduler.jobs[status.name].times
                due_us = times.next(status.last_fire) if status.last_fire is not None else None
                job = AnnouncedJob(JobTimes(status.when, status.next_us, due_us), now_us)
                said += [status.name, msgspec.json.encode(job)]
            await client.store.call("HSET", key, *said)
            await client.store.call("EXPIRE", key, KEPT_S)
        await asyncio.sleep(pause_s)


async def known_jobs(client: Client) -> list[JobStatus]:
    """Return what is known of every job that workers announced. Two shared round trips. Raises: ServerError."""
    reply = await client.store.call("HGETALL", client.names.bus("jobs", "known"))
    pairs = zip(reply[::2], reply[1::2], strict=True)
    announced = {name.decode(): msgspec.json.decode(said, type=AnnouncedJob) for name, said in pairs}
    newest_us = max((job.at_us for job in announced.values()), default=0)
    jobs = {name: job for name, job in sorted(announced.items()) if job.at_us > newest_us - GONE_US}
    records = await asyncio.gather(*[record_of(client, name) for name in jobs])
    now_us = client.now_us()
    return [
        status_from(record, job.times, name, now_us) for (name, job), record in zip(jobs.items(), records, strict=True)
    ]


async def pause_job(client: Client, name: str, *, paused: bool, until_us: int = 0) -> None:
    """Let fire times of a job pass, for good or until a time of the server's clock, or no longer.

    Raises: ServerError.
    """
    await client.store.call("HSET", record_key(client, name), "paused", (until_us or 1) if paused else 0)


async def run_job_somewhere(client: Client, name: str) -> str:
    """Have a worker run a job now: `started`, `running` already, or `nobody` answered. Raises: ServerError."""
    asked = RunAsked(name, secrets.token_hex(12))
    answer: asyncio.Future[str] = asyncio.get_running_loop().create_future()

    def heard(_channel: str, payload: bytes) -> None:
        if not answer.done():
            answer.set_result(payload.decode(errors="replace"))

    subscription = await client.subscriptions.subscribe(client.names.bus("jobs", "run", asked.token), heard)
    try:
        await client.store.call("PUBLISH", client.names.bus("jobs", "run"), msgspec.json.encode(asked))
        async with asyncio.timeout(ANSWER_S):
            return await answer
    except TimeoutError:
        return "nobody"
    finally:
        await subscription.cancel()


async def run_asked_jobs(scheduler: Scheduler, client: Client) -> None:
    """Run here what is asked for, one worker each, until cancelled."""
    async with client.subscriptions.requests(client.names.bus("jobs", "run"), MOST_ASKED) as requests:
        while True:
            payload = await requests.get()
            with suppress(msgspec.DecodeError, ServerError):  # anybody may publish there
                await _run(scheduler, client, msgspec.json.decode(payload, type=RunAsked))


async def _run(scheduler: Scheduler, client: Client, asked: RunAsked) -> None:
    mine = asked.name in scheduler.jobs and await client.store.call(
        "SET", client.names.bus("jobs", "asked", asked.token[:24]), 1, "NX", "PX", TAKEN_MS
    )
    if mine:
        began = await scheduler.run_now(asked.name)
        said = "started" if began else "running"
        await client.store.call("PUBLISH", client.names.bus("jobs", "run", asked.token[:24]), said)
