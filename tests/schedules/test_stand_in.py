"""Where the platform has no server of its own, the stand-in runs the same scripts."""

from __future__ import annotations

import asyncio
from functools import partial

from cachebus import Link
from cachebus.popularity import Popularity, popular, recently_active
from cachebus.private_server import PrivateServer
from cachebus.scheduler import Scheduler
from cachebus.scripts import script
from tests.schedules.workers import FireTimes, Starts, begin_long_ago, freeze, job_at, running, until_idle

VERBS = tuple(f"{verb}_job" for verb in ("claim", "reclaim", "start", "renew", "finish", "release"))
VERBS += ("look_at_jobs", "note_reads")


async def test_jobs_run_and_deaths_are_found_on_fakeredis(namespace: str) -> None:
    """A run whose worker dies is started once more, the next one is handed back, and reads are counted."""
    body, times = Starts(hang=True), FireTimes()
    job = job_at(times, body)
    with await asyncio.to_thread(PrivateServer.start, kind="fakeredis") as server:
        async with Link(server.url, namespace=namespace) as link:
            await begin_long_ago(link)
            for verb in VERBS:  # its TCP server closes a connection after an error, NOSCRIPT included
                await link.store.call("SCRIPT", "LOAD", script(verb).text, timeout_s=5)
            dead, second = Scheduler(link, [job], lease_ms=300), Scheduler(link, [job], lease_ms=60_000)
            times.fire(link)
            async with running(dead):
                await body.reach(1)
                thaw = freeze(dead)
                async with running(second):
                    await body.reach(2)
                thaw.set()
            third = Scheduler(link, [job])
            body.go.set()
            async with running(third):
                status = await until_idle(third)
                assert (status.state, status.deaths, status.attempt) == ("cancelled", 1, 2)
                times.fire(link)
                await body.reach(3)
            table = Popularity(link)
            table.note("view", partial(lambda *_: b"[7]", 7), 1)
            await table.flush()
            assert await popular(link, "view", 1) == await recently_active(link, "view", "1h", 1) == [b"[7]"]
