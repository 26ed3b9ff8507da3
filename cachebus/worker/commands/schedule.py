"""`schedule list|pause|resume|run`: what runs when, for the people who operate it."""

from __future__ import annotations

import argparse
import asyncio
import sys
from collections.abc import Mapping
from difflib import get_close_matches

from cachebus.errors import CannotStart
from cachebus.schedules.scheduler import Scheduler
from cachebus.worker.commands import audited
from cachebus.worker.commands.output import following, printable, write_json, write_table
from cachebus.worker.commands.state.stats import job_line
from cachebus.worker.connection import connected
from cachebus.worker.loading import Application, load
from cachebus.worker.settings import WorkerSettings


def main(asked: argparse.Namespace, environment: Mapping[str, str]) -> int:
    """Do what was asked; 1 where a job runs already."""
    settings = WorkerSettings.from_environment(environment)
    return asyncio.run(_schedule(asked, settings, load(settings.application)))


async def _schedule(asked: argparse.Namespace, settings: WorkerSettings, application: Application) -> int:
    async with connected(settings.cache, application) as cache:
        watch = Scheduler(cache.client, application.jobs, worker="command line")
        if asked.verb == "list":
            jobs, now_us = await watch.status(), cache.client.now_us()
            if asked.json:
                write_json(jobs)
                return 0
            write_table(
                ("JOB", "WHEN", "STATE"),
                [(job.name, job.when, job_line(job, now_us)) for job in jobs],
                "there is no job",
            )
            return 0
        if asked.name not in watch.jobs:
            near = get_close_matches(asked.name, watch.jobs, n=1, cutoff=0.3)
            hint = f"did you mean {near[0]}?" if near else "`cachebus schedule list` lists them"
            raise CannotStart([f"there is no job {asked.name!r}; {hint}"])
        if asked.verb == "run":
            await audited.note(cache.client, "jobs/run", name=asked.name)
            if not await watch.run_now(asked.name):
                sys.stdout.write(f"{asked.name} runs already\n")
                return 1
            with following(asked.name, lambda: watch.said(asked.name)):
                await watch.drain()
        else:
            paused = asked.verb == "pause"
            await audited.note(cache.client, "jobs/pause", name=asked.name, paused=paused)
            await watch.pause(asked.name, paused=paused)
        for job in await watch.status():
            if job.name == asked.name:
                sys.stdout.write(printable(f"{job.name}  {job.when}; {job_line(job, cache.client.now_us())}") + "\n")
    return 0
