"""`schedule list|pause|resume|run`: what runs when, for the people who operate it."""

from __future__ import annotations

import argparse
import asyncio
import sys

from cachebus.scheduler import Scheduler
from worker.commands.stats import job_line
from worker.connection import connected
from worker.loading import load
from worker.settings import CannotStart, Settings


def main(asked: argparse.Namespace, settings: Settings) -> int:
    """Do what was asked; 1 where a job runs already."""
    return asyncio.run(_schedule(asked, settings))


async def _schedule(asked: argparse.Namespace, settings: Settings) -> int:
    application = load(settings.application)
    async with connected(settings.cache, application.cache) as cache:
        watch = Scheduler(cache.link, application.jobs, worker="command line")
        if asked.verb != "list" and asked.name not in watch.jobs:
            known = ", ".join(sorted(watch.jobs)) or "none"
            raise CannotStart([f"schedule: there is no job {asked.name!r}; there are: {known}"])
        if asked.verb == "run":
            if not await watch.run_now(asked.name):
                sys.stdout.write(f"{asked.name} runs already\n")
                return 1
            await watch.drain()
        elif asked.verb != "list":
            await watch.pause(asked.name, paused=asked.verb == "pause")
        for job in await watch.status():
            if asked.verb == "list" or job.name == asked.name:
                sys.stdout.write(f"{job.name}  {job.when}; {job_line(job, cache.link.now_us())}\n")
    return 0
