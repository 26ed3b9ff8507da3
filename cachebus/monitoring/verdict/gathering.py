"""What is known of a deployment at one moment: gathered at most once a second, for all who look and for the watch."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable
from typing import Any, TypeVar

import msgspec

from cachebus.bus.backlog import Backlog, backlog
from cachebus.bus.dead_letters import DeadLetters
from cachebus.cache.upkeep.declarations import shared_views
from cachebus.cache.upkeep.reporter import ProcessReport
from cachebus.errors import LockUnavailable, ServerError
from cachebus.monitoring.audit import Audit
from cachebus.monitoring.history import Buckets, FinishedBuckets, History, Release
from cachebus.monitoring.verdict.assessment import Assessment, Signs, Since, verdict
from cachebus.monitoring.verdict.chronicle import Chronicle, WatchState, changes_and_state
from cachebus.monitoring.verdict.marks import Mark, marks, with_causes
from cachebus.monitoring.verdict.servers import ServerFacts, servers
from cachebus.monitoring.verdict.signs import Evictions, add_jobs, add_processes, add_reads, signs_of_servers
from cachebus.monitoring.workers import WorkerEntry, workers
from cachebus.redis.client import Client
from cachebus.schedules.known_jobs import known_jobs
from cachebus.schedules.scheduler import JobStatus, Scheduler

T = TypeVar("T")

FAST_S, CALM_S, SLOW_S = 1.0, 4.0, 15.0
DAY_MS = 86_400_000
ACTIONS = 50
STATE_IS_OLD_MS = 120_000


class Known(msgspec.Struct):
    """What is known while every server answers."""

    minutes: Buckets
    processes: list[ProcessReport]
    waits: Backlog
    workers: list[WorkerEntry]
    jobs: list[JobStatus]
    releases: list[Release]
    marks: list[Mark]
    """Of a day, oldest first."""
    watch: WatchState | None
    """None: nobody watches while nobody looks, as no worker runs."""


class Glance(msgspec.Struct):
    """A deployment at one moment."""

    at_ms: float
    """The server's clock, as far as it is known."""
    verdict: Assessment
    signs: Signs
    servers: list[ServerFacts]
    known: Known | None
    """None while a server does not answer: unknown, which is not nothing."""


class Kept:
    """What was asked a moment ago is not asked again, and never twice at a time."""

    def __init__(self, lasts_s: float) -> None:
        self._lasts_s = lasts_s
        self._at = -1e9
        self._value: Any = None
        self._lock = asyncio.Lock()

    async def get(self, ask: Callable[[], Awaitable[T]]) -> T:
        """Return what was asked for, asking again where that is too long ago."""
        async with self._lock:
            if time.monotonic() - self._at >= self._lasts_s:
                self._value = await ask()
                self._at = time.monotonic()
            value: T = self._value
            return value

    def forget(self) -> None:
        """Ask again next time: something was changed."""
        self._at = -1e9


class Gathering:
    """Looks at a deployment. Costs nothing while nobody asks."""

    def __init__(self, client: Client, *, shards: int, scheduler: Scheduler | None) -> None:
        self.client = client
        self.shards = shards
        self.scheduler = scheduler
        self.history = History(client)
        self._since, self._evictions, self._up = Since(), Evictions(), True
        self._minutes = FinishedBuckets(self.history, "minute", 60, 60)
        self._hours = FinishedBuckets(self.history, "hour", 3600, 24)
        self._glance, self._day = Kept(FAST_S), Kept(SLOW_S)
        self._shared, self._axis = Kept(SLOW_S), Kept(CALM_S)

    async def glance(self) -> Glance:
        """Return what is known. Raises nothing while Redis is unavailable: it says so."""
        up = self.client.store.up and self.client.entries.up
        if up != self._up:  # an outage is seen at once
            self._glance.forget()
            self._up = up
        return await self._glance.get(self._look)

    async def day(self) -> Buckets:
        """Return the hours of a day. Raises: ServerError."""
        return await self._day.get(self._hours.get)

    def forget(self) -> None:
        """Look again next time, for somebody has just changed something."""
        self._glance.forget()
        self._axis.forget()

    async def _look(self) -> Glance:
        facts = await servers(self.client)
        if all(server.up for server in facts):
            try:
                return await self._look_at_all(facts)
            except (ServerError, LockUnavailable):
                for server in facts:
                    server.up = False
        now_ms = self.client.now_us() / 1000
        signs = Signs(away=[server.name for server in facts if not server.up], now_ms=now_ms)
        return Glance(now_ms, verdict(signs, self._since), signs, facts, None)

    async def _look_at_all(self, facts: list[ServerFacts]) -> Glance:
        client, now_ms = self.client, self.client.now_us() / 1000
        minutes, processes, waits, roster, jobs, letters = await asyncio.gather(
            self._minutes.get(),
            self.history.processes(),
            backlog(client, self.shards),
            workers(client),
            self._jobs(),
            DeadLetters(client).newest(1),
        )
        releases, watch, axis = await self._axis.get(lambda: self._look_at_axis(now_ms))
        signs = signs_of_servers(facts)
        signs.now_ms = now_ms
        signs.newest_letter_ms = float(letters[0].place.partition("-")[0]) if letters else 0.0
        signs.evictions = self._evictions.more(now_ms, sum(server.evicted for server in facts))
        add_processes(signs, processes, waits, roster)
        add_jobs(signs, jobs)
        add_reads(signs, minutes)
        signs.shared_views = await self._shared.get(self._shared_views)
        if watch is not None and now_ms - watch.at_ms < STATE_IS_OLD_MS:
            self._since.learn(watch.first_ms)
        found = with_causes(verdict(signs, self._since), axis)
        known = Known(minutes, processes, waits, roster, jobs, releases, axis, watch)
        return Glance(now_ms, found, signs, facts, known)

    async def _look_at_axis(self, now_ms: float) -> tuple[list[Release], WatchState | None, list[Mark]]:
        releases, actions, (changes, watch) = await asyncio.gather(
            self.history.releases(),
            Audit(self.client).newest(ACTIONS),
            changes_and_state(Chronicle(self.client)),
        )
        return releases, watch, marks(releases, actions, changes, now_ms - DAY_MS)

    async def _shared_views(self) -> list[str]:
        return [str(shared) for shared in await shared_views(self.client)]

    async def _jobs(self) -> list[JobStatus]:
        return await self.scheduler.status() if self.scheduler is not None else await known_jobs(self.client)
