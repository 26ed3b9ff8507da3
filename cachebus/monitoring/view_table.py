"""What each view is asked, how it is answered and what that costs: one row a view, all processes together."""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Iterable, Mapping

import msgspec

from cachebus.cache.upkeep.lives import LOAD, LOAD_BOUNDS_MS
from cachebus.cache.upkeep.reporter import BY, ProcessReport, is_view
from cachebus.monitoring.history import History, percentiles, shown, total
from cachebus.monitoring.layers import READS, layers_of
from cachebus.redis.client import Client

WINDOWS = {"10m": 10, "1h": 60, "24h": 0}
"""Minutes of what the view table adds up; 0: the hours."""


class ViewRow(msgspec.Struct, frozen=True, kw_only=True):
    """One view over a window, all processes together."""

    name: str
    requests: int
    """Reads of the application, however they were answered."""
    memory: int
    redis: int
    joined: int
    missed: int
    """Reads that the cache could not answer: they loaded, or a plain `get` found nothing."""
    bypassed: int
    """Reads that are not cached at all; no part of the hit rate."""
    loads: int
    """Loads that brought a value, whatever for."""
    refreshes: int
    """Of them, renewals behind readers and after events."""
    warms: int
    """Of them, those of schedules."""
    errors: int
    """Loads that raised, whatever for."""
    stale: int
    hit_us: float | None
    """One memory hit, on average of those whose time was taken."""
    load_ms: float | None
    """One load, on average."""
    load_p50_ms: float | None
    """How long half of the loads took at most: the upper end of a step; -1 beyond the last one."""
    load_p95_ms: float | None
    raw_bytes: int | None
    """One value, on average."""
    stored_bytes: int | None
    ttl_ms: int | None
    invalidations: float
    """A minute: scopes made unreadable under which it may have values."""
    causes: dict[str, int]
    """Of them, by kind of cause, in the whole window."""
    cost_ms: int
    """Spent in loads: what a better hit rate would save."""


async def view_table(client: Client, window: str) -> list[ViewRow]:
    """Return the rows of the last `10m`, `1h` or `24h`. Two shared round trips. Raises: ServerError."""
    history, minutes = History(client), WINDOWS[window]
    counted, processes = await asyncio.gather(
        history.minutes(minutes) if minutes else history.hours(24), history.processes()
    )
    return view_rows(total(counted), ttls_of(processes), minutes or 1440)


def ttls_of(processes: Iterable[ProcessReport]) -> dict[str, int]:
    """Return the TTL of each view that a process declares, milliseconds. Pure."""
    return {name: ttl for process in processes for name, ttl in process.ttls_ms.items()}


def view_rows(table: Mapping[str, Counter[str]], ttls: Mapping[str, int], minutes: int) -> list[ViewRow]:
    """Return a row for each view that was counted or is declared, the one that costs most first. Pure."""
    rows = [view_row(name, counters, ttls.get(name), minutes) for name, counters in table.items() if is_view(name)]
    unread = [view_row(name, Counter(), ttl, minutes) for name, ttl in ttls.items() if name not in table]
    return sorted([*rows, *unread], key=lambda row: (-row.cost_ms, -row.requests, row.name))


def view_row(name: str, counters: Counter[str], ttl_ms: int | None, minutes: int) -> ViewRow:
    """Return what was counted for a view in so many minutes. Pure."""
    found = layers_of([counters])
    loads = found["loaded"]
    timed = counters["hits_timed"]
    took = {name.removeprefix(LOAD): count for name, count in counters.items() if name.startswith(LOAD)}
    p50, p95 = percentiles(took, (0.5, 0.95), LOAD_BOUNDS_MS)
    return ViewRow(
        name=name,
        requests=sum(found[shown] for shown in READS),
        memory=found["memory"],
        redis=found["redis"],
        joined=found["joined"],
        missed=found["missed"],
        bypassed=found["bypassed"],
        loads=loads,
        refreshes=found["refreshes"],
        warms=found["warms"],
        errors=found["errors"],
        stale=counters["stale"],
        hit_us=counters["hit_us"] / timed if timed else None,
        load_ms=counters["load_ms"] / loads if loads else None,
        load_p50_ms=shown(p50),
        load_p95_ms=shown(p95),
        raw_bytes=counters["bytes_raw"] // loads if loads else None,
        stored_bytes=counters["bytes_stored"] // loads if loads and counters["bytes_stored"] else None,
        ttl_ms=ttl_ms,
        invalidations=counters["invalidations"] / minutes,
        causes={name.removeprefix(BY): count for name, count in counters.items() if name.startswith(BY)},
        cost_ms=counters["load_ms"],
    )
