"""Everything the page shows at one moment, gathered once a second for all who look."""

from __future__ import annotations

import asyncio
import time
from collections import Counter
from collections.abc import Awaitable, Callable, Mapping
from typing import Any, TypeVar

import msgspec

from cachebus import Cache, ServerError
from cachebus.backlog import Backlog, backlog
from cachebus.deadletters import DeadLetters
from cachebus.errors import LockUnavailable
from cachebus.history import LATENCY, Buckets, History, ProcessReport, percentiles, total
from cachebus.locks import Locks
from cachebus.roster import Entry, workers
from cachebus.scheduler import JobStatus, Scheduler
from gateway.page.inventory import Inventory, inventory
from gateway.page.redis import ServerFacts, servers
from gateway.page.verdict import Signs, Verdict, verdict

T = TypeVar("T")

WINDOWS = {"10m": 10, "1h": 60, "24h": 0}
"""Minutes of what the view table adds up; 0: the hours."""
FAST_S, SLOW_S = 1.0, 15.0
INVENTORY_S = 30.0
LATENCY_MINUTES = 10
LATEST = 2
"""Minutes that may still change: processes flush every ten seconds. The others are read again every SLOW_S."""


class ViewRow(msgspec.Struct, frozen=True):
    """One view over a window, all processes together."""

    name: str
    requests: int
    memory: int
    redis: int
    loads: int
    errors: int
    stale: int
    load_ms: float | None
    """One load, on average."""
    raw_bytes: int | None
    """One value, on average."""
    stored_bytes: int | None
    ttl_ms: int | None
    invalidations: float
    """A minute, by name of the view."""
    cost_ms: int
    """Spent in loads: what a better hit rate would save."""


class LockRow(msgspec.Struct, frozen=True):
    """A lock that somebody holds."""

    name: str
    owner: str
    token: int
    """Its fencing number."""
    left_ms: float
    waiting: int


class Step(msgspec.Struct, frozen=True):
    """One bar of a chart. Latencies of -1 are beyond the last step that is counted."""

    at: int
    memory: int
    redis: int
    joined: int
    loads: int
    p50: float | None
    p95: float | None
    p99: float | None


class Now(msgspec.Struct, frozen=True):
    """The answer of `api/now`."""

    at_ms: float
    verdict: Verdict
    latency: list[float | None]
    """p50, p95, p99 of the last ten minutes, ms; -1: beyond the last step that is counted."""
    events: int
    """Events in these ten minutes."""
    layers: dict[str, dict[str, int]]
    """now, 1h, 24h -> how reads were answered."""
    minutes: list[Step]
    hours: list[Step]
    views: list[ViewRow]
    servers: list[ServerFacts]
    processes: list[ProcessReport]
    workers: list[Entry]
    backlog: Backlog | None
    jobs: list[JobStatus]
    sockets: int
    locks: list[LockRow]
    inventory: Inventory | None


class _Kept:
    """What was asked a moment ago is not asked again, and never twice at a time."""

    def __init__(self, lasts_s: float) -> None:
        self._lasts_s = lasts_s
        self._at = -1e9
        self._value: Any = None
        self._lock = asyncio.Lock()

    async def get(self, ask: Callable[[], Awaitable[T]]) -> T:
        async with self._lock:
            if time.monotonic() - self._at >= self._lasts_s:
                self._value = await ask()
                self._at = time.monotonic()
            value: T = self._value
            return value


class Snapshots:
    """Looks at a deployment for the page. Costs nothing while nobody asks."""

    def __init__(self, cache: Cache, *, shards: int, scheduler: Scheduler | None) -> None:
        self._cache = cache
        self._shards = shards
        self._scheduler = scheduler
        self._locks_of_all = Locks(cache.link, owner="live page")
        self._fast, self._inventory = _Kept(FAST_S), _Kept(INVENTORY_S)
        self._hour, self._day = _Kept(SLOW_S), _Kept(SLOW_S)

    async def now(self, window: str) -> Now:
        """Return the state, the view table over *window*. Raises nothing because Redis is away: it says so."""
        facts = await servers(self._cache.link)
        if not all(server.up for server in facts):
            return _away(facts, self._cache.link.now_us() / 1000)
        try:
            return await self._now(window, facts)
        except (ServerError, LockUnavailable):
            for server in facts:
                server.up = False
            return _away(facts, self._cache.link.now_us() / 1000)

    async def _now(self, window: str, facts: list[ServerFacts]) -> Now:
        link = self._cache.link
        minutes, processes, waits, roster, jobs, newest = await self._fast.get(self._look)
        hours = await self._day.get(lambda: History(link).hours(24))
        found = await self._inventory.get(lambda: inventory(link))
        table = total(hours) if window == "24h" else total(_last(minutes, WINDOWS[window]))
        recent = total(_last(minutes, LATENCY_MINUTES)).get(LATENCY, Counter())
        latency = [_shown(value) for value in percentiles(recent)]
        now_ms = link.now_us() / 1000
        signs = _signs(facts, processes, waits, roster, jobs)
        signs.p99_ms = percentiles(recent)[2]
        signs.now_ms, signs.newest_letter_ms = now_ms, newest
        signs.stale_detected = sum(view["stale_detected"] for view in total(_last(minutes, 60)).values())
        ttls = {name: ttl for process in processes for name, ttl in process.ttls_ms.items()}
        return Now(
            now_ms,
            verdict(signs),
            latency,
            recent.total(),
            {"now": _layers(_last(minutes, 2)), "1h": _layers(minutes), "24h": _layers(hours)},
            [_step(at, bucket) for at, bucket in minutes.items()],
            [_step(at, bucket) for at, bucket in hours.items()],
            _rows(table, ttls, WINDOWS[window] or 1440),
            facts,
            processes,
            roster,
            waits,
            jobs,
            int(sum(process.gauges.get("sockets", 0) for process in processes)),
            await self._locks(found.locks),
            found,
        )

    async def _look(
        self,
    ) -> tuple[Buckets, list[ProcessReport], Backlog, list[Entry], list[JobStatus], float]:
        link = self._cache.link
        history = History(link)
        hour = await self._hour.get(lambda: history.minutes(60))
        latest, processes, waits, roster, jobs, letters = await asyncio.gather(
            history.minutes(LATEST),
            history.processes(),
            backlog(link, self._shards),
            workers(link),
            self._jobs(),
            DeadLetters(link).newest(1),
        )
        newest = float(letters[0].letter_id.partition("-")[0]) if letters else 0.0
        return _last({**hour, **latest}, 60), processes, waits, roster, jobs, newest

    async def _locks(self, names: list[str]) -> list[LockRow]:
        holders = await asyncio.gather(*[self._locks_of_all.holder(name) for name in names])
        return [
            LockRow(name, holder.owner, holder.token, holder.remaining * 1000, holder.waiting)
            for name, holder in zip(names, holders, strict=True)
            if holder is not None
        ]

    async def _jobs(self) -> list[JobStatus]:
        return await self._scheduler.status() if self._scheduler is not None else []


