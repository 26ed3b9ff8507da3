"""Where the platform has no server of its own, the stand-in runs the same scripts."""

from __future__ import annotations

import asyncio
from functools import partial

from cachebus import Client
from cachebus.cache.upkeep.popularity import Popularity, popular, recently_active
from cachebus.redis.scripts import script
from cachebus.schedules.scheduler import Scheduler
from cachebus.testing.server import PrivateServer
from tests.support.scheduled_workers import FireTimes, Starts, begin_long_ago, freeze, job_at, running, until_idle

VERBS = tuple(f"schedules/{verb}_job" for verb in ("claim", "reclaim", "start", "renew", "finish", "release"))
VERBS += ("schedules/look_at_jobs", "cache/upkeep/note_reads")


async def test_jobs_run_and_deaths_are_found_on_fakeredis(namespace: str) -> None:
    """A run whose worker dies is started once more, the next one is handed back, and reads are counted."""
    body, times = Starts(hang=True), FireTimes()
    job = job_at(times, body)
    with await asyncio.to_thread(PrivateServer.start, kind="fakeredis") as server:
        async with Client(server.url, namespace=namespace) as client:
            await begin_long_ago(client)
            for verb in VERBS:  # its TCP server closes a connection after an error, NOSCRIPT included
                await client.store.call("SCRIPT", "LOAD", script(verb).text, timeout_s=5)
            dead, second = Scheduler(client, [job], lease_ms=300), Scheduler(client, [job], lease_ms=60_000)
            times.fire(client)
            async with running(dead):
                await body.reach(1)
                thaw = freeze(dead)
                async with running(second):
                    await body.reach(2)
                thaw.set()
            third = Scheduler(client, [job])
            body.go.set()
            async with running(third):
                status = await until_idle(third)
                assert (status.state, status.deaths, status.attempt) == ("cancelled", 1, 2)
                times.fire(client)
                await body.reach(3)
            table = Popularity(client)
            table.note("view", partial(lambda *_: b"[7]", 7), 1)
            await table.flush()
            assert await popular(client, "view", 1) == await recently_active(client, "view", "1h", 1) == [b"[7]"]
