"""`stats`: who is at work, what waits, what the schedules did."""

from __future__ import annotations

import argparse
import asyncio
import sys
from collections.abc import Iterator

import msgspec

from cachebus.backlog import Backlog, backlog
from cachebus.roster import Entry, workers
from cachebus.scheduler import JobStatus, Scheduler
from worker.connection import connected
from worker.loading import load
from worker.settings import Settings


class Stats(msgspec.Struct, frozen=True):
    """All of it, as `--json` prints it."""

    workers: list[Entry]
    backlog: Backlog
    jobs: list[JobStatus]


def main(asked: argparse.Namespace, settings: Settings) -> int:
    """Print what is known now."""
    stats, now_us = asyncio.run(_look(settings))
    if asked.json:
        sys.stdout.write(msgspec.json.encode(stats).decode() + "\n")
    else:
        sys.stdout.write("\n".join(_lines(stats, now_us)) + "\n")
    return 0


async def _look(settings: Settings) -> tuple[Stats, int]:
    jobs = load(settings.application).jobs
    async with connected(settings.cache) as cache:
        link = cache.link
        waits = await backlog(link, settings.bus.shards)
        return Stats(await workers(link), waits, await Scheduler(link, jobs).status()), link.now_us()


def _lines(stats: Stats, now_us: int) -> Iterator[str]:
    yield f"workers        {len(stats.workers) or 'none'}"
    for worker in stats.workers:
        yield f"  {worker.name}  {worker.state}  {worker.why}".rstrip()
    for shard in stats.backlog.shards:
        yield (
            f"shard {shard.shard}        {shard.waiting:,} events wait, {shard.retries:,} are tried again, "
            f"{shard.stored:,} stored; held by {shard.holder or 'nobody'}"
        )
    kept = stats.backlog
    yield f"refreshes      {kept.refreshes:,} wait"
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
        parts.append(f"{job.outcome} {_span(now_us - job.finished)} ago, took {job.duration_ms / 1000:.1f} s")
    if job.outcome == "failed":
        parts.append(job.error.strip().rpartition("\n")[2])
    if job.next_us is not None:
        parts.append(f"next in {_span(job.next_us - now_us)}")
    return ", ".join(parts)


def _span(us: int) -> str:
    """Return a time in the unit that leaves a small number."""
    seconds = max(0, round(us / 1e6))
    for unit, length in (("days", 86_400), ("h", 3_600), ("min", 60)):
        if seconds >= 2 * length:
            return f"{seconds // length} {unit}"
    return f"{seconds} s"
