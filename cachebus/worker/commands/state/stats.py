"""`stats`: who is at work, what waits, what the schedules did."""

from __future__ import annotations

import argparse
import asyncio
import sys
from collections.abc import Iterator, Mapping

import msgspec

from cachebus.bus.backlog import Backlog, backlog
from cachebus.monitoring.wording import counted
from cachebus.monitoring.workers import WorkerEntry, workers
from cachebus.schedules.decorators import Job
from cachebus.schedules.scheduler import JobStatus, Scheduler
from cachebus.worker.commands.output import printable, span, write_json
from cachebus.worker.connection import connected_client
from cachebus.worker.loading import load
from cachebus.worker.settings import WorkerSettings


class Stats(msgspec.Struct, frozen=True):
    """All of it, as `--json` prints it."""

    workers: list[WorkerEntry]
    backlog: Backlog
    jobs: list[JobStatus]


def main(asked: argparse.Namespace, environment: Mapping[str, str]) -> int:
    """Print what is known now."""
    settings = WorkerSettings.from_environment(environment)
    stats, now_us = asyncio.run(_look(settings, load(settings.application).jobs))
    if asked.json:
        write_json(stats)
    else:
        sys.stdout.write("\n".join(_lines(stats, now_us)) + "\n")
    return 0


async def _look(settings: WorkerSettings, jobs: list[Job]) -> tuple[Stats, int]:
    async with connected_client(settings.cache) as client:
        waits = await backlog(client, settings.bus.shards)
        return Stats(await workers(client), waits, await Scheduler(client, jobs).status()), client.now_us()


def _lines(stats: Stats, now_us: int) -> Iterator[str]:
    yield f"workers        {len(stats.workers) or 'none'}"
    for worker in stats.workers:
        yield printable(f"  {worker.name}  {worker.state}  {worker.why}".rstrip())
    for shard in stats.backlog.shards:
        yield (
            f"shard {shard.shard}        {counted(shard.waiting, 'event waits', 'events wait')}, "
            f"{shard.retries:,} are tried again, {shard.debounced:,} debounced runs, {shard.stored:,} stored; "
            f"held by {shard.holder or 'nobody'}"
        )
    kept = stats.backlog
    yield f"refreshes      {kept.refreshes:,} wait"
    yield f"delayed        {kept.delayed:,} events"
    yield f"dead letters   {kept.dead_letters:,}"
    yield f"kept           {kept.feed:,} broadcasts, {kept.journal:,} journal records, {kept.ledger:,} scopes"
    for job in stats.jobs:
        yield f"job {job.name}  {job.when}; {job_line(job, now_us)}"


def job_line(job: JobStatus, now_us: int) -> str:
    """Return what a job did last and does next, in a few words."""
    parts = ["paused"] if job.paused else []
    if job.state in {"claimed", "running"}:
        parts.append(f"runs on {job.holder}" + (f", {job.progress}" if job.progress else ""))
    if job.finished is not None:
        parts.append(f"{job.outcome} {span(now_us - job.finished)} ago, took {job.duration_ms / 1000:.1f} s")
        parts.extend([job.progress] if job.progress and job.state == "done" else [])
    if job.outcome == "failed":
        parts.append(job.error.strip().rpartition("\n")[2])
    if job.next_us is not None:
        parts.append(f"next in {span(job.next_us - now_us)}")
    return ", ".join(parts)