def _signs(
    facts: list[ServerFacts],
    processes: list[ProcessReport],
    waits: Backlog,
    roster: list[Entry],
    jobs: list[JobStatus],
) -> Signs:
    ready = [worker for worker in roster if worker.state != "draining"]
    return Signs(
        workers=len(ready),
        unready=[
            f"worker {worker.name} is {worker.state}: {worker.why}" for worker in ready if worker.state != "ready"
        ],
        unheld=[shard.shard for shard in waits.shards if shard.stored and not shard.holder],
        waiting=sum(shard.waiting for shard in waits.shards),
        letters=waits.dead_letters,
        failed_jobs=[job.name for job in jobs if job.outcome == "failed"],
        memory=max(server.memory_used for server in facts),
        clients=max(server.clients_used for server in facts),
        evicts=any(s.keeps and s.memory_limit and s.policy not in ("", "noeviction") for s in facts),
        queued=max((process.queued for process in processes), default=0),
    )


def _away(facts: list[ServerFacts], now_ms: float) -> Now:
    nobody: dict[str, int] = {}
    judged = verdict(Signs(away=[server.name for server in facts if not server.up]))
    layers = {"now": nobody, "1h": nobody, "24h": nobody}
    return Now(now_ms, judged, [None] * 3, 0, layers, [], [], [], facts, [], [], None, [], 0, [], None)


def _last(buckets: Buckets, count: int) -> Buckets:
    return dict(list(buckets.items())[-count:])


def _shown(latency: float | None) -> float | None:
    return -1 if latency == float("inf") else latency


def _layers(buckets: Buckets) -> dict[str, int]:
    """Return how the reads of some buckets were answered."""
    names = {"memory": "l1_hits", "redis": "l2_hits", "joined": "joined", "loads": "loads", "bypassed": "bypassed"}
    views = total(buckets).values()
    return {shown: sum(view[name] for view in views) for shown, name in names.items()}


def _step(at: int, bucket: Mapping[str, Mapping[str, int]]) -> Step:
    layers = _layers({at: bucket})
    latency = [_shown(value) for value in percentiles(bucket.get(LATENCY, {}))]
    return Step(at, layers["memory"], layers["redis"], layers["joined"], layers["loads"], *latency)


def _rows(table: dict[str, Counter[str]], ttls: dict[str, int], minutes: int) -> list[ViewRow]:
    rows = [_row(name, counters, ttls.get(name), minutes) for name, counters in table.items() if name != LATENCY]
    unread = [_row(name, Counter(), ttl, minutes) for name, ttl in ttls.items() if name not in table]
    return sorted([*rows, *unread], key=lambda row: (-row.cost_ms, -row.requests, row.name))


def _row(name: str, counters: Counter[str], ttl_ms: int | None, minutes: int) -> ViewRow:
    loads = counters["loads"]
    asked = ("l1_hits", "l2_hits", "joined", "loads", "bypassed")
    return ViewRow(
        name,
        sum(counters[counter] for counter in asked),
        counters["l1_hits"],
        counters["l2_hits"] + counters["joined"],
        loads,
        counters["load_errors"],
        counters["stale"],
        counters["load_ms"] / loads if loads else None,
        counters["bytes_raw"] // loads if loads else None,
        counters["bytes_stored"] // loads if loads and counters["bytes_stored"] else None,
        ttl_ms,
        counters["invalidations"] / minutes,
        counters["load_ms"],
    )
