"""A worker as a process: two jobs that note each start in a file, until it is killed or its standard input ends.

python -m tests.support.schedules_worker URL NAMESPACE FOLDER LEASE_MS [--without-claim]
"""

from __future__ import annotations

import asyncio
import os
import random
import sys
import threading
import zlib
from pathlib import Path
from typing import Any, cast

from cachebus import Client
from cachebus.cache.upkeep.warming import Warm
from cachebus.schedules.decorators import Job, every
from cachebus.schedules.scheduler import Scheduler
from cachebus.schedules.store import Answer, JobRun, Jobs

INTERVAL = "1s"
LONGEST_BODY_S = 0.7


def jobs(folder: Path) -> list[Job]:
    """Return the jobs. They ask for `warm` and get the run itself, which knows its fire time and its fence."""

    async def body(warm: Warm) -> None:
        run = cast("JobRun", warm)
        line = f"{run.job.name} {run.fire_us} {run.fence} {os.getpid()}\n"
        with (folder / "starts").open("a", encoding="utf-8") as trace:
            trace.write(line)
        draw = random.Random(zlib.crc32(line.encode()))  # noqa: S311 - a length, not a secret
        await asyncio.sleep(draw.random() * LONGEST_BODY_S)

    return [
        every(INTERVAL, name="again", on_death="rerun", misfire="once")(body),
        every(INTERVAL, name="never", on_death="skip", misfire="once", jitter="100ms")(body),
    ]


class EverybodysJobs(Jobs):
    """What would be if nobody had to claim anything: each step is taken, and the answer is always yes."""

    async def claim(self, job: Job, fire_us: int, token: str) -> Answer:
        """Give each fire time to whoever asks."""
        await super().claim(job, fire_us, token)
        return Answer("ours", fire_us)

    async def start(self, run: JobRun) -> bool:
        """Let everybody start."""
        return await super().start(run) or True

    async def renew(self, run: JobRun) -> bool:
        """Let everybody go on."""
        return await super().renew(run) or True


def end_with_parent() -> None:
    """Exit when whoever started this process is gone."""
    sys.stdin.read()
    os._exit(1)


async def main(url: str, namespace: str, folder: str, lease_ms: str, *options: str) -> None:
    """Run jobs until killed."""
    async with Client(url, store_url=os.environ.get("STORE_REDIS_URL"), namespace=namespace) as client:
        scheduler = Scheduler(
            client,
            jobs(Path(folder)),
            worker=str(os.getpid()),
            warm=lambda run: cast("Any", run),
            lease_ms=int(lease_ms),
        )
        if "--without-claim" in options:
            scheduler._store = EverybodysJobs(client, holder=str(os.getpid()), lease_ms=int(lease_ms))
        await scheduler.run()


if __name__ == "__main__":
    threading.Thread(target=end_with_parent, daemon=True).start()
    asyncio.run(main(*sys.argv[1:]))
